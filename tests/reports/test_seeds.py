import csv
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats

from likeness.images.table import Row, tabulate
from likeness.reports.results import write_queries
from likeness.reports.scoreboard import sweep_rows
from likeness.reports.seeds import compared_seeds, gain, read_hits, seeds_table, spread, write_seeds
from likeness.retrieval.metric import score

QUERIES = """\
split,sample_id,path,label,home,skipped,rank,frozen_rank,pca_rank,random_projection_rank
val,0,bath/0.jpg,bath,,0,1,1,1,1
test,1,bath/1.jpg,bath,elm 2,0,1,2,1,0
test,2,bed/2.jpg,bed,ash 1,0,3,1,1,2
test,3,attic/3.jpg,attic,oak 3,1,,,,
test,4,bed/4.jpg,bed,,0,0,1,2,1
test,5,bath/5.jpg,bath,elm 2,0,1,1,12,1
"""


def test_hits_are_the_first_ranks_of_a_split_without_what_was_skipped(tmp_path):
    (tmp_path / "queries.csv").write_text(QUERIES)
    hits = read_hits(tmp_path / "queries.csv", "test")
    assert {method: found.tolist() for method, found in hits.by_method.items()} == {
        "head": [1, 0, 0, 1],
        "frozen": [0, 1, 1, 1],
        "pca": [1, 1, 0, 0],
        "random_projection": [0, 0, 1, 1],
    }
    assert hits.paths == ["bath/1.jpg", "bed/2.jpg", "bed/4.jpg", "bath/5.jpg"]
    assert hits.homes.tolist() == [1, 0, -1, 1]  # ash 1, elm 2; oak 3 has no query that counts


def test_another_split_is_read_apart(tmp_path):
    (tmp_path / "queries.csv").write_text(QUERIES)
    hits = read_hits(tmp_path / "queries.csv", "val")
    assert hits.by_method["head"].tolist() == [1]
    assert hits.homes.tolist() == [-1]


@pytest.mark.parametrize(
    "content", [None, "", QUERIES.splitlines()[0], QUERIES.replace("test,", "test against train,")]
)
def test_without_a_counted_query_there_are_no_hits(tmp_path, content):
    if content is not None:
        (tmp_path / "queries.csv").write_text(content)
    assert read_hits(tmp_path / "queries.csv", "test") is None


def test_a_split_that_is_skipped_as_a_whole_has_no_hits(tmp_path):
    (tmp_path / "queries.csv").write_text("split,path,home,skipped,rank\ntest,a,,1,\ntest,b,,1,\n")
    assert read_hits(tmp_path / "queries.csv", "test") is None


def test_a_run_without_baselines_has_the_hits_of_its_head(tmp_path):
    (tmp_path / "queries.csv").write_text("split,path,home,skipped,rank\ntest,a,,0,1\n")
    assert list(read_hits(tmp_path / "queries.csv", "test").by_method) == ["head"]


def test_paths_and_homes_may_be_any_bytes(tmp_path):
    (tmp_path / "queries.csv").write_bytes(
        b"split,path,home,skipped,rank\ntest,\xff.jpg,\xfe,0,1\ntest,\xc3\xa9.jpg,,0,2\ntest,c.jpg,\xfe,0,1\n"
    )
    hits = read_hits(tmp_path / "queries.csv", "test")
    assert hits.paths == ["\udcff.jpg", "é.jpg", "c.jpg"]
    assert hits.homes.tolist() == [0, -1, 0]


CIRCLE = [(0, "ash"), (0, "ash"), (1, "elm"), (1, ""), (2, ""), (3, "")]  # of the last two kinds there is no other


