"""Files that torch wrote, opened as data: nothing in them is run, and none takes more memory than it is long."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class HoldsCode(Exception):
    """The file names something to be called; ``str`` of this is its name."""


class Damaged(Exception):
    """The file cannot be read as what it should be; ``str`` of this says why."""


def load(path: Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU.

    Before anything is built, the archive's structure and its checksums are looked at, which torch does not do: a
    flipped bit in a weight would go unseen. Afterwards each tensor: one that claims more values than the file holds
    would take any memory as soon as someone computes with it.

    Raises:
        HoldsCode: When its pickle names anything but tensors and plain values.
        Damaged: For everything else.
    """
    try:
        if zipfile.is_zipfile(path):
            _refuse_odd_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused
            content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_odd_tensors(content)
    except Damaged:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise (HoldsCode(named[1]) if named else Damaged("its values cannot be read")) from error
    except Exception as error:  # a damaged file makes the reader stumble anywhere
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "weights_only" in told  # to open it as code, as torch says of a TorchScript archive
        raise Damaged("it is a program, or no file of values" if advice else told) from error
    return content


def _refuse_odd_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Damaged("it is compressed, as no checkpoint is: it could unpack to any size")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise Damaged("its parts overlap: together they are larger than the file")
        if len({entry.filename for entry in entries}) < len(entries):
            raise Damaged("it holds two parts of one name")
        if (name := archive.testzip()) is not None:
            raise Damaged(f"the checksum of {name} does not fit its bytes")


def _refuse_odd_tensors(content: Any) -> None:
    for value in _tensors(content):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise Damaged(f"it holds a tensor of another kind ({value.layout}, {value.device})")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise Damaged(f"a tensor of shape {tuple(value.shape)} claims more values than the file holds")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of plain values, however deep."""
    left, seen = [content], set()
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))  # a pickle may hold itself
            left += [*value, *value.values()] if isinstance(value, Mapping) else value
