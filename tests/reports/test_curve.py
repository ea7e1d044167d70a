import pytest
from PIL import Image

from likeness.reports import curve
from likeness.reports.curve import draw_curve


def epochs(losses, hits=()):
    hits = dict(hits)
    return [
        {"epoch": i, "train/loss": loss, "val/loss": loss * 1.1} | ({"val/hit@1": hits[i]} if i in hits else {})
        for i, loss in enumerate(losses)
    ]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_two_panels_with_losses_and_hits():
    losses, hits = curve._curve(epochs([3.0, 2.0, 1.5], {0: 0.5, 2: 0.61}), {"frozen": 0.573, "pca": 0.58}, 2).axes
    assert (losses.get_title(loc="left"), hits.get_title(loc="left")) == ("loss", "validation hit@1")
    assert legend(losses) == ["train", "val", "best epoch, 2"]
    assert legend(hits) == ["frozen, 57.3 %", "PCA, 58.0 %", "head, highest 61.0 %", "best epoch, 2"]


def test_lines_carry_the_numbers_and_bridge_epochs_without_a_score():
    losses, hits = curve._curve(epochs([3.0, 2.0, 1.5], {0: 0.5, 2: 0.61}), {"frozen": 0.573}, 1).axes
    assert losses.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.5]
    frozen, head, best = hits.lines
    assert list(frozen.get_ydata()) == [0.573, 0.573]
    assert frozen.get_linestyle() == "--"
    assert (head.get_xdata().tolist(), head.get_ydata().tolist()) == ([0, 2], [0.5, 0.61])
    assert list(best.get_xdata()) == [1, 1]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 0.5], "linear"), ([1.0, 0.05], "log"), ([1.0, -0.05], "linear"), ([1.0, 0.05, float("nan")], "log")],
)
def test_the_axis_is_logarithmic_where_losses_span_over_ten(values, scale):
    assert curve._curve(epochs(values), {}, None).axes[0].get_yscale() == scale


def test_without_scores_the_panel_says_so(tmp_path):
    _, hits = curve._curve(epochs([1.0, 0.9]), {}, None).axes
    assert [text.get_text() for text in hits.texts] == ["not measured while training"]
    assert hits.get_legend() is None
    assert draw_curve(epochs([1.0]), tmp_path / "one.png", None, None)


def test_null_is_as_good_as_absent():
    _, hits = curve._curve([{"epoch": 0, "train/loss": 1.0, "val/loss": None, "val/hit@1": None}], {}, None).axes
    assert hits.texts


def test_no_epochs_draw_nothing(tmp_path):
    assert draw_curve([], tmp_path / "curve.png", {"frozen": 0.5}, None) is False
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_a_picture(tmp_path):
    assert draw_curve(epochs([1.0, 0.01], {1: 0.5}), tmp_path / "curve.png", {"a_$name$": 0.4}, 1) is True
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1500, 585)