def test_what_a_run_writes_is_read_again(tmp_path):
    """Six pictures on a circle; a query is right where the nearest other direction is of its class."""
    listed = [Row(f"{i}.jpg", "abcd"[label], "test", home) for i, (label, home) in enumerate(CIRCLE)]
    table = tabulate(tmp_path, listed, 0, (0.6, 0.2, 0.2))
    labels = torch.tensor([label for label, _ in CIRCLE])
    found = {}
    for method, angles in (("head", [0, 10, 90, 95, 180, 200]), ("frozen", [0, 100, 90, 200, 180, 10])):
        turned = torch.tensor(angles, dtype=torch.float32).deg2rad()
        found[method] = score(torch.stack([turned.cos(), turned.sin()], 1), labels, torch.arange(6))
    write_queries({"test": found}, table, tmp_path / "queries.csv")
    hits = read_hits(tmp_path / "queries.csv", "test")
    assert hits.by_method["head"].tolist() == [1, 1, 1, 1]
    assert hits.by_method["frozen"].tolist() == [0, 0, 0, 0]
    assert hits.paths == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert hits.homes.tolist() == [0, 0, 1, -1]


@pytest.fixture
def job(tmp_path):
    """Leaves what a job leaves; hits are strings of 0 and 1, by split and method."""

    def leave(number, *overrides, state="done", paths="q{}.jpg", homes=None, **splits):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "status.json").write_text(json.dumps({"state": state, "overrides": overrides, "job": number}))
        scored = {split: {"head": {"hit@1": np.mean([*map(int, hits["head"])])}} for split, hits in splits.items()}
        metrics = {"splits": scored, "code_width": 8, "parameters": 2048}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        with open(folder / "queries.csv", "w", newline="") as file:
            writer = csv.writer(file)
            methods = list(next(iter(splits.values())))
            ranks = ["rank" if method == "head" else f"{method}_rank" for method in methods]
            writer.writerow(["split", "path", "home", "skipped", *ranks])
            for split, hits in splits.items():
                for query, found in enumerate(zip(*(hits[method] for method in methods), strict=True)):
                    home = homes[query] if homes else ""
                    writer.writerow([split, paths.format(query), home, 0, *(1 if hit == "1" else 7 for hit in found)])
        return folder

    return leave


@pytest.fixture
def compared(tmp_path):
    return lambda *splits: compared_seeds(tmp_path, sweep_rows(tmp_path), *splits)


def test_hits_are_averaged_over_seeds_and_compared_query_by_query(job, compared):
    for seed, head in enumerate(["1111100000", "1111110000", "1111111000"]):
        job(seed, "architecture=dense", f"seed={seed}", val={"head": head, "frozen": "1111000000"})
    (row,) = compared()
    assert (row["options"], row["split"], row["seeds"], row["queries"]) == ({}, "val", 3, 10)
    assert (row["code_width"], row["parameters"]) == (8, 2048)
    # sd .1; t(.975, 2) = 4.302653; half = 4.302653 * .1 / sqrt(3) = .248414
    assert (row["hit@1"], row["hit@1_low"], row["hit@1_high"]) == pytest.approx((0.6, 0.351586, 0.848414), abs=1e-6)
    # query by query 1, 2/3 and 1/3 more, of ten; of 8 ways to turn their signs 2 reach the sum
    assert (row["frozen"], row["over_frozen"]) == pytest.approx((0.4, 0.2))
    assert row["p_frozen"] == row["p_holm_frozen"] == pytest.approx(0.25, abs=0.015)
    assert not [name for name in row if "pca" in name]


def test_baselines_are_averaged_over_seeds_as_well(job, compared):
    for seed, projected in enumerate(["1000", "1110"]):
        job(seed, f"seed={seed}", val={"head": "1111", "random_projection": projected})
    (row,) = compared()
    # .25 and .75; query by query the head has 0, .5, .5 and 1 more
    assert (row["random_projection"], row["over_random_projection"]) == (0.5, 0.5)


