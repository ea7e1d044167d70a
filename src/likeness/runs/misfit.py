"""Whether a run can go on from a checkpoint: all of it is tried on copies before Lightning takes it as it finds it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from likeness.archive import printable
from likeness.errors import LikenessError
from likeness.runs.checkpoint import not_as_written, refuse_non_finite

_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
_LEARNED = ("head.", "scaling.")
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
_CHECKPOINT = re.compile(r"[^/\0]+\.ckpt")


def refuse_misfit(path: Path, content: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> None:
    """Raises CKPT-SCHEMA where this trainer and module cannot go on from the checkpoint, CKPT-NAN for its weights."""
    try:
        learned = {name: value for name, value in content["state_dict"].items() if name.startswith(_LEARNED)}
        refuse_non_finite(path, learned)
        copied = deepcopy(module)
        copied.load_state_dict(content["state_dict"])
        wrong = [*_of_a_run(content), *_other_loops(content["loops"], trainer)]
        wrong += _other_optimizer(content, copied.configure_optimizers())
        wrong += _other_callbacks(content["callbacks"], trainer.callbacks)  # type: ignore[attr-defined]
    except LikenessError:
        raise
    except Exception as error:  # the libraries stumble anywhere over what they did not write
        cause = printable((str(error).splitlines() or [""])[0], 300)
        raise not_as_written(path, [f"{type(error).__name__} when it was tried"], cause) from error
    if wrong:
        raise not_as_written(path, wrong)


def _of_a_run(content: Mapping[str, Any]) -> Iterator[str]:
    """What stands beside the states: counts, and the version that Lightning compares with its own."""
    yield from (name for name in ("epoch", "global_step") if not _is_count(content[name]))
    if not re.fullmatch(r"\d+(\.\d+){1,3}[\w.+-]{0,40}", str(content["pytorch-lightning_version"])):
        yield "pytorch-lightning_version"
    resumed, progress = content.get("likeness_resume"), content["likeness_progress"]
    if resumed is not None and not (isinstance(resumed["finished"], bool) and _are_numbers(resumed["metrics"])):
        yield "likeness_resume"
    losses = progress["train_losses"]
    if not (isinstance(progress["best_hit"], float) and isinstance(losses, Tensor) and losses.ndim >= 3):
        yield "likeness_progress"


def _is_count(found: Any) -> bool:
    return type(found) is int and 0 <= found < 2**63


def _are_numbers(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.numel() == 1 for name, value in found.items()
    )


def _other_loops(found: Mapping[str, Any], trainer: Trainer) -> Iterator[str]:
    for name in _LOOPS:
        yield from other_make(found[name], getattr(trainer, name).state_dict(), f"loops.{name}")
    for state in found["fit_loop"]["state_dict"].get("combined_loader", []):
        if not all(_is_count(value) for value in state.values()):
            yield "loops.fit_loop.state_dict"


def _other_optimizer(content: Mapping[str, Any], made: Any) -> Iterator[str]:
    """``made`` is what the module configures: an optimizer, or one with its scheduler."""
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    (state,) = content["optimizer_states"]
    yield from other_make(
        state["param_groups"], optimizer.state_dict()["param_groups"], "optimizer_states.param_groups"
    )
    optimizer.load_state_dict(deepcopy(state))
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if value is not None and not (isinstance(value, Tensor) and value.shape in ((), parameter.shape)):
                yield f"optimizer_states.{name}"
    schedulers = [made["lr_scheduler"]["scheduler"].state_dict()] if isinstance(made, dict) else []
    yield from other_make(content["lr_schedulers"], schedulers, "lr_schedulers")


def _other_callbacks(found: Mapping[str, Any], callbacks: Sequence[Callback]) -> Iterator[str]:
    """A path that a callback remembers is one that it may remove: it must be a checkpoint's, whatever its folder."""
    own = {callback.state_key: callback.state_dict() for callback in callbacks}
    for key, state in found.items():
        if key in own:
            yield from other_make(state, own[key], f"callbacks.{key}")
        kept = [state.get(name) for name in _PATHS] + list(state.get("best_k_models", {}))
        if not all(not path or _CHECKPOINT.fullmatch(Path(path).name) for path in kept):
            yield f"callbacks.{key}: a path of no checkpoint"


def other_make(found: Any, own: Any, place: str) -> Iterator[str]:
    """Where a value is not of the make of our own: keys that differ, another type, a count below zero.

    What is None or empty of ours is filled while a run goes on, and may be anything plain.
    """
    if own is None or own == {}:
        return
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        yield from (f"{place}.{key}" for key in own.keys() ^ found.keys())
        for key in own.keys() & found.keys():
            yield from other_make(found[key], own[key], f"{place}.{key}")
    elif isinstance(own, list | tuple) and isinstance(found, list | tuple) and len(own) == len(found):
        for index, (theirs, ours) in enumerate(zip(found, own, strict=True)):
            yield from other_make(theirs, ours, f"{place}[{index}]")
    elif _is_number(own) and _is_number(found):
        if type(own) is int and found < 0:
            yield place
    elif type(found) is not type(own):
        yield place


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
