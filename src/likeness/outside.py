"""Pictures that are like nothing in the gallery, and how well head and baselines tell them from known ones.

Every picture is scored against the gallery: the split of ``gallery=``, else train. *Known* are pictures whose class the
gallery has. The threshold is calibrated on known pictures of val; all other numbers are of known pictures of test and
of those from outside: the folder ``rejection.outside``, or test's pictures of the classes ``rejection.left_out``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from likeness.assembly import extracting
from likeness.assembly.baselines import Encode
from likeness.assembly.building import Config
from likeness.errors import LikenessError, listed
from likeness.features.datamodule import FeatureData, Split
from likeness.features.extraction import Extractor, Features
from likeness.heads.autoencoder import codes_of
from likeness.images.listing import list_pictures
from likeness.images.options import readable
from likeness.images.splits import SPLITS
from likeness.images.table import UNLABELLED, ImageTable
from likeness.reports.rejection import draw_rejection
from likeness.retrieval.metric import Scores, score
from likeness.retrieval.rejection import Scored, compare_scored, knn_score


@dataclass(frozen=True)
class Cast:
    """Who is scored, and as what: the rows of ``splits``, one after the other.

    Attributes:
        labels: Of a folder's pictures a label that no class has.
    """

    splits: Sequence[Split]
    labels: Int64[Tensor, "n"]
    sample_ids: Int64[Tensor, "n"]
    homes: Int64[Tensor, "n"]
    is_gallery: Bool[Tensor, "n"]
    is_held_out: Bool[Tensor, "n"]
    is_known: Bool[Tensor, "n"]
    is_outside: Bool[Tensor, "n"]


@dataclass(frozen=True)
class Rejection:
    """What ``metrics.json`` says of it, and what the figure is drawn from."""

    summary: dict[str, Any]
    scored: Mapping[str, Scored]

    def draw(self, folder: Path) -> None:
        draw_rejection(self.scored, self.summary, folder / "rejection.png")


def score_outside(
    methods: Mapping[str, Encode], data: FeatureData, extractor: Extractor, config: Config
) -> Rejection | None:
    """How well every method tells known pictures from those from outside; None where none are named.

    Raises:
        LikenessError: CONFIG for a class that is not there, or pictures from outside that the gallery has; DATA-SPLIT
            where a part has no picture; RETRIEVAL where val has too few for the rate; as ``extract`` and ``score``.
    """
    options, metric = config["rejection"], config["metric"]
    gallery = config["gallery"] or "train"
    if options["outside"]:
        cast = _with_folder(_cast(data, gallery, ()), data, extractor, config)
    elif options["left_out"]:
        cast = _cast(data, gallery, _labels_of(options["left_out"], data.classes))
    else:
        return None
    _refuse_empty(cast, gallery)
    scored = {name: _scored(encode, cast, options["k"], metric) for name, encode in methods.items()}
    named = options["outside"] or ", ".join(options["left_out"])
    facts = {"outside": named, "gallery": gallery, "searched": int(cast.is_gallery.sum()), "k": options["k"]}
    return Rejection({**facts, **compare_scored(scored, options["rate"])}, scored)


def _cast(data: FeatureData, gallery: str, left_out: Sequence[int]) -> Cast:
    """Who is who in val, test and gallery; test's pictures of the classes that are left out are from outside."""
    searched = SPLITS if gallery == "all" else (gallery,)
    rows = data.split(*dict.fromkeys(("val", "test", *searched)))
    left = torch.isin(rows.labels, torch.tensor(left_out, dtype=torch.int64))
    is_gallery = _among(rows, data, *searched) & rows.is_gallery & (rows.labels >= 0) & ~left
    has_class = torch.isin(rows.labels, rows.labels[is_gallery])
    held_out, test = (_among(rows, data, split) & rows.is_query for split in ("val", "test"))
    facts = (rows.labels, rows.sample_ids, rows.homes)
    return Cast([rows], *facts, is_gallery, held_out & has_class, test & has_class, test & left)


def _among(rows: Split, data: FeatureData, *splits: str) -> Bool[Tensor, "n"]:
    return torch.isin(rows.sample_ids, data.split(*splits).sample_ids)


def _labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    if unknown := sorted(set(names) - set(classes)) or set(names) >= set(classes):
        raise LikenessError(
            "CONFIG",
            f"no class is called {', '.join(unknown)}." if isinstance(unknown, list) else "no class is left.",
            where="rejection.left_out",
            cause=f"the classes are {', '.join(classes)}",
            kept="All features.",
            fix="Name some of the classes.",
        )
    return [classes.index(name) for name in names]


