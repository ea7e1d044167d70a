"""From a checked node to the object that it describes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from likeness.config.targets import SPECIAL, allowed
from likeness.errors import LikenessError

Config = Mapping[str, Any]
_PLAIN = str | int | float | bool | list | dict | None


def build(node: Mapping[str, Any], **filled_in: Any) -> Any:
    """The object that a checked node describes: its target, if it is allowed, called with the node's arguments.

    Not Hydra's own ``instantiate``: that turns tuples and tensors given here into config nodes, and asks no allowlist.
    """
    target = allowed(node["_target_"])
    arguments = {
        name: build(value) if isinstance(value, Mapping) and "_target_" in value else value
        for name, value in node.items()
        if name not in SPECIAL
    }
    make = partial(_call, target, **arguments, **filled_in)
    return make if node.get("_partial_") else make()


def _call(target: Callable[..., Any], *given: Any, **arguments: Any) -> Any:
    """``target`` called; what a library says of arguments it cannot use becomes a refusal that names it."""
    try:
        return target(*given, **arguments)
    except LikenessError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, MisconfigurationException) as error:
        raise LikenessError(
            "CONFIG",
            f"{target.__name__} cannot be made with these options.",
            where=", ".join(f"{name}={value!r}" for name, value in arguments.items() if isinstance(value, _PLAIN)),
            cause=str(error),
            fix="Correct the option that the cause names; --cfg job shows every option with its value.",
        ) from error
