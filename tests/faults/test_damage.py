"""Files that changed after they were written, by a bit or at random: never taken for what they were, never a crash."""

import hashlib
import io
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from likeness.errors import LikenessError
from likeness.features.store import Shelf
from likeness.images.ledger import Ledger
from likeness.images.manifest import ImageManifest
from likeness.runs import journal, resumption, sweep
from likeness.runs.checkpoint import CARD, open_checkpoint, write_checkpoint
from likeness.runs.exported import write_exported

IDENTITY = {"backbone": {"network": "x", "weights": "abc"}, "dtype": "float32"}
KEYS = np.arange(4 * 32, dtype=np.uint8).reshape(4, 32)
ROWS = np.random.default_rng(0).normal(size=(4, 200)).astype(np.float32)
WHITE = np.zeros(4, np.float32)


def shard_in(store: Path) -> Path:
    """A shard of 4 KB, the only one."""
    shelf = Shelf(store, IDENTITY)
    shelf.add(KEYS, ROWS, WHITE)
    return next(shelf.folder.glob("shard-*"))


def found_in(store: Path) -> np.ndarray | None:
    """The four rows as a new process reads them; None where they would be computed again."""
    shelf = Shelf(store, IDENTITY)
    shelf.refresh()
    while not shelf.verify(places := shelf.find(KEYS)):
        pass
    for aside in shelf.folder.glob("*.corrupt-*"):
        aside.unlink()
    return None if places.missing.any() else shelf.rows(places).numpy()


def digest_in(store: Path, file: Path) -> bytes:
    return Ledger(store, file.parent).digest(file)


def noted(place: Path) -> tuple[Path, Path]:
    """A picture, and the ledger that knows it."""
    (place / "photos").mkdir(parents=True)
    file = place / "photos" / "a.jpg"
    file.write_bytes(b"picture")
    os.utime(file, (1e9, 1e9))
    ledger = Ledger(place, file.parent)
    ledger.digest(file)
    ledger.keep()
    return file, ledger.path


def checkpoint_in(place: Path) -> Path:
    path = place / "best.ckpt"
    write_checkpoint({"state_dict": {"w": torch.from_numpy(ROWS)}, CARD: {"schema": 1, "classes": ["a", "b"]}}, path)
    return path


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]


@pytest.mark.fault("F22")
def test_bit_rot_of_a_shard_is_seen_at_every_byte(tmp_path, figure):
    path = shard_in(tmp_path)
    whole = path.read_bytes()
    assert 3000 < len(whole) < 5000
    taken = 0
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place))
        taken += found_in(tmp_path) is not None
    figure("G11", f"bit rot at each of {len(whole)} bytes of a shard: taken for whole", 0, taken)
    path.write_bytes(whole)
    assert (found_in(tmp_path) == ROWS).all()


@pytest.mark.fault("F22")
def test_bit_rot_of_a_ledger_is_seen_at_every_byte(tmp_path, figure):
    file, path = noted(tmp_path)
    whole, taken = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place))
        taken += bool(Ledger(tmp_path, file.parent)._known)
    figure("G11", f"bit rot at each of {len(whole)} bytes of a ledger: taken for whole", 0, taken)
    path.write_bytes(whole)
    assert Ledger(tmp_path, file.parent)._known


@pytest.mark.fault("F34")
def test_bit_rot_of_a_checkpoint_changes_nothing_that_is_read(tmp_path, count, figure):
    """What its archive's checksums do not cover is padding and dates."""
    path = checkpoint_in(tmp_path)
    whole, expected = path.read_bytes(), open_checkpoint(path)
    places = range(0, len(whole), count(5, 1, 1))
    told = wrong = 0
    for place in places:
        path.write_bytes(flipped(whole, place))
        try:
            content = open_checkpoint(path)
        except LikenessError:
            told += 1
        else:
            wrong += content[CARD] != expected[CARD] or not torch.equal(
                content["state_dict"]["w"], torch.from_numpy(ROWS)
            )
    assert told > len(places) / 2
    figure("G11", f"bit rot at {len(places)} bytes of a checkpoint: another value read", 0, wrong)


