"""A model as one file: its tensors as safetensors, and in the header a card and a SHA-256 that covers every byte."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from likeness.archive import Unreadable
from likeness.files import canonical_json, writing

SUFFIX = ".safetensors"
_SAYS = "likeness"  # the one entry of the header's metadata; several would come in any order
_NO_DIGEST = "0" * 64  # stands in the place of the digest while it is taken
_DIGEST = re.compile(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"}"}')
_LONGEST_HEADER = 16 << 20
_OF_BACKBONE = "backbone."
_CHUNK = 1 << 20


def write_exported(
    card: Mapping[str, Any], head: Mapping[str, Tensor], backbone: Mapping[str, Tensor], path: Path
) -> None:
    """Write a model to ``path``.

    Args:
        card: What the head's checkpoint says of itself, and more: plain values.
        head: The state of scaling and head.
        backbone: The weights of the network up to the layer that it is cut at, as they were read.

    Raises:
        LikenessError: DISK, STORE-PERM.
    """
    tensors = {**head, **{f"{_OF_BACKBONE}{name}": value for name, value in backbone.items()}}
    said = canonical_json({"card": card, "sha256": _NO_DIGEST})
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {_SAYS: said})
    found = _DIGEST.search(data, 0, _header_end(data))
    assert found, "the digest's place is not in the header"
    whole = memoryview(data)
    with writing(path, len(data)) as file:
        for part in (whole[: found.start(1)], hashlib.sha256(whole).hexdigest().encode(), whole[found.end(1) :]):
            file.write(part)


def read_exported(path: Path) -> dict[str, Any]:
    """What was written, as a checkpoint has it (``state_dict``, ``backbone``, ``likeness``); empty for another file.

    Raises:
        Unreadable: Cut or changed, be it by a bit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (said := (file.metadata() or {}).get(_SAYS)) is None:
                return {}
            with open(path, "rb") as raw:
                _refuse_changed(raw)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card = json.loads(said)["card"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    backbone = {name.removeprefix(_OF_BACKBONE): tensors.pop(name) for name in _of_backbone(tensors)}
    return {_SAYS: card, "state_dict": tensors, "backbone": backbone}


def _of_backbone(names: Mapping[str, Any]) -> list[str]:
    return [name for name in names if name.startswith(_OF_BACKBONE)]


def _refuse_changed(file: BinaryIO) -> None:
    start = file.read(8)
    header = start + file.read(min(_header_end(start) - 8, _LONGEST_HEADER))
    if not (found := _DIGEST.search(header)):
        raise Unreadable("its header states no SHA-256")
    sums = hashlib.sha256(header[: found.start(1)] + _NO_DIGEST.encode() + header[found.end(1) :])
    while chunk := file.read(_CHUNK):
        sums.update(chunk)
    if sums.hexdigest() != found[1].decode():
        raise Unreadable("the SHA-256 that it states does not fit its bytes: it was cut or changed")


def _header_end(data: bytes) -> int:
    return 8 + struct.unpack("<Q", data[:8])[0]
