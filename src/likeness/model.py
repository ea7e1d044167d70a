"""A trained model, ready to use: pictures in, codes out."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from likeness.assembly import extracting, restoring
from likeness.config import schema
from likeness.console import Advance, progress
from likeness.errors import LikenessError, listed
from likeness.features.extraction import Batch, Extractor, Features, looked_at
from likeness.files import canonical_json, digest
from likeness.heads.autoencoder import Autoencoder
from likeness.images.decoding import BadImage
from likeness.images.options import readable
from likeness.images.table import ImageTable

Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path, the bytes of a file, a PIL image, or 8-bit RGB as ``[height, width, 3]``."""

_BATCH = 16
_ROWS_AT_ONCE = 4096
_MOST_NAMED = 50
_SECONDS_UNTIL_SHOWN = 2.0


@dataclass(frozen=True)
class Model:
    """An extractor and a head that was trained on its features.

    Attributes:
        head: None is the frozen features themselves.
        card: What the head's checkpoint says of itself (see ``runs.checkpoint``).
    """

    extractor: Extractor
    head: Autoencoder | None
    card: Mapping[str, Any]

    @cached_property
    def identity(self) -> dict[str, str]:
        """All that decides a code: SHA-256 of the extractor and of the head, its weights and its architecture."""
        return {"extractor": self.extractor.fingerprint, "head": _head_digest(self.head, self.card)}

    @property
    def fingerprint(self) -> str:
        return digest(self.identity)

    @cached_property
    def width(self) -> int:
        """Numbers in a code."""
        return self.codes(torch.zeros(1, *self.card["feature_shape"])).shape[1]

    def frozen(self) -> "Model":
        """The same extractor without a head."""
        return Model(self.extractor, None, self.card)

    def pixels(self, pictures: Iterable[Picture]) -> UInt8[Tensor, "n s s 3"]:
        """The pictures as the network gets them, 8 bits a channel.

        Raises:
            LikenessError: IMG-BAD, naming every picture that cannot be used; DATA-MISSING where all of these are files
                that cannot be read.
        """
        size = self.extractor.preprocessing.size
        parts = [batch.pixels for batch in self._batches(_several(pictures), _BATCH)]
        return torch.cat(parts) if parts else torch.empty(0, size, size, 3, dtype=torch.uint8)

    def _batches(self, pictures: Sequence[Picture], size: int) -> Iterator[Batch]:
        """Decoded by threads, a batch ahead of whoever asks; after a bad one the rest is only looked through."""
        bad: dict[int, BadImage | OSError] = {}
        shown = progress("pictures", len(pictures), after=_SECONDS_UNTIL_SHOWN)
        with ThreadPoolExecutor(os.cpu_count()) as pool, shown as advance:
            for start in range(0, len(pictures), size):
                squares = list(pool.map(self._square, pictures[start : start + size]))
                good = [square for square in squares if isinstance(square, np.ndarray)]
                bad |= {start + at: fault for at, fault in enumerate(squares) if not isinstance(fault, np.ndarray)}
                if not bad:
                    positions = np.arange(start, start + len(good))
                    yield Batch(positions, torch.from_numpy(np.stack(good)), np.zeros(len(good), np.float32))
                advance(len(squares))
        if bad:
            raise _refusal(pictures, bad)

    def _square(self, picture: Picture) -> UInt8[np.ndarray, "s s 3"] | BadImage | OSError:
        try:
            return self.extractor.preprocessing.pixels(self._decoded(picture))
        except (BadImage, OSError) as fault:
            return fault

    def _decoded(self, picture: Picture) -> Image.Image:
        decoder = self.extractor.decoder
        if isinstance(picture, Image.Image):
            return decoder.converted(picture)
        if isinstance(picture, np.ndarray):
            return decoder.converted(_from_array(picture))
        return decoder.decode(picture if isinstance(picture, bytes) else Path(picture).read_bytes()).image

    @torch.inference_mode()
    def codes(self, features: Float32[Tensor, "n ..."]) -> Float32[Tensor, "n d"]:
        """The codes of features, on the CPU."""
        if self.head is None:
            return features.float().flatten(1).cpu()
        return self.head.encode(features).float().cpu()

    def encode(self, pictures: Iterable[Picture], batch_size: int = _BATCH) -> Float32[np.ndarray, "n d"]:
        """The code of each picture: a path, the bytes of a file, a PIL image, or 8-bit RGB as ``[height, width, 3]``.

        Raises:
            LikenessError: As ``pixels``.
        """
        pictures = _several(pictures)
        codes = np.empty((len(pictures), self.width), np.float32)
        for batch, features in looked_at(self.extractor, self._batches(pictures, batch_size)):
            codes[batch.positions] = self.codes(features).numpy()
        return codes


