"""``likeness doctor``: each fault is made, found, told with what mends it, and left as it was."""

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import called, draw_striped
from PIL import Image
from small_run import RaisedAt, config_of, train

from likeness import doctor
from likeness.errors import LikenessError
from likeness.features.store import Shelf
from likeness.files import write_json


def of(findings, state: str) -> list[str]:
    return [what for found, what, _ in findings if found == state]


@pytest.fixture
def split_photos(tmp_path) -> Path:
    for place, split in enumerate(("train", "val", "test")):
        for period, kind in ((4, "fine"), (9, "medium")):
            for number in range(3):
                draw_striped(tmp_path / "photos" / split / kind / f"{split}{number}.png", period, 10 * place + number)
    return tmp_path / "photos"


def test_good_pictures_have_no_fault(split_photos):
    found = list(doctor.dataset(split_photos))
    assert of(found, "fault") == []
    assert of(found, "fine") == ["18 pictures of 2 classes", "every picture can be decoded"]
    assert "val: fine 3, medium 3" in of(found, "note")


def test_copies_within_a_split_are_counted(split_photos):
    fine = split_photos / "train" / "fine"
    shutil.copy(fine / "train0.png", fine / "copy.png")
    assert "1 pictures have the bytes of another" in of(list(doctor.dataset(split_photos)), "note")


def test_each_fault_of_a_folder_of_pictures_is_found_with_what_mends_it(split_photos):
    fine = split_photos / "train" / "fine"
    (fine / "cut.jpg").write_bytes((fine / "train0.png").read_bytes()[:90])
    (fine / "page.jpg").write_bytes(b"<!DOCTYPE html><title>404")
    shutil.copy(fine / "train1.png", split_photos / "test" / "fine" / "copy.png")
    Image.new("RGB", (40, 40), "white").save(split_photos / "val" / "medium" / "plan.png")
    (split_photos / "val" / "lonely").mkdir()
    draw_striped(split_photos / "val" / "lonely" / "one.png", 20, 1)
    os.mkfifo(fine / "pipe.jpg")
    before = sorted(split_photos.rglob("*"))
    found = list(doctor.dataset(split_photos, r"\d"))
    faults = "\n".join(of(found, "fault"))
    assert "1 pictures [IMG-NOT-IMAGE]\ntrain/fine/page.jpg: starts with '<!DOCTYPE html><'" in faults
    assert "1 pictures [IMG-TRUNCATED]\ntrain/fine/cut.jpg" in faults
    assert "1 image is in both train and test (first: train/fine/train1.png = test/fine/copy.png)" in faults
    assert "homes in both train and val: 3" in faults
    assert 'in val but not in train: "lonely"' in faults
    assert "1 pipes, dead links and the like were not opened" in faults
    assert "5 files have no home" in faults
    assert of(found, "note")[-1] == "1 pictures are mostly white, as plans are\nval/medium/plan.png"
    assert all(mend for state, _, mend in found if state == "fault")
    assert sorted(split_photos.rglob("*")) == before


def shelf_in(folder: Path) -> Shelf:
    shelf = Shelf(folder, {"network": "x"})
    shelf.add(np.zeros((1, 32), np.uint8), np.ones((1, 4), np.float32), np.zeros(1, np.float32))
    return shelf


def test_a_whole_store_has_no_fault(tmp_path):
    shelf = shelf_in(tmp_path)
    found = list(doctor.store(tmp_path))
    assert of(found, "fault") == []
    assert of(found, "fine")[1:] == [
        "files are replaced at once, and locks lock",
        f"{shelf.folder.name}: 1 rows, 0 MiB, digests are right",
    ]
    assert os.listdir(tmp_path) == [shelf.folder.name], "what was tried is gone"


