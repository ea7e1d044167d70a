import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from likeness.reports import gains, style
from likeness.reports.gains import draw_gains, draw_widths


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure of what ``draw_gains`` or ``draw_widths`` would save; None where it draws nothing."""

    def figure_of(draw, rows):
        saved = []
        monkeypatch.setattr(gains.style, "save", lambda figure, path: saved.append(figure))
        assert draw(rows, tmp_path / "x.png") is bool(saved)
        return saved[0] if saved else None

    return figure_of


def compared(name, difference, reach, p):
    low, high = difference - reach, difference + reach
    return {
        name: 0.5,
        f"over_{name}": difference,
        f"low_over_{name}": low,
        f"high_over_{name}": high,
        f"p_{name}": p / 3,
        f"p_holm_{name}": p,
    }


def row_of(*differences, **options):
    found = [compared(*difference) for difference in differences]
    return {"options": options, "split": "test"} | {name: value for one in found for name, value in one.items()}


ROWS = [
    row_of(("frozen", 0.03, 0.01, 0.0499), ("pca", -0.02, 0.04, 0.6), noise="none", width="[8]"),
    row_of(("frozen", 0.01, 0.02, 0.05), ("pca", -0.05, 0.01, 0.001), noise="masking", width="[8]"),
]


def points_of(axes):
    """Where the points are, by colour, with whether they are filled."""
    marks = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    found = {}
    for mark in marks:
        colour, fill = to_hex(mark.get_color()).upper(), to_hex(mark.get_markerfacecolor()).upper()
        assert fill in (colour, "#FFFFFF")
        found.setdefault(colour, []).append((float(mark.get_xdata()[0]), float(mark.get_ydata()[0]), fill == colour))
    return found


def intervals_of(axes):
    found = {}
    for lines in axes.collections:
        (segment,) = lines.get_segments()
        found.setdefault(to_hex(lines.get_color()[0]).upper(), []).append(segment.ravel().round(6).tolist())
    return found


def test_a_point_is_the_gain_of_a_head_and_is_filled_where_it_is_sure(drawn):
    (axes,) = drawn(draw_gains, ROWS).axes
    frozen, pca = style.METHOD_COLOURS["frozen"], style.METHOD_COLOURS["pca"]
    assert points_of(axes) == {
        frozen: [(0.03, -0.12, True), (0.01, 0.88, False)],
        pca: [(-0.02, 0.12, False), (-0.05, 1.12, True)],
    }
    assert intervals_of(axes) == {
        frozen: [[0.02, -0.12, 0.04, -0.12], [-0.01, 0.88, 0.03, 0.88]],
        pca: [[-0.06, 0.12, 0.02, 0.12], [-0.06, 1.12, -0.04, 1.12]],
    }


def test_heads_are_named_from_the_top_with_nought_marked(drawn):
    figure = drawn(draw_gains, ROWS)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "hit@1 on test: head minus baseline, points"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none  [8]", "masking  [8]"]
    assert axes.get_yticks().tolist() == [0, 1]
    assert axes.get_ylim() == (1.6, -0.6)
    assert list(axes.lines[0].get_xdata()) == [0, 0]
    assert axes.xaxis.get_major_formatter()(-0.025) == "−2.5"
    assert axes.xaxis.get_major_formatter()(0.1) == "+10"
    assert "Holm" in figure.get_supxlabel()


def legend_of(figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_the_legend_has_each_baseline_once(drawn):
    rows = [row_of(("pca", 0.1, 0.1, 1), ("random_projection", 0.2, 0.1, 1), ("frozen", 0.1, 0.1, 1))] * 5
    figure = drawn(draw_gains, rows)
    assert legend_of(figure) == ["minus frozen", "minus PCA", "minus random projection"]
    (axes,) = figure.axes
    assert len(axes.lines) == 1 + 3 * (1 + 5)  # nought; of each baseline its entry in the legend and its points
    assert [ys[1] for ys in (found[0] for found in points_of(axes).values())] == pytest.approx([-0.24, 0, 0.24])


def test_a_head_that_is_not_compared_keeps_its_line(drawn):
    rows = [row_of(noise="none"), row_of(("frozen", 0.1, 0.01, 0.01), noise="masking")]
    figure = drawn(draw_gains, rows)
    (axes,) = figure.axes
    assert points_of(axes) == {style.METHOD_COLOURS["frozen"]: [(0.1, 1.0, True)]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "masking"]
    assert legend_of(figure) == ["minus frozen"]


def test_an_interval_that_is_not_known_is_not_drawn(drawn):
    figure = drawn(draw_gains, [row_of(("frozen", 0.1, np.nan, 1.0))])
    (axes,) = figure.axes
    figure.draw_without_rendering()
    assert points_of(axes) == {style.METHOD_COLOURS["frozen"]: [(0.1, 0.0, False)]}
    assert axes.get_xlim()[0] < 0 < 0.1 < axes.get_xlim()[1]


def test_long_names_are_cut_and_hold_no_formula(drawn):
    rows = [
        row_of(("frozen", 0.1, 0.1, 1), a="x" * 30, b="y" * 30),
        row_of(("frozen", 0.1, 0.1, 1), a="$a$", b="\udcff"),
    ]
    (axes,) = drawn(draw_gains, rows).axes
    long, odd = [label.get_text() for label in axes.get_yticklabels()]
    assert long == "x" * 22 + "…" + "y" * 21
    assert odd == r"\$a\$  \xff"


def test_forty_heads_are_drawn_at_most(drawn):
    rows = [row_of(("frozen", number / 100, 0.01, 1), width=str(number)) for number in range(60)]
    (axes,) = drawn(draw_gains, rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(number) for number in range(40)]
    assert len(points_of(axes)[style.METHOD_COLOURS["frozen"]]) == 40


@pytest.mark.parametrize("rows", [[], [row_of(width="8"), row_of(width="16")]])
def test_without_a_comparison_there_is_no_file(rows, tmp_path):
    assert draw_gains(rows, tmp_path / "gains.png") is False
    assert list(tmp_path.iterdir()) == []


def test_the_gains_are_a_picture(tmp_path):
    assert draw_gains(ROWS, tmp_path / "gains.png") is True
    with Image.open(tmp_path / "gains.png") as image:
        assert image.format == "PNG"


def boxes_of(figure):
    """Titles, labels, ticks, legends and footnote as they come out, in pixels; and the panel itself."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    texts = [axes._left_title, axes.xaxis.label, figure._supxlabel, *figure.legends]
    texts += [*axes.get_yticklabels(), *axes.get_xticklabels()]
    shown = [text for text in texts if text and (not hasattr(text, "get_text") or text.get_text())]
    return [text.get_window_extent() for text in shown] + [axes.get_window_extent()]


