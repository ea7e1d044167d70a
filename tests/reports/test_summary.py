"""Final numbers by flat names."""

from likeness.reports.summary import flat_summary


def interval(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


METRICS = {
    "seconds": {"extract": 1.5, "fit": 0.25},
    "splits": {
        "val": {
            "n": 10,
            "chance": {"hit@1": 0.2},
            "head": {"hit@1": interval(0.5, 0.4, 0.6), "map@r": interval(0.3, 0.2, 0.4)},
            "pca": {"hit@1": interval(0.4, None, None)},
            "paired": {"head-pca": {"hit@1": {"difference": 0.1, "low": -0.1, "high": 0.3, "p": 0.25}}},
        },
        "val against train": {"n": 0},
    },
}


def test_names_say_split_method_and_measure():
    assert flat_summary(METRICS, [{"epoch": 0}, {"epoch": 1, "val/hit@1": 0.75}, {"epoch": 2, "val/hit@1": 0.5}]) == {
        "val/n": 10,
        "val/chance/hit@1": 0.2,
        "val/hit@1": 0.5,
        "val/hit@1_low": 0.4,
        "val/hit@1_high": 0.6,
        "val/map@r": 0.3,
        "val/pca/hit@1": 0.4,
        "val/gain_over_pca": 0.1,
        "val/gain_over_pca_low": -0.1,
        "val/gain_over_pca_high": 0.3,
        "val/gain_over_pca_p": 0.25,
        "val_against_train/n": 0,
        "seconds/extract": 1.5,
        "seconds/fit": 0.25,
        "val/hit@1_best": 0.75,
    }


def test_a_head_without_epochs_is_at_its_best_when_it_is_done():
    assert flat_summary(METRICS)["val/hit@1_best"] == 0.5


def test_rejection_is_told_of_each_method():
    outside = {"auroc": interval(0.9, 0.8, 0.95), "known_rejected": interval(0.05, 0.02, 0.1)}
    outside |= {"outside_accepted": interval(0.25, None, None), "accepted_at_95": 0.5, "coverage": []}
    compared = {"auroc": {"difference": -0.07, "low": -0.09, "high": -0.05, "p": 0.001}}
    rejection = {"rate": 0.05, "k": 10, "head": outside, "frozen": outside, "paired": {"head-frozen": compared}}
    found = flat_summary({**METRICS, "rejection": rejection})
    of_head = {
        "accepted_at_95": 0.5,
        "auroc": 0.9,
        "auroc_low": 0.8,
        "auroc_high": 0.95,
        "known_rejected": 0.05,
        "known_rejected_low": 0.02,
        "known_rejected_high": 0.1,
        "outside_accepted": 0.25,
    }
    gain = {"": -0.07, "_low": -0.09, "_high": -0.05, "_p": 0.001}
    assert {name: value for name, value in found.items() if name.startswith("rejection/")} == {
        **{f"rejection/{name}": value for name, value in of_head.items()},
        **{f"rejection/frozen/{name}": value for name, value in of_head.items()},
        **{f"rejection/gain_over_frozen{name}": value for name, value in gain.items()},
    }
