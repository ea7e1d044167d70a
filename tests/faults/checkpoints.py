"""Hostile and broken files in the place of checkpoints and weights; each is generated, none is kept."""

import collections
import functools
import importlib
import io
import os
import pickle
import socket
import struct
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import torch

Content = dict[str, Any]
_CODE = "code ("
ENTRIES = ("evaluate", "resume", "weights")
_EVERYWHERE = frozenset(ENTRIES)
_CKPT = frozenset({"evaluate", "resume"})


class Hostile(NamedTuple):
    """One file.

    Args:
        write: Puts it at a path, given what a right file holds and a path that only code in it would make.
        refused_by: The entry points to which it is no harmless file.
        told: What the refusal says of it.
    """

    write: Callable[[Path, Content, Path], None]
    refused_by: frozenset[str] = _EVERYWHERE
    told: str = ""


class Reduced:
    """Unpickled, it calls."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def packed(records: dict[str, bytes] | list[tuple[str, bytes]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data in records.items() if isinstance(records, dict) else records:
            archive.writestr(name, data)
    return buffer.getvalue()


def records_of(content: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(saved(content))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def of_bytes(make: Callable[[Content], bytes], refused_by: frozenset[str] = _EVERYWHERE, told: str = "") -> Hostile:
    return Hostile(lambda path, content, canary: _write(path, make(content)), refused_by, told)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def gadget(place: tuple[Any, ...], call: Callable[[Path], Reduced]) -> Hostile:
    """Code in one place of what is otherwise a right file."""

    def write(path: Path, content: Content, canary: Path) -> None:
        path.write_bytes(saved(placed(content, place, call(canary))))

    return Hostile(write, told=_CODE)


def changed(place: tuple[Any, ...], value: Any, refused_by: frozenset[str] = _EVERYWHERE) -> Hostile:
    return of_bytes(
        lambda content: saved(placed(content, place, value(content) if isinstance(value, FunctionType) else value)),
        refused_by,
    )


def placed(content: Content, place: tuple[Any, ...], value: Any) -> Content:
    content = deepcopy(content)
    node: Any = content
    for key in place[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
    node[place[-1]] = value
    return content


def without(*place: Any) -> Callable[[Content], bytes]:
    def make(content: Content) -> bytes:
        content = deepcopy(content)
        node: Any = content
        for key in place[:-1]:
            node = node.get(key, {})
        node.pop(place[-1], None)
        return saved(content)

    return make


def first_weight(content: Content) -> str:
    return next(iter(content["state_dict"]))


def repickled(old: bytes, new: bytes) -> Callable[[Content], bytes]:
    """The right file with other instructions in its pickle, and checksums that fit them."""

    def make(content: Content) -> bytes:
        records = records_of(content)
        assert old in records["archive/data.pkl"]
        return packed({**records, "archive/data.pkl": records["archive/data.pkl"].replace(old, new)})

    return make


def with_pickle(pickled: bytes) -> Callable[[Content], bytes]:
    return lambda content: packed({**records_of(content), "archive/data.pkl": pickled})


def beside(name: str) -> Callable[[Content], bytes]:
    """The right file with an entry more."""
    return lambda content: packed([*records_of(content).items(), (name, b"x")])


def _short_storage(content: Content) -> bytes:
    records = records_of(content)
    return packed({**records, "archive/data/0": records["archive/data/0"][:-4]})


def _laughs() -> list:
    """Forty lists, each twice in the next: a walk over it never ends."""
    nest: list = []
    for _ in range(40):
        nest = [nest, nest]
    return nest


def _deep() -> bytes:
    return b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."


def _circular() -> list:
    nest: list = []
    nest.append(nest)
    return nest


class _Hiding:
    """Unpickled, a mapping whose ``items`` is a text."""

    def __reduce__(self) -> tuple:
        return collections.OrderedDict, (), {"items": "shadowed"}


def _overlapping(content: Content) -> bytes:
    whole = torch.zeros(max(value.numel() for value in content["state_dict"].values()))
    shared = {f"layer{i}": whole for i in range(2000)}
    return saved({**content, "state_dict": {**content["state_dict"], **shared}})


def _stride_0(content: Content) -> bytes:
    return saved(placed(content, ("state_dict", first_weight(content)), torch.zeros(1).expand(10**6, 10**6)))


def _layered(content: Content) -> bytes:
    """Five hundred entries of the directory that all point to the same megabyte."""
    data = packed({**records_of(content), "archive/data/big": bytes(10**6)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        place = archive.infolist()[-1].header_offset
        start, count = archive.start_dir, len(archive.infolist())
    directory, end = data[start:-22], data[-22:]
    entry = directory[directory.rindex(b"PK\x01\x02") :]
    assert struct.unpack("<L", entry[42:46])[0] == place
    copies = b"".join(entry.replace(b"data/big", f"data/{i:03d}".encode()) for i in range(500))
    total = len(directory) + len(copies)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count + 500, count + 500, total, start, 0)
    return data[:start] + directory + copies + end


def _encrypted(content: Content) -> bytes:
    data = bytearray(packed(records_of(content)))
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    return bytes(data)


def _flipped(content: Content) -> bytes:
    """The lowest bit of a weight: a number as good as any other."""
    data, weight = bytearray(saved(content)), content["state_dict"][first_weight(content)]
    data[data.index(weight.numpy().tobytes()[:64])] ^= 1
    return bytes(data)


def _tar(content: Content) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../../escaped"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"\x80\x02N."))
    return buffer.getvalue()


def _cut(share: float) -> Callable[[Content], bytes]:
    return lambda content: (data := saved(content))[: int(len(data) * share)]


def _fifo(path: Path, content: Content, canary: Path) -> None:
    os.mkfifo(path)


def _link(path: Path, content: Content, canary: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path, content: Content, canary: Path) -> None:
    path.symlink_to(path)


def _folder(path: Path, content: Content, canary: Path) -> None:
    path.mkdir()


def _legacy_gadget(path: Path, content: Content, canary: Path) -> None:
    evil = Reduced(os.mkdir, str(canary))
    path.write_bytes(saved(placed(content, ("state_dict", "x"), evil), _use_new_zipfile_serialization=False))


def _raw(protocol: int) -> Callable[[Path, Content, Path], None]:
    def write(path: Path, content: Content, canary: Path) -> None:
        path.write_bytes(pickle.dumps(Reduced(os.mkdir, str(canary)), protocol))

    return write


def _zipped_pickle(pickled: Callable[[Path], bytes]) -> Hostile:
    return Hostile(lambda path, content, canary: _write(path, with_pickle(pickled(canary))(content)), told=_CODE)


def _inst(canary: Path) -> bytes:
    return b"(S'" + str(canary).encode() + b"'\nios\nmkdir\n."


def _terabyte(call: Any, *arguments: Any) -> Hostile:
    return gadget(("state_dict", "x"), lambda canary: Reduced(call, *arguments))


NAN, INF = torch.tensor(float("nan")), torch.tensor(float("inf"))


def _spoiled(value: torch.Tensor) -> Callable[[Content], bytes]:
    def make(content: Content) -> bytes:
        name = first_weight(content)
        weight = content["state_dict"][name].clone()
        weight.view(-1)[-1] = value
        return saved(placed(content, ("state_dict", name), weight))

    return make


def _other_weight(content: Content) -> torch.Tensor:
    return torch.zeros(3, 5, 7)


def _mkdir(canary: Path) -> Reduced:
    return Reduced(os.mkdir, str(canary))


EXTRA = "hyper_parameters"
CARD = "likeness"
FILES: dict[str, Hostile] = {
    "code among the weights": gadget(("state_dict", "x"), lambda c: Reduced(os.system, f"touch {c}")),
    "code as a name": Hostile(
        lambda path, content, canary: _write(path, saved({**content, "k": {(_mkdir(canary),): 1}}))
    ),
    "code in hyper_parameters": gadget((EXTRA,), lambda c: Reduced(exec, f"open({str(c)!r}, 'w')")),
    "code in optimizer_states": gadget(("optimizer_states",), lambda c: Reduced(eval, f"open({str(c)!r}, 'w')")),
    "code in the card": gadget((CARD, "options"), lambda c: Reduced(subprocess.Popen, ["touch", str(c)])),
    "code in callbacks": gadget(("callbacks", "x"), lambda c: Reduced(open, str(c), "w")),
    "code in loops": gadget(("loops", "x"), lambda c: Reduced(socket.create_connection, ("127.0.0.1", 9))),
    "code in lr_schedulers": gadget(("lr_schedulers",), lambda c: Reduced(importlib.import_module, "antigravity")),
    "code deep in a list": gadget(("a",), lambda c: Reduced(getattr, Reduced(importlib.import_module, "os"), "mkdir")),
    "code in a partial": gadget(("a",), lambda c: Reduced(functools.partial, os.mkdir, str(c))),
    "code from the hub": gadget(("a",), lambda c: Reduced(torch.hub.load, "a/b", "c")),
    "a pickle in a pickle": gadget(("a",), lambda c: Reduced(pickle.loads, pickle.dumps(_mkdir(c)))),
    "code and nothing else": Hostile(lambda path, content, canary: _write(path, saved(_mkdir(canary)))),
    "a whole module": changed(("a",), torch.nn.Linear(2, 2)),
    "code as the kind of a storage": of_bytes(repickled(b"ctorch\nFloatStorage", b"cposix\nsystem"), told=_CODE),
    "code of a newer pickle": _zipped_pickle(lambda canary: pickle.dumps(_mkdir(canary), 4)),
    "code of an old pickle": _zipped_pickle(_inst),
    "a raw pickle": Hostile(_raw(2)),
    "a raw pickle of protocol 4": Hostile(_raw(4)),
    "code in torch's format before 1.6": Hostile(_legacy_gadget),
    "torch's oldest format, a tar": of_bytes(_tar),
    "TorchScript": of_bytes(beside("archive/constants.pkl"), told="code (TorchScript)"),
    "_instantiator": changed((EXTRA,), {"_instantiator": "os.system"}, frozenset()),
    "_class_path": changed((EXTRA,), {"_class_path": "os.system", "init_args": {}}, frozenset()),
    "_target_ in hyper_parameters": changed((EXTRA,), {"_target_": "os.system", "command": "true"}, frozenset()),
    "_target_ in the card": changed((CARD, "architecture", "_target_"), "os.system", frozenset({"evaluate"})),
    "another class in the card": changed((CARD, "architecture", "class"), "nn", frozenset({"evaluate"})),
    "an interpolation in the card": changed((CARD, "backbone", "name"), "${oc.env:HOME}", frozenset({"evaluate"})),
    "an interpolation as the file of weights": changed(
        (CARD, "backbone", "weights"), "${oc.env:HOME}", frozenset({"evaluate"})
    ),
    "a view of a terabyte": of_bytes(_stride_0),
    "two thousand weights that are one": of_bytes(_overlapping),
    "a storage shorter than it says": of_bytes(_short_storage),
    "a terabyte of bytes": _terabyte(bytearray, 1 << 40),
    "a terabyte of numbers": _terabyte(torch.Tensor, 1 << 38),
    "a terabyte without a storage": _terabyte(
        torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (10**6, 10**6), (10**6, 1), False
    ),
    "a sparse terabyte": changed(
        ("state_dict", "x"), torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6), check_invariants=True)
    ),
    "a compressed archive": of_bytes(lambda content: packed(records_of(content), compression=zipfile.ZIP_DEFLATED)),
    "a zip bomb": of_bytes(
        lambda content: packed(
            {**records_of(content), "archive/data/zeros": bytes(1 << 26)}, compression=zipfile.ZIP_DEFLATED
        )
    ),
    "entries over each other": of_bytes(_layered, told="lie over each other"),
    "an archive in an archive": of_bytes(lambda content: packed({"archive/inner.ckpt": saved(content)})),
    "a NaN": of_bytes(_spoiled(NAN)),
    "an infinity": of_bytes(_spoiled(INF)),
    "a layer of a billion": changed((CARD, "architecture", "widths"), [10**9], frozenset({"evaluate"})),
    "layers beyond any number": changed((CARD, "architecture", "widths"), [2**62, 2**62], frozenset({"evaluate"})),
    "a hundred thousand layers": changed((CARD, "architecture", "widths"), [1] * 100_000, frozenset({"evaluate"})),
    "features of a billion": changed((CARD, "feature_shape"), [10**9, 10**9], _CKPT),
    "a feature of less than nothing": changed((CARD, "feature_shape"), [-1], _CKPT),
    "weights of another shape": changed(("state_dict", "head.encoder.0.weight"), _other_weight),
    "weights of another name": changed(("state_dict", "nobody.knows"), _other_weight),
    "a weight too few": of_bytes(lambda content: without("state_dict", first_weight(content))(content)),
    "a list of weights": changed(("state_dict",), [torch.zeros(2)]),
    "numbers as weights": changed(("state_dict",), {"a": 1}),
    "a list as the card": changed((CARD,), [1], _CKPT),
    "a card without a class": changed((CARD, "scaling"), {"kind": "none"}, _CKPT),
    "a text as the seed": changed((CARD, "seed"), "0", _CKPT),
    "a seed below zero": changed((CARD, "seed"), -1, _CKPT),
    "a number too long to be shown": changed((CARD, "metric", "ks"), [1 << 20_000]),
    "a seed of two thousand bits": changed((CARD, "seed"), 1 << 2000, _CKPT),
    "numbers as classes": changed((CARD, "classes"), [1, 2], _CKPT),
    "scoring by nobody's rule": changed((CARD, "metric", "ties"), {"a": 1}, frozenset({"evaluate"})),
    "scoring with an unknown option": changed((CARD, "metric", "codes"), 1, frozenset({"evaluate"})),
    "depth without end": of_bytes(with_pickle(_deep()), told="nested deeper"),
    "lists of lists, a million million": changed((EXTRA,), _laughs()),
    "a list in itself": changed((EXTRA,), _circular()),
    "a mapping that hides its methods": changed(("state_dict",), _Hiding()),
    "an archive behind a program": of_bytes(lambda content: b"\x7fELF" + bytes(60) + saved(content)),
    "an archive behind a web page": of_bytes(lambda content: b"<html></html>" + saved(content)),
    "an archive before a web page": of_bytes(lambda content: saved(content) + b"<html></html>"),
    "an archive behind an archive": of_bytes(lambda content: packed({"archive/a": b"x"}) + packed(records_of(content))),
    "a link to a device": Hostile(_link),
    "a link to itself": Hostile(_circle),
    "a pipe": Hostile(_fifo),
    "a folder": Hostile(_folder),
    "an empty file": of_bytes(lambda content: b""),
    "half a header": of_bytes(lambda content: b"PK\x03\x04"),
    "cut at a quarter": of_bytes(_cut(0.25)),
    "cut in the middle": of_bytes(_cut(0.5)),
    "cut at its end": of_bytes(_cut(0.999)),
    "a flipped bit": of_bytes(_flipped),
    "two entries of one name": of_bytes(beside("archive/version")),
    "two entries that differ in case": of_bytes(beside("archive/DATA.PKL")),
    "an entry above its folder": of_bytes(beside("archive/../../escaped")),
    "an entry from the root": of_bytes(beside("/etc/escaped")),
    "an encrypted entry": of_bytes(_encrypted),
    "a newer schema": changed((CARD, "schema"), 2, _CKPT),
    "a text as the schema": changed((CARD, "schema"), "1", _CKPT),
    "another Lightning checkpoint": of_bytes(without(CARD), _CKPT),
    "a count of steps below zero": changed(("global_step",), -5, frozenset({"resume"})),
    "no loops": of_bytes(without("loops"), frozenset({"resume"})),
    "a count of batches below zero": changed(
        ("loops", "fit_loop", "epoch_loop.batch_progress", "total", "ready"), -1, frozenset({"resume"})
    ),
    "a version that is none": changed(("pytorch-lightning_version",), "x" * 50, frozenset({"resume"})),
    "no state of an optimizer": changed(("optimizer_states",), [], frozenset({"resume"})),
    "another optimizer": changed(
        ("optimizer_states",), [{"state": {}, "param_groups": [{"params": [0]}]}], frozenset({"resume"})
    ),
    "a path to remove": changed(
        ("callbacks", "x"), {"best_model_path": "/etc/passwd", "best_k_models": {}}, frozenset({"resume"})
    ),
    "a folder to remove": changed(
        ("callbacks", "x"), {"best_model_path": "", "best_k_models": {"/a/..": NAN}}, frozenset({"resume"})
    ),
    "characters that move the cursor": changed(("state_dict", "\x1b]0;owned\x07"), _other_weight),
}


def hostile_files() -> Iterator[tuple[str, str, Hostile]]:
    """Entry point, name and file of each."""
    for entry in ENTRIES:
        for name, file in FILES.items():
            yield entry, name, file
