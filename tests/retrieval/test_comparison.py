"""A head beside a baseline on six pictures that can be compared in the head."""

import json

import pytest
import torch

from likeness.retrieval.comparison import compare
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
