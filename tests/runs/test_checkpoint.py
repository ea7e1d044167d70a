"""A checkpoint is whole or refused, and it is data: nothing in it is ever run."""

import errno
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from likeness.errors import LikenessError
from likeness.runs.checkpoint import CARD, SCHEMA, AtomicCheckpointIO, open_checkpoint, write_checkpoint

STATE = {"weight": torch.arange(500.0), "bias": torch.tensor([1.5, -2.0])}


class Canary:
    """Unpickling this leaves a file."""

    def __init__(self, path: Path, call=os.mkdir) -> None:
        self.path, self.call = path, call

    def __reduce__(self):
        return self.call, (str(self.path),)


@pytest.fixture
def written(tmp_path) -> Path:
    path = tmp_path / "best.ckpt"
    write_checkpoint({"state_dict": STATE, CARD: {"schema": SCHEMA, "classes": ["bed", "bath"]}}, path)
    return path


def refusal(path: Path) -> LikenessError:
    """What opening says; it never advises to open the file as code."""
    with pytest.raises(LikenessError) as caught:
        open_checkpoint(path)
    assert "weights_only" not in str(caught.value)
    assert str(path) in caught.value.where
    return caught.value


def repacked(path: Path, pickled: bytes) -> None:
    """The archive again, with other pickled bytes and checksums that fit them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    path.write_bytes(buffer.getvalue())


def test_what_is_written_is_read_back(written):
    content = open_checkpoint(written)
    assert content[CARD] == {"schema": 1, "classes": ["bed", "bath"]}
    assert content["state_dict"].keys() == STATE.keys()
    assert all(torch.equal(content["state_dict"][name], value) for name, value in STATE.items())
    assert os.listdir(written.parent) == ["best.ckpt"]


def test_lightnings_writer_and_reader_are_these(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3, CARD: {"schema": SCHEMA}}, str(path))
    assert AtomicCheckpointIO().load_checkpoint(str(path), weights_only=False)["epoch"] == 3
    AtomicCheckpointIO().remove_checkpoint(str(path))
    assert not path.exists()


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_an_earlier_checkpoint_survives_a_failed_write(written, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = written.read_bytes()
    monkeypatch.setattr(os, step, full)
    with pytest.raises(LikenessError) as caught:
        write_checkpoint({"state_dict": {}, CARD: {"schema": SCHEMA}}, written)
    assert caught.value.code == "DISK"
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == ["best.ckpt"]


@pytest.mark.parametrize("content", [{"a": Path("x")}, {"a": print}, {"a": {1, Path("x")}}])
def test_what_a_reader_would_refuse_is_not_written(written, content):
    before = written.read_bytes()
    with pytest.raises(pickle.UnpicklingError):
        write_checkpoint(content, written)
    assert written.read_bytes() == before


@pytest.mark.fault("F45")
@pytest.mark.parametrize("call", [os.mkdir, os.system, exec], ids=["mkdir", "system", "exec"])
@pytest.mark.parametrize("place", ["state_dict", CARD, "optimizer_states"])
def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path, place, call):
    path, canary = tmp_path / "evil.ckpt", tmp_path / "ran"
    argument = {os.system: f"touch {canary}", exec: f"import os; os.mkdir({str(canary)!r})"}.get(call, canary)
    torch.save({"state_dict": {}, CARD: {"schema": SCHEMA}} | {place: [Canary(argument, call)]}, path)
    error = refusal(path)
    assert (error.code, error.exit_code) == ("CKPT-UNTRUSTED", 77)
    assert call.__name__ in error.what
    assert not canary.exists()
    with zipfile.ZipFile(path) as archive:  # the canary is alive: unpickled as code it would have run
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        pickle.loads(archive.read(name))
    assert canary.exists()


@pytest.mark.fault("F45")
def test_a_plain_pickle_is_no_checkpoint_and_not_run(tmp_path):
    path, canary = tmp_path / "evil.ckpt", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Canary(canary)))
    assert refusal(path).code == "CKPT"
    torch.save(Canary(canary), path, _use_new_zipfile_serialization=False)
    assert refusal(path).code == "CKPT"
    assert not canary.exists()


@pytest.mark.fault("F45")
def test_a_cut_checkpoint_is_damaged_at_any_length(written):
    whole = written.read_bytes()
    for length in [0, 1, 3, *range(4, len(whole), 97), len(whole) - 1]:
        written.write_bytes(whole[:length])
        error = refusal(written)
        assert (error.code, error.exit_code) == ("CKPT", 74)
        assert "the file is as it was" in error.kept.lower()


@pytest.mark.fault("F45")
def test_no_flipped_bit_changes_what_is_read(written):
    whole = written.read_bytes()
    places, told, unharmed = range(0, len(whole), 13), [], 0
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        written.write_bytes(changed)
        try:
            unharmed += torch.equal(open_checkpoint(written)["state_dict"]["weight"], STATE["weight"])
        except LikenessError as error:
            told.append(error.code)
    assert set(told) == {"CKPT"}
    assert len(told) + unharmed == len(places)  # the archive's padding may hold anything
    assert len(told) > len(places) / 2


@pytest.mark.fault("F45")
def test_a_description_that_makes_the_reader_stumble_is_a_refusal(written):
    """Cut after each byte, with checksums that fit: the unpickler fails in a dozen ways, none of them a traceback."""
    with zipfile.ZipFile(written) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        pickled = archive.read(name)
    for length in range(0, len(pickled), 3):
        repacked(written, pickled[:length])
        assert refusal(written).code in ("CKPT", "CKPT-UNTRUSTED")


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", b"PK\x05\x06" + bytes(18), bytes(1000)])
def test_another_kind_of_file_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    assert refusal(path).code == "CKPT"


def test_an_archive_of_something_else_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert refusal(tmp_path / "a.ckpt").code == "CKPT"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"state_dict": {}}, "no checkpoint of likeness"),
        ({"state_dict": {}, CARD: {}}, "no checkpoint of likeness"),
        ({"state_dict": {}, CARD: [1]}, "no checkpoint of likeness"),
        ([1, 2], "no checkpoint of likeness"),
        (torch.zeros(3), "no checkpoint of likeness"),
        ({CARD: {"schema": SCHEMA + 1}}, f"schema {SCHEMA + 1}"),
        ({CARD: {"schema": 0}}, "schema 0"),
        ({CARD: {"schema": "1"}}, "schema 1"),
    ],
)
def test_another_schema_is_refused(tmp_path, content, what):
    torch.save(content, tmp_path / "a.ckpt")
    error = refusal(tmp_path / "a.ckpt")
    assert (error.code, error.exit_code) == ("CKPT-SCHEMA", 65)
    assert what in error.what
    assert ("upgrade likeness" in error.fix) == ("schema" in what)


@pytest.mark.parametrize("name", ["nothing.ckpt", "."])
def test_a_missing_checkpoint_says_what_to_give(tmp_path, name):
    error = refusal(tmp_path / name)
    assert (error.code, error.exit_code) == ("CKPT-MISSING", 66)
    assert "the file of a checkpoint" in error.fix


def test_an_archive_that_could_unpack_to_any_size_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(LikenessError, match="could not be read") as refusal:
        open_checkpoint(tmp_path / "bomb.ckpt")
    assert "compressed" in refusal.value.cause
