"""Checkpoints: written whole or not at all, opened as data and never as code."""

import io
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from likeness.archive import HoldsCode, Unreadable, printable, read_archive
from likeness.errors import LikenessError, listed
from likeness.files import write_atomic
from likeness.runs.exported import SUFFIX, read_exported

log = logging.getLogger(__name__)

SCHEMA = 1
CARD = "likeness"
_WIDEST_FEATURE = 1 << 28
_WHAT_A_HEAD_LEARNS_FROM = ("fingerprint", "feature_shape", "classes", "pictures")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints through one atomic rename: an earlier one is replaced only by a whole one.

    What is written is first opened again from memory the way that a reader will open it. A checkpoint that cannot be
    written stops training with CKPT, which names the last good step.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            write_checkpoint(checkpoint, Path(path))
        except LikenessError as error:
            raise _not_saved(error, checkpoint.get("global_step"), Path(path)) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return open_checkpoint(Path(path))


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write plain values and tensors to ``path``.

    Raises:
        LikenessError: DISK when the file cannot be written; an earlier file of that name is untouched.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    buffer.seek(0)
    torch.load(buffer, map_location="cpu", weights_only=True)
    write_atomic(path, buffer.getvalue())


def resume_path(folder: Path, step: int) -> Path:
    """Where a checkpoint to go on from lies, by the optimizer steps done in it."""
    return folder / f"resume-{step:08d}.ckpt"


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("resume-"))


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps that opens; a damaged one is named in a warning, and the one before is taken.

    None where there is none.
    """
    for path in sorted(resume_paths(folder), key=step_of, reverse=True):
        try:
            open_checkpoint(path)
        except LikenessError as error:
            log.warning(
                "[CKPT] %s cannot be gone on from (%s): the one before is taken", path, error.cause or error.what
            )
        else:
            return path
    return None


def resume_paths(folder: Path) -> list[Path]:
    """Every checkpoint to go on from, in no order."""
    return [path for path in folder.glob("resume-*.ckpt") if path.stem.removeprefix("resume-").isdecimal()]


def refuse_other_pictures(path: Path, content: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Raises DATA-CHANGED when the checkpoint at ``path`` learned from other pictures or features than the card's."""
    before = content[CARD]
    if changed := [name for name in _WHAT_A_HEAD_LEARNS_FROM if before.get(name) != card.get(name)]:
        raise LikenessError(
            "DATA-CHANGED",
            "the run in this folder learned from other pictures or features than there are now.",
            where=f"{path}\ndiffering: {', '.join(changed)}",
            kept="The checkpoint, and all features.",
            fix="Bring the pictures back, or start anew in another folder with hydra.run.dir=.",
        )


