"""Every method scored on every split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from likeness.assembly.baselines import Encode, projection_of
from likeness.assembly.building import Config
from likeness.assembly.splitting import counted, refuse_too_few, rows_of
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.heads.autoencoder import Autoencoder, codes_of
from likeness.retrieval.metric import Scores, score


@dataclass(frozen=True)
class Results:
    """Every method's scores on every split; ``gallery`` names the split that was searched, None the queries' own."""

    scores: dict[str, dict[str, Scores]]
    gallery: str | None
    ks: tuple[int, ...]


def score_splits(
    methods: Mapping[str, Encode], data: FeatureData, splits: Sequence[str], gallery: str | None, options: Config
) -> Results:
    """Score every method on each split that has pictures, within the split or against another one.

    Raises:
        LikenessError: DATA-SPLIT when no split that was asked for has a picture, or the gallery has none.
    """
    present = [split for split in splits if len(rows_of(data, split))]
    if not present or (gallery is not None and not len(rows_of(data, gallery))):
        raise LikenessError(
            "DATA-SPLIT",
            f"no pictures in {' or '.join(splits) if not present else gallery}.",
            where=str(data.features.table.root),
            cause="the folder has " + counted(data.features.table.splits),
            fix="Choose another split= or gallery=, or split=all.",
        )
    scores = {split: scores_of(methods, data, split, gallery or split, options) for split in present}
    return Results(scores, gallery, tuple(options["ks"]))


@dataclass(frozen=True)
class OfSeed:
    """What one head of a job of several seeds came to, and the epochs that it learned."""

    seed: int
    epochs: int
    results: Results


def score_seeds(
    heads: Sequence[Autoencoder], epochs: Sequence[int], first: Results, data: FeatureData, options: Config
) -> list[OfSeed]:
    """The results of every head of a job of several seeds, and none of a single one.

    Args:
        first: Of the first head: a method that does not follow the seed has the same results for the others.
    """
    if len(heads) == 1:
        return []
    found = [OfSeed(heads[0].seed, epochs[0], first)]
    for head, learned in zip(heads[1:], epochs[1:], strict=True):
        own = {"head": head.encode, "random_projection": projection_of(head, data).encode}
        scores = score_splits(own, data, list(first.scores), None, options).scores
        both = {split: {**first.scores[split], **scores[split]} for split in scores}
        found.append(OfSeed(head.seed, learned, Results(both, first.gallery, first.ks)))
    return found


def scores_of(
    methods: Mapping[str, Encode], data: FeatureData, split: str, gallery: str, options: Config
) -> dict[str, Scores]:
    """Scores of one split's queries against one split's gallery; the two may share pictures, or be the same."""
    rows = rows_of(data, split, gallery)
    is_query = rows.is_query & torch.isin(rows.sample_ids, rows_of(data, split).sample_ids)
    is_gallery = rows.is_gallery & torch.isin(rows.sample_ids, rows_of(data, gallery).sample_ids)
    refuse_too_few(split, int((is_gallery & (rows.labels >= 0)).sum()), options)
    rest = {name: value for name, value in options.items() if name != "exclude_home"}
    return {
        name: score(
            codes_of(encode, rows),
            rows.labels,
            rows.sample_ids,
            group_ids=rows.homes,
            is_query=is_query,
            is_gallery=is_gallery,
            exclude_group=options["exclude_home"],
            **rest,
        )
        for name, encode in methods.items()
    }
