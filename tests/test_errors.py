"""The one error: how it reads, what a script gets, and that it survives the way between processes."""

import ast
import pickle
import re
from pathlib import Path

import pytest
from helpers import ROOT

from likeness import errors
from likeness.errors import LikenessError, listed

LEVELS = ("info", "warning", "error")


def test_the_message_has_every_part_in_order():
    error = LikenessError("DISK", "could not write 10 bytes.", fix="free", kept="all", cause="full", where="/a/b")
    assert str(error).splitlines() == [
        "[DISK] could not write 10 bytes.",
        "  where : /a/b",
        "  cause : full",
        "  kept  : all",
        "  fix   : free",
        "  exit 74",
    ]


def test_a_cause_is_told_where_there_is_one_and_what_is_kept_always():
    assert str(LikenessError("NET", "no answer.", where="there", fix="wait")).splitlines() == [
        "[NET] no answer.",
        "  where : there",
        "  kept  : Everything that was there before: nothing was changed.",
        "  fix   : wait",
        "  exit 69",
    ]


def test_further_lines_of_a_field_are_indented_below_the_first():
    told = str(LikenessError("CONFIG", "2 faults.", where="a.b: wrong\nc: missing", fix="mend"))
    assert told.splitlines()[1:3] == ["  where : a.b: wrong", "          c: missing"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("IMG-BAD", 65),
        ("DATA-MISSING", 66),
        ("CKPT-MISSING", 66),
        ("NET", 69),
        ("QUEUE", 69),
        ("STORE-PERM", 73),
        ("RUN-DIR", 73),
        ("DISK", 74),
        ("CKPT-UNTRUSTED", 77),
        ("CONFIG", 78),
        ("CONFIG-TARGET", 78),
    ],
)
def test_exit_codes_are_those_of_sysexits(code, expected):
    assert LikenessError(code, "x", where="here", fix="y").exit_code == expected


def test_our_own_mistake_is_no_code_of_the_user():
    assert errors.BUG == 70
    with pytest.raises(AssertionError, match="'NOPE' is not in the table"):
        LikenessError("NOPE", "x", where="here", fix="y")


def test_it_is_a_value_error_and_travels_whole():
    error = LikenessError("CKPT", "cut.", fix="train", kept="all", cause="end of file", where="a\nb")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, ValueError)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert back.exit_code == 74


def calls(tree, names):
    """The calls of functions of these names, wherever they stand."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


def constants(node):
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


SOURCES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "src").rglob("*.py"))}


def raised():
    """Every code that some file makes an error of."""
    made = [call for tree in SOURCES.values() for call in calls(tree, {"LikenessError"})]
    return set().union(*(constants(call.args[0]) & errors.ERRORS.keys() for call in made if call.args))


def test_every_code_of_the_table_is_raised_and_asserted_in_some_test():
    assert errors.ERRORS.keys() - raised() == set()
    texts = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
    assert {code for code in errors.ERRORS if f'"{code}"' not in texts and f"[{code}]" not in texts} == set()


def test_every_code_in_a_log_line_is_in_the_table_of_warnings():
    lines = [call for tree in SOURCES.values() for call in calls(tree, {f"log.{name}" for name in LEVELS})]
    told = set(re.findall(r"\[([A-Z]+(?:-[A-Z]+)*)\]", " ".join(text for call in lines for text in constants(call))))
    assert told == errors.WARNINGS.keys()


def test_every_code_of_a_picture_is_one_that_decoding_gives():
    decoding = SOURCES[ROOT / "src" / "likeness" / "images" / "decoding.py"]
    assert {text for text in constants(decoding) if re.fullmatch("IMG-[A-Z-]+", text)} == errors.PICTURES.keys()


def test_the_page_of_messages_is_that_of_the_tables():
    assert (ROOT / "docs" / "errors.md").read_text() == f"{errors.as_markdown()}\n", (
        "python -m likeness.errors > docs/errors.md"
    )
    assert all(f"| `{code}` | {number} |" in errors.as_markdown() for code, (number, _) in errors.ERRORS.items())


def test_listed_shows_a_few_and_counts_the_rest():
    assert listed([1, 2, 3], most=2) == "1\n2\n… and 1 more"
    assert listed([1, 2], most=2) == "1\n2"
    assert listed(iter("abc")) == "a\nb\nc"
    assert listed([]) == ""
    assert len(listed(range(1000)).splitlines()) == 11
