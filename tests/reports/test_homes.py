"""The table of ``likeness homes``, and the figure beside it."""

import io
import json

import pytest
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console

from likeness.reports import gallery
from likeness.reports.gallery import HomePictures, HomeRow, draw_homes
from likeness.reports.homes import RULES, homes_board
from likeness.retrieval import homes


def about(value):
    return {"value": value, "low": value - 0.03, "high": value + 0.03}


def difference(gain, p_holm):
    return {"difference": gain, "low": gain - 0.02, "high": gain + 0.02, "p": p_holm / 3, "p_holm": p_holm}


HALVING = {
    "each": ["seed 0"],
    "homes": 80,
    "queries": 400,
    "candidates": [79, 80],
    "chance": {"hit@1": 0.0125, "mrr": 0.062},
    "incomparable": ["by_kind"],
    "head": {
        "mean": {"hit@1": about(0.05), "mrr": about(0.104)},
        "assignment": {"hit@1": about(0.2), "mrr": about(0.3)},
    },
    "frozen": {
        "mean": {"hit@1": about(0.06), "mrr": about(0.124)},
        "assignment": {"hit@1": about(0.1), "mrr": about(0.2)},
    },
    "winner": {
        "head": {"rule": "assignment", "over": {"mean": difference(0.042, 0.022)}},
        "frozen": {"rule": "assignment", "over": {"mean": difference(0.01, 0.6)}},
    },
    "paired": {"head-frozen": {"mean": difference(-0.021, 0.039), "assignment": difference(0.001, 1.0)}},
}
METRICS = {
    "backbone": "vgg16",
    "head": "dense",
    "split": "test",
    "pictures": 1319,
    "homes": 80,
    "homeless": 2,
    "copies": {"found": 1, "kept": False},
    "halvings": {"kinds": HALVING},
}


def told(metrics) -> list[str]:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(homes_board(metrics))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_the_table_says_every_rule_chance_and_what_was_left_out():
    lines = told(METRICS)
    assert lines[0] == "vgg16 → dense, test"
    assert "kinds held out, 80 homes ask among 79–80, 400 queries, percent with 95 % intervals" in lines
    assert "head assignment 20.0 [17.0–23.0] 30.0 [27.0–33.0]" in lines
    assert "chance 1.2 6.2" in lines
    assert "by kind: cannot compare a half with its other half, which has no kind of room in common" in lines
    assert (
        lines[-1]
        == "1,319 pictures of 80 homes · 1 with the same bytes as another left out · 2 of unknown home left out"
    )


def test_differences_are_judged_by_the_p_that_counts_all_of_them():
    lines = told(METRICS)
    assert "head: assignment − mean +4.2 points [+2.2, +6.2] p = 0.022 → better" in lines
    assert "frozen: assignment − mean +1.0 points [−1.0, +3.0] p = 0.6 → inside the noise" in lines
    assert "mean: head − frozen −2.1 points [−4.1, −0.1] p = 0.039 → worse" in lines


def test_every_rule_has_a_name():
    assert tuple(RULES) == homes.RULES


def test_nothing_is_said_of_what_is_not():
    plain = {**METRICS, "homeless": 0, "copies": {"found": 0, "kept": False}}
    plain["halvings"] = {"kinds": {**HALVING, "incomparable": []}}
    assert told(json.loads(json.dumps(plain)))[-1] == "1,319 pictures of 80 homes"


@pytest.fixture
def row(tmp_path):
    def home(name, pictures, **found):
        paths = [tmp_path / f"{name}{i}.png" for i in range(pictures)]
        for path in paths:
            Image.new("RGB", (64, 48), "teal").save(path)
        return HomePictures(name, paths, **found)

    nearest = [home("c", 1, similarity=0.5, right=True), home("d", 5, similarity=-0.0456, right=False)]
    return HomeRow(home("a$", 2), home("b", 1), nearest, "its other half at rank 1 of 80")


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_a_row_shows_each_home_its_mark_and_at_most_three_pictures(row):
    figure = gallery._homes([row], "the title", Image.open)
    assert figure.texts[0].get_text() == "the title"
    assert [texts(axes) for axes in figure.axes] == [
        [r"a\$", "its other half at rank 1 of 80"],
        [],
        ["b"],
        ["✓", "c", "0.500"],
        ["✗", "d (3 of 5)"],
        [],
        ["−0.046"],
    ]
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")] == [
        "half of a home",
        "its other half",
        "nearest 1",
        "nearest 2",
    ]
    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in figure.axes]
    assert frames[3:5] == ["#007a57", "#c8321e"]
    assert len(set(frames[:3])) == 1


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows is empty"):
        draw_homes([], "", tmp_path / "out.png", Image.open)
    assert not (tmp_path / "out.png").exists()