def open_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, or of an exported model, on the CPU. Nothing in the file is run, whatever it holds.

    Raises:
        LikenessError: CKPT-MISSING, CKPT (cut or damaged), CKPT-UNTRUSTED (it holds code), CKPT-SCHEMA (not ours, or
            of a newer version).
    """
    if not path.is_file():
        raise LikenessError(
            "CKPT-MISSING",
            f"there is no checkpoint {path}.",
            where=str(path.absolute()),
            fix="Give a run's folder (it has checkpoints/best.ckpt), or the file of a checkpoint.",
        )
    try:
        content = read_exported(path) if path.suffix == SUFFIX else read_archive(path)
    except HoldsCode as error:
        raise _untrusted(path, str(error)) from error
    except (Unreadable, OSError) as error:
        raise _damaged(path, str(error)) from error
    card = content.get(CARD, {}) if isinstance(content, dict) else {}
    schema = card.get("schema") if isinstance(card, dict) else None
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise LikenessError(
            "CKPT-SCHEMA",
            "this is no checkpoint of likeness."
            if schema is None
            else f"written with schema {printable(str(schema), 20)}.",
            where=str(path.absolute()),
            cause=f"This version reads schema 1 to {SCHEMA}.",
            kept="The file is as it was.",
            fix="Give a checkpoint that train.py wrote" + ("." if schema is None else ", or upgrade likeness."),
        )
    if wrong := [f"{CARD}.{name}" for name, value in card.items() if name in _FIELDS and not _FIELDS[name](value)]:
        raise not_as_written(path, wrong)
    if wrong := [name for name in ("state_dict", "backbone") if not is_state(content.get(name, {}))]:
        raise not_as_written(path, wrong)
    return content


def not_as_written(path: Path, places: Iterable[str], cause: str = "") -> LikenessError:
    """CKPT-SCHEMA for a checkpoint some of whose values are not of the kind that a run writes there."""
    return LikenessError(
        "CKPT-SCHEMA",
        f"{path.name} does not hold what train.py writes.",
        where=f"{path.absolute()}\n{listed(printable(place) for place in places)}",
        cause=cause or "These values are missing, unknown, or of another type or range.",
        kept="Nothing was built from it; the file is as it was.",
        fix="Give a checkpoint as train.py wrote it, with the version of likeness that wrote it.",
    )


def is_state(found: Any) -> bool:
    """Whether this is a state dict: tensors by name."""
    return isinstance(found, dict) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in found.items())


def _is_node(found: Any) -> bool:
    return _is_named(found) and isinstance(found.get("class"), str)


def _is_named(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(name, str) for name in found)


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and "\0" not in found


def _is_digest(found: Any) -> bool:
    return isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found) is not None


def _is_seed(found: Any) -> bool:
    return type(found) is int and 0 <= found < 2**63


def _is_shape(found: Any) -> bool:
    """Of one feature: vectors, tokens or maps."""
    sides = isinstance(found, list) and 1 <= len(found) <= 3 and all(type(side) is int and side > 0 for side in found)
    return sides and prod(found) <= _WIDEST_FEATURE


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, list) and all(holds(each) for each in found)


# What another program reads of a card, and what it can be.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("architecture", "scaling", "decoding", "preprocessing", "backbone", "data"), _is_node),
    **dict.fromkeys(("metric", "options", "extractor", "results"), _is_named),
    **dict.fromkeys(("fingerprint", "pictures"), _is_digest),
    **dict.fromkeys(("store", "version"), _is_text),
    "seed": _is_seed,
    "seeds": _list_of(_is_seed),
    "classes": _list_of(_is_text),
    "feature_shape": _is_shape,
}


def refuse_non_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raises CKPT-NAN, naming the tensors that hold a NaN or an infinity."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise LikenessError(
            "CKPT-NAN",
            f"{len(bad)} of {len(state)} tensors of {path.name} are not finite.",
            where=f"{path.absolute()}\n{listed((printable(name) for name in bad), 3)}",
            kept="Nothing was scored or trained with it.",
            fix="Give another checkpoint (resume-*.ckpt, seed-*.ckpt), or train again: the features are in the store.",
        )


def _not_saved(error: LikenessError, step: int | None, path: Path) -> LikenessError:
    good = newest_checkpoint(path.parent)
    return LikenessError(
        "CKPT",
        f"the checkpoint of step {step} could not be written. Training stops.",
        where=str(path.absolute()),
        cause=f"{error.what} {error.cause}; {shutil.disk_usage(path.parent).free:,} bytes are free",
        kept=f"last good: step {step_of(good)} ({good.name}); all features" if good else "All features.",
        fix="Free some space, then resume with the same command in the same folder (hydra.run.dir=).",
    )


def _damaged(path: Path, cause: str) -> LikenessError:
    exported = path.suffix == SUFFIX
    return LikenessError(
        "CKPT",
        f"{path.name} could not be read.",
        where=str(path.absolute()),
        cause=cause,
        kept="The file is as it was"
        + ("." if exported else "; another checkpoint may lie beside it (best.ckpt, resume-*.ckpt)."),
        fix="Copy it again from where it came, or export the run again: likeness export run=FOLDER"
        if exported
        else "Give the other checkpoint with checkpoint=FILE, or train again: the features are in the store.",
    )


def _untrusted(path: Path, name: str) -> LikenessError:
    return LikenessError(
        "CKPT-UNTRUSTED",
        f"{path.name} contains code ({name}) and was not opened.",
        where=str(path.absolute()),
        cause="A checkpoint of likeness holds tensors and plain values only.",
        kept="Nothing in the file was run.",
        fix="Ask its author for a checkpoint that train.py wrote.",
    )
