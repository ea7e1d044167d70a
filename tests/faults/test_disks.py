"""A disk gets full in each phase of a run: told with what is needed, free and where; nothing that was there is lost."""

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import small_app
import torch
from faults.broken_files import failing
from faults.kill_points import in_child, killed_at_each_step
from faults.small_disk import fill_up, on_small_disk
from faults.small_store import SmallStore, left_behind
from features.mean_colour import MeanColour, extractor_of
from helpers import draw_striped
from matplotlib.figure import Figure
from small_run import RaisedAt, config_of, train

from likeness.errors import LikenessError
from likeness.features import extraction
from likeness.features.extraction import extract
from likeness.images.folder import ImageFolder
from likeness.reports import style
from likeness.runs.checkpoint import CARD, AtomicCheckpointIO, newest_checkpoint, open_checkpoint, resume_path, step_of
from likeness.runs.journal import Journal, read

MB = 1 << 20


def refusal(work, *given) -> LikenessError:
    with pytest.raises(LikenessError) as caught:
        work(*given)
    return caught.value


def assert_whole(error: LikenessError, code: str, where: Path) -> None:
    """All six parts are there, and exit 74."""
    assert (error.code, error.exit_code) == (code, 74)
    assert str(where) in error.where
    assert "bytes are free" in error.cause
    assert error.what
    assert error.kept
    assert error.fix


class Wide(MeanColour):
    """A network whose rows are 16 KB; from the third batch on something else fills the disk."""

    def __init__(self, log: Path, disk: Path | None = None) -> None:
        super().__init__(log)
        self.disk, self.batches = disk, 0

    def forward(self, pictures):
        self.batches += 1
        if self.disk and self.batches == 3:
            fill_up(self.disk, left=30_000)
        return super().forward(pictures).repeat(1, 1366)[:, :4096]

    def policy(self):
        return {"network": "wide"}

    def feature_shape(self, size):
        return (4096,)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> SmallStore:
    return SmallStore(tmp_path_factory.mktemp("disks"), 48)


def _extract(pictures: SmallStore, network: Wide, disk: Path):
    extraction._SECONDS_A_SHARD = 0.0
    table = ImageFolder(str(pictures.photos)).table()
    return extract(extractor_of(network), table, disk, batch_size=4, workers=1)


@pytest.mark.fault("F37")
def test_a_disk_that_gets_full_while_features_are_computed(pictures, tmp_path, figure):
    disk, log = tmp_path / "disk", tmp_path / "seen.txt"

    def work():
        error = refusal(_extract, pictures, Wide(log, disk), disk)
        kept = [path.stat().st_size for path in disk.rglob("shard-*")]
        left = left_behind(disk)
        (disk / "ballast").unlink()
        again = _extract(pictures, Wide(tmp_path / "again.txt"), disk)
        return error, kept, left, (again.computed, again.reused)

    error, kept, left, (computed, reused) = on_small_disk(disk, 2 * MB, work)
    assert_whole(error, "DISK", disk)
    assert "bytes cannot be written" in error.what
    assert len(kept) in (1, 2), "the network looks at one batch ahead"
    lost = 4 * len(kept) - reused
    assert computed + reused == 48
    figure("G16", "disk full while features are computed: rows lost, files half-written", 0, lost + len(left))


