"""The one error a user can cause, how it reads, and the exit code a script can act on."""

import re
import sys
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

# sysexits.h, so that a Slurm script can tell bad data from a full disk; 75 means: run the same command again.
USAGE, BAD_DATA, MISSING, UNAVAILABLE, BUG, CANNOT_CREATE, IO, INTERRUPTED, REFUSED, BAD_CONFIG = (
    2, 65, 66, 69, 70, 73, 74, 75, 77, 78,
)  # fmt: skip

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # a file's name must not move a terminal's cursor


class Code(NamedTuple):
    """What a refusal's code stands for: the exit code, one line on what went wrong, what is kept whoever raises it."""

    exit_code: int
    told: str
    kept: str


_BEGUN = "All finished features; nothing was begun with these options."
_PICTURES = "All finished features; your files are as they were."
_WEIGHTS = "All finished features; nothing was computed with these weights."
_FILES = "Every finished file is as it was."
_INDEX = "The index is as it was."

CODES = {
    "CONFIG": Code(
        BAD_CONFIG, "an option is unknown, missing, of another type, or has a value without meaning", _BEGUN
    ),
    "CONFIG-TARGET": Code(BAD_CONFIG, "a config names something to import or to call that it may not name", _BEGUN),
    "CONFIG-EXTRA": Code(BAD_CONFIG, "an option needs a package that is not installed", _BEGUN),
    "CONFIG-SECRET": Code(BAD_CONFIG, "an option holds a secret, and options are kept in the run's folder", _BEGUN),
    "DATA-MISSING": Code(MISSING, "a folder or file of pictures is not there", _PICTURES),
    "DATA-LAYOUT": Code(BAD_DATA, "the folder is not laid out as pictures by class", _PICTURES),
    "DATA-MANIFEST": Code(BAD_DATA, "the manifest cannot be read, or a line of it has no meaning", _PICTURES),
    "DATA-HOMES": Code(BAD_DATA, "no picture's home is known, or no home has two pictures", _PICTURES),
    "DATA-CHANGED": Code(
        BAD_DATA, "pictures changed or vanished while they were read, or since the run began", _PICTURES
    ),
    "DATA-SPLIT": Code(BAD_DATA, "a split that is asked for has no pictures", _PICTURES),
    "IMG-BAD": Code(BAD_DATA, "pictures cannot be used; each is listed with its cause (below)", _PICTURES),
    "WEIGHTS-MISSING": Code(MISSING, "there is no such weight file, or no weights of that name", _WEIGHTS),
    "WEIGHTS-FORMAT": Code(BAD_DATA, "a weight file is damaged, holds code, or must be converted first", _WEIGHTS),
    "WEIGHTS-SHAPE": Code(BAD_DATA, "the weights are of another network", _WEIGHTS),
    "WEIGHTS-NAN": Code(BAD_DATA, "weights are not finite", _WEIGHTS),
    "WEIGHTS-HASH": Code(BAD_DATA, "a file is not the one that was published, or not what it says it is", _WEIGHTS),
    "NET": Code(UNAVAILABLE, "a download failed: no network, no answer, or an error of the server", _WEIGHTS),
    "BACKBONE": Code(BAD_CONFIG, "there is no such network, or no such layer in it", _BEGUN),
    "HEAD": Code(BAD_CONFIG, "this head cannot be built on these features", _BEGUN),
    "NAN": Code(BAD_DATA, "features are not finite", _PICTURES),
    "NAN-LOSS": Code(BAD_DATA, "the loss is not finite: training diverged", _FILES),
    "DISK": Code(IO, "a file cannot be written: the disk is full or fails", _FILES),
    "STORE-PERM": Code(CANNOT_CREATE, "a folder may not be written to", _FILES),
    "STORE-VERSION": Code(BAD_DATA, "the store of features was written by a newer version", _FILES),
    "RETRIEVAL": Code(BAD_DATA, "codes or labels cannot be scored as given", _PICTURES),
    "INDEX-MISSING": Code(MISSING, "there is no index in that folder", _FILES),
    "INDEX-EXISTS": Code(CANNOT_CREATE, "there is an index in that folder already", _FILES),
    "INDEX-ID": Code(BAD_DATA, "a picture is in the index already, or is not in it", _INDEX),
    "INDEX-MODEL": Code(BAD_DATA, "codes of another model than that of the index", _INDEX),
    "INDEX-BUSY": Code(INTERRUPTED, "two processes changed an index at once; run the same command again", _INDEX),
    "INDEX-DAMAGED": Code(IO, "a file of an index is damaged", _INDEX),
    "INDEX-VERSION": Code(BAD_DATA, "an index was written by a newer version", _INDEX),
    "ENGINE": Code(UNAVAILABLE, "a search server does not answer, or its rows changed behind the index", _FILES),
    "ENGINE-MODEL": Code(BAD_DATA, "a collection of a search server is another model's", _FILES),
    "RUN-DIR": Code(CANNOT_CREATE, "the run's folder is another's, or cannot be made", _FILES),
    "RUN-MISSING": Code(MISSING, "there is no finished run or sweep in that folder", _FILES),
    "QUEUE": Code(UNAVAILABLE, "Slurm is not here, or does not answer", _FILES),
    "SERVE": Code(UNAVAILABLE, "the page cannot be served there: the port is taken, or the host not this one", _FILES),
    "RANK-LOST": Code(UNAVAILABLE, "another process of the same job has failed or was killed", _FILES),
    "CKPT": Code(IO, "a checkpoint cannot be written, or is cut or damaged", _FILES),
    "CKPT-MISSING": Code(MISSING, "there is no such checkpoint", _FILES),
    "CKPT-UNTRUSTED": Code(REFUSED, "a checkpoint holds code, or asks to import or to resolve something", _FILES),
    "CKPT-SCHEMA": Code(
        BAD_DATA, "no checkpoint of likeness, of a newer version, or not what such a one holds", _FILES
    ),
    "CKPT-NAN": Code(BAD_DATA, "a checkpoint's weights are not finite", _FILES),
    "CKPT-EXTRACTOR": Code(BAD_DATA, "the features that a head was trained on cannot be made here", _FILES),
}

