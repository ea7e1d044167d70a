"""The one error: how it reads, what a script gets, and that it survives the way between processes."""

import pickle

import pytest

from likeness import errors
from likeness.errors import LikenessError, listed


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
    assert str(LikenessError("NET", "no answer.", fix="wait")) == "[NET] no answer.\n  fix   : wait\n  exit 69"


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
        ("INTERRUPTED", 75),
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