@pytest.mark.fault("F49")
def test_bit_rot_of_an_exported_model_is_seen_at_every_byte(tmp_path, figure):
    path = tmp_path / "model.safetensors"
    card = {"schema": 1, "classes": ["a", "b"], "options": {"sha256": "0" * 64}}
    write_exported(card, {"head.w": torch.from_numpy(ROWS)}, {"conv.n": torch.tensor(3)}, path)
    content, whole, taken = open_checkpoint(path), path.read_bytes(), 0
    assert content[CARD] == card
    assert torch.equal(content["state_dict"]["head.w"], torch.from_numpy(ROWS))
    assert torch.equal(content["backbone"]["conv.n"], torch.tensor(3))
    for changed in [*(flipped(whole, at) for at in range(len(whole))), *(whole[:at] for at in range(len(whole)))]:
        path.write_bytes(changed)
        try:
            open_checkpoint(path)
            taken += 1
        except LikenessError:
            pass
    figure("G11", f"bit rot and cuts at each of {len(whole)} bytes of an exported model: taken for whole", 0, taken)


def mutated(whole: bytes, chance: np.random.Generator) -> bytes:
    """Bytes flipped, cut, put in, repeated or exchanged for what a reader may stumble over."""
    changed = bytearray(whole)
    for _ in range(int(chance.integers(1, 4))):
        start, length = int(chance.integers(len(changed) + 1)), int(chance.integers(1, 20))
        new = [
            b"",
            chance.bytes(length),
            bytes(length),
            bytes(changed[start : start + length]) * 2,
            bytes(chance.choice(STUMBLING)),
            bytes([changed[start - 1] ^ 1]) if changed else b"x",
        ][chance.integers(6)]
        changed[start : start + int(chance.integers(2)) * length] = new
    return bytes(changed if chance.random() < 0.9 else changed[: int(chance.integers(len(changed) + 1))])


STUMBLING = [
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"[]",
    b"{}",
    b'"',
    b"9" * 5000,
    b"[" * 2000,
    b"\xff\xfe",
    b"\r",
    b",",
    b"${a}",
    b"!!x",
]


def sealed(changed: bytes) -> tuple[bytes, str]:
    """A shard with these bytes for a header, its length and its name made to fit."""
    head = struct.pack("<Q", len(changed)) + changed
    return head, f"shard-{hashlib.sha256(head).hexdigest()}.safetensors"


def _read_shard(place: Path, change: Callable[[bytes], bytes]) -> bool:
    path = shard_in(place)
    path.write_bytes(change(path.read_bytes()))
    found = found_in(place)
    path.unlink(missing_ok=True)
    return found is None or (found == ROWS).all()


def _read_sealed(place: Path, change: Callable[[bytes], bytes]) -> bool:
    """A header that someone planted: its name fits, so what it says has to make sense."""
    path = shard_in(place)
    whole = path.read_bytes()
    path.unlink()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    head, name = sealed(change(whole[8:end]))
    (path.parent / name).write_bytes(head + whole[end:])
    found = found_in(place)
    (path.parent / name).unlink(missing_ok=True)
    return found is None or found.dtype == np.float32


def _read_identity(place: Path, change: Callable[[bytes], bytes]) -> bool:
    path = shard_in(place).parent / "extractor.json"
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    with Shelf(place, {**IDENTITY, "dtype": "bfloat16"}).filling():
        pass
    path.write_bytes(whole)
    return True


def _read_ledger(place: Path, change: Callable[[bytes], bytes]) -> bool:
    if not (place / "photos").exists():
        noted(place)
    path = next((place / "digests").iterdir())
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    found = digest_in(place, place / "photos" / "a.jpg")
    path.write_bytes(whole)
    return found == hashlib.sha256(b"picture").digest()


