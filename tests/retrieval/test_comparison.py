"""A head beside a baseline on six pictures that can be compared in the head."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from likeness.retrieval.comparison import compare, votes_by_agreement, votes_by_class
from likeness.retrieval.metric import score

LABELS = torch.tensor([0, 0, 0, 1, 1, 1])
# The head tells the classes apart by angle; the baseline mixes up the third picture (it lies among the others' class).
HEAD = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
BASELINE = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.05, 1.0], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])


def compared(homes: list[int] | None = None, labels: torch.Tensor = LABELS) -> dict:
    options = {"group_ids": None if homes is None else torch.tensor(homes), "ks": (1, 2), "vote_k": 3}
    scores = {
        name: score(codes, labels, torch.arange(6), **options) for name, codes in (("head", HEAD), ("frozen", BASELINE))
    }
    return compare(scores, ("round", "square"), (1, 2))


def test_values_by_hand():
    found = compared()
    assert (found["n"], found["skipped"], found["zero"]) == (6, 0, {"head": 0, "frozen": 0})
    assert found["head"]["hit@1"]["value"] == 1.0
    # Of the baseline, picture 2 finds 3 or 4 first, and pictures 3 and 4 find picture 2 first: three misses of six.
    assert found["frozen"]["hit@1"]["value"] == pytest.approx(3 / 6)
    assert found["chance"]["hit@1"] == pytest.approx(2 / 5)
    assert found["chance"]["hit@2"] == pytest.approx(1 - (3 / 5) * (2 / 4))
    assert found["per_class"]["frozen"]["round"]["n"] == 3
    assert found["per_class"]["frozen"]["round"]["hit@1"]["value"] == pytest.approx(2 / 3)
    assert found["per_class"]["frozen"]["square"]["hit@1"]["value"] == pytest.approx(1 / 3)
    pair = found["paired"]["head-frozen"]["hit@1"]
    assert pair["difference"] == pytest.approx(3 / 6)
    assert pair["p"] == pytest.approx(2 * 0.5**3)  # three discordant pairs, all one way: McNemar's exact test
    assert pair["low"] <= pair["difference"] <= pair["high"]


def test_what_has_no_bound_is_null_in_json():
    found = compared(homes=[7] * 6)
    assert json.loads(json.dumps(found, allow_nan=False))["paired"]["head-frozen"]["hit@1"]["low"] is None


def test_without_a_query_to_count_there_is_nothing_to_compare():
    with pytest.warns(UserWarning, match="means are NaN"):
        found = compared(labels=torch.arange(6))
    assert found == {"n": 0, "skipped": 6, "zero": {"head": 0, "frozen": 0}}


def test_votes_by_hand():
    """Three neighbours vote: each round picture sees two squares at least, and each square two others."""
    found = compared()
    assert [row["voted_as"] for row in found["votes"].values()] == [{"round": 3}, {"square": 3}]
    scores = score(BASELINE, LABELS, torch.arange(6), ks=(1,), vote_k=3)
    rows = votes_by_class(scores, ("round", "square"))
    assert rows["round"] == {
        "n": 3,
        "recall": {"value": 0.0, "low": 0.0, "high": pytest.approx(0.5615, abs=1e-4)},
        "precision": None,
        "voted_as": {"square": 3},
    }
    assert (rows["square"]["recall"]["value"], rows["square"]["precision"]["value"]) == (1.0, 0.5)
    # Only picture 2, among the squares, has three that agree; they are wrong. Of the five others three are right.
    agreement = votes_by_agreement(scores)
    assert {name: row["n"] for name, row in agreement.items()} == {
        "0 to 0.5": 0,
        "0.5 to 0.75": 5,
        "0.75 to 1": 0,
        "1": 1,
    }
    assert (agreement["0.5 to 0.75"]["right"]["value"], agreement["1"]["right"]["value"]) == (3 / 5, 0.0)
    assert agreement["0 to 0.5"]["right"] is None


@pytest.mark.filterwarnings("ignore:.*codes are zero")
def test_votes_are_those_of_scikit_learn():
    """A picture without a partner is not counted, a code of zeros has no vote, a class may have votes alone."""
    rng = np.random.default_rng(1)
    codes, labels = rng.normal(size=(60, 3)), np.array([*rng.integers(4, size=58), 2, 5])
    codes[58] = 0
    is_query = torch.from_numpy(labels != 3)
    scores = score(torch.from_numpy(codes), torch.from_numpy(labels), torch.arange(60), is_query=is_query, vote_k=3)
    classes = ("a", "b", "c", "d", "e", "f")
    found = votes_by_class(scores, classes)
    true, voted = scores.counted_labels.numpy(), scores.vote[~scores.skipped].numpy()
    wanted = confusion_matrix(true, voted, labels=[0, 1, 2, 3, 4, 5, -1])
    names = [*classes, ""]
    assert "e" not in found
    assert found["d"]["n"] == 0
    assert found["c"]["voted_as"][""] == 1
    for row, name in enumerate(classes):
        counts = {names[column]: count for column, count in enumerate(wanted[row].tolist()) if count}
        assert found.get(name, {"voted_as": {}})["voted_as"] == counts
    options = {"labels": [0, 1, 2], "average": None, "zero_division": 0}
    for measure, of in (("recall", recall_score), ("precision", precision_score)):
        values = [found[name][measure]["value"] for name in "abc"]
        assert values == pytest.approx(of(true, voted, **options).tolist())
    accuracy = sum(row["voted_as"].get(name, 0) for name, row in found.items()) / scores.n
    assert accuracy == pytest.approx(scores.values()["vote@3"])
