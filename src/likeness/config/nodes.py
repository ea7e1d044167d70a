"""Each node of a config against the constructor that it names."""

import inspect
import typing
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from omegaconf import MISSING

from likeness.config.targets import SPECIAL, allowed
from likeness.errors import LikenessError

# Arguments that the assembly fills in: what only other parts know.
_FILLED_IN = {"feature_shape", "params", "optimizer", "state"}


def faults(node: Any, path: str = "") -> Iterator[str]:
    """Every fault of every node that names a ``_target_``, as ``dotted.path: what is wrong``."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from faults(item, f"{path}[{index}]")
    if node == MISSING:
        yield f"{path}: missing, give it with {path}=…"
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _node_faults(node, path)
    for key, value in node.items():
        yield from faults(value, f"{path}.{key}" if path else str(key))


def _node_faults(node: Mapping[str, Any], path: str) -> Iterator[str]:
    try:
        target = allowed(node["_target_"])
    except LikenessError as error:
        yield f"{path}._target_: {error.what}"
        return
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    known = [name for name, parameter in parameters.items() if _by_name(parameter) and name not in _FILLED_IN]
    for name, value in node.items():
        if name in SPECIAL:
            continue
        if name not in known:
            yield f"{path}.{name}: unknown to {target.__name__}{suggestion(name, known)}"
        elif value != MISSING and name in hints and not fits(value, hints[name]):
            yield f"{path}.{name}: {value!r} is not {spelled(hints[name])}"
    if not node.get("_partial_"):
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in node.keys() | _FILLED_IN and _by_name(parameter):
                yield f"{path}.{name}: missing, {target.__name__} needs it"


def _by_name(parameter: inspect.Parameter) -> bool:
    named = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return parameter.kind in named and not parameter.name.startswith("_")


def suggestion(name: str, known: Collection[str]) -> str:
    """What follows an unknown name in a message: the known one that is spelled most like it, or all of them."""
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f" (it takes {', '.join(known) or 'no option'})"


def fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value is of the annotated type; a list may stand for a tuple, an integer for a float."""
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if isinstance(value, bool) and bool not in (hint, *typing.get_args(hint)) and hint is not Any:
        return False
    conf = BeartypeConf(is_pep484_tower=True)
    return is_bearable(value, hint, conf=conf) or (
        isinstance(value, list) and is_bearable(tuple(value), hint, conf=conf)
    )


def spelled(hint: Any) -> str:
    """A type as a message calls it."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "").replace("collections.abc.", "")
