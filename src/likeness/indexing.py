"""Fill an index from pictures: features through the store, codes, and a thumbnail of each."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple

import numpy as np
import torch

from likeness.assembly.restoring import checkpoint_path
from likeness.config import schema
from likeness.console import progress
from likeness.errors import LikenessError, listed
from likeness.features.store import positions
from likeness.files import explained, write_atomic
from likeness.finding import Finder, as_indexed, model_of
from likeness.images.decoding import BadImage
from likeness.images.listing import list_pictures
from likeness.images.options import readable
from likeness.images.thumbnail import small_jpeg
from likeness.model import Model, coded, load, stored_features
from likeness.retrieval.generation import Entries, Generation
from likeness.retrieval.index import Added, Index
from likeness.retrieval.neighbours import neighbours
from likeness.retrieval.rejection import RATE, Threshold, calibrate

log = logging.getLogger(__name__)

NEAR = 0.98
_LONGER_SIDE, _QUALITY = 256, 80
_COPIES = 4  # nearest others that are looked at for near-duplicates
_ASKED_AT_ONCE, _FILES_AT_ONCE = 4096, 1024
_BYTES_IN_MEMORY = 64 << 20  # of thumbnails


class Pair(NamedTuple):
    """Two pictures that look the same, the smaller id first."""

    similarity: float
    one: int
    other: int


def create(folder: Path, run: Path, *, frozen: bool = False, weights: str | None = None) -> Index:
    """An empty index that is bound to a run's model, which is copied into it.

    Args:
        run: A finished run's folder, a checkpoint, or a file that ``likeness export`` wrote.
        frozen: Of the features themselves, without the head.

    Raises:
        LikenessError: INDEX-EXISTS, and what ``load`` raises.
    """
    model = load(run, weights=weights)
    config = asdict(schema.Evaluate(data={}, backbone={}, run=str(run)))
    path = checkpoint_path(config) if run.is_dir() else run
    used = model.frozen() if frozen else model
    options = model.card["options"]
    title = f"{options['backbone']} → {'frozen' if frozen else options['architecture']}"
    about = {"title": title, "frozen": frozen, "run": str(run.absolute()), "classes": list(model.card["classes"])}
    index = Index.create(folder, used.identity, used.width, about)
    write_atomic(folder / f"model{path.suffix}", path.read_bytes())
    return index


def add(
    index: Index,
    places: Sequence[Path],
    *,
    label: str | None = None,
    home: str | None = None,
    home_pattern: str | None = None,
    skip_present: bool = False,
    on_bad_image: str = "raise",
    store: str | None = None,
    run: Path | None = None,
) -> Added:
    """Add the pictures of files and folders; their features are computed, or found in the store.

    Args:
        run: Whose model is used, in the place of the index's own copy of it.

    Raises:
        LikenessError: INDEX-*, and what ``list_pictures``, ``load`` and ``extract`` raise.
    """
    table = list_pictures(places, label=label, home=home, home_pattern=home_pattern)
    model = model_of(index) if run is None else as_indexed(index, load(run))
    features = stored_features(model, table, on_bad_image, store)
    if not skip_present:
        index.refuse_present([str(path) for path in features.table.files()], features.keys)
    with (
        _thumbnails(model, features.table.files(), index.folder) as pictures,
        progress("adding", len(features.table)) as advance,
    ):
        entries = (Entries(*some, [*islice(pictures, len(some.paths))]) for some in coded(model, features, advance))
        return index.add(entries, model.identity, skip_present=skip_present)


@contextmanager
def _thumbnails(model: Model, files: Sequence[Path], folder: Path) -> Iterator[Iterator[bytes]]:
    """A small JPEG of each file. All are made first, so that no other writer waits for it, and lie on disk if many."""
    sizes: list[int] = []
    with SpooledTemporaryFile(_BYTES_IN_MEMORY, "w+b", dir=str(folder)) as kept:
        with (
            explained(folder / "thumbnails"),
            progress("thumbnails", len(files), after=2.0) as advance,
            ThreadPoolExecutor() as pool,
        ):
            for start in range(0, len(files), _FILES_AT_ONCE):
                for made in pool.map(partial(_thumbnail, model), files[start : start + _FILES_AT_ONCE]):
                    sizes.append(kept.write(made))
                    advance()
        kept.seek(0)
        yield map(kept.read, sizes)


def _thumbnail(model: Model, path: Path) -> bytes:
    """A small JPEG; b"" where the file is gone since its feature was computed."""
    try:
        image = model.extractor.decoder.decode(path.read_bytes(), at_least=_LONGER_SIDE).image
    except (OSError, BadImage) as error:
        log.warning("no thumbnail of %s, which has changed since it was looked at: %s", readable(path), error)
        return b""
    return small_jpeg(image, _LONGER_SIDE, _QUALITY)


def facts(index: Index) -> dict[str, Any]:
    """What is in an index, as plain values."""
    now = index.newest()
    threshold = now.threshold["value"] if now.threshold else None
    return {
        "model": index.about.get("title"),
        "run": index.about.get("run"),
        **{name: value[:16] for name, value in index.identity.items()},
        "width": index.width,
        "generation": now.number,
        "pictures": len(now),
        "homes": len(now.home_names),
        "kinds": {name: int((now.labels == number).sum()) for number, name in enumerate(now.classes)},
        "unlabelled": int((now.labels < 0).sum()),
        "threshold": threshold,
        "segments": len(now.parts),
        "bytes": sum(path.stat().st_size for path in index.folder.iterdir() if path.is_file()),
    }


def gone(generation: Generation) -> list[str]:
    """The paths of pictures whose file is not where it was when they were added."""
    paths = map(generation.path, range(len(generation)))
    return [path for path in paths if not os.path.exists(path)]


def near_duplicates(generation: Generation, among: np.ndarray | None = None, above: float = NEAR) -> list[Pair]:
    """Pairs of pictures whose codes are that near, nearest first; of each its four nearest are looked at.

    Args:
        among: Ids of which one at least is in each pair, which alone are compared with all; all when left out.
        above: Least cosine.
    """
    if len(generation) < 2:
        return []
    ids = torch.from_numpy(generation.ids)
    asked = ids if among is None else torch.from_numpy(among)
    codes, k, pairs = generation.codes, min(_COPIES, len(ids) - 1), {}
    with progress("near-duplicates", len(asked), after=2.0) as advance:
        for own in asked.split(_ASKED_AT_ONCE):
            queries = codes[torch.from_numpy(generation.rows_of(own.numpy()))]
            near = neighbours(queries, codes, k, query_ids=own, gallery_ids=ids)
            for at, column in torch.nonzero(near.similarities >= above).tolist():
                one, other = sorted((int(own[at]), int(ids[near.indices[at, column]])))
                pairs[one, other] = Pair(float(near.similarities[at, column]), one, other)
            advance(len(own))
    return sorted(pairs.values(), key=lambda pair: (-pair.similarity, pair.one, pair.other))


def calibrated(
    index: Index, places: Sequence[Path], *, rate: float = RATE, on_bad_image: str = "raise", store: str | None = None
) -> Threshold:
    """Keep the threshold in the index below which a query is like nothing in it.

    Args:
        places: Pictures of kinds that the index has, of homes that it has not; none of them may be in it.
        rate: Of such pictures that may be rejected.

    Raises:
        LikenessError: INDEX-ID where some of them are in the index; RETRIEVAL where they are too few for the rate.
    """
    finder = Finder(index, model_of(index))
    if not finder.size:
        raise LikenessError(
            "INDEX-ID",
            "the index is empty.",
            where=str(index.folder),
            fix="Add pictures with likeness index add first.",
        )
    features = stored_features(finder.model, list_pictures(places), on_bad_image, store)
    held = [readable(path) for path in features.table.paths[positions(finder.generation.keys, features.keys) >= 0]]
    if held:
        raise LikenessError(
            "INDEX-ID",
            f"{len(held)} of {len(features.table)} pictures to calibrate on are in the index.",
            where=listed(held),
            cause="They find themselves, and the threshold would be too high.",
            fix="Give pictures that are not in it.",
        )
    threshold = calibrate(finder.scores(finder.model.codes(features.rows[:])), rate)
    index.calibrate(threshold._asdict())
    return threshold
