"""How this room refuses an option, and how it spells a name that may not be text."""

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from likeness.errors import LikenessError


def refuse_faults(node: str, faults: Iterable[str | None]) -> None:
    """Raise one CONFIG error that lists every fault of ``node``'s options; None stands for a rule that holds."""
    found = [fault for fault in faults if fault]
    if found:
        raise LikenessError(
            "CONFIG",
            f"{len(found)} option{'s' * (len(found) > 1)} of {node} cannot be used.",
            where="\n".join(found),
            fix="Change the options named above.",
        )


def is_numbers(values: Any, count: int) -> bool:
    """True for a sequence of exactly ``count`` real numbers (no text, no booleans)."""
    return (
        isinstance(values, Sequence)
        and len(values) == count
        and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    )


def readable(name: object) -> str:
    r"""``name`` as text that every log can write: bytes that are not UTF-8 become ``\xNN``.

    >>> readable("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
