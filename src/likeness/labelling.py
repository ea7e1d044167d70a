"""Labels for pictures that have none, by vote among the labelled pictures of a run."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from likeness.assembly import baselines, extracting, restoring
from likeness.config import schema
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.files import write_atomic
from likeness.heads.autoencoder import codes_of
from likeness.images.listing import list_pictures
from likeness.images.options import readable
from likeness.images.splits import SPLITS
from likeness.images.table import UNLABELLED
from likeness.retrieval.neighbours import Gallery, Neighbours
from likeness.retrieval.vote import Votes, Weights, vote

_UNSURE = (0.5, 0.75)  # confidences


@dataclass(frozen=True)
class Labelled:
    """Pictures and what was voted for them, least sure first: of less confidence, then less like the gallery.

    Attributes:
        paths: Absolute.
        labels: Names of classes; "" where nobody votes, for a code of zeros.
        similarity: Cosine to the nearest neighbour; -inf where there is none.
        neighbours: Absolute paths of those that voted, nearest first.
        bad: How many pictures were left out, because they cannot be used.
        voters: How many labelled pictures could be found.
    """

    paths: Sequence[str]
    labels: Sequence[str]
    confidence: Float64[np.ndarray, "n"]
    similarity: Float32[np.ndarray, "n"]
    runners_up: Sequence[str]
    neighbours: Sequence[Sequence[str]]
    bad: int
    voters: int


def label(
    places: Sequence[Path],
    run: Path,
    *,
    k: int = 5,
    weights: Weights = "uniform",
    split: str = "train",
    on_bad_image: str = "raise",
) -> Labelled:
    """Labels for the pictures that ``places``, files and folders, name; their own folders' names are not looked at.

    A picture never votes for itself: no voter has its bytes.

    Args:
        run: Its head makes the codes, its labelled pictures of ``split`` vote.
        k, weights: As of ``retrieval.vote``.
        on_bad_image: ``quarantine`` names pictures that cannot be used and goes on without them; ``raise`` refuses.

    Raises:
        LikenessError: RUN-MISSING, CKPT-*; DATA-* from either pictures; DATA-CHANGED where the run's classes are others
            now; CONFIG for a ``k`` beyond the labelled pictures; IMG-BAD.
    """
    table = list_pictures(places)  # a wrong name is told before the network is built
    paths = schema.Paths(store=os.environ.get("LIKENESS_STORE"))
    config = asdict(schema.Evaluate(data={}, backbone={}, run=str(run), paths=paths))
    module, extractor, card = restoring.restore(restoring.checkpoint_path(config), config)
    config = restoring.as_trained(config, card)
    own = extracting.find_features(config, extractor)
    _refuse_other_classes(own, card.get("classes"), run)
    voters = _voters(FeatureData(own, 1, 0), split, k, module.encode)
    asked = extracting.features_of(table, config, extractor, on_bad_image)
    rows = FeatureData(asked, 1, 0).split(UNLABELLED)
    codes = codes_of(module.encode, rows) if len(rows) else voters.codes[:0]
    found = _nearest(codes, asked.keys, voters, own.keys, k)
    labels = voters.labels[found.indices].masked_fill(found.similarities == -torch.inf, -1)
    votes = vote(labels, found.similarities, weights)
    return _ordered(asked, votes, found, card["classes"], voters, own)


def _refuse_other_classes(own: Features, trained: object, run: Path) -> None:
    if list(own.table.classes) != trained:
        raise LikenessError(
            "DATA-CHANGED",
            "the run's pictures have other classes than when its head was trained.",
            where=f"{readable(own.table.root)}, of {readable(run)}",
            cause=f"now {list(own.table.classes)!r:.300}, then {trained!r:.300}",
            kept="All features.",
            fix="Bring the pictures back as they were, or train again.",
        )


def _too_few(what: str) -> LikenessError:
    fix = "Give a smaller k=, or another split=."
    return LikenessError("CONFIG", what, where="k, split", kept="All features.", fix=fix)


class _Voters(NamedTuple):
    """The labelled pictures that can be found, by their places in the run's table."""

    places: Int64[np.ndarray, "g"]
    labels: Int64[Tensor, "g"]
    codes: Float32[Tensor, "g d"]