def test_students_interval_is_wide_for_two_seeds_and_unknown_for_one(job, compared):
    counts = {("dense", 0): (582, 582), ("dense", 1): (602, 592), ("conv", 0): (632, 607)}
    for number, ((head, seed), found) in enumerate(counts.items()):
        val, test = ({"head": "1" * count + "0" * (1000 - count)} for count in found)
        job(number, f"architecture={head}", f"seed={seed}", val=val, test=test)
    rows = compared()
    assert [(row["options"]["architecture"], row["split"], row["seeds"], spread(row)) for row in rows] == [
        # mean .592; sd .0141421; t(.975, 1) = 12.7062; half = 12.7062 * .0141421 / sqrt(2) = .127062
        ("conv", "val", 1, "63.2"),
        ("dense", "val", 2, "59.2 ± 12.7"),
        ("conv", "test", 1, "60.7"),
        ("dense", "test", 2, "58.7 ± 6.4"),
    ]
    assert np.isnan([rows[0]["hit@1_low"], rows[0]["hit@1_high"]]).all()


def test_a_seed_that_ran_twice_counts_once(job, compared):
    for number, seed in enumerate([0, 1, 1]):
        job(number, f"seed={seed}", val={"head": "10" if seed else "11"})
    (row,) = compared()
    assert (row["seeds"], row["hit@1"]) == (2, 0.75)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [("seed=0",), ("seed=0",)],
        [("noise=none", "seed=0"), ("noise=masking", "seed=1")],
        [("noise=none",), ("noise=masking",)],
    ],
)
def test_without_a_sibling_of_another_seed_there_is_nothing_to_average(job, compared, overrides):
    for number, given in enumerate(overrides):
        job(number, *given, val={"head": "11"})
    assert compared() == []


def test_jobs_without_a_result_are_left_out(job, compared):
    job(0, "seed=0", val={"head": "1100", "frozen": "1000"})
    job(1, "seed=1", val={"head": "1110", "frozen": "1000"})
    job(2, "seed=2", val={"head": "1111", "frozen": "1000"}, state="failed")
    job(3, "seed=3", val={"head": "1111", "frozen": "1000"}, state="running")
    (job(4, "seed=4", val={"head": "1111", "frozen": "1000"}) / "metrics.json").unlink()
    (job(5, "seed=5", val={"head": "1111", "frozen": "1000"}) / "queries.csv").unlink()
    (row,) = compared()
    assert (row["seeds"], row["hit@1"], row["over_frozen"]) == (2, 0.625, 0.375)


def test_options_that_tell_the_heads_apart_are_kept_and_the_seed_is_not(job, compared):
    for seed in (0, 1):
        job(seed, "batch_size=64", "noise=none", f"seed={seed}", val={"head": "11"})
        job(2 + seed, "batch_size=64", "noise=masking", "+noise.share=0.3", f"seed={seed}", val={"head": "10"})
    assert [row["options"] for row in compared()] == [
        {"noise": "none", "noise.share": "–"},
        {"noise": "masking", "noise.share": "0.3"},
    ]


def test_the_best_mean_on_val_comes_first_on_both_splits(job, compared):
    """Of single seeds the best on val is conv's; on test conv is ahead."""
    found = {"dense": ["1100", "1110"], "conv": ["1111", "0000"], "pca": ["1100", "1100"]}
    for number, (head, seed) in enumerate((head, seed) for head in found for seed in (0, 1)):
        test = {"head": "1111" if head == "conv" else "0000"}
        job(number, f"architecture={head}", f"seed={seed}", val={"head": found[head][seed]}, test=test)
    assert [(row["split"], row["options"]["architecture"], row["hit@1"]) for row in compared()] == [
        ("val", "dense", 0.625),
        ("val", "conv", 0.5),
        ("val", "pca", 0.5),
        ("test", "dense", 0.0),
        ("test", "conv", 1.0),
        ("test", "pca", 0.0),
    ]
    assert {row["split"] for row in compared(["test"])} == {"test"}


