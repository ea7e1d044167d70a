import doctest

from likeness.reports import style, words


def test_examples_in_docstrings_hold():
    assert doctest.testmod(words).failed == 0


def test_what_is_not_known_is_a_dash():
    assert words.percent(None) == words.points(None) == words.count(None) == "–"
    assert words.p_value(None) == "p = –"


def test_numbers_read_as_a_person_writes_them():
    assert (words.percent(1.0), words.points(0.012), words.count(1050624)) == ("100.0", "+1.2", "1,050,624")
    assert (words.p_value(0.14), words.p_value(0.0004)) == ("p = 0.14", "p < 0.001")


def test_colours_and_markers_tell_49_classes_apart():
    looks = {style.look_of(label) for label in range(50)}
    assert len(looks) == 49


def test_a_dollar_starts_no_formula():
    assert style.plain("$5_") == r"\$5_"
