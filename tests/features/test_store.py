import hashlib
import itertools
import logging
import multiprocessing
import os
import socket
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from likeness import locking
from likeness.errors import LikenessError
from likeness.features import store as stores
from likeness.features.store import WHOLE, MappedRows, Share, Shelf

IDENTITY = {"backbone": {"network": "x", "weights": "abc"}, "dtype": "float32"}


def keys_of(*names: str) -> np.ndarray:
    return np.stack([np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint8) for name in names])


def rows_of(*values: float) -> np.ndarray:
    return np.array([[value, value + 0.5] for value in values], np.float32)


def filled(folder: Path) -> Shelf:
    shelf = Shelf(folder, IDENTITY)
    shelf.add(keys_of("a", "b"), rows_of(1, 2), np.array([0.1, 0.2], np.float32))
    shelf.add(keys_of("c"), rows_of(3), np.array([0.3], np.float32))
    shelf.refresh()
    return shelf


def test_rows_come_back_in_the_order_asked_for(tmp_path):
    filled(tmp_path)
    reader = Shelf(tmp_path, IDENTITY)
    reader.refresh()
    places = reader.find(keys_of("c", "nobody", "a", "c"))
    assert places.missing.tolist() == [False, True, False, False]
    places = reader.find(keys_of("c", "a", "c"))
    assert reader.rows(places).tolist() == [[3, 3.5], [1, 1.5], [3, 3.5]]
    assert reader.white(places).tolist() == pytest.approx([0.3, 0.1, 0.3])


def test_an_empty_shelf_lacks_everything(tmp_path):
    shelf = Shelf(tmp_path, IDENTITY)
    shelf.refresh()
    assert shelf.find(keys_of("a", "b")).missing.all()
    assert len(shelf.find(np.empty((0, 32), np.uint8)).row) == 0


def test_another_identity_is_another_shelf(tmp_path):
    filled(tmp_path)
    other = Shelf(tmp_path, {**IDENTITY, "dtype": "bfloat16"})
    other.refresh()
    assert other.find(keys_of("a")).missing.all()


def test_mapped_rows_index_like_a_tensor(tmp_path):
    shelf = filled(tmp_path)
    places = shelf.find(keys_of("c", "b", "a"))
    mapped, tensor = shelf.rows(places, memory_bytes=1), shelf.rows(places)
    assert isinstance(mapped, MappedRows)
    assert mapped.shape == tensor.shape
    at = torch.tensor([2, 0, 2])
    assert torch.equal(mapped[at], tensor[at])
    assert torch.equal(mapped[1:], tensor[1:])
    assert torch.equal(mapped.chosen(np.array([1, 2]))[torch.tensor([1])], tensor[2:])


def test_a_shard_is_plain_safetensors(tmp_path):
    shelf = filled(tmp_path)
    content = [load_file(path) for path in sorted(shelf.folder.glob("shard-*.safetensors"))]
    assert sorted(len(shard["keys"]) for shard in content) == [1, 2]
    assert (shelf.folder / "extractor.json").exists()


@pytest.mark.fault("F22")
def test_every_flipped_byte_is_noticed(tmp_path, caplog):
    """One bit in each part of the file: length, header, tensors. The rows count as missing, never as right."""
    shelf = Shelf(tmp_path, IDENTITY)
    shelf.add(keys_of("a"), rows_of(1), np.zeros(1, np.float32))
    path = next(shelf.folder.glob("shard-*"))
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        reader = Shelf(tmp_path, IDENTITY)
        reader.refresh()
        while not reader.verify(places := reader.find(keys_of("a"))):
            pass
        assert places.missing.all(), f"byte {position}"
        for aside in shelf.folder.glob("*.corrupt-*"):
            aside.unlink()
    assert "STORE-CORRUPT" in caplog.text


