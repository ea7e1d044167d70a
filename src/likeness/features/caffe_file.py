"""The layers of a Caffe ``.caffemodel``: protobuf's wire format, of which caffe.proto needs five messages."""

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from likeness.features.foreign import Array, Layer, format_error

# Numbers of the fields in caffe.proto; a layer's are (name, blobs, batch norm's parameters).
_LAYERS = {100: (1, 7, 139), 2: (4, 6, None)}
_FLOATS, _SHAPE, _DOUBLES = 5, 7, 8
_OLD_SHAPE = (1, 2, 3, 4)
_EPSILON = 3
_DEFAULT_EPSILON = 1e-5

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_MOST_FIELDS = 100_000  # of one message: a network has hundreds of layers, and a hostile file may have any number
_MOST_AXES = 32  # Caffe's own bound

Value = int | memoryview


class _Damaged(ValueError):
    """The bytes are not the message that they should be."""


@contextmanager
def opened(path: Path) -> Iterator[list[Layer]]:
    """The layers with weights, in the file's order; their arrays are read from the file, which is never copied.

    Raises:
        LikenessError: WEIGHTS-FORMAT for what is not a network of Caffe's, or is cut.
    """
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    yield parsed(memoryview(data), path)


def parsed(message: memoryview, path: Path) -> list[Layer]:
    """The layers of a serialised NetParameter; ``path`` is for the words of a refusal."""
    try:
        found = [_layer(value, *_LAYERS[field]) for field, value in _fields(message) if field in _LAYERS]
        layers = [layer for layer in found if layer.arrays]
        if len({layer.name for layer in layers}) < len(layers):
            raise _Damaged("two layers with weights have the same name")
    except _Damaged as error:
        raise format_error(path, str(error)) from error
    return layers


def _fields(message: Value) -> Iterator[tuple[int, Value]]:
    """Number and value of each field: an integer, or the bytes of a fixed or length-delimited one."""
    at, count = 0, 0
    message = _bytes(message)
    while at < len(message):
        key, at = _varint(message, at)
        if key < 8:
            raise _Damaged(f"a field without a number before byte {at} of a message")
        if key & 7 == _VARINT:
            value: Value
            value, at = _varint(message, at)
        else:
            size, at = _size(message, at, key & 7)
            if size > len(message) - at:
                raise _Damaged(f"a field of {size:,} bytes with {len(message) - at:,} left: the file is cut")
            value, at = message[at : at + size], at + size
        if (count := count + 1) > _MOST_FIELDS:
            raise _Damaged(f"more than {_MOST_FIELDS:,} fields in one message")
        yield key >> 3, value


def _size(message: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    if wire_type == _LENGTH:
        return _varint(message, at)
    if wire_type not in (_FOUR_BYTES, _EIGHT_BYTES):
        raise _Damaged(f"wire type {wire_type} at byte {at} of a message")
    return 4 if wire_type == _FOUR_BYTES else 8, at


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at ``at``, seven bits a byte from the lowest, and where it ends."""
    value = 0
    for place in range(10):
        if at + place >= len(message):
            raise _Damaged("it ends within a number: the file is cut")
        byte = message[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise _Damaged(f"a number of more than ten bytes at byte {at} of a message")


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number where a message should be")
    return value


def _layer(message: Value, name_field: int, blobs_field: int, norm_field: int | None) -> Layer:
    name, blobs, epsilon = "", [], _DEFAULT_EPSILON
    for field, value in _fields(message):
        if field == name_field:
            name = bytes(_bytes(value)).decode(errors="replace")
        elif field == blobs_field:
            blobs.append(_blob(value))
        elif field == norm_field:
            epsilon = _epsilon(value)
    return Layer(name, tuple(blobs), epsilon)


def _epsilon(message: Value) -> float:
    values = [_bytes(value) for field, value in _fields(message) if field == _EPSILON]
    if any(len(value) != 4 for value in values):
        raise _Damaged("an epsilon that is not a float")
    # Through the decimal digits: the float32 nearest to 1e-5 stands for 1e-5.
    return float(str(np.float32(struct.unpack("<f", values[-1])[0]))) if values else _DEFAULT_EPSILON


def _blob(message: Value) -> Array:
    numbers: dict[int, list[memoryview]] = {_FLOATS: [], _DOUBLES: []}
    shape: tuple[int, ...] = ()
    old_shape: dict[int, int] = {}
    for field, value in _fields(message):
        if field in numbers:
            numbers[field].append(_bytes(value))
        elif field == _SHAPE:
            shape = _dimensions(value)
        elif field in _OLD_SHAPE and isinstance(value, int):
            old_shape[field] = value
    kind = "<f8" if numbers[_DOUBLES] else "<f4"
    parts = numbers[_DOUBLES] or numbers[_FLOATS]
    return _array(parts, kind, _without_leading_ones(old_shape) if old_shape else shape)


def _dimensions(message: Value) -> tuple[int, ...]:
    """The axes of a BlobShape, written as one packed field or one field each."""
    sizes: list[int] = []
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            sizes.append(value)
        elif field == 1:
            packed, at = _bytes(value), 0
            while at < len(packed) and len(sizes) <= _MOST_AXES:
                size, at = _varint(packed, at)
                sizes.append(size)
    if len(sizes) > _MOST_AXES:
        raise _Damaged(f"an array of more than {_MOST_AXES} axes")
    return tuple(sizes)


def _without_leading_ones(old_shape: dict[int, int]) -> tuple[int, ...]:
    """Files from before BlobShape have four axes everywhere: a bias is 1 × 1 × 1 × n."""
    shape = [old_shape.get(field, 0) for field in _OLD_SHAPE]
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return tuple(shape)


def _array(parts: list[memoryview], kind: str, shape: tuple[int, ...]) -> Array:
    size = np.dtype(kind).itemsize
    held, rest = divmod(sum(len(part) for part in parts), size)
    if len(parts) > 1:
        raise _Damaged("an array in several pieces, which Caffe does not write")
    if rest or held != math.prod(shape):
        raise _Damaged(f"an array of shape {shape} with {held:,} numbers in it")
    data = parts[0] if parts else memoryview(b"")
    return Array(shape, lambda: np.frombuffer(data, kind).reshape(shape))
