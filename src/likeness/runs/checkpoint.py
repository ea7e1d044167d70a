"""Checkpoints: written whole or not at all, opened as data and never as code."""

import io
import logging
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from likeness.errors import LikenessError
from likeness.files import write_atomic

log = logging.getLogger(__name__)

SCHEMA = 1
CARD = "likeness"
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
            log.warning("[CKPT] %s cannot be gone on from (%s): the one before is taken", path, error.cause)
        else:
            return path
    return None


def resume_paths(folder: Path) -> list[Path]:
    """Every checkpoint to go on from, in no order."""
    return [path for path in folder.glob("resume-*.ckpt") if path.stem.removeprefix("resume-").isdecimal()]


def refuse_other_pictures(path: Path, card: Mapping[str, Any]) -> None:
    """Raises DATA-CHANGED when the checkpoint at ``path`` learned from other pictures or features than the card's."""
    before = open_checkpoint(path)[CARD]
    if changed := [name for name in _WHAT_A_HEAD_LEARNS_FROM if before.get(name) != card.get(name)]:
        raise LikenessError(
            "DATA-CHANGED",
            "the run in this folder learned from other pictures or features than there are now.",
            where=f"{path}\ndiffering: {', '.join(changed)}",
            kept="The checkpoint, and all features.",
            fix="Bring the pictures back, or start anew in another folder with hydra.run.dir=.",
        )


def open_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU. Nothing in the file is run, whatever it holds.

    Raises:
        LikenessError: CKPT-MISSING, CKPT (cut or damaged), CKPT-UNTRUSTED (it holds code), CKPT-SCHEMA (not ours, or
            of a newer version).
    """
    if not path.is_file():
        raise LikenessError(
            "CKPT-MISSING",
            f"there is no checkpoint {path}.",
            where=str(path.absolute()),
            fix="Give run=FOLDER (a folder with checkpoints/best.ckpt) or checkpoint=FILE.",
        )
    if not _is_archive(path):
        raise _damaged(path, f"{path.stat().st_size:,} bytes, not a checkpoint archive (cut, or another kind of file)")
    try:
        _refuse_changed_bytes(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise (_untrusted(path, named[1]) if named else _damaged(path, "its values cannot be read")) from error
    except Exception as error:  # a damaged file makes the reader stumble anywhere
        raise _damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    card = content.get(CARD) if isinstance(content, dict) else None
    schema = card.get("schema") if isinstance(card, dict) else None
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise LikenessError(
            "CKPT-SCHEMA",
            "this is no checkpoint of likeness." if schema is None else f"written with schema {schema}.",
            where=str(path.absolute()),
            cause=f"This version reads schema 1 to {SCHEMA}.",
            fix="Give a checkpoint that train.py wrote" + ("." if schema is None else ", or upgrade likeness."),
        )
    return content


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one that says it goes on in another file
        return False


def _refuse_changed_bytes(path: Path) -> None:
    """The archive's own checksums, which torch does not look at: a flipped bit in a weight would go unseen."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise zipfile.BadZipFile("it is compressed, as no checkpoint is: it could unpack to any size")
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {name} does not fit its bytes")


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
    return LikenessError(
        "CKPT",
        f"{path.name} could not be read.",
        where=str(path.absolute()),
        cause=cause,
        kept="The file is as it was; another checkpoint may lie beside it (best.ckpt, resume-*.ckpt).",
        fix="Give the other checkpoint with checkpoint=FILE, or train again: the features are in the store.",
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
