"""Maps of features and codes: ``likeness project``."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from likeness.assembly.baselines import Encode, read_methods
from likeness.assembly.building import Config
from likeness.assembly.extracting import find_features
from likeness.assembly.restoring import as_trained, checkpoint_path, restore
from likeness.assembly.scoring import scores_of
from likeness.assembly.splitting import build_data, counted, rows_of
from likeness.config.schema import Evaluate, Paths
from likeness.console import Advance, progress
from likeness.errors import LikenessError
from likeness.features.datamodule import Batch, FeatureData
from likeness.reports.projection import FEWEST_ROWS, project_each, sample_rows
from likeness.reports.projection_grid import Drawn, Found, Method, draw_grid, write_divergences
from likeness.retrieval.comparison import compare
from likeness.retrieval.significance import Interval

log = logging.getLogger(__name__)


def project_run(
    run: Path, perplexities: Sequence[float], splits: Sequence[str], folder: Path, most: int
) -> tuple[Found, str]:
    """``likeness project``: maps of a finished run's features and codes, a figure a split, and the KL of every map.

    Args:
        most: Labelled pictures that are drawn of a split; of more, a sample. Hits are of the whole split.

    Returns:
        The maps by split, and a title that names the run's backbone and head.

    Raises:
        LikenessError: CONFIG when a split is too small for a perplexity and DATA-SPLIT when none has a labelled
            picture, both before the first map; RUN-MISSING and CKPT-* from the run.
    """
    paths = Paths(store=os.environ.get("LIKENESS_STORE"))
    config = asdict(Evaluate(data={}, backbone={}, run=str(run), paths=paths))
    path = checkpoint_path(config)
    module, extractor, card = restore(path, config)
    config = as_trained(config, card)
    data = build_data(config, find_features(config, extractor))
    drawn = _drawn(data, splits, perplexities, most)
    methods = read_methods(module, data, (), card, path.parent)
    title = f"{card['options']['backbone']} → {card['options']['architecture']}"
    found: dict[Drawn, list[Method]] = {}
    with progress("projecting", len(drawn) * len(methods) * len(perplexities), "maps") as advance:
        for named, rows in drawn.items():
            hits = _hits(methods, data, named.split, config["metric"])
            found[named] = [
                _mapped(name, encode, rows, perplexities, hits, advance) for name, encode in methods.items()
            ]
            path = folder / f"projection_{named.split}.png"
            draw_grid(found[named], rows.labels.numpy(), data.classes, f"{title}\n{named}", path)
    write_divergences(found, title, folder)
    return found, title


def _drawn(data: FeatureData, splits: Sequence[str], perplexities: Sequence[float], most: int) -> dict[Drawn, Batch]:
    """The labelled rows to draw of each split that has some."""
    rows = {split: rows_of(data, split) for split in splits}
    labelled = {split: np.flatnonzero(found.labels.numpy() >= 0) for split, found in rows.items()}
    if bare := [split for split, at in labelled.items() if not len(at)]:
        if len(bare) == len(rows):
            raise LikenessError(
                "DATA-SPLIT",
                f"no labelled picture in {' or '.join(bare)}.",
                where=str(data.features.table.root),
                cause="the folder has " + counted(data.features.table.splits),
                fix="Choose another split=, or split=all.",
            )
        log.warning("%s has no labelled picture and is left out", ", ".join(bare))
    chosen = {split: at[sample_rows(len(at), most)] for split, at in labelled.items() if len(at)}
    _refuse_too_few_to_map({split: len(at) for split, at in chosen.items()}, max(perplexities))
    return {
        Drawn(split, len(at), len(labelled[split])): rows[split][torch.from_numpy(at)] for split, at in chosen.items()
    }


def _refuse_too_few_to_map(counts: Mapping[str, int], perplexity: float) -> None:
    least = max(FEWEST_ROWS, math.floor(perplexity) + 1)
    if few := {split: count for split, count in counts.items() if count < least}:
        raise LikenessError(
            "CONFIG",
            f"perplexity={perplexity:g} needs at least {least} pictures of a split.",
            where="\n".join(f"{split}: {count} labelled pictures" for split, count in few.items()),
            kept="All features; no map was begun.",
            fix="Give a lower perplexity=, or other splits with split=.",
        )


def _hits(methods: Mapping[str, Encode], data: FeatureData, split: str, options: Config) -> dict[str, Interval]:
    """hit@1 of each method on the whole split; none where no query is counted."""
    summary = compare(scores_of(methods, data, split, split, {**options, "map_at_r": False}), data.classes, (1,))
    return {name: Interval(**summary[name]["hit@1"]) for name in methods if name in summary}


def unit_codes(encode: Encode, rows: Batch) -> Float[np.ndarray, "n code"]:
    """Codes of unit length: on a map then is near what the cosine calls near."""
    with torch.inference_mode():
        return torch.nn.functional.normalize(encode(rows.features).flatten(1), dim=1).numpy()


def _mapped(
    name: str,
    encode: Encode,
    rows: Batch,
    perplexities: Sequence[float],
    hits: Mapping[str, Interval],
    advance: Advance,
) -> Method:
    """A method's codes of some rows, mapped at every perplexity."""
    codes, maps = unit_codes(encode, rows), []
    for projection in project_each(codes, perplexities):
        maps.append(projection)
        advance()
    return Method(name, codes.shape[1], maps, hits.get(name))
