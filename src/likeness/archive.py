"""What ``torch.save`` wrote, opened as data: nothing in a file is run, and no more memory is taken than it is long."""

import os
import pickletools
import re
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

# What tensors and plain values are rebuilt with. torch's own list is longer: of it, some make what no file holds.
_REBUILDERS = re.compile(
    r"collections (OrderedDict|Counter)|(builtins|__builtin__) set|torch (Size|device|b?float\w+|u?int\d+|bool)"
    r"|torch \w+Storage|torch\.storage UntypedStorage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number before torch 1.6
_LEGACY_PICKLES = 5  # magic number, version, machine, values, names of the storages
_LONGEST_DIRECTORY = 1 << 20  # bytes; some ten thousand tensors
_MOST_VALUES, _DEEPEST = 500_000, 50
_WIDE, _LOCATOR, _END = (struct.Struct(form) for form in ("<4sQ2H2L4Q", "<4sLQL", "<4s4H2LH"))  # an archive's last


class Unreadable(Exception):
    """No file of ``torch.save``, or a damaged one; its text is the cause."""


class HoldsCode(Exception):
    """The file asks for something that is no tensor and no plain value; its text is the name of that."""


def read_archive(path: Path, legacy: bool = False) -> Any:
    """The content of a file of ``torch.save``, on the CPU.

    Args:
        legacy: Files from before torch 1.6 are read as well.

    Raises:
        Unreadable: Also where tensors show more numbers than the file holds, or values are nested without measure.
        HoldsCode: Nothing of it was run.
    """
    with open(path, "rb") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            _refuse_code(file, size, legacy)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location="cpu", weights_only=True)
            _refuse_beyond_measure(content, size)
        except (Unreadable, HoldsCode):
            raise
        except Exception as error:  # a damaged file makes the reader stumble anywhere
            raise Unreadable(_first_line(error)) from error
    return content


def printable(text: str, most: int = 120) -> str:
    """What a file says, without characters that move a terminal's cursor, and not without end.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    shown = text[:most].encode("unicode_escape").decode()
    return shown + "…" * (len(text) > most)


def _first_line(error: Exception) -> str:
    """A library's own words, without its advice to run what the file says."""
    line = (str(error).splitlines() or [""])[0]
    return (
        printable(line)
        if line and "weights_only" not in line
        else f"its values cannot be read ({type(error).__name__})"
    )


def _refuse_code(file: BinaryIO, size: int, legacy: bool) -> None:
    start = file.read(len(_LEGACY))
    file.seek(0)
    if legacy and start == _LEGACY:
        for _ in range(_LEGACY_PICKLES):
            _refuse_unknown_names(file)
    elif start.startswith(b"PK\x03\x04"):
        _refuse_another_directory(file, size)
        with zipfile.ZipFile(file) as archive, archive.open(_pickle_in(archive, size)) as pickled:
            _refuse_unknown_names(pickled)
    else:
        raise Unreadable(f"{size:,} bytes, not an archive of torch.save (cut, or another kind of file)")


def _refuse_another_directory(file: BinaryIO, size: int) -> None:
    """There is one directory, at the very end: every reader of archives then finds the same entries."""
    file.seek(max(0, size - _WIDE.size - _LOCATOR.size - _END.size))
    tail = file.read().rjust(_WIDE.size + _LOCATOR.size + _END.size, b"\0")
    end, locator = _END.unpack(tail[-_END.size :]), _LOCATOR.unpack(tail[_WIDE.size : -_END.size])
    place, (length, offset, comment) = size - _END.size, end[-3:]
    if locator[0] == b"PK\x06\x07":
        wide, place = _WIDE.unpack(tail[: _WIDE.size]), size - len(tail)
        length, offset, comment = *wide[-2:], comment or wide[0] != b"PK\x06\x06" or locator[2] != place
    if end[0] != b"PK\x05\x06" or comment or offset + length != place:
        raise Unreadable(f"{size:,} bytes that do not end in the one directory of an archive (cut, or changed)")
    if length > _LONGEST_DIRECTORY:
        raise Unreadable(f"a directory of {length:,} bytes; that of a checkpoint has at most {_LONGEST_DIRECTORY:,}")


def _pickle_in(archive: zipfile.ZipFile, size: int) -> str:
    """The entry that describes the values. The archive is as torch writes it, and its checksums fit.

    torch looks at no checksum: a flipped bit in a weight would go unseen.
    """
    entries = archive.infolist()
    folder = entries[0].filename.partition("/")[0] if entries else ""
    names = Counter(entry.filename.lower() for entry in entries)  # torch finds them by either case
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise Unreadable("it is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Unreadable("it is compressed, as no checkpoint is: it could unpack to any size")
        if not entry.filename.startswith(f"{folder}/") or {"..", ""} & set(re.split(r"[/\\]", entry.filename)):
            raise Unreadable(f"an entry that is not in the archive's one folder: {printable(entry.filename)}")
        if names[entry.filename.lower()] > 1:
            raise Unreadable(f"two entries of one name: {printable(entry.filename)}")
    if sum(entry.file_size for entry in entries) > size:
        raise Unreadable("entries that lie over each other: they are longer than the file")
    if (pickled := f"{folder}/data.pkl") not in archive.namelist():
        raise Unreadable("an archive of something else: it has no data.pkl")
    if f"{folder}/constants.pkl".lower() in names:
        raise HoldsCode("TorchScript")
    if (name := archive.testzip()) is not None:
        raise Unreadable(f"the checksum of {printable(name)} does not fit its bytes")
    return pickled


def _refuse_unknown_names(pickled: Any) -> None:
    """Read one pickle as what it is, a list of instructions, and look at what it would call. None is followed."""
    texts: list[str] = []
    for count, (instruction, argument, _) in enumerate(pickletools.genops(pickled)):
        if count > _MOST_VALUES:
            raise Unreadable(f"it describes more than {_MOST_VALUES:,} values")
        if instruction.name in ("GLOBAL", "INST"):
            name = str(argument)
        elif instruction.name == "STACK_GLOBAL":
            name = " ".join(texts[-2:])
        else:
            texts = [*texts[-1:], argument] if isinstance(argument, str) else texts
            continue
        if not _REBUILDERS.fullmatch(name):
            raise HoldsCode(printable(name.replace(" ", ".")))


def _refuse_beyond_measure(content: Any, size: int) -> None:
    shown = sum(value.numel() * value.element_size() for value in _values(content) if isinstance(value, Tensor))
    if shown > size:  # a view that repeats its numbers, or shares them with others, costs what it shows once copied
        raise Unreadable(f"its tensors show {shown:,} bytes, the file has {size:,}")


def _values(content: Any) -> Iterator[Any]:
    """Every value in a nest, keys as well; what a pickle can say in few bytes, and no one could walk, is refused."""
    waiting, count = [(content, 0)], 0
    while waiting:
        (value, depth), count = waiting.pop(), count + 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise Unreadable(f"values nested deeper than {_DEEPEST}, or more than {_MOST_VALUES:,} of them")
        if isinstance(value, dict):
            if getattr(value, "__dict__", {}).keys() - {"_metadata"}:
                raise Unreadable("a mapping that hides its own methods behind values")
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set):
            waiting += [(item, depth + 1) for item in value]
        else:
            yield value
