"""What a run leaves: metrics, queries, figures, and a value that a sweep chooses by."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from likeness.assembly.baselines import Encode
from likeness.assembly.building import Config
from likeness.assembly.describing import announce, in_multirun, sizes
from likeness.assembly.projecting import unit_codes
from likeness.assembly.scoring import OfSeed, Results
from likeness.assembly.splitting import rows_of
from likeness.features.datamodule import FeatureData, Split
from likeness.features.extraction import Extractor
from likeness.files import write_json
from likeness.heads.autoencoder import Autoencoder
from likeness.reports.classes import draw_per_class
from likeness.reports.confusion import draw_confusion
from likeness.reports.curve import draw_curve
from likeness.reports.gallery_page import write_gallery
from likeness.reports.media import media_of
from likeness.reports.projection import FEWEST_ROWS, sample_rows
from likeness.reports.results import draw_neighbours, draw_projections, write_bad_images, write_queries
from likeness.reports.summary import flat_summary
from likeness.retrieval.comparison import compare, compare_seeds
from likeness.runs import trackers
from likeness.runs.folder import RunFolder
from likeness.runs.journal import epochs, read

_NOT_OF_A_SEED = ("chance", "frozen", "pca")  # the same for all heads of a job


def write_results(
    results: Results,
    module: Autoencoder,
    data: FeatureData,
    folder: RunFolder,
    trainer: pl.Trainer | None = None,
    by_seed: Sequence[OfSeed] = (),
    rejection: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``metrics.json`` and ``queries.csv``; the numbers go to journal and trackers as well. Returns the metrics.

    Of several seeds these are of the first; each, and their mean, stand under ``seeds`` and ``over_seeds``, and the
    queries of each other in ``queries-seed-K.csv``. Journal and trackers get the means.
    """
    features, card = data.features, module.card
    splits = {}
    for split, scores in results.scores.items():
        name = split if results.gallery is None else f"{split} against {results.gallery}"
        splits[name] = compare(scores, data.classes, results.ks)
    metrics = {
        "schema": 1,
        "head": card["options"]["architecture"],
        "backbone": card["options"]["backbone"],
        "options": {name: option for name, option in card["options"].items() if not name.startswith("hydra")},
        "data": card["data"],
        "pictures": str(features.table.root.absolute()),
        "splits": splits,
        **({"rejection": rejection} if rejection else {}),
        "extractor": {"fingerprint": card["fingerprint"], **card["extractor"]},
        "features": {"rows": len(features.table), "computed": features.computed, "reused": features.reused}
        | {"bad": len(features.bad), "mostly_white": features.left_out},
        "seconds": folder.seconds,
        **sizes(module, data),
        "widths": getattr(module.head, "widths", None),
        "epochs": trainer.current_epoch if trainer else None,
        "seed": card["seed"],
        **(_of_seeds(by_seed, data.classes) if by_seed else {}),
    }
    write_json(folder.path / "metrics.json", metrics)
    write_queries(results.scores, features.table, folder.path / "queries.csv")
    for each in by_seed[1:]:
        write_queries(each.results.scores, features.table, folder.path / f"queries-seed-{each.seed}.csv")
    if features.bad:
        write_bad_images(features.bad, folder.path / "bad_images.csv")
    if trainer is None:
        announce("evaluate", module, data, folder)
    for logger in folder.loggers:
        logger.log_metrics(flat_summary(metrics, epochs(read(folder.journal.path))))
        logger.finalize("success")
    return metrics


def _of_seeds(by_seed: Sequence[OfSeed], classes: Sequence[str]) -> dict[str, Any]:
    """What ``metrics.json`` gains: the scores of each seed's head, and their means with Student's intervals."""
    each: list[dict[str, Any]] = []
    for found in by_seed:
        splits = {split: compare(scores, classes, found.results.ks) for split, scores in found.results.scores.items()}
        own = {
            split: {name: found for name, found in summary.items() if name not in _NOT_OF_A_SEED}
            for split, summary in splits.items()
        }
        each.append({"seed": found.seed, "epochs": found.epochs, "splits": own})
    runs = {split: [found.results.scores[split] for found in by_seed] for split in by_seed[0].results.scores}
    over = {split: compare_seeds(scores) for split, scores in runs.items()}
    return {"epochs": by_seed[0].epochs, "seeds": each, "over_seeds": over}


def are_drawn(options: Config) -> bool:
    """Whether there are figures: ``auto`` draws none in a multirun, where they would cost most."""
    return options["draw"] == "all" or (options["draw"] == "auto" and not in_multirun())


def draw_figures(
    results: Results,
    metrics: dict[str, Any],
    methods: Mapping[str, Encode],
    data: FeatureData,
    extractor: Extractor,
    folder: RunFolder,
    options: Config,
) -> None:
    """The figures of one split into ``figures/``, where any are asked for."""
    if not are_drawn(options):
        return
    figures = folder.path / "figures"
    split = options["split"] if options["split"] in results.scores else list(results.scores)[-1]
    found, rows = results.scores[split]["head"], rows_of(data, split)
    table, summary = data.features.table, list(metrics["splits"].values())[list(results.scores).index(split)]
    with folder.timed("draw"):
        draw_neighbours(found, table, split, figures, lambda path: extractor.decoder.decode(path.read_bytes()).image)
        if summary["n"]:
            draw_per_class(summary["per_class"], "hit@1", summary["chance"]["hit@1"], figures / "per_class.png")
            draw_confusion(summary["votes"], f"vote@{found.vote_k}", figures / "confusion.png")
        frozen = _value(metrics["splits"].get("val"), "frozen")
        history = epochs(read(folder.journal.path))
        best = int(min(history, key=lambda epoch: epoch.get("val/loss", np.inf))["epoch"]) if history else None
        draw_curve(history, figures / "training_curve.png", {} if frozen is None else {"frozen": frozen}, best)
        divergences = _draw_projections(methods, rows, data.classes, options["perplexity"], figures)
        if summary["n"]:
            write_gallery(folder.path, figures / "gallery.html", split)
    folder.journal.write("projection", split=split, **divergences)


def send_media(folder: RunFolder) -> None:
    """Figures and a table of queries, to the trackers that show pictures."""
    for tracker in folder.loggers:
        if isinstance(tracker, trackers.Tolerant):
            tracker.log_media(partial(media_of, folder.path), drawn=(folder.path / "figures").is_dir())


def _draw_projections(
    methods: Mapping[str, Encode], rows: Split, classes: Sequence[str], perplexity: float, figures: Path
) -> dict[str, float]:
    """Features beside codes of at most 2000 labelled rows; nothing where there are too few to lay out."""
    labelled = np.flatnonzero(rows.labels.numpy() >= 0)
    if len(labelled) < FEWEST_ROWS:
        return {}
    batch = rows[torch.from_numpy(labelled[sample_rows(len(labelled))])]
    panels = {"features": unit_codes(methods["frozen"], batch), "codes": unit_codes(methods["head"], batch)}
    return draw_projections(panels, batch.labels.numpy(), classes, perplexity, figures)


def _value(summary: Mapping[str, Any] | None, method: str) -> float | None:
    found = (summary or {}).get(method, {}).get("hit@1")
    return found["value"] if found else None


def validation_value(metrics: Mapping[str, Any]) -> float | None:
    """The head's hit@1 on val, by which a sweep chooses, the mean of several seeds; None where val was not scored."""
    return _value(metrics.get("over_seeds", metrics["splits"]).get("val"), "head")
