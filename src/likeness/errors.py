"""The one error a user can cause, how it reads, and the exit code a script can act on."""

import sys
import textwrap
from collections.abc import Iterable, Sequence

# sysexits.h, so that a Slurm script can tell bad data from a full disk; 75 means: run the same command again.
USAGE, BAD_DATA, MISSING, UNAVAILABLE, BUG, CANNOT_CREATE, IO, INTERRUPTED, REFUSED, BAD_CONFIG = (
    2, 65, 66, 69, 70, 73, 74, 75, 77, 78,
)  # fmt: skip

# Every code a message can have: the exit code, and what it means. docs/errors.md is made of these tables.
ERRORS = {
    "CONFIG": (BAD_CONFIG, "Options that are unknown, missing, of another type, or that mean nothing; all at once."),
    "CONFIG-TARGET": (BAD_CONFIG, "An option names a class or function that a config may not name."),
    "CONFIG-EXTRA": (BAD_CONFIG, "An option needs a package that is not installed."),
    "DATA-MISSING": (MISSING, "A folder or file of pictures is not there, or cannot be listed."),
    "DATA-LAYOUT": (BAD_DATA, "A folder has no layout that is known; what was found is shown beside what is expected."),
    "DATA-MANIFEST": (BAD_DATA, "A manifest has faults, by line."),
    "DATA-HOMES": (BAD_DATA, "The pattern of homes matches no file name."),
    "DATA-CHANGED": (BAD_DATA, "Pictures changed while they were looked at, or since the run that is gone on with."),
    "DATA-SPLIT": (BAD_DATA, "A split is empty or cannot be drawn."),
    "IMG-BAD": (BAD_DATA, "Pictures cannot be used; each is listed with its own code, below."),
    "WEIGHTS-MISSING": (MISSING, "There are no weights of that name, or no file of them."),
    "WEIGHTS-FORMAT": (BAD_DATA, "A file cannot be opened as weights, holds code, or must be converted first."),
    "WEIGHTS-SHAPE": (BAD_DATA, "Weights are of another network."),
    "WEIGHTS-NAN": (BAD_DATA, "Weights are not finite."),
    "WEIGHTS-HASH": (BAD_DATA, "A file does not have the digest that is published, or that it states."),
    "NET": (UNAVAILABLE, "Something could not be downloaded."),
    "BACKBONE": (BAD_CONFIG, "No such network, layer or pooling."),
    "HEAD": (BAD_CONFIG, "A head cannot be built on features of this shape."),
    "NAN": (BAD_DATA, "Features are not finite; the pictures are named, and nothing is kept of them."),
    "NAN-LOSS": (BAD_DATA, "The loss is not finite."),
    "DISK": (IO, "A disk is full, or failed."),
    "STORE-PERM": (CANNOT_CREATE, "A folder cannot be written to."),
    "STORE-VERSION": (BAD_DATA, "The store is of a newer version."),
    "RETRIEVAL": (BAD_DATA, "Codes cannot be compared as asked: not finite, too few candidates, other shapes."),
    "RUN-DIR": (CANNOT_CREATE, "Another run is writing to this folder."),
    "RUN-MISSING": (MISSING, "There is no run, or no sweep, in this folder."),
    "RANK-LOST": (UNAVAILABLE, "Another process of the same job has failed or was killed."),
    "QUEUE": (UNAVAILABLE, "Slurm does not take or does not answer for the jobs."),
    "CKPT": (IO, "A checkpoint is damaged, or could not be written."),
    "CKPT-MISSING": (MISSING, "There is no such checkpoint."),
    "CKPT-UNTRUSTED": (REFUSED, "A checkpoint holds code or import paths; nothing of it was run."),
    "CKPT-SCHEMA": (BAD_DATA, "A file is no checkpoint of likeness, or not of this version."),
    "CKPT-EXTRACTOR": (BAD_DATA, "A checkpoint learned from other features than it is to be used with."),
}
PICTURES = {
    "IMG-TRUNCATED": "The file is cut, empty or damaged.",
    "IMG-NOT-IMAGE": "The file is something else, such as a web page saved in its stead.",
    "IMG-TOO-LARGE": "More pixels than decoding.max_pixels, or a piece of text that would fill the memory.",
    "IMG-MODE": "Pixels whose range or colour cannot be known: float, LAB, 32-bit.",
    "IMG-SHAPE": "A side is shorter than decoding.min_side.",
    "IMG-FORMAT": "A format that is not read: EPS, PSD, PDF, SVG, HEIC and so on.",
}
WARNINGS = {
    "CKPT": "A checkpoint was passed over, or no epoch's weights were kept as the best.",
    "DATA-CLASS": "A class is empty, has one picture only, or is not in train.",
    "DATA-HOMES": "Some files have no home.",
    "DATA-LAYOUT": "Pictures that lie in no class; folders that could be read two ways.",
    "DATA-LEAK": "The same picture, or the same home, is in two splits.",
    "DATA-SPECIAL": "Pipes, links to nothing and the like: passed over.",
    "DATA-SPLIT": "A split was drawn, or is read as another.",
    "IMG-BAD": "Pictures were left out, as asked for.",
    "LOCK": "A file system has no locks: some work may be done twice, and nothing will be wrong.",
    "NET": "A download failed and is tried again.",
    "PAGE": "The sweep's page could not be drawn.",
    "RESUME": "A run is gone on with, or not, and from which step.",
    "RUN-MISSING": "A run is not done yet.",
    "STORE-CORRUPT": "A shard is damaged: it was set aside, and its rows are computed again.",
    "TRACKER": "wandb or another tracker failed; the run goes on, and the journal has everything.",
}
_OTHER_EXITS = {
    0: "Done.",
    1: "A job of a multirun failed or is missing.",
    USAGE: "Wrong usage of the likeness command.",
    BUG: "A fault of likeness itself, with its traceback: please report it.",
    INTERRUPTED: "A signal ended it, and all is kept: run the same command again.",
}


