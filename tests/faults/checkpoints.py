"""Files that pass for checkpoints: hostile, broken, or of somebody else. Made from the content of a good one."""

import copy
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CARD = "likeness"
HUGE = 10**9
PLACES = ("state_dict", "optimizer_states", "hyper_parameters", "callbacks", "loops", CARD, "card class", "key")
Content = dict[str, Any]


class Runs:
    """Unpickling this calls something."""

    def __init__(self, call: Callable, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


class Builds(Runs):
    """Unpickling this calls something harmless, and then hands a state to what came of it."""

    def __reduce__(self):
        return self.call, self.arguments, {"state": 1}


def hostile(good: Content, canary: Path) -> dict[str, bytes | Callable[[Path], None]]:
    """By name, the bytes of each file, or what makes it at a path. Whatever runs leaves ``canary``."""
    touch = f"touch {canary}"
    made: dict[str, Any] = {}
    for place in PLACES:
        made[f"os.system in {place}"] = saved(put(good, place, Runs(os.system, touch)))
    for call, argument in ((exec, f"open({str(canary)!r}, 'w')"), (eval, f"open({str(canary)!r}, 'w')")):
        made[f"{call.__name__} in callbacks"] = saved(put(good, "callbacks", Runs(call, argument)))
    made["open in callbacks"] = saved(put(good, "callbacks", Runs(open, str(canary), "w")))
    made["mkdir with a state"] = saved(put(good, "callbacks", Builds(os.mkdir, str(canary))))
    made["getattr chain"] = saved(put(good, "callbacks", Runs(getattr, Path, "open")))
    made["torch.load within"] = saved(put(good, "callbacks", Runs(torch.load, str(canary))))
    made["a path object"] = saved(put(good, "callbacks", Path("/etc")))
    made["a raw pickle"] = pickle.dumps(Runs(os.system, touch))
    made["a raw pickle of plain values"] = pickle.dumps({CARD: {"schema": 1}})
    made["the format before archives"] = saved(put(good, "callbacks", Runs(os.system, touch)), zip_format=False)
    made["the format before archives, good"] = saved(good, zip_format=False)
    for name in ("_instantiator", "_class_path", "_target_"):
        said = {name: "os.system", "_args_": [touch]}
        made[f"{name} in hyper parameters"] = saved(put(good, "hyper_parameters", said))
    made |= {f"card: {name}": saved(carded(good, **change)) for name, change in CARDS.items()}
    made |= {f"weights: {name}": saved({**good, "state_dict": state}) for name, state in _states(good).items()}
    made |= {f"content: {name}": saved(content) for name, content in _contents(good).items()}
    made |= {f"archive: {name}": data for name, data in _archives(good).items()}
    made["a folder"] = Path.mkdir
    made["a pipe"] = os.mkfifo
    made["a link to nothing"] = lambda path: path.symlink_to("nothing")
    made["a link to itself"] = lambda path: path.symlink_to(path)
    made["a link to a device"] = lambda path: path.symlink_to("/dev/zero")
    return made


CARDS: dict[str, Content] = {
    "a target": {"architecture": {"_target_": "os.system"}},
    "a class elsewhere": {"architecture": {"class": "os.system"}},
    "a private class": {"architecture": {"class": "_Part"}},
    "an unknown class": {"architecture": {"class": "Nothing"}},
    "no class": {"architecture": {"class": 7}},
    "an interpolation": {"architecture": {"widths": ["${oc.env:HOME}"]}},
    "an interpolation in data": {"data": {"root": "${oc.env:HOME}"}},
    "widths that fill the memory": {"architecture": {"widths": [HUGE]}},
    "widths beyond numbers": {"architecture": {"widths": [2**62, 2**62]}},
    "negative widths": {"architecture": {"widths": [-4]}},
    "a feature that fills the memory": {"feature_shape": [HUGE]},
    "a feature beyond numbers": {"feature_shape": [2**62, 2**62, 2**62]},
    "a negative feature": {"feature_shape": [-1]},
    "a feature of text": {"feature_shape": ["9"]},
    "no feature shape": {"feature_shape": None},
    "another fingerprint": {"fingerprint": "0" * 64},
    "a fingerprint that is a path": {"fingerprint": "../../etc"},
    "no schema": {"schema": None},
    "schema of text": {"schema": "1"},
    "a newer schema": {"schema": 99},
    "a seed of text": {"seed": "0"},
    "no backbone": {"backbone": None},
    "another network": {"backbone": {"name": "resnet50"}},
    "weights from elsewhere": {"backbone": {"weights": "/etc/passwd"}},
    "a picture that fills the memory": {"preprocessing": {"size": HUGE}},
    "unknown options": {"scaling": {"more": 1}},
    "an interpolation in the metric": {"metric": {"ties": "${oc.env:HOME}"}},
    "a metric of text": {"metric": {"ks": "many"}},
    "an unknown metric": {"metric": {"more": 1}},
}

# Nothing reads these: they are opened, and nothing comes of them.
HARMLESS = tuple(f"{name} in hyper parameters" for name in ("_instantiator", "_class_path", "_target_"))


def put(good: Content, place: str, value: Any) -> Content:
    content = copy.deepcopy(good)
    if place == "state_dict":
        content["state_dict"]["head.more"] = value
    elif place == "card class":
        content[CARD]["architecture"]["class"] = value
    elif place == "key":
        content[CARD][(value,)] = 1
    elif place == CARD:
        content[CARD]["seed"] = value
    else:
        content[place] = value
    return content


def carded(good: Content, **change: Any) -> Content:
    """The good content with another card; a dict is merged, None takes the entry away."""
    content = copy.deepcopy(good)
    card = content[CARD]
    for name, value in change.items():
        if value is None:
            del card[name]
        else:
            card[name] = {**card[name], **value} if isinstance(value, dict) and isinstance(card[name], dict) else value
    return content


def _states(good: Content) -> dict[str, Any]:
    state = good["state_dict"]
    name = next(name for name, value in state.items() if value.ndim == 2)
    value = state[name]

    def other(new: Any) -> Content:
        return OrderedDict({**state, name: new})

    nan, infinite = value.clone(), value.clone()
    nan[0, 0], infinite[0, 0] = float("nan"), float("inf")
    return {
        "none": {},
        "a list": [1, 2],
        "one is missing": {k: v for k, v in state.items() if k != name},
        "one more": {**state, "head.more": torch.zeros(2)},
        "of another shape": other(torch.zeros(3, 3)),
        "a value that stands for a billion": other(torch.zeros(1).expand(HUGE, 10)),
        "overlapping": other(torch.zeros(64).as_strided((HUGE, 2), (0, 1))),
        "sparse": other(
            torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (HUGE, 10), check_invariants=False)
        ),
        "on no device": other(torch.empty(HUGE, HUGE, device="meta")),
        "text": other("weights"),
        "NaN": other(nan),
        "infinite": other(infinite),
    }


