import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from threadpoolctl import threadpool_limits

from likeness.reports import projection, style
from likeness.reports.projection import Projection, draw_projection, project, project_each, sample_rows


@pytest.fixture(scope="module")
def groups():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    return 10 * np.eye(3, 60)[labels] + rng.normal(size=(60, 60)), labels


def test_separate_groups_stay_together(groups):
    rows, labels = groups
    xy = project(rows, perplexity=8).xy
    centres = np.stack([xy[labels == label].mean(0) for label in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(1)
    assert (nearest == labels).all()


def test_the_same_rows_give_the_same_map(groups):
    first, second = project(groups[0], 8), project(groups[0], 8)
    assert np.array_equal(first.xy, second.xy)
    assert first.xy.dtype == np.float64
    assert first.kl == second.kl > 0


def test_float32_rows_are_welcome_and_unchanged(groups):
    rows = groups[0].astype(np.float32)
    before = rows.copy()
    assert project(rows, 5.0).xy.shape == (60, 2)
    assert np.array_equal(rows, before)


def divergence_by_hand(rows, xy, perplexity):
    """KL of van der Maaten and Hinton (2008), equations 2 to 4, in float64 over all pairs."""
    n = len(rows)
    off = ~np.eye(n, dtype=bool)
    squared = ((rows[:, None] - rows) ** 2).sum(2)
    joint = np.zeros((n, n))
    for i in range(n):
        low, high = 0.0, 1e3
        for _ in range(200):  # the precision at which the row's entropy is that of the perplexity
            precision = (low + high) / 2
            weight = np.exp(-precision * (squared[i, off[i]] - squared[i, off[i]].min()))
            share = weight / weight.sum()
            entropy = -(share * np.log(share + 1e-300)).sum()
            low, high = (precision, high) if entropy > np.log(perplexity) else (low, precision)
        joint[i, off[i]] = share
    joint = (joint + joint.T) / (2 * n)
    near = 1 / (1 + ((xy[:, None] - xy) ** 2).sum(2))
    near /= near[off].sum()
    return (joint[off] * np.log(joint[off] / near[off])).sum()


def test_kl_is_the_divergence_of_the_map_in_nats(groups):
    rows = groups[0][::2]
    found = project(rows, 9)
    assert found.kl == pytest.approx(divergence_by_hand(rows, found.xy, 9), rel=0.02)


def test_a_map_is_the_same_alone_and_among_others(groups):
    both = list(project_each(groups[0], [4, 8.5]))
    assert [found.perplexity for found in both] == [4, 8.5]
    for found in both:
        alone = project(groups[0], found.perplexity)
        assert (alone.kl, alone.perplexity) == (found.kl, found.perplexity)
        assert np.array_equal(alone.xy, found.xy)
    assert both[0].kl != both[1].kl


def test_rows_are_made_narrow_once_for_all_perplexities(groups, monkeypatch):
    made = []
    narrow = projection._compact
    monkeypatch.setattr(projection, "_compact", lambda rows, seed: made.append(rows.shape) or narrow(rows, seed))
    assert len(list(project_each(groups[0][:8], [2, 3, 4]))) == 3
    assert made == [(8, 60)]


def test_the_number_of_threads_changes_no_number(groups):
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(project(groups[0], 8))
    assert np.array_equal(found[0].xy, found[1].xy)
    assert found[0].kl == found[1].kl


def test_a_perplexity_is_below_the_number_of_rows(groups):
    assert next(project_each(groups[0][:12], [11.9])).perplexity == 11.9
    with pytest.raises(ValueError, match="perplexity 12 is not below the number of rows, 12"):
        next(project_each(groups[0][:12], [12]))


@pytest.mark.parametrize(("n", "asked", "used"), [(4, 30, 1.0), (31, 30, 10.0), (60, 5, 5.0)])
def test_the_perplexity_is_lowered_and_reported(groups, n, asked, used):
    assert project(groups[0][:n], asked).perplexity == used


def test_a_code_of_one_number_has_a_map(groups):
    xy = project(groups[0][:, :1], 8).xy
    assert xy.shape == (60, 2)
    assert np.isfinite(xy).all()


def test_a_collapsed_head_is_one_point():
    found = project(np.full((9, 4), 0.5))
    assert not found.xy.any()
    assert (found.kl, found.perplexity) == (0.0, 8 / 3)


@pytest.mark.parametrize(
    ("rows", "said"), [(np.zeros((3, 2)), "at least 4"), (np.array([[0.0], [1], [2], [np.nan]]), "not finite")]
)
def test_what_cannot_be_projected_is_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        project(rows)


def test_a_sample_is_sorted_without_repeats_and_the_same_for_the_same_seed():
    rows = sample_rows(5000, 2000, 1)
    assert len(np.unique(rows)) == 2000
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, sample_rows(5000, 2000, 1))
    assert not np.array_equal(rows, sample_rows(5000, 2000, 2))
    assert sample_rows(4, 9).tolist() == [0, 1, 2, 3]


def figure_of(classes, labels, panels=2):
    xy = np.random.default_rng(0).normal(size=(len(labels), 2))
    named = [(f"panel {i}", Projection(xy, 1.234, 30.0)) for i in range(panels)]
    return projection._projections(named, np.array(labels), classes)


def test_panels_legend_and_footnote():
    figure = figure_of(["bath", "kit$chen"], [0, 1, 1])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "panel 0 · KL 1.23 · perplexity 30",
        "panel 1 · KL 1.23 · perplexity 30",
    ]
    assert [[text.get_text() for text in legend.get_texts()] for legend in figure.legends] == [["bath", r"kit\$chen"]]
    assert "is not a score" in figure.get_supxlabel()


def test_each_point_has_the_colour_of_its_class():
    axes = figure_of(["a", "b", "c"], [2, 0, 0, 1]).axes[0]
    colours = [to_hex(colour).upper() for colour in axes.collections[0].get_facecolors()]
    assert sorted(colours) == sorted([style.COLOURS[2], style.COLOURS[0], style.COLOURS[0], style.COLOURS[1]])
    assert len({tuple(point) for point in axes.collections[0].get_offsets()}) == 4


def test_after_seven_classes_the_marker_changes():
    figure = figure_of([str(i) for i in range(9)], range(9))
    assert [len(points.get_offsets()) for points in figure.axes[0].collections[:3]] == [7, 2, 0]
    markers = [handle.get_marker() for handle in figure.legends[0].legend_handles]
    assert markers == ["o"] * 7 + ["^"] * 2


def test_classes_that_cannot_be_told_apart_have_no_legend():
    figure = figure_of([str(i) for i in range(90)], range(90))
    assert figure.legends == []
    assert figure.get_suptitle() == "90 classes: colours and marks repeat"


def test_the_file_is_a_picture(tmp_path):
    found = Projection(np.zeros((2, 2)), float("nan"), 0.5)
    draw_projection([("codes", found)], np.array([0, 1]), ["a", "b"], tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.format == "PNG"