_UNCHANGED = "Everything that was there before: nothing was changed."


class LikenessError(ValueError):
    """Something the user can mend. Says what, where, why, what is kept and the way out.

    Args:
        code: A key of the table above, e.g. ``"IMG-BAD"``; it decides the exit code.
        what: One sentence with the value that came and the rule it broke.
        where: Path, option or item. Several lines are allowed in every field.
        cause: The reason as the lower layer gives it, if one did.
        kept: What is already computed and stays valid; by default, all of it.
        fix: What to type or change next.
    """

    def __init__(self, code: str, what: str, *, where: str, fix: str, cause: str = "", kept: str = _UNCHANGED) -> None:
        assert code in ERRORS, f"error code {code!r} is not in the table"
        self.code, self.what, self.where, self.cause, self.kept, self.fix = code, what, where, cause, kept, fix
        super().__init__(code, what)

    def __reduce__(self) -> tuple:
        """Travels between processes (launchers pickle what a job raises)."""
        return _rebuilt, (self.code, self.what, self.where, self.cause, self.kept, self.fix)

    @property
    def exit_code(self) -> int:
        return ERRORS[self.code][0]

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


def as_markdown() -> str:
    """The tables as a page."""
    errors = [(f"`{code}`", str(number), meaning) for code, (number, meaning) in ERRORS.items()]
    exits = [(str(number), meaning) for number, meaning in _OTHER_EXITS.items()]
    pictures, warnings = ([(f"`{c}`", meaning) for c, meaning in table.items()] for table in (PICTURES, WARNINGS))
    return "\n".join(
        [
            "<!-- made by: python -m likeness.errors > docs/errors.md -->",
            "# Messages",
            "",
            "An error says what, where, why, what is kept and the way out, and ends with an exit code that a script",
            "can act on. `debug=true` shows the traceback as well.",
            "",
            *("```", str(_EXAMPLE), "```", ""),
            *_table("## Errors", ("code", "exit", "what it means"), errors),
            *_table("## Other exit codes", ("exit", "what it means"), exits),
            *_table("## Pictures, in the report of `IMG-BAD`", ("code", "what it means"), pictures),
            *_table("## Warnings and notes in the log", ("code", "what it means"), warnings),
        ]
    ).rstrip()


_EXAMPLE = LikenessError(
    "IMG-BAD",
    "3 of 12480 pictures could not be used.",
    where="cat/0042.jpg  [IMG-TRUNCATED] image file is truncated (5 bytes not processed)\n…",
    cause="2 × IMG-NOT-IMAGE, 1 × IMG-TRUNCATED",
    kept="12477 finished features in outputs/features/a1b2c3d4e5f60718; nothing to redo",
    fix="Mend or remove the files, or run again with data.on_bad_image=quarantine to go on without them.",
)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows)]
    return [title, "", *lines, ""]


if __name__ == "__main__":
    sys.stdout.write(f"{as_markdown()}\n")