@pytest.mark.fault("F22")
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_a_cut_shard_is_set_aside(tmp_path, share):
    shelf = Shelf(tmp_path, IDENTITY)
    shelf.add(keys_of("a", "b"), rows_of(1, 2), np.zeros(2, np.float32))
    path = next(shelf.folder.glob("shard-*"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    reader = Shelf(tmp_path, IDENTITY)
    reader.refresh()
    while not reader.verify(places := reader.find(keys_of("a", "b"))):
        pass
    assert places.missing.all()
    assert list(shelf.folder.glob("*.corrupt-*"))


@pytest.mark.fault("F26")
def test_a_newer_schema_is_refused_and_left_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(stores, "SCHEMA", 9)
        filled(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LikenessError, match="schema 9") as refusal:
        Shelf(tmp_path, IDENTITY).refresh()
    error = refusal.value
    assert (error.code, error.exit_code, error.what) == (
        "STORE-VERSION",
        65,
        "the store was written with schema 9; this version reads up to 1.",
    )
    assert str(tmp_path) in error.where
    assert (error.cause, error.kept) == ("A newer likeness has filled it.", "Nothing was changed.")
    assert "paths.store=" in error.fix
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.fault("F37")
def test_a_full_disk_is_told_before_work_starts(tmp_path):
    shelf = Shelf(tmp_path, IDENTITY)
    with shelf.filling(), pytest.raises(LikenessError, match="GB are free") as refusal:
        shelf.refuse_full_disk(10**15, (1024,))
    assert refusal.value.exit_code == 74


def _hold(folder: Path, seconds: float) -> None:
    with Shelf(folder, IDENTITY).filling():
        (folder / "held").touch()
        time.sleep(seconds)


@pytest.mark.fault("F28")
def test_who_waits_says_for_whom(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(locking, "_SECONDS_BETWEEN_LINES", 0.2)
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, 4.0))
    holder.start()
    while not (tmp_path / "held").exists():
        assert holder.is_alive()
        time.sleep(0.01)
    with Shelf(tmp_path, IDENTITY).filling():
        assert f"pid {holder.pid}" in caplog.text
    holder.join()


@pytest.mark.parametrize("of", [1, 2, 3, 7, 16, 1000])
def test_every_picture_is_in_one_share_and_its_content_says_in_which(of):
    """Against Python's integers: the first four bytes as a place from 0 to 1."""
    keys = keys_of(*map(str, range(300)))
    place = [int.from_bytes(key[:4].tobytes(), "big") * of // 2**32 for key in keys]
    held = np.stack([Share(number, of).holds(keys) for number in range(of)])
    assert held.sum(0).tolist() == [1] * 300
    assert held.argmax(0).tolist() == place


def test_the_shares_of_a_share_are_the_share():
    keys = keys_of(*map(str, range(300)))
    for of, parts in itertools.product((1, 2, 5), (1, 2, 3)):
        share = Share(of - 1, of)
        held = np.stack([share.part(number, parts).holds(keys) for number in range(parts)])
        assert (held.sum(0) == share.holds(keys)).all()


def test_shares_overlap_where_their_ranges_do():
    shares = [Share(number, of) for of in range(1, 7) for number in range(of)]
    for one, other in itertools.product(shares, shares):
        start = max(Fraction(one.number, one.of), Fraction(other.number, other.of))
        end = min(Fraction(one.number + 1, one.of), Fraction(other.number + 1, other.of))
        assert one.overlaps(other) == (start < end)


def _hold_share(folder: Path, share: Share) -> None:
    with Shelf(folder, IDENTITY).filling(share):
        (folder / "held").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        (folder / "over").touch()


@pytest.mark.parametrize("share", [WHOLE, Share(1, 2), Share(1, 3), Share(3, 4)])
def test_who_fills_waits_for_the_shares_that_overlap_and_for_no_other(tmp_path, monkeypatch, caplog, share):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(locking, "_SECONDS_BETWEEN_LINES", 0.1)
    holder = multiprocessing.get_context("fork").Process(target=_hold_share, args=(tmp_path, Share(1, 2)))
    holder.start()
    while not (tmp_path / "held").exists():
        assert holder.is_alive()
        time.sleep(0.01)
    with Shelf(tmp_path, IDENTITY).filling(Share(0, 6)), Shelf(tmp_path, IDENTITY).filling(Share(1, 4)):
        assert "waiting" not in caplog.text

    def go_when_waited_for() -> None:
        while f"pid {holder.pid}" not in caplog.text:
            time.sleep(0.01)
        (tmp_path / "go").touch()

    threading.Thread(target=go_when_waited_for, daemon=True).start()
    with Shelf(tmp_path, IDENTITY).filling(share):
        assert (tmp_path / "over").exists()
    holder.join()


@pytest.mark.fault("F33")
def test_a_dead_writers_leftovers_are_swept(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    shelf = filled(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    process.start()
    process.join()
    dead = shelf.folder / f".tmp-{socket.gethostname()}-{process.pid}-abcd"
    mine = shelf.folder / f".tmp-{socket.gethostname()}-{os.getpid()}-abcd"
    foreign = shelf.folder / ".tmp-otherhost-1-abcd"
    for path in (dead, mine, foreign):
        path.touch()
    with shelf.filling():
        assert not dead.exists()
        assert mine.exists()
        assert foreign.exists()
    assert "removed 1 stale" in caplog.text


@pytest.mark.fault("F29")
def test_broken_locks_are_gone_without(tmp_path, monkeypatch, caplog):
    def no_locks(self):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locking.FileLock, "acquire", no_locks)
    shelf = Shelf(tmp_path, IDENTITY)
    with shelf.filling():
        shelf.add(keys_of("a"), rows_of(1), np.zeros(1, np.float32))
    shelf.refresh()
    assert not shelf.find(keys_of("a")).missing.any()
    assert "[LOCK]" in caplog.text