# Causes of IMG-BAD, one a picture.
PICTURES = {
    "IMG-TRUNCATED": "the file is empty or its end is missing",
    "IMG-NOT-IMAGE": "something else under a picture's name, such as a web page",
    "IMG-FORMAT": "a picture of a format that is not read",
    "IMG-TOO-LARGE": "more pixels, or more text beside them, than are allowed",
    "IMG-SHAPE": "a shorter side than is allowed",
    "IMG-MODE": "pixels whose range or colours cannot be known",
}

# Lines of the log, after which the run goes on.
LINES = {
    "CKPT": "a damaged checkpoint was passed over, or no epoch was validated and kept",
    "DATA-CLASS": "a class without pictures, or one that no training picture has",
    "DATA-HOMES": "pictures whose home cannot be told",
    "DATA-LAYOUT": "pictures outside of any class, or folders that were read as classes",
    "DATA-LEAK": "pictures or homes on both sides of a split",
    "DATA-SPLIT": "a split was made from another one",
    "DATA-SPECIAL": "pipes, sockets and dead links that were not opened",
    "IMG-BAD": "pictures that were left out, with data.on_bad_image=quarantine",
    "LOCK": "a folder without working locks: nothing gets wrong, some work may be done twice",
    "NET": "a try of a download failed; it is tried again",
    "PAGE": "the sweep's page could not be written",
    "RESUME": "from which step a run goes on, or why it starts anew",
    "RUN-MISSING": "the run that is scored has not ended",
    "SERVE": "the page is served to other machines than this one",
    "STORE": "what is new about features that must be computed, beside those that are there",
    "STORE-CORRUPT": "a damaged file of features was set aside; its rows are computed again",
    "TRACKER": "a dashboard failed and is left out; everything is in journal.jsonl",
}

