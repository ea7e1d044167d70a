"""Shares of a store, filled by Lightning's predict loop; as a script's two processes once."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from features.mean_colour import MeanColour, extractor_of, run_together

from likeness.assembly import extracting
from likeness.commands.extract import filled_line
from likeness.config.checking import checked
from likeness.config.composing import composed
from likeness.errors import LikenessError
from likeness.features import extraction, prediction
from likeness.features.extraction import extract
from likeness.features.prediction import Filled, fill
from likeness.features.store import WHOLE, Share, Shelf
from likeness.images.folder import ImageFolder, digests
from likeness.images.ledger import Ledger


def trainer() -> pl.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", devices=1, logger=False, **quiet)


def filled(photos: Path, store: Path, network: MeanColour, share: Share = WHOLE, **options) -> Filled:
    return fill(trainer(), extractor_of(network), ImageFolder(str(photos)).table(), store, share=share, **options)


@pytest.fixture
def network(tmp_path) -> MeanColour:
    return MeanColour(tmp_path / "seen.txt")


def test_shares_and_a_later_extraction_look_at_each_picture_once(photos, network, tmp_path):
    """The rows are those of a plain extraction, bit for bit, though the batches were others."""
    table, store = ImageFolder(str(photos)).table(), tmp_path / "store"
    sizes = [int(Share(number, 3).holds(digests(table.files(), 1)).sum()) for number in range(3)]
    for number in (2, 0):
        told = filled(photos, store, network, Share(number, 3), batch_size=7)
        assert told[:3] == (0, sizes[number], 0)
        assert told.seconds > 0
    features = extract(extractor_of(network), table, store)
    assert (features.computed, features.reused) == (sizes[1], sizes[0] + sizes[2])
    assert network.seen() == 60
    plain = extract(extractor_of(MeanColour()), table, tmp_path / "other")
    assert torch.equal(features.rows, plain.rows)
    assert filled(photos, store, network)[:3] == (60, 0, 0)


def test_copies_count_once(photos, network, tmp_path):
    for copy in ("a.png", "b.png"):
        (photos / "fine" / copy).write_bytes((photos / "fine" / "home000.png").read_bytes())
    assert filled(photos, tmp_path / "store", network)[:3] == (0, 60, 0)


def junk(share: Share) -> bytes:
    """No picture, and of this share."""
    texts = (f"junk {number}".encode() for number in count())
    keys = (
        (text, torch.tensor(list(hashlib.sha256(text).digest()), dtype=torch.uint8).numpy()[None]) for text in texts
    )
    return next(text for text, key in keys if share.holds(key).all())


def test_a_share_names_its_own_bad_pictures(photos, network, tmp_path):
    for number in range(2):
        (photos / "fine" / f"home00{number}.png").write_bytes(junk(Share(number, 2)))
    with pytest.raises(LikenessError, match="1 of ") as refusal:
        filled(photos, tmp_path / "store", network, Share(1, 2))
    assert refusal.value.code == "IMG-BAD"
    assert "home001.png" in refusal.value.where
    assert "home000.png" not in refusal.value.where
    told = filled(photos, tmp_path / "store", network, Share(1, 2), on_bad_image="quarantine")
    assert (told.found, told.computed, told.bad) == (network.seen(), 0, 1)


def test_an_error_is_told_when_all_have_ended_and_lets_the_share_go(photos, network, tmp_path, monkeypatch):
    def full(*_):
        raise LikenessError("DISK", "full.", fix="free some")

    with monkeypatch.context() as patched:
        patched.setattr(Shelf, "add", full)
        patched.setattr(extraction, "_SECONDS_A_SHARD", 0.0)
        with pytest.raises(LikenessError, match="full"):
            filled(photos, tmp_path / "store", network, batch_size=7)
    under_way = 2 + torch.get_num_threads()  # the batch whose rows were refused, and those that were begun meanwhile
    assert network.seen() <= 7 * under_way
    assert filled(photos, tmp_path / "store", network).computed == 60


def test_features_that_are_not_finite_are_refused(photos, network, tmp_path):
    network.fault = float("inf")
    with pytest.raises(LikenessError, match="60 features are not finite"):
        filled(photos, tmp_path / "store", network)


def test_files_are_read_by_all_processes_and_faults_are_everybodys(photos, tmp_path):
    files, ledger = ImageFolder(str(photos)).table().files(), Ledger(tmp_path / "store", photos)
    whole = digests(files, 1)

    class Two(prediction._Group):
        rank, world, listed, fault = 1, 2, 60, None

        def __init__(self):
            pass

        def gathered(self, item):
            return [(self.listed, whole[0::2], self.fault, {}), item]

    group = Two()
    assert (prediction._shared_digests(group, files, 1, ledger) == whole).all()
    group.listed = 59
    with pytest.raises(LikenessError, match="different numbers of pictures"):
        prediction._shared_digests(group, files, 1, ledger)
    group.fault = LikenessError("DATA-MISSING", "unreadable.", fix="mend")
    with pytest.raises(LikenessError, match="unreadable"):
        prediction._shared_digests(group, files, 1, ledger)


def _fill_slowly(photos: Path, store: Path, log: Path, share: Share | None) -> None:
    extraction._SECONDS_A_SHARD = 0.0
    network = MeanColour(log, seconds=0.02)
    if share is None:
        extract(extractor_of(network), ImageFolder(str(photos)).table(), store, batch_size=4)
    else:
        filled(photos, store, network, share, batch_size=4)


def test_shares_of_any_cut_and_whole_fillings_look_at_each_picture_once(photos, tmp_path):
    store, log = tmp_path / "store", tmp_path / "seen.txt"
    shares = (Share(0, 2), Share(1, 2), Share(1, 2), Share(1, 3), None, Share(3, 4), None)
    run_together(_fill_slowly, [(photos, store, log, share) for share in shares])
    seen = log.read_text().split()
    assert (len(seen), len(set(seen))) == (60, 60)


def test_the_first_process_notes_what_all_have_read(photos, tmp_path):
    files, store = ImageFolder(str(photos)).table().files(), tmp_path / "store"
    for file in files:
        os.utime(file, (1e9, 1e9))
    theirs = Ledger(store, photos)
    digests(files[1::2], 1, theirs)

    class First(prediction._Group):
        rank, world = 0, 2

        def __init__(self):
            pass

        def gathered(self, item):
            return [item, (60, digests(files[1::2], 1), None, theirs.fresh)]

    keys = prediction._shared_digests(First(), files, 1, Ledger(store, photos))
    later = Ledger(store, photos)
    assert (digests(files, 1, later) == keys).all()
    assert not later.fresh


@pytest.mark.fault("F33")
def test_a_killed_share_loses_its_own_unfinished_rows_alone(photos, network, tmp_path):
    store, share = tmp_path / "store", Share(0, 2)
    other = filled(photos, store, network, Share(1, 2)).computed
    known = len(list(store.rglob("shard-*")))
    job = multiprocessing.get_context("fork").Process(
        target=_fill_slowly, args=(photos, store, tmp_path / "killed.txt", share)
    )
    job.start()
    while len(list(store.rglob("shard-*"))) < known + 2:
        assert job.is_alive()
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    finished = 4 * (len(list(store.rglob("shard-*"))) - known)
    again = filled(photos, store, network, share)
    assert again[:3] == (finished, 60 - other - finished, 0)
    assert filled(photos, store, network)[:3] == (60, 0, 0)


def options(photos: Path, store: Path) -> list[str]:
    network = ["backbone=random", "preprocessing=simple", "preprocessing.size=32"]
    return ["data=folder", f"data.root={photos}", f"paths.store={store}", *network]


def test_two_processes_of_one_command_leave_the_store_that_one_would(photos, tmp_path):
    """The bad picture is of the second process; its name and the exit code come from the first."""
    (photos / "fine" / "home000.png").write_bytes(junk(Share(1, 2)))
    two = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    done = subprocess.run(
        [sys.executable, "-m", "likeness.app", "extract", *options(photos, tmp_path / "store"), *two],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 65, done.stderr
    assert done.stderr.count("home000.png") == 1
    assert len(list((tmp_path / "store").rglob("shard-*"))) == 2

    def found(store: Path) -> extraction.Features:
        config = checked(composed([*options(photos, store), "data.on_bad_image=quarantine"]))
        return extracting.find_features(config, extracting.build_extractor(config))

    two_processes, one = found(tmp_path / "store"), found(tmp_path / "other")
    assert (two_processes.computed, two_processes.reused) == (0, 59)
    torch.testing.assert_close(two_processes.rows, one.rows, rtol=1e-4, atol=1e-5)


def test_the_line_at_the_end_counts_and_has_a_pace():
    line = filled_line(Filled(10, 246, 2, 2.0), Path("outputs/features"), 3, 16)
    assert line == "share 3/16: 10 rows found, 246 computed, 2 bad pictures, 2.0 s, 123 pictures/s (outputs/features)"
    assert "pictures/s" not in filled_line(Filled(10, 0, 0, 0.0), Path("x"), 0, 1)
