import csv
import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console

from likeness.reports import projection_grid, style
from likeness.reports.projection import Projection
from likeness.reports.projection_grid import (
    Drawn,
    Method,
    divergence_table,
    draw_grid,
    show_divergences,
    write_divergences,
)
from likeness.retrieval.significance import Interval

LONG = "shufflenet_rooms → random_projection\ntrain: 2,000 of 13,210 labelled pictures"
TRAIN, TEST = Drawn("train", 3, 4000), Drawn("test", 3, 3)


def method(name, *divergences, hit=None, width=2, perplexities=(5.0, 20.0)):
    maps = [Projection(np.eye(3)[:, :2], kl, at) for kl, at in zip(divergences, perplexities, strict=True)]
    return Method(name, width, maps, hit)


@pytest.fixture
def found():
    """By KL the head is first on both splits; by hit@1 it is so on neither."""
    half, third = Interval(0.5, 0.25, 0.75), Interval(1 / 3, 0.0625, 0.79)
    return {
        TRAIN: [method("head", 1.0, 0.5, hit=third), method("frozen", 1.5, 0.25, hit=half, width=1024)],
        TEST: [
            method("head", 1.25, 0.125, hit=third),
            method("frozen", 1.25, 0.5, hit=third, width=1024),
            method("pca", 2.0, 1.0, hit=half),
        ],
    }


def figure_of(methods, classes=("bath", "bed"), title="net → dense · test"):
    return projection_grid._grid(methods, np.array([0, 1, 1]), classes, title)


def test_a_grid_has_features_above_codes_and_a_column_for_each_perplexity(found):
    figure = figure_of(found[TEST])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "perplexity 5 · KL 1.25",
        "perplexity 20 · KL 0.50",
        "perplexity 5 · KL 1.25",
        "perplexity 20 · KL 0.12",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["features, 1,024 numbers", "", "codes, 2 numbers", ""]
    assert figure.get_suptitle() == "net → dense · test"
    assert "is not a score" in figure.get_supxlabel()
    assert [[text.get_text() for text in legend.get_texts()] for legend in figure.legends] == [["bath", "bed"]]


def test_points_have_the_colours_of_their_classes(found):
    for axes in figure_of(found[TEST]).axes:
        shown = axes.collections[0]
        at = {
            tuple(point): to_hex(c).upper()
            for point, c in zip(shown.get_offsets(), shown.get_facecolors(), strict=True)
        }
        assert at == {(1.0, 0.0): style.COLOURS[0], (0.0, 1.0): style.COLOURS[1], (0.0, 0.0): style.COLOURS[1]}


def test_a_crowd_of_classes_is_told_in_the_title(found):
    figure = figure_of(found[TEST], [str(i) for i in range(90)])
    assert figure.legends == []
    assert figure.get_suptitle() == "net → dense · test\n90 classes: colours and marks repeat"


@pytest.mark.parametrize("classes", [2, 49])
def test_nothing_lies_on_anything_else(found, classes):
    """Titles, labels, legend and footnote as they come out, in pixels."""
    figure = figure_of(
        [method(name, 1.0, perplexities=[5.0]) for name in ("frozen", "head")], ["a" * 20] * classes, LONG
    )
    figure.draw_without_rendering()
    texts = [figure._suptitle, figure._supxlabel, *figure.legends]
    texts += [text for axes in figure.axes for text in (axes._left_title, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in texts] + [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not [other for other in boxes[:i] if box.overlaps(other)]


def test_the_figure_is_a_picture(found, tmp_path):
    draw_grid(found[TRAIN], np.array([0, 1, 1]), ["a", "b"], "title", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.format == "PNG"


def test_the_csv_has_a_row_for_each_map(found, tmp_path):
    write_divergences(found, "net → dense", tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "kl.csv").read_text())))
    assert [(row["split"], row["method"], row["perplexity"], row["kl"]) for row in rows] == [
        ("train", "head", "5.0", "1.0"),
        ("train", "head", "20.0", "0.5"),
        ("train", "frozen", "5.0", "1.5"),
        ("train", "frozen", "20.0", "0.25"),
        ("test", "head", "5.0", "1.25"),
        ("test", "head", "20.0", "0.125"),
        ("test", "frozen", "5.0", "1.25"),
        ("test", "frozen", "20.0", "0.5"),
        ("test", "pca", "5.0", "2.0"),
        ("test", "pca", "20.0", "1.0"),
    ]
    facts = ("rows", "labelled", "code_width", "hit@1", "hit@1_low", "hit@1_high")
    assert [rows[3][name] for name in facts] == ["3", "4000", "1024", "0.5", "0.25", "0.75"]


MARKDOWN = """\
net → dense, t-SNE; hit@1 in percent with 95 % intervals

| split | method | rows | hit@1 | KL at perplexity 5 | KL at perplexity 20 |
| --- | --- | --- | --- | --- | --- |
| train | head | 3 of 4,000 | 33.3 [6.2–79.0] | 1.00 | 0.50 |
| train | frozen | 3 of 4,000 | 50.0 [25.0–75.0] | 1.50 | 0.25 |
| test | head | 3 | 33.3 [6.2–79.0] | 1.25 | 0.12 |
| test | frozen | 3 | 33.3 [6.2–79.0] | 1.25 | 0.50 |
| test | PCA | 3 | 50.0 [25.0–75.0] | 2.00 | 1.00 |

- train: highest hit@1: frozen; lowest KL (perplexity): head (5), frozen (20)
- test: highest hit@1: PCA; lowest KL (perplexity): head (5, 20), frozen (5)

"""


def test_the_markdown_is_the_table_with_its_caveat(found, tmp_path):
    write_divergences(found, "net → dense", tmp_path)
    text = (tmp_path / "kl.md").read_text()
    assert text.startswith(MARKDOWN)
    assert "not a score" in text.removeprefix(MARKDOWN)
    assert "frozen and PCA alike" not in text


def test_frozen_and_pca_are_said_to_be_alike_where_the_codes_are_as_wide_as_what_tsne_sees(found, tmp_path):
    write_divergences({TEST: [*found[TEST][:2], method("pca", 2.0, 1.0, width=50)]}, "t", tmp_path)
    assert "frozen and PCA alike" in (tmp_path / "kl.md").read_text()


def test_a_split_in_which_no_query_counts_has_no_hit(tmp_path):
    write_divergences({TEST: [method("head", 1.0, 1.0), method("frozen", 2.0, 2.0)]}, "t", tmp_path)
    text = (tmp_path / "kl.md").read_text()
    assert "| test | head | 3 | – | 1.00 | 1.00 |" in text
    assert "highest hit@1: –; lowest KL (perplexity): head (5, 20)" in text
    assert "test,3,5.0,head,1.0,,,,3,2" in (tmp_path / "kl.csv").read_text().splitlines()


def test_the_table_fits_a_terminal_and_says_what_the_markdown_says(found):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(divergence_table(found, "net → dense"))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "test PCA 3 50.0 [25.0–75.0] 2.00 1.00" in lines
    assert "train head 3 of 4,000 33.3 [6.2–79.0] 1.00 0.50" in lines
    assert "test: highest hit@1: PCA; lowest KL (perplexity): head (5, 20), frozen (5)" in lines


def test_the_terminal_says_where_the_maps_are(found, tmp_path, capsys):
    show_divergences(found, "net → dense", tmp_path)
    assert f"maps, kl.csv, kl.md: {tmp_path}" in capsys.readouterr().out
