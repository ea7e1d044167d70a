import copy
import math
import pickle

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval.by_the_book import reference
from torchmetrics.functional.retrieval import retrieval_precision

from likeness.errors import LikenessError
from likeness.retrieval.metric import SimilarityRetrieval, score
from likeness.retrieval.vote import vote


@pytest.fixture
def unchecked_shapes():
    """What users run: shapes are checked under pytest alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def ints(*values):
    return torch.tensor(values, dtype=torch.int64)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


# Seven directions by angle, so that nearness is read off; label 2 has one picture only.
ANGLES = torch.tensor([0.0, 10.0, 25.0, 45.0, 70.0, 100.0, 135.0]).deg2rad()
FAN = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
FAN_LABELS = ints(0, 1, 0, 1, 1, 0, 2)
FAN_IDS = ints(10, 11, 12, 13, 14, 15, 16)


@pytest.mark.fault("F11")
def test_a_drawn_example():
    scores = score(FAN, FAN_LABELS, FAN_IDS, ks=(1, 2, 5), vote_k=3)
    assert scores.neighbour_ids.tolist() == [
        [11, 12, 13, 14, 15, 16],
        [10, 12, 13, 14, 15, 16],
        [11, 13, 10, 14, 15, 16],
        [12, 14, 11, 10, 15, 16],
        [13, 15, 12, 11, 16, 10],
        [14, 16, 13, 12, 11, 10],
        [15, 14, 13, 12, 11, 10],
    ]
    assert scores.rank.tolist() == [2, 3, 3, 2, 1, 4, 0]
    assert scores.positives.tolist() == [2, 2, 2, 2, 2, 2, 0]
    assert scores.candidates.tolist() == [6] * 7
    assert scores.skipped.tolist() == [False] * 6 + [True]
    assert (scores.n, scores.n_skipped, scores.zero_ids) == (6, 1, ())
    close(scores.precision[:, 1], [1 / 2, 0, 0, 1 / 2, 1 / 2, 0, 0])
    close(scores.average_precision_at_r, [1 / 4, 0, 0, 1 / 4, 1 / 2, 0, 0])
    assert scores.vote.tolist() == [1, 0, 1, 1, 0, 1, 1]
    assert scores.published_top5.tolist() == [True] * 6 + [False]


@pytest.mark.fault("F11")
def test_the_means_leave_out_what_is_skipped():
    values = score(FAN, FAN_LABELS, FAN_IDS, ks=(1, 2), vote_k=3).values()
    assert values == pytest.approx(
        {
            "hit@1": 1 / 6,
            "hit@2": 3 / 6,
            "precision@1": 1 / 6,
            "precision@2": 1.5 / 6,
            "map@r": 1 / 6,
            "mrr": (1 / 2 + 1 / 3 + 1 / 3 + 1 / 2 + 1 + 1 / 4) / 6,
            "vote@3": 1 / 6,
            "published_top5": 1.0,
        }
    )


def test_values_are_means_of_per_query_and_every_hit_follows_from_the_rank():
    scores = score(FAN, FAN_LABELS, FAN_IDS, vote_k=3)
    assert {name: float(scores.per_query(name).mean()) for name in scores.values()} == scores.values()
    assert scores.counted_ids.tolist() == [10, 11, 12, 13, 14, 15]
    assert scores.counted_labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert scores.counted_groups.tolist() == [-1] * 6
    assert scores.hit(2).tolist() == [1, 0, 0, 1, 1, 0]
    assert scores.per_class("hit@1") == {0: 0.0, 1: pytest.approx(1 / 3)}
    with pytest.raises(LikenessError, match="no measure 'hit@3'"):
        scores.per_query("hit@3")


def test_map_at_r_is_left_out_on_request():
    scores = score(FAN, FAN_LABELS, FAN_IDS, map_at_r=False)
    assert scores.average_precision_at_r is None
    assert "map@r" not in scores.values()


def test_published_top5_counts_ranks_two_to_six_only():
    angles = torch.arange(9.0).mul(10).deg2rad()
    codes = torch.stack([angles.cos(), angles.sin()], dim=1)
    only_query = torch.tensor([True] + [False] * 8)
    found = {}
    for place in range(1, 9):
        labels = torch.ones(9, dtype=torch.int64)
        labels[[0, place]] = 0
        scores = score(codes, labels, torch.arange(9), is_query=only_query)
        assert scores.rank.tolist() == [place]
        found[place] = bool(scores.published_top5)
    assert found == {1: False, 2: True, 3: True, 4: True, 5: True, 6: True, 7: False, 8: False}


def test_a_right_neighbour_at_a_negative_cosine_is_a_hit():
    codes = torch.tensor([[1.0, 0.0], [-0.1, 1.0], [-1.0, 0.1]])
    scores = score(codes, ints(0, 0, 1), ints(0, 1, 2), ks=(1,), is_query=torch.tensor([True, False, False]))
    assert scores.similarities[0, 0] < 0
    assert scores.values()["hit@1"] == 1
    assert retrieval_precision(scores.similarities[0, :2], torch.tensor([True, False]), top_k=1) == 0


def test_queries_against_a_gallery():
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0], [1.0, 0.05]])
    is_query = torch.tensor([True, True, False, False, False])
    scores = score(codes, ints(0, 1, 0, 1, 1), torch.arange(5), ks=(1,), is_query=is_query, is_gallery=~is_query)
    assert scores.sample_ids.tolist() == [0, 1]
    assert scores.neighbour_ids.tolist() == [[4, 2, 3], [3, 2, 4]]
    assert scores.rank.tolist() == [2, 1]
    assert scores.candidates.tolist() == [3, 3]


def test_rows_without_label_are_neither_query_nor_gallery():
    labels = FAN_LABELS.clone()
    labels[1] = -1
    whole = torch.ones(7, dtype=torch.bool)
    scores = score(FAN, labels, FAN_IDS, ks=(1,), is_query=whole, is_gallery=whole)
    assert scores.sample_ids.tolist() == [10, 12, 13, 14, 15, 16]
    assert 11 not in scores.neighbour_ids
    assert scores.rank.tolist() == [1, 2, 2, 1, 4, 0]


def test_pictures_of_the_same_home_are_no_candidates_on_request():
    groups = ints(3, 3, 3, 8, -1, -1, 8)
    scores = score(FAN, FAN_LABELS, FAN_IDS, group_ids=groups, ks=(1,), exclude_group=True)
    assert scores.neighbour_ids[:, :4].tolist() == [
        [13, 14, 15, 16],
        [13, 14, 15, 16],
        [13, 14, 15, 16],
        [12, 14, 11, 10],
        [13, 15, 12, 11],
        [14, 16, 13, 12],
        [15, 14, 12, 11],
    ]
    assert scores.candidates.tolist() == [4, 4, 4, 5, 6, 6, 5]
    assert scores.positives.tolist() == [1, 2, 1, 2, 2, 2, 0]
    assert scores.groups.tolist() == groups.tolist()
    ignored = score(FAN, FAN_LABELS, FAN_IDS, group_ids=groups, ks=(1,))
    assert ignored.candidates.tolist() == [6] * 7


@pytest.mark.fault("F41")
def test_constant_codes_score_by_id_or_nothing_at_all():
    codes, ids = torch.full((12, 3), 0.3), torch.arange(12)
    labels = ids % 2
    by_id = score(codes, labels, ids, ks=(1, 5), vote_k=3)
    assert by_id.neighbour_ids[3].tolist() == [0, 1, 2, 4, 5, 6]
    assert by_id.rank.tolist() == [2, 3, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]
    worst = score(codes, labels, ids, ks=(1, 5), vote_k=3, ties="pessimistic")
    assert worst.neighbour_ids[3].tolist() == [0, 2, 4, 6, 8, 10]
    assert worst.rank.tolist() == [7] * 12
    assert {name: value for name, value in worst.values().items() if value} == {"mrr": pytest.approx(1 / 7)}


@pytest.mark.fault("F41")
def test_what_cancels_is_a_tie_whatever_its_parts_left_of_it():
    """Every row is at a right angle to each query; a fused multiplication leaves 1e-17 of some, with either sign."""
    drawn = torch.randint(-9, 10, (60, 2), generator=torch.Generator().manual_seed(0)).float()
    across = torch.stack([drawn[:, 0], drawn[:, 1], -drawn[:, 1]], dim=1)
    queries = torch.tensor([[0.0, -1.0, -1.0]]) * torch.arange(1, 21)[:, None]
    codes, is_query = torch.cat([across + torch.tensor([10.0, 0, 0]), queries]), torch.arange(80) >= 60
    scores = score(codes, torch.zeros(80).long(), torch.arange(80), is_query=is_query, is_gallery=~is_query)
    assert scores.neighbour_ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 20
    assert scores.similarities.tolist() == [[0.0] * 6] * 20


def test_pessimism_touches_ties_only():
    assert score(FAN, FAN_LABELS, FAN_IDS, ties="pessimistic").values() == score(FAN, FAN_LABELS, FAN_IDS).values()


@pytest.mark.fault("F40")
def test_zero_codes_are_named_and_miss():
    codes = FAN.clone()
    codes[[0, 4]] = 0
    with pytest.warns(UserWarning, match=r"2 of 7 codes are zero[\s\S]*\n10\n14"):
        scores = score(codes, FAN_LABELS, FAN_IDS, ks=(1, 4), vote_k=3)
    assert scores.zero_ids == (10, 14)
    assert scores.rank.tolist() == [0, 2, 3, 2, 0, 3, 0]
    assert scores.positives.tolist() == [2, 2, 2, 2, 2, 2, 0]
    assert scores.candidates.tolist() == [6] * 7
    assert scores.neighbour_ids[:2].tolist() == [[-1] * 6, [12, 13, 15, 16, -1, -1]]
    assert scores.similarities[0].tolist() == [-math.inf] * 6
    assert scores.vote[0] == -1
    assert scores.precision[[0, 4]].sum() + scores.average_precision_at_r[[0, 4]].sum() == 0
    assert not scores.published_top5[[0, 4]].any()


def test_the_queries_that_count_do_not_depend_on_the_codes():
    with pytest.warns(UserWarning, match="7 of 7 codes are zero"):
        dead = score(torch.zeros(7, 2), FAN_LABELS, FAN_IDS)
    alive = score(FAN, FAN_LABELS, FAN_IDS)
    assert torch.equal(dead.counted_ids, alive.counted_ids)
    assert set(dead.values().values()) == {0.0}
    assert dead.chance(5) == alive.chance(5)


@pytest.mark.fault("F39")
def test_codes_that_are_not_finite_are_refused_by_name():
    codes = FAN.clone()
    codes[3, 1] = math.nan
    with pytest.raises(LikenessError, match="1 of 7 rows are not finite") as refusal:
        score(codes, FAN_LABELS, FAN_IDS)
    assert (refusal.value.code, refusal.value.exit_code) == ("RETRIEVAL", 65)
    assert "13" in refusal.value.where


@pytest.mark.fault("F43")
def test_a_k_beyond_the_candidates_is_refused_with_both_numbers():
    with pytest.raises(LikenessError, match=r"k=7, but query 10 has only 6 candidates"):
        score(FAN, FAN_LABELS, FAN_IDS, ks=(1, 7))


def test_a_skipped_query_may_have_too_few_candidates():
    groups = ints(0, -1, 0, -1)
    scores = score(torch.eye(4), ints(0, 1, 0, 1), torch.arange(4), group_ids=groups, exclude_group=True, ks=(3,))
    assert scores.candidates.tolist() == [2, 3, 2, 3]
    assert scores.skipped.tolist() == [True, False, True, False]


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, -1, -1], [0, 0, -1]])
def test_means_are_nan_with_a_warning_when_no_query_counts(labels):
    gallery = torch.tensor([False, False, True])
    with pytest.warns(UserWarning, match="means are NaN"):
        scores = score(torch.eye(3), ints(*labels), torch.arange(3), is_gallery=gallery)
    assert scores.n == 0
    assert all(math.isnan(value) for value in scores.values().values())
    assert math.isnan(scores.chance(1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"ks": ()}, "ks="),
        ({"ks": (0, 1)}, "ks="),
        ({"ks": (5, 5)}, "ks="),
        ({"vote_k": 0}, "vote_k=0"),
        ({"exclude_group": True}, "no group_ids"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(LikenessError, match=message):
        score(FAN, FAN_LABELS, FAN_IDS, **option)


def test_columns_of_another_length_are_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match=r"have \[7, 6, 7\] rows"):
        score(FAN, FAN_LABELS[:6], FAN_IDS)


def test_an_unknown_rule_for_ties_is_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match="ties='by_luck'"):
        score(FAN, FAN_LABELS, FAN_IDS, ties="by_luck")


def test_unknown_weights_of_votes_are_refused(unchecked_shapes):
    with pytest.raises(LikenessError, match="weights='distance' are unknown"):
        score(FAN, FAN_LABELS, FAN_IDS, vote_weights="distance")


def test_votes_by_similarity_are_those_of_the_neighbours():
    scores = score(FAN, FAN_LABELS, FAN_IDS, vote_k=3, vote_weights="similarity")
    label_of = dict(zip(FAN_IDS.tolist(), FAN_LABELS.tolist(), strict=True))
    voters = scores.neighbour_ids[:, :3].clone().apply_(lambda sample: label_of.get(sample, -1))
    votes = vote(voters, scores.similarities[:, :3], "similarity")
    assert torch.equal(scores.vote, votes.labels)
    assert torch.equal(scores.confidence, votes.confidence)


@pytest.mark.fault("F43")
def test_repeated_samples_count_once_and_may_not_contradict_each_other():
    again = torch.cat([torch.arange(7), torch.tensor([3, 3, 0])])
    twice = score(FAN[again], FAN_LABELS[again], FAN_IDS[again])
    assert twice.values() == score(FAN, FAN_LABELS, FAN_IDS).values()
    with pytest.raises(LikenessError, match="differ in label") as refusal:
        score(FAN[again], torch.cat([FAN_LABELS, ints(1, 2, 0)]), FAN_IDS[again])
    assert refusal.value.where == "sample ids\n13"


def test_chance_is_the_hypergeometric_one():
    scores = score(FAN, FAN_LABELS, FAN_IDS)
    for k in (1, 2, 4, 5, 6, 50):
        drawn = min(k, 6)
        assert scores.chance(k) == pytest.approx(1 - math.comb(4, drawn) / math.comb(6, drawn), abs=1e-15)


def test_chance_is_what_random_codes_score():
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(900) % 6
    scores = score(torch.randn(900, 64, generator=generator), labels, torch.arange(900))
    assert scores.chance(1) == pytest.approx(149 / 899)
    assert scores.values()["hit@5"] == pytest.approx(scores.chance(5), abs=0.06)


@st.composite
def cases(draw):
    width, n = draw(st.integers(1, 3)), draw(st.integers(1, 14))

    def column(values, **size):
        return draw(st.lists(values, min_size=n, max_size=n, **size))

    entries = st.lists(st.integers(-2, 2), min_size=width, max_size=width)
    options = {
        "ks": draw(st.sampled_from([(1,), (1, 2), (3, 1)])),
        "ties": draw(st.sampled_from(["by_id", "pessimistic"])),
        "exclude_group": draw(st.booleans()),
        "vote_k": draw(st.integers(1, 4)),
    }
    codes = np.array(column(entries), dtype=np.float64)
    roles = column(st.sampled_from([(True, True), (True, True), (True, False), (False, True)]))
    columns = column(st.integers(-1, 2)), column(st.integers(0, 40), unique=True), column(st.integers(-1, 2))
    return codes, *columns, roles, options, draw(st.integers(1, 1500))


@pytest.mark.filterwarnings("ignore:.*codes are zero", "ignore:.*means are NaN")
@settings(max_examples=100, deadline=None)
@given(cases())
def test_equals_the_reference(case):
    codes, labels, ids, groups, roles, options, tile_bytes = case
    expected = reference(codes, labels, ids, groups, roles, options)
    is_query, is_gallery = (torch.tensor(role) for role in zip(*roles, strict=True))
    tensors = torch.tensor(codes), ints(*labels), ints(*ids)
    given_columns = {"group_ids": ints(*groups), "is_query": is_query, "is_gallery": is_gallery}
    if any(row["positives"] and row["candidates"] < max(options["ks"]) for row in expected):
        with pytest.raises(LikenessError, match="candidates"):
            score(*tensors, **given_columns, **options, tile_bytes=tile_bytes)
        return
    scores = score(*tensors, **given_columns, **options, tile_bytes=tile_bytes)
    for name, field in [
        ("sample_ids", "id"),
        ("positives", "positives"),
        ("candidates", "candidates"),
        ("rank", "rank"),
        ("vote", "vote"),
        ("published_top5", "top5"),
    ]:
        assert getattr(scores, name).tolist() == [row[field] for row in expected], name
    for mine, theirs in zip(scores.neighbour_ids.tolist(), expected, strict=True):
        kept = theirs["neighbours"][: len(mine)]
        assert mine == kept + [-1] * (len(mine) - len(kept))
    close(scores.precision, np.array([row["precision"] for row in expected]).reshape(-1, len(options["ks"])))
    close(scores.average_precision_at_r, [row["ap"] for row in expected])
    counted = [row for row in expected if row["positives"]]
    if counted:
        hits = [1 / row["rank"] if row["rank"] else 0 for row in counted]
        assert scores.values()["mrr"] == pytest.approx(sum(hits) / len(hits), abs=1e-12)
        voted = [row["vote"] == row["label"] for row in counted]
        assert scores.values()[f"vote@{options['vote_k']}"] == pytest.approx(sum(voted) / len(voted), abs=1e-12)
    metric = SimilarityRetrieval(**options, tile_bytes=tile_bytes, only_hits=True)
    metric.update(*tensors, **given_columns)
    hits = {f"hit@{k}": [0 < row["rank"] <= k for row in counted] for k in options["ks"]}
    means = {name: sum(hit) / len(hit) if hit else math.nan for name, hit in hits.items()}
    wanted = means | {"n": len(counted), "skipped": len(expected) - len(counted)}
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(wanted, nan_ok=True)


@pytest.mark.fault("F41")
def test_fifty_permutations_and_any_tile_give_the_same_numbers():
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(-1, 2, (70, 4), generator=generator).float()
    codes[:, 0] += 2
    labels, ids = torch.randint(0, 4, (70,), generator=generator), torch.randperm(300, generator=generator)[:70]
    for ties in ("by_id", "pessimistic"):
        base = score(codes, labels, ids, ties=ties)
        for trial in range(25):
            order = torch.randperm(70, generator=generator)
            tile_bytes = 32 * 70 * (trial + 1)
            other = score(codes[order], labels[order], ids[order], ties=ties, tile_bytes=tile_bytes)
            assert torch.equal(other.neighbour_ids, base.neighbour_ids)
            assert torch.equal(other.rank, base.rank)
            assert other.values() == base.values()


def test_batches_give_what_the_function_gives():
    metric = SimilarityRetrieval(vote_k=3)
    for start in range(0, 7, 2):
        metric.update(FAN[start : start + 2], FAN_LABELS[start : start + 2], FAN_IDS[start : start + 2])
    computed = metric.compute()
    scores = score(FAN, FAN_LABELS, FAN_IDS, vote_k=3)
    expected = {**scores.values(), "chance@1": scores.chance(1), "chance@5": scores.chance(5), "n": 6, "skipped": 1}
    assert {name: value.item() for name, value in computed.items()} == expected
    assert {(value.ndim, value.dtype) for value in computed.values()} == {(0, torch.float64)}
    assert torch.equal(metric.scores().rank, scores.rank)


def test_compute_and_scores_share_the_work():
    metric = SimilarityRetrieval()
    metric.update(FAN, FAN_LABELS, FAN_IDS)
    metric.compute()
    assert metric.scores() is metric.scores()
    metric.update(FAN[:1], ints(0), ints(99))
    assert metric.scores().sample_ids.tolist() == [*FAN_IDS.tolist(), 99]


def test_a_reset_metric_starts_again():
    metric = SimilarityRetrieval(ks=(1,))
    metric.update(FAN, FAN_LABELS, FAN_IDS)
    metric.scores()
    metric.reset()
    metric.update(FAN[:3, :1], FAN_LABELS[:3], FAN_IDS[:3])
    assert metric.compute()["n"] == 2


def test_a_metric_without_rows_is_nan():
    with pytest.warns(UserWarning, match=r"before the ``update``|means are NaN"):
        computed = SimilarityRetrieval().compute()
    assert computed["n"] == 0
    assert computed["hit@1"].isnan()


def test_roles_and_groups_travel_through_the_metric():
    groups = ints(3, 3, 3, 8, -1, -1, 8)
    is_query = torch.arange(7) < 4
    metric = SimilarityRetrieval(ks=(1,), exclude_group=True, ties="pessimistic", map_at_r=False)
    metric.update(FAN.bfloat16(), FAN_LABELS, FAN_IDS, groups, is_query, is_gallery=None)
    assert metric.scores().candidates.tolist() == [4, 4, 4, 5]
    with pytest.raises(LikenessError, match="no group_ids"):
        metric.update(FAN, FAN_LABELS, FAN_IDS)


def test_a_metric_of_hits_alone_has_no_scores_and_refuses_as_the_others_do():
    metric = SimilarityRetrieval(ks=(1, 7), only_hits=True)
    metric.update(FAN, FAN_LABELS, FAN_IDS)
    with pytest.raises(LikenessError, match="only hits are computed"):
        metric.scores()
    with pytest.raises(LikenessError, match="k=7, but query 10 has only 6 candidates"):
        metric.compute()
    zero = SimilarityRetrieval(ks=(1,), only_hits=True)
    zero.update(FAN * (FAN_IDS != 11)[:, None], FAN_LABELS, FAN_IDS)
    with pytest.warns(UserWarning, match="1 of 7 codes are zero"):
        assert {name: value.item() for name, value in zero.compute().items()} == {
            "hit@1": pytest.approx(2 / 6),  # 0 degrees finds 25, and 70 finds 45
            "n": 6,
            "skipped": 1,
        }


def test_the_metric_can_be_copied_and_pickled():
    metric = SimilarityRetrieval()
    metric.update(FAN, FAN_LABELS, FAN_IDS)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert {k: v.item() for k, v in other.compute().items()} == {k: v.item() for k, v in metric.compute().items()}