def _voters(data: FeatureData, split: str, k: int, encode: baselines.Encode) -> _Voters:
    """Those of the split; a code of zeros is like nothing and has no vote."""
    rows = data.split(*(SPLITS if split == "all" else (split,)))
    codes = codes_of(encode, rows) if len(rows) else torch.empty(0, 1)
    at = torch.nonzero(rows.is_gallery & (rows.labels >= 0) & codes.any(1)).squeeze(1)
    if len(at) <= k:
        raise _too_few(f"k={k} neighbours are to vote, and {split} has {len(at)} labelled pictures.")
    places = np.searchsorted(data.features.table.sample_ids, rows.sample_ids[at].numpy())
    return _Voters(places, rows.labels[at], codes[at])


def _nearest(
    codes: Float32[Tensor, "q d"],
    keys: UInt8[np.ndarray, "q 32"],
    voters: _Voters,
    own_keys: UInt8[np.ndarray, "n 32"],
    k: int,
) -> Neighbours:
    """The voters nearest to each picture, none with its bytes; similarity -inf where its code is zero."""
    content = np.unique(np.concatenate([own_keys[voters.places], keys]), axis=0, return_inverse=True)[1].reshape(-1)
    groups_g, groups_q = torch.from_numpy(content).split([len(voters.places), len(keys)])
    gallery = Gallery(voters.codes, torch.arange(len(voters.codes)), groups_g)
    points = codes.any(1)
    _refuse_few(k, groups_g, groups_q[points])
    found = Neighbours(torch.full((len(codes), k), -torch.inf), torch.zeros(len(codes), k, dtype=torch.int64))
    for column, values in zip(found, gallery.neighbours(codes[points], k, query_groups=groups_q[points]), strict=True):
        column[points] = values
    return found


def _refuse_few(k: int, voters: Int64[Tensor, "g"], asked: Int64[Tensor, "q"]) -> None:
    """``voters`` and ``asked`` say which pictures have the same bytes: such a voter has no vote."""
    if not len(asked):
        return
    copies = int(torch.bincount(voters, minlength=int(asked.max()) + 1)[asked].max())
    if k > (left := len(voters) - copies):
        raise _too_few(f"k={k} neighbours are to vote; for a picture of which {copies} voters are copies {left} can.")


def _ordered(
    asked: Features, votes: Votes, found: Neighbours, classes: Sequence[str], voters: _Voters, own: Features
) -> Labelled:
    order = np.lexsort((np.arange(len(votes.labels)), found.similarities[:, 0], votes.confidence))
    named, files = [*classes, ""], [str(path) for path in own.table.take(voters.places).files()]
    nearest = zip(found.indices[order].tolist(), found.similarities[order, 0].tolist(), strict=True)
    return Labelled(
        paths=[str(path) for path in asked.table.take(order).files()],
        labels=[named[label] for label in votes.labels[order].tolist()],
        confidence=votes.confidence[order].numpy(),
        similarity=found.similarities[order, 0].numpy(),
        runners_up=[named[label] for label in votes.runners_up[order].tolist()],
        neighbours=[[files[voter] for voter in row] if similarity > -np.inf else [] for row, similarity in nearest],
        bad=len(asked.bad),
        voters=len(files),
    )


def write_labels(found: Labelled, path: Path) -> None:
    """A row for each picture, in order; what there is none of is empty. Atomically."""
    text = io.StringIO()
    writer = csv.writer(text)
    k = max(map(len, found.neighbours), default=0)
    writer.writerow(
        ["path", "label", "confidence", "similarity", "runner_up", *(f"neighbour_{i + 1}" for i in range(k))]
    )
    columns = (found.paths, found.labels, found.confidence, found.similarity, found.runners_up, found.neighbours)
    for name, label, confidence, similarity, runner_up, neighbours in zip(*columns, strict=True):
        nearest = f"{similarity:.6f}" if neighbours else ""
        writer.writerow(
            [name, label, f"{confidence:.4f}", nearest, runner_up, *neighbours, *[""] * (k - len(neighbours))]
        )
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def told(found: Labelled, path: Path) -> str:
    """How many pictures were labelled, and how sure that is; of itself a confidence is no probability."""
    n = len(found.paths)
    under = ", ".join(f"{(found.confidence < bound).sum():,} under {bound:g}" for bound in _UNSURE)
    agreed = f"{(found.confidence > 1 - 1e-9).sum():,} with one voice"
    left_out = f"; {found.bad:,} bad pictures left out" if found.bad else ""
    return f"{n:,} pictures labelled by {found.voters:,}: confidence {under}, {agreed}{left_out} ({path})"
