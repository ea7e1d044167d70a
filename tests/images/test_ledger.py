"""What a file held when it was last read; every digest is checked against hashlib's own of what lies there now."""

import hashlib
import logging
import os
import threading
import time
from pathlib import Path

import pytest

from likeness.images.folder import digests
from likeness.images.ledger import Ledger

OLD = 1_000_000_000  # seconds: long before any test


def written(path: Path, content: bytes, changed: float = OLD) -> Path:
    path.write_bytes(content)
    os.utime(path, (changed, changed))
    return path


def kept(store: Path, root: Path, *files: Path) -> Ledger:
    ledger = Ledger(store, root)
    digests(files, 2, ledger)
    ledger.keep()
    return ledger


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_a_change_of_size_or_time_is_seen_and_neither_is_not(tmp_path):
    file = written(tmp_path / "a.jpg", b"first")
    kept(tmp_path, tmp_path, file)
    written(file, b"other")
    assert Ledger(tmp_path, tmp_path).digest(file) == sha256(b"first")
    assert Ledger(tmp_path, tmp_path, rehash=True).digest(file) == sha256(b"other")
    written(file, b"other", OLD + 1e-6)
    assert Ledger(tmp_path, tmp_path).digest(file) == sha256(b"other")
    written(file, b"longer", OLD)
    assert Ledger(tmp_path, tmp_path).digest(file) == sha256(b"longer")


def test_the_same_bytes_elsewhere_are_another_file(tmp_path):
    one, two = written(tmp_path / "one.jpg", b"first"), written(tmp_path / "two.jpg", b"other")
    kept(tmp_path, tmp_path, one)
    assert Ledger(tmp_path, tmp_path).digest(two) == sha256(b"other")


@pytest.mark.fault("F31")
@pytest.mark.parametrize("age", [0.0, 1.5, -3600.0], ids=["just now", "within two seconds", "a clock ahead"])
def test_a_file_that_has_just_changed_is_not_noted(tmp_path, age):
    file = written(tmp_path / "a.jpg", b"first", time.time() - age)
    ledger = Ledger(tmp_path, tmp_path)
    assert ledger.digest(file) == sha256(b"first")
    assert ledger.fresh == {}


def test_a_file_that_changes_while_it_is_read_is_not_noted(tmp_path, monkeypatch):
    file, hashing = written(tmp_path / "a.jpg", b"first"), hashlib.file_digest

    def meanwhile(opened, name):
        found = hashing(opened, name)
        written(file, b"other", OLD + 5)
        return found

    monkeypatch.setattr(hashlib, "file_digest", meanwhile)
    ledger = Ledger(tmp_path, tmp_path)
    ledger.digest(file)
    assert ledger.fresh == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: data + data[-48:],
    ],
    ids=["cut", "no row left", "empty", "a bit flipped", "a row twice"],
)
def test_a_damaged_ledger_is_begun_anew(tmp_path, damage, caplog):
    caplog.set_level(logging.INFO)
    files = [written(tmp_path / name, name.encode()) for name in ("a.jpg", "b.jpg")]
    path = kept(tmp_path / "store", tmp_path, *files).path
    path.write_bytes(damage(path.read_bytes()))
    ledger = kept(tmp_path / "store", tmp_path, *files)
    assert "is damaged" in caplog.text
    assert len(ledger.fresh) == 0
    assert not Ledger(tmp_path / "store", tmp_path).fresh
    later = Ledger(tmp_path / "store", tmp_path)
    assert [later.digest(file) for file in files] == [sha256(b"a.jpg"), sha256(b"b.jpg")]
    assert later.fresh == {}


def test_two_writers_leave_one_whole_ledger(tmp_path):
    """What the loser noted is read again, and never wrong."""
    files = [written(tmp_path / f"{number}.jpg", b"%d" % number) for number in range(40)]
    ledgers = [Ledger(tmp_path / "store", tmp_path) for _ in range(8)]
    for number, ledger in enumerate(ledgers):
        digests(files[number::8], 1, ledger)
    writers = [threading.Thread(target=ledger.keep) for ledger in ledgers]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    later = Ledger(tmp_path / "store", tmp_path)
    assert [later.digest(file) for file in files] == [sha256(b"%d" % number) for number in range(40)]
    assert len(later.fresh) == 35
    later.keep()
    assert len(list(later.path.parent.iterdir())) == 1
    whole = Ledger(tmp_path / "store", tmp_path)
    assert len([whole.digest(file) for file in files]) == 40
    assert whole.fresh == {}


def test_each_root_has_its_own_ledger(tmp_path):
    assert Ledger(tmp_path, Path("/a")).path != Ledger(tmp_path, Path("/b")).path


@pytest.mark.fault("F25")
def test_a_store_that_cannot_be_written_costs_the_notes_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    file = written(tmp_path / "a.jpg", b"first")
    (tmp_path / "store").write_text("no folder")
    kept(tmp_path / "store", tmp_path, file)
    assert "are not kept" in caplog.text