def assert_apart(figure):
    boxes = boxes_of(figure)
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not [other for other in boxes[:i] if box.overlaps(other)]


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("baselines", [["frozen"], ["frozen", "pca", "random_projection"]])
def test_nothing_lies_on_anything_else(drawn, count, baselines):
    rows = [row_of(*((name, 0.03, 0.2, 0.5) for name in baselines), a="W" * 20, b=f"{i:024d}") for i in range(count)]
    assert_apart(drawn(draw_gains, rows))


def width_of(width, hit, options=("architecture.widths",), **baselines):
    named = dict.fromkeys(options, f"[{width}]")
    bounds = {"hit@1_low": hit - 0.02, "hit@1_high": hit + 0.02}
    return {"options": named, "split": "test", "code_width": width, "hit@1": hit, **bounds, **baselines}


WIDTHS = [
    width_of(1024, 0.6, pca=0.58, random_projection=0.57, frozen=0.582),
    width_of(8, 0.4, pca=0.45, random_projection=0.3, frozen=0.582),
    width_of(64, 0.55, pca=0.57, random_projection=0.5, frozen=0.582),
]


def test_quality_is_drawn_against_width_from_narrow_to_wide(drawn):
    (axes,) = drawn(draw_widths, WIDTHS).axes
    head, pca, projection, frozen = axes.lines
    for line, hits in ((head, [0.4, 0.55, 0.6]), (pca, [0.45, 0.57, 0.58]), (projection, [0.3, 0.5, 0.57])):
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([8, 64, 1024], hits)
    assert list(frozen.get_ydata()) == [0.582, 0.582]
    assert frozen.get_linestyle() == "--"
    assert len({line.get_marker() for line in (head, pca, projection)}) == 3
    names = ("head", "pca", "random_projection", "frozen")
    assert [line.get_color() for line in axes.lines] == [style.METHOD_COLOURS[name] for name in names]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["head", "PCA", "random projection", "frozen, 58.2 %"]


