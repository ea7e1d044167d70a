"""A run with answers made by hand: metrics.json and queries.csv as train.py leaves them, without training anything."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from likeness.retrieval.significance import wilson

NEAREST = [f"{name}_{i}" for i in range(1, 6) for name in ("path", "label", "similarity")]
COLUMNS = ["split", "sample_id", "path", "label", "home", "skipped", "rank", "frozen_rank", "pca_rank", *NEAREST]


def query(
    path: str,
    label: str,
    near: Sequence[tuple[str, str, float]],
    rank: int,
    frozen: int = 1,
    home: str = "",
    split: str = "test",
    skipped: int = 0,
) -> dict[str, Any]:
    """A line of queries.csv; ``near`` are path, label and similarity of up to five neighbours."""
    row = {"split": split, "path": path, "label": label, "home": home, "skipped": skipped}
    row |= {"rank": rank, "frozen_rank": frozen, "pca_rank": frozen}
    for i, (found, its, similarity) in enumerate(near, 1):
        row |= {f"path_{i}": found, f"label_{i}": its, f"similarity_{i}": f"{similarity:.6f}"}
    return row


def write_run(
    folder: Path, rows: Sequence[Mapping[str, Any]], pictures: Path | str = "/nowhere", name: str = "test", **more: Any
) -> Path:
    """The folder of a run whose head has these answers; ``name`` is the split's, ``more`` goes into metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "queries.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(dict(row, sample_id=number) for number, row in enumerate(rows))
    counted = [row for row in rows if not row["skipped"] and row["split"] == name.split(" against ")[0]]
    labels = sorted({row["label"] for row in counted})
    of = {label: [row for row in counted if row["label"] == label] for label in labels}
    summary = {
        "n": len(counted),
        "skipped": sum(row["skipped"] for row in rows),
        "chance": {"hit@1": 0.25, "hit@5": 0.75},
        "head": {f"hit@{k}": hit(counted, "rank", k) for k in (1, 5)} | {"map@r": bounds(0.5, 0.4, 0.6)},
        "frozen": {f"hit@{k}": hit(counted, "frozen_rank", k) for k in (1, 5)} | {"map@r": bounds(0.4, 0.3, 0.5)},
        "per_class": {"head": {label: {"n": len(own), "hit@1": hit(own, "rank", 1)} for label, own in of.items()}},
        "paired": {
            "head-frozen": {"hit@1": {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.01}},
            "head-pca": {"hit@1": {"difference": 0.02, "low": -0.05, "high": 0.09, "p": 0.4}},
        },
    }
    metrics = {"head": "dense", "backbone": "shufflenet_rooms", "seed": 0, "pictures": str(pictures), **more}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"splits": {name: summary}}))
    return folder


def hit(rows: Sequence[Mapping[str, Any]], column: str, k: int) -> dict[str, float]:
    return bounds(*wilson(sum(0 < row[column] <= k for row in rows), len(rows)))


def bounds(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}