def test_p_values_are_adjusted_for_the_number_of_heads(job, compared):
    """Heads with 7, 6, 5 hits where the frozen features have none; PCA has what the second head has."""
    for number, count in enumerate([5, 7, 6]):
        for seed in (0, 1):
            hits = {"head": "1" * count + "0" * (10 - count), "frozen": "0" * 10, "pca": "1" * 6 + "0" * 4}
            job(10 * number + seed, f"architecture.width={count}", f"seed={seed}", test=hits, val=hits)
    rows = compared()
    for split in (rows[:3], rows[3:]):
        assert [row["options"]["architecture.width"] for row in split] == ["7", "6", "5"]
        # all won: 2 / 2^7, 2 / 2^6, 2 / 2^5
        assert [row["p_frozen"] for row in split] == pytest.approx([0.015625, 0.03125, 0.0625])
        # three times the least, twice the next, once the last, which is not below the one before
        assert [row["p_holm_frozen"] for row in split] == pytest.approx([0.046875, 0.0625, 0.0625])
        assert [row["over_pca"] for row in split] == pytest.approx([0.1, 0.0, -0.1])
        assert [row["p_holm_pca"] for row in split] == [1, 1, 1]


def test_queries_of_a_home_are_compared_together_where_homes_are_known(job, compared):
    """Four of five homes are won as a whole: one by one p is 2 / 2^8, by home 2 / 2^4."""
    hits = {"head": "1111111100", "frozen": "0000000000"}
    for number, (option, homes) in enumerate([("folder", None), ("manifest", "aabbccddee")]):
        for seed in (0, 1):
            job(10 * number + seed, f"data={option}", f"seed={seed}", val=hits, homes=homes)
    alone, by_home = compared()
    assert alone["p_frozen"] == pytest.approx(0.0078125)
    assert by_home["p_frozen"] == pytest.approx(0.125, abs=0.01)
    # of 5 homes drawn with replacement one alone, .2, is won once in 156 times; two, .4, once in 20
    assert (by_home["low_over_frozen"], by_home["high_over_frozen"]) == (0.4, 1.0)


def test_a_single_home_has_no_interval(job, compared):
    for seed in (0, 1):
        job(seed, f"seed={seed}", val={"head": "11", "frozen": "01"}, homes="aa")
    (row,) = compared()
    assert np.isnan([row["low_over_frozen"], row["high_over_frozen"]]).all()
    assert gain(row, "frozen") == "+50.0, p = 1"


def test_runs_that_asked_other_queries_are_not_compared(job, compared):
    for seed in (0, 1):
        job(seed, "noise=none", f"seed={seed}", val={"head": "11", "frozen": "00"}, paths=f"split{seed}/{{}}.jpg")
        job(2 + seed, "noise=masking", f"seed={seed}", val={"head": "11111100", "frozen": "00000000"})
    other, same = compared()
    assert (other["hit@1"], other["seeds"], gain(other, "frozen")) == (1.0, 2, "–")
    assert not [name for name in other if "frozen" in name]
    assert same["p_holm_frozen"] == same["p_frozen"] == 0.03125  # the other head has no p to count


def test_a_baseline_that_one_run_lacks_is_not_compared(job, compared):
    job(0, "seed=0", val={"head": "11", "frozen": "10", "pca": "00"})
    job(1, "seed=1", val={"head": "11", "frozen": "10"})
    (row,) = compared()
    assert row["over_frozen"] == 0.5
    assert "over_pca" not in row


def signs_turned(totals):
    """How many of all ways to turn the signs of whole numbers have a sum as far from 0, as a share."""
    sums = {0: 1.0}
    for total in totals:
        turned = [(at + sign * total, share / 2) for at, share in sums.items() for sign in (-1, 1)]
        sums = {at: sum(share for found, share in turned if found == at) for at in {at for at, _ in turned}}
    return sum(share for at, share in sums.items() if abs(at) >= abs(sum(totals)))