def test_damaged_shards_and_what_dead_writers_left_are_found_and_left(tmp_path):
    shelf = shelf_in(tmp_path)
    (shard,) = shelf.folder.glob("shard-*")
    whole = bytearray(shard.read_bytes())
    whole[-3] ^= 1
    shard.write_bytes(whole)
    old = shelf.folder / ".tmp-elsewhere-1-abcd"
    old.touch()
    os.utime(old, (time.time() - 1e6,) * 2)
    (shelf.folder / "shard-x.corrupt-1").touch()
    (tmp_path / ("0" * 16)).mkdir()
    before = sorted(tmp_path.rglob("*"))
    found = list(doctor.store(tmp_path))
    faults = of(found, "fault")
    assert faults[0].startswith("0000000000000000: extractor.json cannot be read")
    assert f"{shard.name}: " in faults[1]
    assert "fails its checksum" in faults[1]
    assert [text.partition(": ")[2] for text in of(found, "note")] == [
        "1 damaged shards were set aside",
        "1 files of writers that died",
    ]
    assert all(mend for state, _, mend in found if state != "fine")
    assert sorted(tmp_path.rglob("*")) == before


def test_locks_that_lie_or_are_missing_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *given: None)
    assert "lock nothing" in of(doctor.store(tmp_path), "fault")[0]

    def none(*given):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert "there are no locks" in of(doctor.store(tmp_path), "fault")[0]


def test_a_store_that_cannot_be_written_or_is_not_there_is_told(tmp_path, monkeypatch):
    assert of(doctor.store(tmp_path / "none"), "note") == [f"no store of features yet in {tmp_path / 'none'}"]

    def refused(*given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    (fault,) = of(doctor.store(tmp_path), "fault")
    assert "cannot be written" in fault


def test_a_run_is_looked_through(tmp_path):
    train(config_of("trainer.max_epochs=2", "callbacks.resume.every_n_epochs=1"), tmp_path, RaisedAt())
    with pytest.raises(LikenessError) as refusal:
        list(doctor.run(tmp_path))
    assert refusal.value.code == "RUN-MISSING"
    write_json(tmp_path / "status.json", {"state": "done"})
    assert of(doctor.run(tmp_path), "fault") == ["it is lost"], "done, without a result"
    write_json(tmp_path / "metrics.json", {})
    assert of(doctor.run(tmp_path), "fault") == []
    assert "best.ckpt opens, and its checksums are right" in of(doctor.run(tmp_path), "fine")
    assert any("its pictures are not in /none" in text for text in of(doctor.run(tmp_path), "note"))
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-100])
    write_json(tmp_path / "status.json", {"state": "failed"})
    (tmp_path / "journal.jsonl").unlink()
    assert of(doctor.run(tmp_path), "fault")[:2] == ["it is failed", "the journal has 0 events, 0 epochs"]
    assert of(doctor.run(tmp_path), "fault")[2].startswith("best.ckpt: best.ckpt could not be read.")


def test_the_machine_says_what_is_missing_and_how_to_get_it(monkeypatch):
    asked = ["torch>=2", "nothing-of-the-kind>=3", "numpy>=999", 'absent-too>=1; extra == "more"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: asked)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}" if name == "sbatch" else None)
    silent = SimpleNamespace(returncode=1, stdout="", stderr="no controller\n")
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: silent)
    found = list(doctor.machine())
    assert [text.split(" is ")[0] for text in of(found, "fault")][:2] == ["nothing-of-the-kind", "numpy"]
    assert of(found, "fault")[2] == "Slurm does not answer: no controller"
    assert "extras that are not installed: more" in of(found, "note")
    mends = {mend for state, _, mend in found if state == "fault"}
    assert {'pip install "nothing-of-the-kind>=3"', 'pip install "numpy>=999"'} <= mends


def test_the_command_tells_everything_and_its_exit_code_whether_there_is_a_fault(split_photos, tmp_path):
    shelf_in(tmp_path / "store")
    (split_photos / "train" / "fine" / "page.jpg").write_bytes(b"<html>")
    told = called("doctor", f"data={split_photos}", f"store={tmp_path / 'store'}")
    assert told.code == 65
    assert "digests are right" in told.out
    assert "[IMG-NOT-IMAGE]" in told.out
    assert "→ Mend or remove them" in told.out
    assert told.err.endswith("found\n")
    wrong = called("doctor", "dat=x")
    assert wrong.code == 78
    assert "did you mean data?" in wrong.err
