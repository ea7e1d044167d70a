"""The one error a user can cause, how it reads, and the exit code a script can act on."""

import textwrap
from collections.abc import Iterable

# sysexits.h, so that a Slurm script can tell bad data from a full disk; 75 means: run the same command again.
USAGE, BAD_DATA, MISSING, UNAVAILABLE, BUG, CANNOT_CREATE, IO, INTERRUPTED, REFUSED, BAD_CONFIG = (
    2, 65, 66, 69, 70, 73, 74, 75, 77, 78,
)  # fmt: skip

_KNOWN_EXITS = {
    "CONFIG": BAD_CONFIG,
    "CONFIG-TARGET": BAD_CONFIG,
    "CONFIG-EXTRA": BAD_CONFIG,
    "DATA-MISSING": MISSING,
    "DATA-LAYOUT": BAD_DATA,
    "DATA-MANIFEST": BAD_DATA,
    "DATA-HOMES": BAD_DATA,
    "DATA-CHANGED": BAD_DATA,
    "DATA-SPLIT": BAD_DATA,
    "IMG-BAD": BAD_DATA,
    "WEIGHTS-MISSING": MISSING,
    "WEIGHTS-FORMAT": BAD_DATA,
    "WEIGHTS-SHAPE": BAD_DATA,
    "WEIGHTS-NAN": BAD_DATA,
    "WEIGHTS-HASH": BAD_DATA,
    "NET": UNAVAILABLE,
    "BACKBONE": BAD_CONFIG,
    "HEAD": BAD_CONFIG,
    "NAN": BAD_DATA,
    "NAN-LOSS": BAD_DATA,
    "DISK": IO,
    "STORE-PERM": CANNOT_CREATE,
    "STORE-VERSION": BAD_DATA,
    "RETRIEVAL": BAD_DATA,
    "RUN-DIR": CANNOT_CREATE,
    "RUN-MISSING": MISSING,
    "QUEUE": UNAVAILABLE,
    "CKPT": IO,
    "CKPT-MISSING": MISSING,
    "CKPT-UNTRUSTED": REFUSED,
    "CKPT-SCHEMA": BAD_DATA,
    "CKPT-NAN": BAD_DATA,
    "CKPT-EXTRACTOR": BAD_DATA,
    "INTERRUPTED": INTERRUPTED,
}


class LikenessError(ValueError):
    """Something the user can mend. Says what, where, why, what is kept and the way out.

    Args:
        code: A key of the table above, e.g. ``"IMG-BAD"``; it decides the exit code.
        what: One sentence with the value that came and the rule it broke.
        where: Path, option or item. Several lines are allowed in every field.
        cause: The reason as the lower layer gives it.
        kept: What is already computed and stays valid.
        fix: What to type or change next.
    """

    def __init__(self, code: str, what: str, *, fix: str, where: str = "", cause: str = "", kept: str = "") -> None:
        assert code in _KNOWN_EXITS, f"error code {code!r} is not in the table"
        self.code, self.what, self.where, self.cause, self.kept, self.fix = code, what, where, cause, kept, fix
        super().__init__(code, what)

    def __reduce__(self) -> tuple:
        """Travels between processes (launchers pickle what a job raises)."""
        return _rebuilt, (self.code, self.what, self.where, self.cause, self.kept, self.fix)

    @property
    def exit_code(self) -> int:
        return _KNOWN_EXITS[self.code]

    def __str__(self) -> str:
        lines = [f"[{self.code}] {self.what}"]
        for name in ("where", "cause", "kept", "fix"):
            if text := getattr(self, name):
                lines.append(textwrap.indent(text, " " * 10).replace(" " * 10, f"  {name:<5} : ", 1))
        return "\n".join([*lines, f"  exit {self.exit_code}"])


def _rebuilt(code: str, what: str, where: str, cause: str, kept: str, fix: str) -> LikenessError:
    return LikenessError(code, what, where=where, cause=cause, kept=kept, fix=fix)


def listed(items: Iterable[object], most: int = 10) -> str:
    """A few items, one a line, and how many more there are.

    >>> print(listed(["a", "b", "c"], most=2))
    a
    b
    … and 1 more
    """
    lines = [str(item) for item in items]
    rest = [f"… and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join(lines[:most] + rest)