def test_rows_are_those_of_numpy_and_scipy(job, compared):
    rng = np.random.default_rng(3)
    homes = rng.integers(12, size=40)
    heads = {"a": 0.75, "b": 0.6, "c": 0.5}
    hits = {(head, seed): rng.random(40) < share for head, share in heads.items() for seed in range(4)}
    frozen = rng.random(40) < 0.45
    text = "".join(frozen.astype(int).astype(str))
    for number, ((head, seed), found) in enumerate(hits.items()):
        split = {"head": "".join(found.astype(int).astype(str)), "frozen": text}
        job(number, f"architecture={head}", f"seed={seed}", val=split, homes=[f"home {home}" for home in homes])
    rows = compared()
    assert len(rows) == 3
    for row in rows:
        runs = np.stack([hits[row["options"]["architecture"], seed] for seed in range(4)]).astype(np.float64)
        means = runs.mean(1)
        low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
        assert (row["hit@1"], row["hit@1_low"], row["hit@1_high"]) == pytest.approx((means.mean(), low, high))
        gains = runs.mean(0) - frozen
        assert row["over_frozen"] == pytest.approx(gains.mean())
        members = [homes == home for home in np.unique(homes)]
        totals, sizes = (np.array([part[own].sum() for own in members]) for part in (gains, np.ones(40)))
        drawn = rng.integers(len(members), size=(20_000, len(members)))
        bounds = np.quantile(totals[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
        assert (row["low_over_frozen"], row["high_over_frozen"]) == pytest.approx(bounds, abs=0.01)
        assert row["p_frozen"] == pytest.approx(signs_turned([round(4 * total) for total in totals]), abs=0.015)
    given = [row["p_frozen"] for row in rows]
    for row in rows:
        smaller = [p for p in given if p <= row["p_frozen"]]
        expected = max(min(1, p * sum(other >= p for other in given)) for p in smaller)
        assert row["p_holm_frozen"] == pytest.approx(expected)


def row_of(split="val", p=0.06, **changed):
    own = {"hit@1": 0.6, "hit@1_low": 0.351586, "hit@1_high": 0.848414, "seeds": 3, "queries": 10}
    frozen = {"frozen": 0.4, "over_frozen": 0.2, "low_over_frozen": -0.004, "high_over_frozen": 0.412}
    options = {"architecture.widths": "[512,8]", "noise": "none"}
    costs = {"split": split, "code_width": 1024, "parameters": 5}
    return {"options": options, **costs, **own, **frozen, "p_frozen": 0.02, "p_holm_frozen": p, **changed}


PCA = {"pca": 0.7, "over_pca": -0.1, "low_over_pca": -0.2, "high_over_pca": 0.0, "p_pca": 0.0001, "p_holm_pca": 0.0002}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "60.0 ± 24.8"),
        ({"hit@1_low": 0.6, "hit@1_high": 0.6}, "60.0 ± 0.0"),
        ({"hit@1_low": np.nan, "hit@1_high": np.nan}, "60.0"),
    ],
)
def test_a_spread_is_half_the_width_of_the_interval(changed, words):
    assert spread(row_of(**changed)) == words


def test_a_gain_has_its_interval_and_its_adjusted_p():
    row = row_of(**PCA)
    assert gain(row, "frozen") == "+20.0 [−0.4, +41.2], p = 0.06"
    assert gain(row, "pca") == "−10.0 [−20.0, +0.0], p < 0.001"
    assert gain(row, "random_projection") == "–"


def lines(rows, width=110) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(seeds_table(rows))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_the_terminal_shows_means_and_gains():
    found = lines([row_of(**PCA), row_of("test")])
    assert found[0] == "means over seeds, percent and points with 95 % intervals, p by Holm"
    assert found[1] == "widths noise split seeds hit@1 − frozen p − PCA p"
    assert found[3:] == [
        "[512,8] none val 3 60.0 ± 24.8 +20.0 [−0.4, +41.2] 0.06 −10.0 [−20.0, +0.0] < 0.001",
        "[512,8] none test 3 60.0 ± 24.8 +20.0 [−0.4, +41.2] 0.06 – –",
    ]


