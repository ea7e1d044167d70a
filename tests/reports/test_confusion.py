import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from likeness.reports import confusion
from likeness.reports.confusion import draw_confusion, votes_table


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def voted(**rows: dict[str, int]) -> dict[str, dict]:
    """By true class; "none" stands for no vote. Recall and precision are not looked at where figures are drawn."""
    return {
        name: {"n": sum(row.values()), "voted_as": {other.replace("none", ""): n for other, n in row.items()}}
        for name, row in rows.items()
    }


VOTES = voted(bath={"bath": 6, "kitchen": 2}, hall={}, kitchen={"bath": 1, "hall": 1, "kitchen": 7, "none": 1})


def cells(axes) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_rows_are_true_columns_are_voted_and_a_class_without_queries_has_no_row():
    axes = confusion._confusion(VOTES, "vote@5").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bath (8)", "kitchen (10)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bath", "hall", "kitchen", "no vote"]
    assert axes.get_title(loc="left") == "vote@5: true class against voted class"
    shares = [[6 / 8, 0, 2 / 8, 0], [1 / 10, 1 / 10, 7 / 10, 1 / 10]]
    assert axes.images[0].get_array().tolist() == pytest.approx(np.array(shares))
    assert cells(axes) == {
        (0, 0): "75.0 %\n6",
        (0, 2): "25.0 %\n2",
        (1, 0): "10.0 %\n1",
        (1, 1): "10.0 %\n1",
        (1, 2): "70.0 %\n7",
        (1, 3): "10.0 %\n1",
    }


def test_of_many_classes_the_most_mistaken_are_drawn_and_the_rest_is_added_up():
    """Of class i, i of 100 pictures are taken for the next class."""
    names = [f"class {i:02}" for i in range(50)]
    votes = voted(**{name: {name: 100 - i, names[(i + 1) % 50]: i} for i, name in enumerate(names)})
    axes = confusion._confusion(votes, "vote@5").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{name} (100)" for name in names[10:]]
    assert axes.get_xticklabels()[-1].get_text() == "other classes"
    assert cells(axes)[0, 0] == "90"
    assert cells(axes)[39, 40] == "49"  # class 49 is taken for class 00, which is not drawn
    assert axes.get_title(loc="left").endswith("the 40 of 50 classes that are mistaken most")


@pytest.mark.parametrize("classes", [2, 13, 40])
def test_the_file_is_a_picture_of_a_size_to_look_at(classes, tmp_path):
    names = [f"$class {i:02}" for i in range(classes)]
    votes = voted(**{name: {name: 9, names[0]: 1} for name in names[1:]})
    draw_confusion(votes | voted(**{names[0]: {}}), "vote@5", tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"
        assert 500 < min(image.size) < max(image.size) < 2500


def shown(summary: dict) -> list[str]:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(votes_table("test", summary))
    return captured.get().splitlines()


def test_the_table_has_the_worst_class_first_and_what_a_confidence_was_worth():
    of = {"bath": (share(0.75), share(6 / 7)), "hall": (None, share(0.1)), "kitchen": (share(0.7), share(7 / 9))}
    votes = {name: VOTES[name] | {"recall": recall, "precision": precision} for name, (recall, precision) in of.items()}
    agreement = {"0 to 0.5": {"n": 0, "right": None}, "1": {"n": 1200, "right": share(0.9)}}
    lines = shown({"head": {"vote@5": share(13 / 18)}, "votes": votes, "votes_by_agreement": agreement})
    assert lines[0] == "test vote@5 of the head 72.2 [62.2–82.2], percent"
    assert [line.split()[0] for line in lines[3:6]] == ["kitchen", "bath", "hall"]
    assert lines[3].split()[1:] == ["10", "70.0", "[60.0–80.0]", "77.8", "[67.8–87.8]", "bath", "(1)"]
    assert lines[5].split() == ["hall", "0", "–", "10.0", "[0.0–20.0]", "–"]
    assert lines[-1] == "confidence 1: 1,200 votes, 90.0 [80.0–100.0] % right"


def test_of_many_classes_the_table_shows_the_least_often_right():
    names = [f"class {i:02}" for i in range(30)]
    votes = voted(**{name: {name: 1} for name in names})
    for i, found in enumerate(votes.values()):
        found |= {"recall": share(0.5 + i / 100), "precision": share(0.5)}
    lines = shown({"head": {"vote@5": share(0.5)}, "votes": votes, "votes_by_agreement": {}})
    assert "20 of 30 classes" in lines[0]
    assert "class 19" in lines[-2]
