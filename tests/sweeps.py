"""Sweeps made by hand: folders of jobs as train.py leaves them, without training anything."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

CLASSES = ("bath", "bed", "kitchen")


def about(value: float, reach: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def gain(difference: float, p: float, reach: float = 0.035) -> dict:
    return {"hit@1": {"difference": difference, "low": difference - reach, "high": difference + reach, "p": p}}


def split_of(hit: float, frozen: float, pca: float, p: float, queries: int) -> dict:
    head = {name: {"n": queries // len(CLASSES), "hit@1": about(hit)} for name in CLASSES}
    base = {name: {"n": queries // len(CLASSES), "hit@1": about(frozen)} for name in CLASSES}
    return {
        "n": queries,
        "head": {"hit@1": about(hit), "hit@5": about(0.9)},
        "frozen": {"hit@1": about(frozen)},
        "pca": {"hit@1": about(pca)},
        "per_class": {"head": head, "frozen": base, "pca": base},
        "paired": {"head-frozen": gain(hit - frozen, p), "head-pca": gain(hit - pca, p)},
    }


def write_job(
    sweep: Path,
    number: int,
    overrides: Sequence[str],
    val: float | None = None,
    test: float = 0.5,
    state: str = "done",
    error: str | None = None,
    traceback: str | None = None,
    ranks: Sequence[int] = (1, 1, 2, 1, 3, 2),
    pictures: Path | str = "/nowhere",
    p: float = 0.5,
    width: int = 64,
    fit: float = 4.0,
    epochs: int = 3,
    near: Sequence[int] = (1, 2, 3, 4, 5),
) -> Path:
    """A job's folder. With ``val``, its hit@1 there, it has results; ``ranks`` are those of its queries on test.

    Query ``i`` is ``CLASS/i.jpg`` with classes in turn, and its neighbours are the pictures ``i + near``.
    """
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    status = {"state": state, "job": number, "overrides": list(overrides), "error": error, "traceback": traceback}
    (folder / "status.json").write_text(json.dumps(status))
    if val is None:
        return folder
    metrics = {
        "head": "dense",
        "backbone": "shufflenet_rooms",
        "data": {"root": str(pictures)},
        "pictures": str(pictures),
        "splits": {"val": split_of(val, 0.5, 0.52, p, 100), "test": split_of(test, 0.5, 0.52, p, len(ranks))},
        "seconds": {"fit": fit},
        "code_width": width,
        "parameters": 1000,
        "epochs": epochs,
        "seed": 0,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    found = round(100 * val)
    write_queries(folder / "queries.csv", {"val": [1] * found + [2] * (100 - found), "test": ranks}, near)
    write_journal(folder / "journal.jsonl", val, epochs)
    return folder


def write_queries(path: Path, ranks: Mapping[str, Sequence[int]], near: Sequence[int]) -> None:
    nearest = [f"{name}_{i}" for i in range(1, 6) for name in ("path", "label", "similarity")]
    names = ["split", "sample_id", "path", "label", "home", "skipped", "rank", "frozen_rank", "pca_rank", *nearest]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for split in ranks:
            for query, rank in enumerate(ranks[split]):
                found = [picture((query + step) % len(ranks[split])) for step in near]
                cells = [cell for path_, label in found for cell in (path_, label, "0.5")]
                writer.writerow([split, query, *picture(query), "", 0, rank, 1 + query % 2, 1 + query % 3, *cells])


def picture(number: int) -> tuple[str, str]:
    label = CLASSES[number % len(CLASSES)]
    return f"{label}/{number}.jpg", label


def write_journal(path: Path, val: float, epochs: int) -> None:
    events = [{"event": "started", "part": "fit"}]
    for epoch in range(epochs):
        hit = val - 0.05 * (epochs - 1 - epoch) / max(1, epochs - 1)
        events.append({"event": "metrics", "epoch": epoch, "val/hit@1": hit, "val/loss": 1 / (1 + epoch)})
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
