import pytest
from PIL import Image

from likeness.reports import classes
from likeness.reports.classes import draw_per_class


def measured(value, low=None, high=None, n=50):
    return {"n": n, "hit@1": {"value": value, "low": value - 0.1 if low is None else low, "high": high or value + 0.1}}


@pytest.fixture
def per_class():
    return {
        "head": {"bath": measured(0.4), "kitchen": measured(0.8, 0.7, 0.85, n=202)},
        "frozen": {"bath": measured(0.5), "kitchen": {"n": 202, "hit@1": None}},
        "pca": {},
    }


def bars(axes) -> dict[str, list[float]]:
    found = [group for group in axes.containers if group.get_label() in ("head", "frozen", "PCA")]
    return {group.get_label(): [bar.get_width() for bar in group] for group in found}


def test_bars_of_each_method_from_best_to_worst(per_class):
    axes = classes._per_class(per_class, "hit@1", 0.168).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kitchen (202)", "bath (50)"]
    assert bars(axes)["head"] == [0.8, 0.4]
    assert bars(axes)["frozen"][1] == 0.5
    assert "PCA" not in bars(axes)
    assert axes.get_title(loc="left") == "hit@1 of each class"


def test_a_null_is_a_dash(per_class):
    axes = classes._per_class(per_class, "hit@1", 0.168).axes[0]
    assert [text.get_text() for text in axes.texts] == [" –"]


def test_whiskers_are_the_interval(per_class):
    axes = classes._per_class(per_class, "hit@1", None).axes[0]
    kitchen, bath = axes.collections[0].get_segments()
    assert kitchen[:, 0].tolist() == pytest.approx([0.7, 0.85])
    assert bath[:, 0].tolist() == pytest.approx([0.3, 0.5])


def test_the_chance_line_is_in_the_legend(per_class):
    figure = classes._per_class(per_class, "hit@1", 0.168)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["chance, 16.8 %", "head", "frozen"]
    assert figure.axes[0].lines[-1].get_xdata()[0] == 0.168


def test_of_many_classes_the_best_and_the_worst_are_drawn():
    many = {"head": {f"class {i:02}": measured(i / 100) for i in range(90)}}
    axes = classes._per_class(many, "hit@1", None).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(names), names[0], names[19], names[20], names[-1]) == (
        40,
        "class 89 (50)",
        "class 70 (50)",
        "class 19 (50)",
        "class 00 (50)",
    )
    assert axes.get_title(loc="left") == "hit@1 of each class, 40 of 90 classes: the best and the worst"


def test_the_file_is_a_picture(per_class, tmp_path):
    draw_per_class(per_class, "hit@1", 0.168, tmp_path / "classes.png")
    with Image.open(tmp_path / "classes.png") as image:
        assert image.format == "PNG"


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="per_class has none of head, frozen"):
        draw_per_class({"pca": {}}, "hit@1", None, tmp_path / "classes.png")
