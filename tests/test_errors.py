"""The one error: how it reads, what a script gets, and that it survives the way between processes."""

import ast
import pickle
import re
from collections.abc import Iterator

import pytest
from helpers import ROOT

from likeness import errors
from likeness.errors import CODES, EXITS, LINES, PICTURES, LikenessError, as_markdown, listed

SOURCES = {path: path.read_text() for path in sorted((ROOT / "src").rglob("*.py")) if path.name != "errors.py"}


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


def test_parts_without_text_are_left_out():
    told = str(LikenessError("NET", "no answer.", fix="wait", kept="all")).splitlines()
    assert told == ["[NET] no answer.", "  kept  : all", "  fix   : wait", "  exit 69"]


def test_what_is_kept_is_always_said():
    assert LikenessError("NET", "no answer.", fix="wait").kept == CODES["NET"].kept
    assert all(code.kept.endswith(".") for code in CODES.values())


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
    assert LikenessError(code, "x", fix="y").exit_code == expected


def test_our_own_mistake_is_no_code_of_the_user():
    assert errors.BUG == 70
    with pytest.raises(AssertionError, match="'NOPE' is not in the table"):
        LikenessError("NOPE", "x", fix="y")


def test_it_is_a_value_error_and_travels_whole():
    error = LikenessError("CKPT", "cut.", fix="train", kept="all", cause="end of file", where="a\nb")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, ValueError)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert back.exit_code == 74


def test_listed_shows_a_few_and_counts_the_rest():
    assert listed([1, 2, 3], most=2) == "1\n2\n… and 1 more"
    assert listed([1, 2], most=2) == "1\n2"
    assert listed(iter("abc")) == "a\nb\nc"
    assert listed([]) == ""
    assert len(listed(range(1000)).splitlines()) == 11


def test_characters_that_move_a_terminals_cursor_are_shown_as_what_they_are():
    told = str(LikenessError("CKPT", "cut.", where="a\x1b[2J\x07\tb\nc", fix="x"))
    assert told.splitlines()[1:3] == ["  where : a\\x1b[2J\\x07\\tb", "          c"]


def texts(source: str) -> set[str]:
    """Every text that a module spells."""
    spelled = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {text for text in spelled if isinstance(text, str)}


def raised(source: str, name: str) -> Iterator[str]:
    """Codes that calls of an error's class spell as their first argument."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name and node.args:
            parts = ast.walk(node.args[0])
            yield from (part.value for part in parts if isinstance(part, ast.Constant) and str(part.value).isupper())


EVERY_TEXT = set().union(*map(texts, SOURCES.values()))
HEADS = {found[1] for text in EVERY_TEXT if (found := re.match(r"\[([A-Z]+-?[A-Z]+)\] ", text))}


def test_every_code_that_is_raised_is_in_the_table_and_the_other_way_round():
    found = {code for source in SOURCES.values() for code in raised(source, "LikenessError")}
    assert found - CODES.keys() == set()
    assert CODES.keys() - EVERY_TEXT == set()
    assert {code for source in SOURCES.values() for code in raised(source, "BadImage")} == PICTURES.keys()


def test_every_line_of_the_log_that_has_a_name_is_in_the_table_and_the_other_way_round():
    assert HEADS - {"BUG"} == LINES.keys()


def test_every_exit_code_is_explained():
    assert {code.exit_code for code in CODES.values()} | EXITS.keys() == {0, 2, 65, 66, 69, 70, 73, 74, 75, 77, 78}
    assert all(code.told and "|" not in code.told for code in CODES.values())


def test_the_page_of_codes_is_as_the_table_says():
    assert (ROOT / "docs" / "errors.md").read_text() == as_markdown(), "run make docs"
    assert "| `CKPT-UNTRUSTED` | 77 | " in as_markdown()