def load(path: str | os.PathLike[str], *, weights: str | None = None, device: str = "auto") -> Model:
    """The model of a run's folder, of a checkpoint, or of a file that ``likeness export`` wrote.

    Args:
        weights: Where the backbone's weights are now, if not where training found them.
        device: That the frozen network runs on.

    Raises:
        LikenessError: RUN-MISSING, CKPT-*, CKPT-EXTRACTOR when its features cannot be made here.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        raise LikenessError(
            "CKPT-SCHEMA",
            "an .onnx file is for other programs, and is not loaded here.",
            where=str(path.absolute()),
            fix="Give the .safetensors that likeness export wrote, or open this file with onnxruntime.",
        )
    run, checkpoint = (str(path), None) if path.is_dir() else (None, str(path))
    backbone = {"weights": weights} if weights else {}
    config = asdict(schema.Evaluate(data={}, backbone=backbone, run=run, checkpoint=checkpoint))
    config["extraction"]["device"] = device
    module, extractor, card = restoring.restore(restoring.checkpoint_path(config), config)
    return Model(extractor, module, card)


def stored_features(model: Model, table: ImageTable, on_bad_image: str, store: str | None) -> Features:
    """The features of a table, found in the store or computed now; they stay on disk, for each is looked at once.

    Args:
        on_bad_image: As of ``extract``.
        store: When left out LIKENESS_STORE, else as ``restoring.store_of``.

    Raises:
        LikenessError: As ``extract``.
    """
    config = {
        "paths": {"store": restoring.store_of(model.card, store or os.environ.get("LIKENESS_STORE"))},
        "extraction": asdict(schema.Extraction(memory_gb=0.0)),
    }
    return extracting.features_of(table, config, model.extractor, on_bad_image)


class Coded(NamedTuple):
    """Codes of some pictures, and what is known of each: "" for an unknown label or home."""

    codes: Float32[np.ndarray, "n d"]
    keys: UInt8[np.ndarray, "n 32"]
    paths: list[str]
    labels: list[str]
    homes: list[str]


def coded(model: Model, features: Features, advance: Advance) -> Iterator[Coded]:
    """All rows of the features, some thousand at a time; ``advance`` hears of those that were dealt with."""
    for start in range(0, len(features.table), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        some = features.table.take(np.arange(len(features.table))[rows])
        yield Coded(
            model.codes(features.rows[rows]).numpy(),
            features.keys[rows],
            [str(path) for path in some.files()],
            _named(some.labels, some.classes),
            _named(some.homes, some.home_names),
        )
        advance(len(some))


def _named(numbers: np.ndarray, names: Sequence[str]) -> list[str]:
    return [names[number] if number >= 0 else "" for number in numbers.tolist()]


def _head_digest(head: Autoencoder | None, card: Mapping[str, Any]) -> str:
    if head is None:
        return digest("frozen")
    sums = hashlib.sha256(canonical_json([card["architecture"], card["scaling"]]).encode())
    for name, value in sorted(head.state_dict().items()):
        rows = np.ascontiguousarray(value.cpu().numpy())
        sums.update(f"{name} {rows.dtype} {rows.shape}".encode())
        sums.update(rows.tobytes())
    return sums.hexdigest()


def _several(pictures: Any) -> list[Picture]:
    """One picture is refused: a path would be taken for its letters, an image for its rows."""
    single = isinstance(pictures, str | os.PathLike | bytes | Image.Image)
    if single or (isinstance(pictures, np.ndarray) and pictures.ndim != 4):
        raise LikenessError(
            "IMG-BAD",
            f"several pictures are asked for; this is one {type(pictures).__name__}.",
            where="pictures",
            fix="Put it into a list: encode([picture]).",
        )
    return list(pictures)


def _from_array(picture: np.ndarray) -> Image.Image:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise BadImage(
            "IMG-SHAPE", f"an array must be uint8 [height, width, 3], not {picture.dtype} {list(picture.shape)}"
        )
    return Image.fromarray(picture)


def _refusal(pictures: Sequence[Picture], bad: Mapping[int, BadImage | OSError]) -> LikenessError:
    missing = all(isinstance(fault, OSError) for fault in bad.values())
    return LikenessError(
        "DATA-MISSING" if missing else "IMG-BAD",
        f"{len(bad)} of {len(pictures)} pictures cannot be {'read' if missing else 'used'}.",
        where=listed((f"{_name(pictures[at], at)}: {_told(fault)}" for at, fault in bad.items()), _MOST_NAMED),
        fix="Leave them out, or give others; each is a picture's file, not a folder.",
    )


def _told(fault: BadImage | OSError) -> str:
    return fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)


def _name(picture: Picture, position: int) -> str:
    return readable(picture) if isinstance(picture, str | os.PathLike) else f"picture {position}"