def test_figures_are_folded_in_a_narrow_terminal_and_never_cut():
    common = {"over_frozen": 0.012, "low_over_frozen": -0.001, "high_over_frozen": 0.024, "p_holm_frozen": 0.0001}
    common |= {name.replace("frozen", "pca"): value for name, value in common.items()}
    assert lines([row_of(**common)], width=100)[3:] == [
        "[512,8] none val 3 60.0 ± 24.8 +1.2 [−0.1, < 0.001 +1.2 [−0.1, < 0.001",
        "+2.4] +2.4]",
    ]


def test_options_in_brackets_are_no_markup():
    options = {"figures.draw": "[bold]", "data.root": "[/photos]", "noise": "|"}
    assert lines([row_of(options=options)])[3].startswith("[bold] [/photos] | val 3 60.0")


def test_heads_that_differ_in_nothing_are_one_row_without_options():
    assert lines([row_of(options={})])[3].startswith("val 3 60.0 ± 24.8 +20.0")


MARKDOWN = """\
| architecture.widths | noise | split | seeds | code | hit@1 | − frozen | − PCA | − random projection |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| [512,8] | none | val | 3 | 1,024 | 60.0 ± 24.8 | +20.0 [−0.4, +41.2], p = 0.06 | – | – |
| [512,8] | none | test | 3 | 1,024 | 60.0 ± 24.8 | +20.0 [−0.4, +41.2], p = 1 | −10.0 [−20.0, +0.0], p < 0.001 | – |
"""


def test_the_markdown_is_a_table_for_a_report(tmp_path):
    write_seeds([row_of(), row_of("test", 1.0, **PCA)], tmp_path)
    assert (tmp_path / "seeds.md").read_text(encoding="utf-8") == MARKDOWN


def test_a_bar_in_an_option_opens_no_cell(tmp_path):
    write_seeds([row_of(options={"data.root": "a|b"})], tmp_path)
    heads, rule, row = (tmp_path / "seeds.md").read_text(encoding="utf-8").splitlines()
    assert row.startswith(r"| a\|b | val | 3 |")
    assert heads.count("|") == rule.count("|") == row.replace(r"\|", "").count("|")


def test_the_csv_has_everything_and_a_blank_where_there_was_no_comparison(tmp_path):
    path = write_seeds([row_of(), row_of("test", **PCA)], tmp_path)
    assert path == tmp_path / "seeds.csv"
    with open(path, newline="", encoding="utf-8") as file:
        val, test = csv.DictReader(file)
    assert list(val) == [
        *("architecture.widths", "noise", "split", "code_width", "parameters"),
        *("hit@1", "hit@1_low", "hit@1_high", "seeds", "queries"),
        *("frozen", "over_frozen", "low_over_frozen", "high_over_frozen", "p_frozen", "p_holm_frozen"),
        *("pca", "over_pca", "low_over_pca", "high_over_pca", "p_pca", "p_holm_pca"),
    ]
    assert (val["architecture.widths"], val["split"], val["code_width"], val["seeds"]) == (
        "[512,8]",
        "val",
        "1024",
        "3",
    )
    assert (val["over_frozen"], val["p_holm_frozen"], val["over_pca"]) == ("0.2", "0.06", "")
    assert (test["split"], test["pca"], test["p_pca"]) == ("test", "0.7", "0.0001")


def test_options_may_be_any_bytes(tmp_path):
    write_seeds([row_of(options={"data.root": "\udcff"})], tmp_path)
    assert b"\xff,val," in (tmp_path / "seeds.csv").read_bytes()
    assert b"| \xff | val |" in (tmp_path / "seeds.md").read_bytes()
