"""A trained model, ready to use: pictures in, codes out."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from likeness import assembly
from likeness import config as configs
from likeness.errors import LikenessError, listed
from likeness.features.extraction import Extractor
from likeness.files import canonical_json, digest
from likeness.heads.autoencoder import Autoencoder
from likeness.images.decoding import BadImage
from likeness.images.options import readable

Picture = str | os.PathLike[str] | bytes | Image.Image | UInt8[np.ndarray, "h w 3"]


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

    def pixels(self, pictures: Sequence[Picture]) -> UInt8[Tensor, "n s s 3"]:
        """The pictures as the network gets them, 8 bits a channel.

        Raises:
            LikenessError: IMG-BAD, naming every picture that cannot be used; DATA-MISSING for a file that is not there.
        """
        squares, bad = [], []
        for position, picture in enumerate(pictures):
            try:
                squares.append(self.extractor.preprocessing.pixels(self._decoded(picture)))
            except BadImage as fault:
                bad.append(f"{_name(picture, position)}: {fault}")
        if bad:
            raise LikenessError(
                "IMG-BAD",
                f"{len(bad)} of {len(pictures)} pictures cannot be used.",
                where=listed(bad),
                fix="Leave them out, or give others.",
            )
        return torch.from_numpy(np.stack(squares))

    def _decoded(self, picture: Picture) -> Image.Image:
        if isinstance(picture, Image.Image):
            return picture.convert("RGB")
        if isinstance(picture, np.ndarray):
            return Image.fromarray(picture)
        return self.extractor.decoder.decode(picture if isinstance(picture, bytes) else _read(Path(picture))).image

    @torch.inference_mode()
    def codes(self, features: Float32[Tensor, "n ..."]) -> Float32[Tensor, "n d"]:
        """The codes of features, on the CPU."""
        if self.head is None:
            return features.float().flatten(1).cpu()
        return self.head.encode(features).float().cpu()

    def encode(self, pictures: Sequence[Picture], batch_size: int = 16) -> Float32[np.ndarray, "n d"]:
        """The code of each picture: a path, the bytes of a file, a PIL image, or 8-bit RGB as ``[height, width, 3]``.

        Raises:
            LikenessError: As ``pixels``.
        """
        parts = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
        codes = [self.codes(self.extractor(self.pixels(part)).cpu()) for part in parts]
        return torch.cat(codes).numpy() if codes else np.empty((0, self.width), np.float32)


def load(path: str | os.PathLike[str], *, weights: str | None = None, device: str = "auto") -> Model:
    """The model of a run's folder, or of a checkpoint.

    Args:
        weights: Where the backbone's weights are now, if not where training found them.
        device: That the frozen network runs on.

    Raises:
        LikenessError: RUN-MISSING, CKPT-*, CKPT-EXTRACTOR when its features cannot be made here.
    """
    path = Path(path)
    run, checkpoint = (str(path), None) if path.is_dir() else (None, str(path))
    backbone = {"weights": weights} if weights else {}
    config = asdict(configs.Evaluate(data={}, backbone=backbone, run=run, checkpoint=checkpoint))
    config["extraction"]["device"] = device
    module, extractor, card = assembly.restore(assembly.checkpoint_path(config), config)
    return Model(extractor, module, card)


def _head_digest(head: Autoencoder | None, card: Mapping[str, Any]) -> str:
    if head is None:
        return digest("frozen")
    sums = hashlib.sha256(canonical_json([card["architecture"], card["scaling"]]).encode())
    for name, value in sorted(head.state_dict().items()):
        rows = np.ascontiguousarray(value.cpu().numpy())
        sums.update(f"{name} {rows.dtype} {rows.shape}".encode())
        sums.update(rows.tobytes())
    return sums.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LikenessError(
            "DATA-MISSING",
            "a picture cannot be read.",
            where=readable(path),
            cause=str(error),
            fix="Give another file.",
        ) from error


def _name(picture: Picture, position: int) -> str:
    return readable(picture) if isinstance(picture, str | os.PathLike) else f"picture {position}"