def test_the_interval_over_seeds_is_a_band(drawn):
    (axes,) = drawn(draw_widths, WIDTHS).axes
    (band,) = axes.collections
    (path,) = band.get_paths()
    corners = {tuple(corner) for corner in path.vertices.round(6).tolist()}
    assert corners == {(8, 0.38), (8, 0.42), (64, 0.53), (64, 0.57), (1024, 0.58), (1024, 0.62)}


def test_ticks_are_the_widths_themselves(drawn):
    (axes,) = drawn(draw_widths, WIDTHS).axes
    assert axes.get_title(loc="left") == "hit@1 on test by the width of the code"
    assert axes.get_xscale() == "log"
    assert axes.get_xticks().tolist() == [8, 64, 1024]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "64", "1,024"]
    assert axes.get_xticks(minor=True).tolist() == []
    assert axes.get_xlabel() == "numbers in a code (4 bytes each)"
    assert axes.yaxis.get_major_formatter()(0.55) == "55 %"


def test_a_method_that_a_width_lacks_is_left_out(drawn):
    rows = [WIDTHS[0], width_of(8, 0.4, pca=0.45), width_of(64, 0.55, pca=0.57)]
    (axes,) = drawn(draw_widths, rows).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["head", "PCA"]


def test_single_seeds_have_no_band(drawn):
    unknown = {"hit@1_low": np.nan, "hit@1_high": np.nan}
    figure = drawn(draw_widths, [row | unknown for row in WIDTHS])
    figure.draw_without_rendering()
    assert all(len(path.vertices) == 0 for band in figure.axes[0].collections for path in band.get_paths())
    assert np.isfinite(figure.axes[0].get_ylim()).all()


ONE, BOTH = ("architecture.width",), ("architecture.widths", "noise")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        WIDTHS[:2],
        [*WIDTHS, width_of(8, 0.5)],  # two heads of one width
        [width_of(width, 0.5, options=BOTH) for width in (8, 16, 32)],
        [width_of(width, 0.5, options=()) for width in (8, 16, 32)],
        [width_of(width, 0.5, options=["backbone"]) for width in (8, 16, 32)],  # their frozen features differ
        [width_of(width, 0.5, options=["architecture.channels"]) for width in (8, 16, 32)],
        [*WIDTHS, width_of(16, 0.5) | {"code_width": None}],
    ],
    ids=["none", "two", "twice", "two options", "no option", "backbones", "channels", "unknown"],
)
def test_rows_that_differ_in_more_than_width_or_are_few_have_no_curve(rows, tmp_path):
    assert draw_widths(rows, tmp_path / "widths.png") is False
    assert list(tmp_path.iterdir()) == []


def test_the_width_of_a_closed_form_is_one_too(tmp_path):
    rows = [width_of(width, 0.5, options=ONE) for width in (8, 16, 32)]
    assert draw_widths(rows, tmp_path / "widths.png") is True
    with Image.open(tmp_path / "widths.png") as image:
        assert image.format == "PNG"


def test_nine_widths_lie_beside_each_other(drawn):
    rows = [width_of(2**power, 0.4 + power / 50, frozen=0.5) for power in range(3, 12)]
    assert_apart(drawn(draw_widths, rows))
