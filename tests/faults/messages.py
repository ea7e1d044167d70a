"""What every message must say."""

from likeness.errors import CODES, LikenessError

PARTS = ("where", "cause", "kept", "fix")


def assert_message(error: LikenessError, code: str, *, what: str, where: str, fix: str, cause: str = "") -> None:
    """All parts are said, in order, and end in the code's exit code; each has the text given for it.

    ``cause`` is left out of a message that says it all in its first line.
    """
    lines = str(error).splitlines()
    assert lines[0].startswith(f"[{code}] ")
    assert lines[-1] == f"  exit {CODES[code].exit_code}"
    for part, text in {"what": what, "where": where, "cause": cause, "fix": fix}.items():
        assert text.lower() in getattr(error, part).lower(), (part, getattr(error, part))
    assert error.kept
    told = [name for name in PARTS if getattr(error, name)]
    assert [line[2:7].strip() for line in lines if line[7:10] == " : "] == told
    assert bool(cause) == bool(error.cause), error.cause
    assert {"where", "fix"} <= set(told)