@pytest.mark.fault("F37")
def test_a_disk_that_is_too_small_for_the_features_is_told_before_one_is_computed(pictures, tmp_path, figure):
    disk, network = tmp_path / "disk", Wide(tmp_path / "seen.txt")
    error = on_small_disk(disk, MB // 2, lambda: refusal(_extract, pictures, network, disk))
    assert (error.code, error.exit_code) == ("DISK", 74)
    assert "48 features of shape (4096,) need 0.00 GB" in error.what
    assert str(disk) in error.where
    assert error.cause
    assert error.kept == "Every row that is in the store."
    assert "paths.store=" in error.fix
    figure("G16", "disk too small: pictures looked at in vain", 0, network.seen())


class FullAt(RaisedAt):
    """The disk is full when the sixth batch begins; step 3 is on it."""

    def __init__(self, disk: Path) -> None:
        super().__init__()
        self.disk = disk

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 5:
            fill_up(self.disk, left=8192)


@pytest.mark.fault("F34")
def test_a_disk_that_gets_full_in_training(tmp_path, figure):
    """TMPDIR is another device, on which there is room: no use is made of it."""
    disk = tmp_path / "disk"
    config = config_of("callbacks.resume.every_n_epochs=1")
    whole, _, _ = train(config, tmp_path / "whole", RaisedAt())

    def work():
        os.environ["TMPDIR"] = str(tmp_path)
        error = refusal(train, config, disk / "run", FullAt(disk))
        newest = newest_checkpoint(disk / "run" / "checkpoints")
        left = left_behind(disk)
        (disk / "ballast").unlink()
        module, _, _ = train(config, disk / "run", RaisedAt())
        return error, step_of(newest), left, module.state_dict()

    error, step, left, weights = on_small_disk(disk, 8 * MB, work)
    assert_whole(error, "CKPT", disk)
    assert error.what.endswith("could not be written. Training stops.")
    assert "last good: step 3 (resume-00000003.ckpt)" in error.kept
    assert (step, left) == (3, [])
    assert all(torch.equal(weights[name], value) for name, value in whole.state_dict().items())
    figure("G6", "disk full in training: last good checkpoint that does not load", 0, int(step != 3))
    figure("G16", "disk full in training: checkpoints lost", 0, int(step != 3))


@pytest.mark.fault("F34")
def test_a_process_that_dies_at_any_step_of_a_save_leaves_a_checkpoint_that_loads(tmp_path, figure):
    """The second save dies, and then a save again in the place of one that is there."""
    places = {n: tmp_path / str(n) for n in range(1, 200)}
    for folder in places.values():
        AtomicCheckpointIO().save_checkpoint(_content(1), resume_path(folder, 1))

    def work(n: int) -> None:
        AtomicCheckpointIO().save_checkpoint(_content(2), resume_path(places[n], 2))
        AtomicCheckpointIO().save_checkpoint(_content(3), resume_path(places[n], 2))

    lost, newest = 0, []
    for step in killed_at_each_step(work, places.get):
        found = newest_checkpoint(places[step])
        newest.append(open_checkpoint(found)["global_step"])
        lost += not torch.equal(open_checkpoint(found)["state_dict"]["w"], torch.full((3,), float(newest[-1])))
    assert newest == sorted(newest)
    assert set(newest) == {1, 2, 3}
    figure("G6", f"kill -9 at each of {len(newest)} steps of two saves: checkpoints lost", 0, lost)


def _content(step: int) -> dict:
    return {"state_dict": {"w": torch.full((3,), float(step))}, CARD: {"schema": 1}, "global_step": step}


@pytest.mark.fault("F34", "F37")
def test_a_disk_that_is_full_for_the_journal(tmp_path, figure):
    disk = tmp_path / "disk"

    def work():
        journal = Journal(disk / "journal.jsonl")
        journal.write("first")
        fill_up(disk)
        error = refusal(lambda: [journal.write("second", text="x" * 5000) for _ in range(2)])
        (disk / "ballast").unlink()
        Journal(disk / "journal.jsonl").write("third")
        return error, [event["event"] for event in read(disk / "journal.jsonl")]

    error, events = on_small_disk(disk, MB, work)
    assert_whole(error, "DISK", disk / "journal.jsonl")
    figure(
        "G16", "disk full for the journal: events lost before it or after", 0, 2 - len({"first", "third"} & {*events})
    )


@pytest.mark.fault("F37")
def test_a_disk_that_is_full_for_the_figures(tmp_path, figure):
    disk = tmp_path / "disk"

    def work():
        style.save(Figure(), disk / "earlier.png")
        (disk / "metrics.json").write_text("{}")
        earlier = (disk / "earlier.png").read_bytes()
        fill_up(disk)
        errors = [refusal(style.save, Figure(), disk / name) for name in ("earlier.png", "new.png")]
        kept = (disk / "earlier.png").read_bytes() == earlier and (disk / "metrics.json").read_text() == "{}"
        return errors, kept, sorted(os.listdir(disk))

    errors, kept, files = on_small_disk(disk, MB, work)
    for error, name in zip(errors, ("earlier.png", "new.png"), strict=True):
        assert_whole(error, "DISK", disk / name)
    assert files == ["ballast", "earlier.png", "metrics.json"]
    figure("G16", "disk full for the figures: earlier results lost", 0, int(not kept))


@pytest.mark.fault("F37")
@pytest.mark.parametrize("left", [0, 6 * 4096])
def test_a_command_on_a_full_disk_ends_with_74_and_without_a_traceback(tmp_path, left):
    """Full before Hydra has written its files, and before the job says that it runs."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def work():
        small_app.make(disk)
        fill_up(disk, left)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        options = {"cwd": disk, "env": environment, "capture_output": True, "text": True}
        return subprocess.run([sys.executable, "-B", "app.py"], **options)

    done = on_small_disk(disk, MB, work)
    assert done.returncode == 74, done.stderr
    assert "ERROR [DISK]" in done.stderr
    assert "bytes are free" in done.stderr
    assert "BUG" not in done.stderr


@pytest.mark.fault("F31")
@pytest.mark.parametrize("name", ["photos", "shard-"])
def test_a_stale_handle_is_asked_for_again(pictures, tmp_path, monkeypatch, name):
    """Of a picture, where it is decoded, and of a shard."""
    waited = []
    monkeypatch.setattr("likeness.files.time.sleep", lambda seconds: waited.append(seconds) if seconds else None)
    opening = io if name == "photos" else builtins
    with failing("open", errno.ESTALE, times=2, where=name, owner=opening) as failed:
        pictures.assert_right(pictures.fill(tmp_path / "store", tmp_path / "seen.txt"))
        assert failed() == 2
    assert waited in ([0.1, 0.3], [0.1, 0.1]), "of one file, or of two that are read at once"


@pytest.mark.fault("F31")
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_a_shard_that_cannot_be_read_is_a_message_and_stays(pictures, tmp_path, monkeypatch, number):
    pictures.fill(tmp_path / "store", tmp_path / "seen.txt")
    before = sorted(tmp_path.rglob("shard-*"))
    waited = []
    monkeypatch.setattr("likeness.files.time.sleep", waited.append)
    with failing("open", number, where="shard-", owner=builtins):
        error = refusal(pictures.shelf, tmp_path / "store")
    assert (error.code, error.exit_code) == (("STORE-PERM", 73) if number == errno.EACCES else ("DISK", 74))
    assert (error.where, os.strerror(number) in error.cause) == (str(before[0]), True)
    assert error.what.startswith("a shard of the store cannot be read")
    assert error.kept == "The store: nothing was changed."
    assert "paths.store=" in error.fix
    assert sorted(tmp_path.rglob("shard-*")) == before
    assert sum(waited) == pytest.approx(89.4 if number == errno.ESTALE else 0)


@pytest.mark.fault("F38")
def test_a_thread_that_dies_ends_the_job_and_loses_no_finished_row(pictures, tmp_path, monkeypatch):
    """Pictures are decoded by threads, and no process works for another: what one raises is raised."""
    prepare, done = extraction._prepare, []

    def failing_later(*given):
        done.append(given)
        if len(done) == 30:
            raise MemoryError("no room for a picture")
        return prepare(*given)

    monkeypatch.setattr(extraction, "_prepare", failing_later)
    threads = threading.active_count()
    with pytest.raises(MemoryError):
        pictures.fill(tmp_path / "store", tmp_path / "seen.txt")
    assert threading.active_count() == threads
    monkeypatch.setattr(extraction, "_prepare", prepare)
    kept = pictures.committed(tmp_path / "store")
    features = pictures.fill(tmp_path / "store", tmp_path / "again.txt")
    assert features.reused == len(kept) >= 12
    pictures.assert_right(features)


@pytest.mark.fault("F25")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_have_the_mode_that_the_users_mask_asks_for(pictures, tmp_path, umask, mode):
    def work():
        os.umask(umask)
        pictures.fill(tmp_path / "store", tmp_path / "seen.txt")

    assert in_child(work) == 0
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.name.partition("-")[0] for path in files} >= {"shard", "extractor.json", ".lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


@pytest.mark.fault("F25")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_store_that_is_anothers_can_be_read_and_not_be_written():
    """As nobody: everything is there; then a picture is new, then the network. None is looked at in vain."""
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        pictures, told = SmallStore(Path(place), 12), Path(place) / "told.json"
        store = pictures.place / "undisturbed"
        told.touch()
        os.chmod(told, 0o666)
        for folder in (store, *filter(Path.is_dir, store.rglob("*"))):
            os.chmod(folder, 0o555)

        def work():
            os.setuid(65534)
            pictures.assert_right(pictures.fill(store, Path("/dev/null")))
            fills = (lambda: _extract(pictures, Wide(told), store), lambda: pictures.fill(store, told))
            errors = []
            for fill in fills:
                error = refusal(fill)
                errors.append([error.exit_code, *error.__reduce__()[1]])
                draw_new()
            assert not told.read_text()
            told.write_text(json.dumps(errors))

        def draw_new():
            draw_striped(pictures.photos / "a" / "new.png", 4, 99, size=16)

        os.chmod(pictures.photos / "a", 0o777)
        assert in_child(work) == 0
        errors = json.loads(told.read_text())
    for exit_code, code, what, where, cause, kept, fix in errors:
        assert (code, exit_code) == ("STORE-PERM", 73)
        assert what.endswith("cannot be written by uid 65534.")
        assert where.startswith(str(store))
        assert f"{store}" in cause
        assert cause.endswith(" is root's")
        assert kept
        assert "ask for write access" in fix


def test_a_small_disk_is_small(tmp_path):
    size = on_small_disk(tmp_path / "disk", MB, lambda: shutil.disk_usage(tmp_path / "disk").total)
    assert size == MB < shutil.disk_usage(tmp_path / "disk").total