def _read_journal(place: Path, change: Callable[[bytes], bytes]) -> bool:
    path = place / "journal.jsonl"
    path.unlink(missing_ok=True)
    written = journal.Journal(path)
    written.write("run", name="a")
    written.write("metrics", step=3, epoch=0, **{"val/loss": 0.5})
    written.write("resumed_from", step=2)
    written.write("metrics", step=5, epoch=1, **{"val/loss": 0.25})
    path.write_bytes(change(path.read_bytes()))
    journal.Journal(path).write("last")
    events = journal.read(path)
    journal.epochs(journal.logged(events))
    return events[-1]["event"] == "last"


def _read_status(place: Path, change: Callable[[bytes], bytes]) -> bool:
    sweep.note(place, "running", {"host": os.uname().nodename, "pid": 1, "job": 2, "value": 0.5})
    path = place / "status.json"
    path.write_bytes(change(path.read_bytes()))
    resumption.resume(place, OmegaConf.create({"a": 1}), locked=False)
    return isinstance(sweep.standing(place), str)


def _read_config(place: Path, change: Callable[[bytes], bytes]) -> bool:
    sweep.note(place, "preempted", {})
    (place / "config.yaml").write_bytes(change(b"seed: 3\nnoise:\n  std: 0.5\nwidths: [16, 8]\nscheduler: null\n"))
    return resumption.resume(place, OmegaConf.create({"seed": 3}), locked=True) in (True, False)


def _read_checkpoint(place: Path, change: Callable[[bytes], bytes]) -> bool:
    path = checkpoint_in(place)
    path.write_bytes(change(path.read_bytes()))
    return isinstance(open_checkpoint(path), dict)


def _read_manifest(place: Path, change: Callable[[bytes], bytes]) -> bool:
    for number in range(6):
        (place / f"{number}.jpg").touch()
    rows = [
        f"{number}.jpg,{'ab'[number % 2]},{('train', 'val', 'test')[number // 2]},h{number},1,1" for number in range(6)
    ]
    text = "\n".join(["path,label,split,home,is_query,is_gallery", *rows]).encode()
    (place / "list.csv").write_bytes(change(text))
    return len(ImageManifest(str(place / "list.csv")).table()) <= 6


READERS = {
    "shard": _read_shard,
    "sealed shard": _read_sealed,
    "extractor.json": _read_identity,
    "ledger": _read_ledger,
    "journal": _read_journal,
    "status.json": _read_status,
    "config.yaml": _read_config,
    "checkpoint": _read_checkpoint,
    "manifest": _read_manifest,
}


@pytest.mark.fault("F22")
@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_was_changed_at_random_is_refused_or_read_and_never_a_crash(tmp_path, count, figure, kind):
    reader, chance = READERS[kind], np.random.default_rng(list(kind.encode()))
    times = count(150, 1500, 10_000)
    crashes, wrong, slowest = [], 0, 0.0
    for _ in range(times):
        started, seed = time.monotonic(), int(chance.integers(2**32))
        try:
            wrong += not reader(tmp_path, lambda whole, seed=seed: mutated(whole, np.random.default_rng(seed)))
        except LikenessError:
            pass
        except Exception as error:
            crashes.append(f"{seed}: {error!r}"[:300])
        slowest = max(slowest, time.monotonic() - started)
    figure("G10", f"{kind}, changed at random {times} times: ends that are no message of ours", [], crashes[:5])
    figure("G10", f"{kind}: wrong values, and waits over 5 s", 0, wrong + (slowest > 5))