def _with_folder(cast: Cast, data: FeatureData, extractor: Extractor, config: Config) -> Cast:
    """The cast, and the pictures of the folder from outside; a home of the same name is the same home."""
    folder = Path(config["rejection"]["outside"])
    table = _listed(folder, config["data"].get("home_pattern"))
    features = extracting.features_of(table, config, extractor, config["data"].get("on_bad_image", "raise"))
    _refuse_the_gallerys_own(features, data.features, cast)
    strangers = FeatureData(features, 1, 0).split(UNLABELLED)
    count, own = len(strangers), data.features.table
    labels = torch.full((count,), len(data.classes))
    sample_ids = strangers.sample_ids + int(own.sample_ids.max()) + 1
    homes = torch.from_numpy(_homes_among(features.table, own.home_names))
    facts = ((cast.labels, labels), (cast.sample_ids, sample_ids), (cast.homes, homes))
    none, every = torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
    roles = ((cast.is_gallery, none), (cast.is_held_out, none), (cast.is_known, none), (cast.is_outside, every))
    return Cast([*cast.splits, strangers], *(torch.cat(both) for both in (*facts, *roles)))


def _listed(folder: Path, home_pattern: str | None) -> ImageTable:
    """Pictures from elsewhere need not be named by home."""
    try:
        return list_pictures([folder], home_pattern=home_pattern)
    except LikenessError as error:
        if error.code != "DATA-HOMES":
            raise
        return list_pictures([folder])


def _homes_among(table: ImageTable, names: Sequence[str]) -> Int64[np.ndarray, "n"]:
    """The homes by the numbers of others, and by numbers after those where they are new."""
    numbers = {name: number for number, name in enumerate(names)}
    own = np.array([numbers.setdefault(name, len(numbers)) for name in table.home_names] + [-1])
    return own[table.homes]


def _refuse_the_gallerys_own(outside: Features, own: Features, cast: Cast) -> None:
    searched = np.isin(own.table.sample_ids, cast.sample_ids[cast.is_gallery].numpy())
    kept = {key.tobytes() for key in own.keys[searched]}
    if found := [path for path, key in zip(outside.table.paths, outside.keys, strict=True) if key.tobytes() in kept]:
        raise LikenessError(
            "CONFIG",
            f"{len(found)} of {len(outside.table)} pictures of rejection.outside are in the gallery itself.",
            where=listed(map(readable, found)),
            kept="All features.",
            fix="Give pictures that it does not have, or take a class out of it: rejection.left_out='[CLASS]'.",
        )


def _refuse_empty(cast: Cast, gallery: str) -> None:
    parts = {
        f"labelled pictures in {gallery}, the gallery": cast.is_gallery,
        "known pictures in val, to calibrate on": cast.is_held_out,
        "known pictures in test": cast.is_known,
        "pictures from outside": cast.is_outside,
    }
    if lacking := [name for name, role in parts.items() if not role.any()]:
        raise LikenessError(
            "DATA-SPLIT",
            f"there are no {' and no '.join(lacking)}.",
            where="rejection",
            fix="Give another gallery=, other rejection.left_out=, or pictures of which val and test have some.",
        )


def _scored(encode: Encode, cast: Cast, k: int, metric: Config) -> Scored:
    codes = torch.cat([codes_of(encode, split) for split in cast.splits])
    found = score(
        codes,
        cast.labels,
        cast.sample_ids,
        group_ids=cast.homes,
        is_query=cast.is_held_out | cast.is_known | cast.is_outside,
        is_gallery=cast.is_gallery,
        exclude_group=metric["exclude_home"],
        ks=metric["ks"],
        ties=metric["ties"],
        vote_k=k,  # so many neighbours are kept
        map_at_r=False,
    )
    parts = [_place(found, cast, role) for role in (cast.is_held_out, cast.is_known, cast.is_outside)]
    held_out, known, outside = (knn_score(found.similarities[part].numpy(), k) for part in parts)
    homes = found.groups.numpy()
    hits = {j: ((found.rank > 0) & (found.rank <= j)).double().numpy()[parts[1]] for j in metric["ks"]}
    return Scored(held_out, known, outside, homes[parts[1]], homes[parts[2]], hits)


def _place(found: Scores, cast: Cast, role: Bool[Tensor, "n"]) -> np.ndarray:
    """Where the pictures of a role are among the scores; of known ones those that have somebody to find."""
    is_meant = torch.isin(found.sample_ids, cast.sample_ids[role])
    return np.flatnonzero((is_meant if role is cast.is_outside else is_meant & ~found.skipped).numpy())