# Exit codes that are no code's own.
EXITS = {
    0: "done",
    USAGE: "a command of `likeness` was called as it cannot be (argparse says how it can)",
    BUG: "`[BUG]`: a fault of likeness; the lines above it are what to report",
    INTERRUPTED: "interrupted or preempted; features and checkpoints are kept: run the same command again",
}


def as_markdown() -> str:
    """All of the above as the page ``docs/errors.md``."""
    rows = [f"| `{name}` | {code.exit_code} | {code.told} |" for name, code in CODES.items()]
    return "\n".join(
        [
            "# Messages and exit codes",
            "",
            "Made by `make docs` from `src/likeness/errors.py`, where it is changed.",
            "",
            "A refusal says what is wrong, where, the cause where that is another thing, what is kept and the way out.",
            "It ends with an exit code of sysexits.h, for a script to act on:",
            "",
            "```",
            *f"ERROR {_EXAMPLE}".splitlines(),
            "```",
            "",
            "| code | exit | meaning |",
            "|---|---|---|",
            *rows,
            "",
            "A process also ends with:",
            "",
            "| exit | meaning |",
            "|---|---|",
            *(f"| {number} | {told} |" for number, told in EXITS.items()),
            "",
            "In a multirun a job's refusal is shown, kept in its `status.json`, and the other jobs go on.",
            "",
            "What IMG-BAD lists, and `bad_images.csv` keeps:",
            "",
            "| cause | meaning |",
            "|---|---|",
            *(f"| `{name}` | {told} |" for name, told in PICTURES.items()),
            "",
            "Lines of the log that end nothing:",
            "",
            "| line | meaning |",
            "|---|---|",
            *(f"| `[{name}]` | {told} |" for name, told in LINES.items()),
            "",
        ]
    )


class LikenessError(ValueError):
    """Something the user can mend. Says what, where, why, what is kept and the way out.

    Args:
        code: A key of the table above, e.g. ``"IMG-BAD"``; it decides the exit code.
        what: One sentence with the value that came and the rule it broke.
        where: Path, option or item. Several lines are allowed in every field.
        cause: The reason as the lower layer gives it.
        kept: What is already computed and stays valid; as the table says when left out.
        fix: What to type or change next.
    """

    def __init__(self, code: str, what: str, *, fix: str, where: str = "", cause: str = "", kept: str = "") -> None:
        assert code in CODES, f"error code {code!r} is not in the table"
        self.code, self.what, self.where, self.cause, self.fix = code, what, where, cause, fix
        self.kept = kept or CODES[code].kept
        super().__init__(code, what)

    def __reduce__(self) -> tuple:
        """Travels between processes (launchers pickle what a job raises)."""
        return _rebuilt, (self.code, self.what, self.where, self.cause, self.kept, self.fix)

    @property
    def exit_code(self) -> int:
        return CODES[self.code].exit_code

    def __str__(self) -> str:
        lines = [f"[{self.code}] {self.what}"]
        for name in ("where", "cause", "kept", "fix"):
            if text := getattr(self, name):
                lines.append(textwrap.indent(text, " " * 10).replace(" " * 10, f"  {name:<5} : ", 1))
        return _CONTROL.sub(_escaped, "\n".join([*lines, f"  exit {self.exit_code}"]))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


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


_EXAMPLE = LikenessError(
    "CONFIG",
    "1 fault in the config.",
    where="data.rot: unknown to ImageFolder; did you mean root?",
    kept="Nothing was opened or computed yet.",
    fix="Correct these options; --cfg job shows every option with its value.",
)

if __name__ == "__main__":
    sys.stdout.write(as_markdown())
