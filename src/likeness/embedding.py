"""``likeness embed``: the codes of pictures, through the store of features, as a table in a file."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from likeness.console import progress
from likeness.errors import LikenessError
from likeness.files import canonical_json, writing
from likeness.images.listing import list_pictures
from likeness.images.options import readable
from likeness.model import Coded, Model, coded, load, stored_features


def embed(
    places: list[Path],
    path: Path,
    out: Path,
    *,
    home_pattern: str | None = None,
    frozen: bool = False,
    on_bad_image: str = "raise",
    store: str | None = None,
    weights: str | None = None,
) -> str:
    """Write the codes of the pictures in ``places``, and say what was written.

    Args:
        path: Of the model, as of ``load``.
        out: ``.npy``, beside which a ``.csv`` tells path, label and home of each row; or ``.parquet``.
        frozen: The features themselves, in the place of codes.
        on_bad_image: As of ``extract``.
        store: Where features are kept; as in training when left out.

    Raises:
        LikenessError: CONFIG-EXTRA without the package for Parquet; as ``list_pictures``, ``load`` and ``extract``;
            DISK, STORE-PERM.
    """
    if out.suffix == ".parquet":
        _need_pyarrow()
    table = list_pictures(places, home_pattern=home_pattern)
    model = load(path, weights=weights)
    model = model.frozen() if frozen else model
    features = stored_features(model, table, on_bad_image, store)
    with progress("codes", len(features.table), "codes") as advance:
        _WRITERS[out.suffix](out, coded(model, features, advance), len(features.table), model)
    of_pictures = (
        f"{features.reused:,} features found, {features.computed:,} computed, {len(features.bad)} bad pictures"
    )
    return f"{len(features.table):,} codes of {model.width} numbers in {out} ({of_pictures})"


def _write_npy(path: Path, parts: Iterator[Coded], rows: int, model: Model) -> None:
    """The codes, and beside them what each row is of."""
    with writing(path.with_suffix(".csv")) as names, writing(path) as file:
        described = {"descr": "<f4", "fortran_order": False, "shape": (rows, model.width)}
        np.lib.format.write_array_header_1_0(file, described)
        names.write(_lines([("path", "label", "home")]))
        for part in parts:
            file.write(part.codes.tobytes())
            names.write(_lines(zip(part.paths, part.labels, part.homes, strict=True)))


def _lines(rows: Iterable[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _write_parquet(path: Path, parts: Iterator[Coded], rows: int, model: Model) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    text = [(name, pa.string()) for name in ("path", "label", "home", "sha256")]
    said = {"model": canonical_json(model.identity)}
    schema = pa.schema([*text, ("code", pa.list_(pa.float32(), model.width))], said)
    with writing(path) as file, ParquetWriter(file, schema) as writer:
        for part in parts:
            keys = [key.tobytes().hex() for key in part.keys]
            texts = (part.paths, part.labels, part.homes, keys)
            columns = [[readable(value) or None for value in column] for column in texts]
            codes = pa.FixedSizeListArray.from_arrays(pa.array(part.codes.ravel()), model.width)
            writer.write_table(pa.table([*columns, codes], schema=schema))


_WRITERS: dict[str, Callable[[Path, Iterator[Coded], int, Model], None]] = {
    ".npy": _write_npy,
    ".parquet": _write_parquet,
}


def _need_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        raise LikenessError(
            "CONFIG-EXTRA",
            "Parquet was asked for, and pyarrow is not installed.",
            where="out",
            fix='pip install "likeness[parquet]", or give out=codes.npy',
        )