class Canary:
    """Unpickling this leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _pickled(ran: Path) -> bytes:
    return pickle.dumps(Canary(ran))


def _saved(ran: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Canary(ran), buffer)
    return buffer.getvalue()


@pytest.mark.fault("F27")
@pytest.mark.parametrize("planted", [_pickled, _saved], ids=["pickle", "torch.save"])
def test_code_that_was_planted_as_a_shard_is_set_aside_and_never_run(tmp_path, planted, caplog):
    """Under a name that fits, with a header that fits the name, and beside a good shard."""
    folder, ran, seen = shard_in(tmp_path).parent, tmp_path / "ran", []
    code = planted(ran)
    (folder / f"shard-{'0' * 64}.safetensors").write_bytes(code)
    head, name = sealed(code)
    (folder / name).write_bytes(head)
    watched = [True]
    sys.addaudithook(lambda event, given: seen.append(event) if watched and event in RUNS_CODE else None)
    found = found_in(tmp_path)
    watched.clear()
    assert (found == ROWS).all()
    assert caplog.text.count("STORE-CORRUPT") == 2
    assert seen == []
    assert not ran.exists()
    pickle.loads(_pickled(ran))  # the canary is alive
    assert ran.exists()


RUNS_CODE = {"pickle.find_class", "exec", "compile", "os.system", "subprocess.Popen", "os.mkdir", "import"}


@pytest.mark.fault("F27")
def test_what_is_no_file_is_set_aside_and_not_waited_for(tmp_path):
    """A pipe, a folder, a link to a device and one to nothing, each under the name of a shard."""
    folder = shard_in(tmp_path).parent
    names = [folder / f"shard-{digit * 64}.safetensors" for digit in "0123"]
    os.mkfifo(names[0])
    names[1].mkdir()
    names[2].symlink_to("/dev/zero")
    names[3].symlink_to("/nowhere")
    shelf = Shelf(tmp_path, IDENTITY)
    shelf.refresh()
    assert (shelf.rows(shelf.find(KEYS)).numpy() == ROWS).all()
    assert not any(name.exists() for name in names)


@pytest.mark.fault("F22")
def test_a_shard_of_another_extractor_is_set_aside(tmp_path):
    """Copied into the folder of this one, under its own name and whole."""
    other = Shelf(tmp_path / "other", {**IDENTITY, "dtype": "bfloat16"})
    other.add(KEYS, ROWS + 1, WHITE)
    path = next(other.folder.glob("shard-*"))
    here = Shelf(tmp_path, IDENTITY).folder
    here.mkdir()
    (here / path.name).write_bytes(path.read_bytes())
    assert found_in(tmp_path) is None


def _shard_of_schema_1(fingerprint: str) -> tuple[str, bytes]:
    """Written by hand as the format says: what was written once is read for ever."""
    tensors = {"keys": KEYS.tobytes(), "features": ROWS.astype("<f4").tobytes(), "white": WHITE.astype("<f4").tobytes()}
    kinds = {"keys": ("U8", "[4,32]"), "features": ("F32", "[4,200]"), "white": ("F32", "[4]")}
    at, entries = 0, []
    for name, data in tensors.items():
        kind, shape = kinds[name]
        entries.append(f'"{name}":{{"dtype":"{kind}","shape":{shape},"data_offsets":[{at},{at + len(data)}]}}')
        at += len(data)
    sums = ",".join(f'"{name}":"{hashlib.sha256(data).hexdigest()}"' for name, data in tensors.items())
    header = f'{{"__metadata__":{{"schema":"1","extractor":"{fingerprint}",{sums}}},{",".join(entries)}}}'.encode()
    head = struct.pack("<Q", len(header)) + header
    return f"shard-{hashlib.sha256(head).hexdigest()}.safetensors", head + b"".join(tensors.values())


@pytest.mark.fault("F26")
def test_a_store_of_schema_1_is_read(tmp_path):
    shelf = Shelf(tmp_path, IDENTITY)
    shelf.folder.mkdir()
    name, data = _shard_of_schema_1(shelf.fingerprint)
    (shelf.folder / name).write_bytes(data)
    assert (found_in(tmp_path) == ROWS).all()