def _contents(good: Content) -> dict[str, Any]:
    deep: Any = 0
    for _ in range(200):
        deep = [deep]
    return {
        "a list": [good],
        "a tensor": torch.zeros(3),
        "nothing": {},
        "no card": {k: v for k, v in good.items() if k != CARD},
        "a card that is a list": {**good, CARD: [1]},
        "weights alone": {"state_dict": good["state_dict"]},
        "another framework's": {"epoch": 1, "model": good["state_dict"], "args": {"lr": 0.1}},
        "no weights": {k: v for k, v in good.items() if k != "state_dict"},
        "a nest without end": {**good, CARD: {**good[CARD], "architecture": deep}},
    }


def _archives(good: Content) -> dict[str, bytes]:
    whole = saved(good)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    return {
        "empty file": b"",
        "its magic alone": b"PK\3\4",
        "a quarter": whole[: len(whole) // 4],
        "without its end": whole[:-30],
        "a flipped bit": bytes(flipped),
        "compressed": _repacked(whole, compression=zipfile.ZIP_DEFLATED),
        "a bomb": _repacked(whole, more={"archive/bomb": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED),
        "a program of TorchScript": _repacked(whole, more={"archive/constants.pkl": b"x"}),
        "two parts of one name": _repacked(whole, more={"archive/data.pkl": b"x"}),
        "without its values": _repacked(whole, without="data.pkl"),
        "without its weights": _repacked(whole, without="data/0"),
        "parts that are larger than it": _overlapping(whole),
        "something else in an archive": _zipped({"readme.txt": b"hello"}),
        "an archive in an archive": _zipped({"best.ckpt": whole}),
        "a page": b"<!DOCTYPE html><title>404",
        "a program": b"\x7fELF\2\1\1" + bytes(200),
        "zeros": bytes(100_000),
    }


def saved(content: Any, zip_format: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zip_format)
    return buffer.getvalue()


def _zipped(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _repacked(whole: bytes, more: dict[str, bytes] | None = None, without: str = "", compression: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        parts = [(name, old.read(name)) for name in old.namelist() if not (without and name.endswith(without))]
        first = parts[0][0].partition("/")[0]
        parts += [(name.replace("archive", first, 1), data) for name, data in (more or {}).items()]
        for name, data in parts:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of two parts of one name
                new.writestr(info, data)
    return buffer.getvalue()


def _overlapping(whole: bytes) -> bytes:
    """The directory says of every part that it is as long as the file."""
    data, start = bytearray(whole), 0
    while (start := data.find(b"PK\1\2", start)) >= 0:
        struct.pack_into("<II", data, start + 20, len(whole), len(whole))
        start += 4
    return bytes(data)
