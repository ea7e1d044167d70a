"""What a config may name: the classes of this package's rooms and a list of others; and how a checkpoint names them."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from likeness.errors import LikenessError

ROOMS = ("images", "features", "heads", "retrieval", "reports", "runs")
# Beside the public names of this package's rooms, a config may name these and nothing else.
_ALLOWED = {
    "torch.optim": ("Adadelta", "Adam", "AdamW", "SGD"),
    "torch.optim.lr_scheduler": ("CosineAnnealingLR", "ReduceLROnPlateau", "StepLR", "ExponentialLR"),
    "torch.nn": ("MSELoss", "HuberLoss"),
    "pytorch_lightning": ("Trainer",),
    "pytorch_lightning.callbacks": ("EarlyStopping", "ModelCheckpoint", "LearningRateMonitor", "Timer"),
}
# Of this package's own names a config may name classes, and these functions.
_FUNCTIONS = ("own_preprocessing", "csv_logger", "mlflow_logger", "tensorboard_logger", "wandb_logger")
SPECIAL = {"_target_", "_partial_"}


def allowed(target: object) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names, if a config may name it.

    It must be a public name, defined (not merely imported) in a file of one of this package's rooms, or be listed.

    Raises:
        LikenessError: CONFIG-TARGET. Nothing is imported for a refused name outside the rooms.
    """
    module, _, name = str(target).rpartition(".")
    parts = module.split(".")
    ours = len(parts) == 3 and parts[0] == "likeness" and parts[1] in ROOMS and parts[2] in files_of(parts[1])
    if name in _ALLOWED.get(module, ()):
        return getattr(importlib.import_module(module), name)
    if ours and not name.startswith("_"):
        found: Any = getattr(importlib.import_module(module), name, None)
        if (inspect.isclass(found) or name in _FUNCTIONS) and getattr(found, "__module__", None) == module:
            return found
    raise LikenessError(
        "CONFIG-TARGET",
        f"{target} is not allowed (allowed: this package, {sum(map(len, _ALLOWED.values()))} names of others)",
        where="_target_",
        fix="Name a class of likeness, or one of " + ", ".join(f"{m}.{n}" for m, ns in _ALLOWED.items() for n in ns),
    )


def files_of(room: str) -> list[str]:
    """The modules of a room, by name."""
    package = importlib.import_module(f"likeness.{room}")
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def recorded(node: Mapping[str, Any]) -> dict[str, Any]:
    """A checked node as a checkpoint keeps it: its class by name alone, so that a file never says what to import."""
    return {"class": str(node["_target_"]).rpartition(".")[2], **{k: v for k, v in node.items() if k != "_target_"}}


def restored(room: str, node: Any, where: str = "") -> dict[str, Any]:
    """The node that ``recorded`` was given: the class of that name is looked for in the room's own files.

    Raises:
        LikenessError: CKPT-SCHEMA when the room has no such class; CKPT-UNTRUSTED when the node says what to import, or
            holds an interpolation, which would read this machine's environment.
    """
    if any(text == "_target_" or "${" in text for text in _texts(node)):
        raise LikenessError(
            "CKPT-UNTRUSTED",
            "the checkpoint's description of itself holds an import path or an interpolation.",
            where=where,
            cause="train.py writes plain values only.",
            kept="Nothing in it was run or resolved.",
            fix="Ask its author for a checkpoint that train.py wrote.",
        )
    asked = node.get("class") if isinstance(node, Mapping) else None
    for file in files_of(room):
        target = f"likeness.{room}.{file}.{asked}"
        try:
            allowed(target)
        except LikenessError:
            continue
        return {"_target_": target, **{k: v for k, v in node.items() if k != "class"}}
    raise LikenessError(
        "CKPT-SCHEMA",
        f"the checkpoint asks for {asked!r:.60}, and {room} has no such class.",
        where=where,
        kept="Nothing was built from it; the file is as it was.",
        fix="Use the version of likeness that wrote the checkpoint.",
    )


def _texts(value: Any) -> Iterator[str]:
    """Every key and every text in a nest of plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value:
            yield from _texts(item)
        if isinstance(value, Mapping):
            yield from _texts(list(value.values()))
