import itertools
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from features.mean_colour import SIMPLE, MeanColour, extractor_of, run_together
from helpers import draw_striped
from PIL import Image

from likeness.errors import LikenessError
from likeness.features import extraction
from likeness.features.backbone import Backbone
from likeness.features.extraction import Extractor, cost, extract
from likeness.features.store import MappedRows, Shelf
from likeness.images import ledger as ledgers
from likeness.images.decoding import Decoder
from likeness.images.folder import ImageFolder
from likeness.runs import preemption


@pytest.fixture
def network(tmp_path) -> MeanColour:
    return MeanColour(tmp_path / "seen.txt")


def test_rows_are_what_the_network_says_of_each_picture(photos, network, tmp_path):
    """Against NumPy: the mean over the squashed picture, in the table's order."""
    table = ImageFolder(str(photos)).table()
    features = extract(extractor_of(network), table, tmp_path / "store", batch_size=7)
    for row, path in enumerate(table.files()):
        pixels = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BILINEAR), float) / 255
        np.testing.assert_allclose(features.rows[row].numpy(), pixels.mean((0, 1)), atol=1e-6)
    assert (features.computed, features.reused) == (60, 0)


def test_a_second_time_everything_is_found(photos, network, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    table = ImageFolder(str(photos)).table()
    first = extract(extractor_of(network), table, tmp_path / "store")
    moved = tmp_path / "moved"
    shutil.move(photos, moved)
    again = extract(extractor_of(network), ImageFolder(str(moved)).table(), tmp_path / "store", batch_size=3, workers=1)
    assert (again.computed, again.reused) == (0, 60)
    assert network.seen() == 60
    assert torch.equal(first.rows, again.rows)
    assert "60 rows, 60 found in the store, 0 computed" in caplog.text


def test_new_changed_and_copied_pictures_cost_one_look_each(photos, network, tmp_path):
    extract(extractor_of(network), ImageFolder(str(photos)).table(), tmp_path / "store")
    some = sorted(photos.rglob("*.png"))
    shutil.copy(some[0], photos / "fine" / "copy.png")
    Image.new("RGB", (32, 32), (9, 8, 7)).save(some[1])
    Image.new("RGB", (32, 32), (1, 2, 3)).save(photos / "fine" / "new.png")
    Image.new("RGB", (32, 32), (1, 2, 3)).save(photos / "coarse" / "new_too.png")
    features = extract(extractor_of(network), ImageFolder(str(photos)).table(), tmp_path / "store")
    assert (len(features.table), features.computed, features.reused) == (63, 2, 61)
    assert network.seen() == 62


def read_from_now_on(monkeypatch) -> list[Path]:
    """The files that are hashed for the table."""
    read, hashing = [], ledgers.hashlib.file_digest
    noting = SimpleNamespace(**vars(ledgers.hashlib))
    noting.file_digest = lambda file, name: (read.append(Path(file.name)), hashing(file, name))[1]
    monkeypatch.setattr(ledgers, "hashlib", noting)
    return read


def test_a_picture_that_changes_between_two_jobs_is_seen_by_the_second_with_the_store_still_open(
    photos, network, tmp_path
):
    """The changed one and what is new is computed; the rows are those of a job that opens the store itself."""
    table, store, extractor = ImageFolder(str(photos)).table(), tmp_path / "store", extractor_of(network)
    shelf = Shelf(store, extractor.identity())
    first = extract(extractor, table, store, shelf=shelf)
    assert (first.computed, extract(extractor, table, store, shelf=shelf).computed) == (60, 0)
    draw_striped(table.path(3), 11, 99)
    changed = extract(extractor, table, store, shelf=shelf)
    assert (changed.computed, changed.reused) == (1, 59)
    assert torch.equal(changed.rows, extract(extractor, table, store).rows)
    assert (changed.rows != first.rows).flatten(1).any(1).nonzero().flatten().tolist() == [3]


def test_files_that_did_not_change_are_not_read_again_and_can_be(photos, network, tmp_path, monkeypatch):
    """Rows and keys are the same either way; a change that size and time do not show is seen when told to look."""
    table, store = ImageFolder(str(photos)).table(), tmp_path / "store"
    for file in table.files():
        os.utime(file, (1e9, 1e9))
    first = extract(extractor_of(network), table, store)
    read = read_from_now_on(monkeypatch)
    again = extract(extractor_of(network), table, store)
    assert read == []
    assert torch.equal(again.rows, first.rows)
    assert (again.keys == first.keys).all()
    os.utime(table.files()[3], (2e9, 1e9))
    cost(extractor_of(network), table, store, batch_size=8, workers=1)
    extract(extractor_of(network), table, store)
    assert read == []
    os.utime(table.files()[3], (1e9, 2e9))
    extract(extractor_of(network), table, store)
    assert read == [table.files()[3]]
    forced = extract(extractor_of(network), table, store, rehash=True)
    assert len(read) == 1 + 60
    assert (forced.keys == first.keys).all()


FINGERPRINTED = [
    lambda e: replace(e, decoder=Decoder(alpha_background=(0, 0, 0))),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, size=17)),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, resize="crop")),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, resize="crop", short_side=20)),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, interpolation="bicubic")),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, channels="bgr")),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, scale=1.0)),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, mean=[0.1, 0.0, 0.0])),
    lambda e: replace(e, preprocessing=replace(e.preprocessing, std=[1.0, 1.0, 2.0])),
    lambda e: replace(e, backbone=Backbone("squeezenet1_0", "features.3", "avg", "random")),
    lambda e: replace(e, backbone=Backbone("squeezenet1_1", "features.4", "avg", "random")),
    lambda e: replace(e, backbone=Backbone("squeezenet1_1", "features.3", "max", "random")),
    lambda e: replace(e, backbone=Backbone("squeezenet1_1", "features.3", "avg", "random", seed=1)),
    lambda e: replace(e, backbone=Backbone("squeezenet1_1", "features.3", "avg", "random", precision="bf16")),
]


@pytest.mark.fault("F23")
def test_whatever_decides_a_feature_decides_the_fingerprint():
    base = Extractor(Decoder(), SIMPLE, Backbone("squeezenet1_1", "features.3", "avg", "random"))
    prints = [base.fingerprint] + [change(base).fingerprint for change in FINGERPRINTED]
    assert len(set(prints)) == len(prints)
    same = [replace(base, decoder=Decoder(max_pixels=10**6)), Extractor(Decoder(), SIMPLE, base.backbone)]
    assert {each.fingerprint for each in same} == {base.fingerprint}


def spoil(photos: Path) -> list[Path]:
    good = sorted((photos / "fine").glob("*.png"))
    good[0].write_bytes(good[0].read_bytes()[:100])
    good[1].write_bytes(b"<html>404</html>")
    good[2].write_bytes(b"")
    return good[:3]


@pytest.mark.fault("F01", "F02")
def test_bad_pictures_are_all_named_and_the_good_ones_kept(photos, network, tmp_path):
    bad = spoil(photos)
    table = ImageFolder(str(photos)).table()
    with pytest.raises(LikenessError, match="3 of 60 pictures") as refusal:
        extract(extractor_of(network), table, tmp_path / "store")
    text = str(refusal.value)
    assert refusal.value.exit_code == 65
    assert all(str(path) in text for path in bad)
    assert "57 finished features" in refusal.value.kept
    assert "data.on_bad_image=quarantine" in refusal.value.fix
    quarantined = extract(extractor_of(network), table, tmp_path / "store", on_bad_image="quarantine")
    assert (len(quarantined.table), quarantined.computed, quarantined.reused) == (57, 0, 57)
    assert len(quarantined.bad) == 3
    assert network.seen() == 57


def test_mostly_white_pictures_can_be_left_out(photos, network, tmp_path):
    Image.new("RGB", (32, 32), (255, 255, 255)).save(photos / "fine" / "plan.png")
    table = ImageFolder(str(photos)).table()
    everything = extract(extractor_of(network), table, tmp_path / "store")
    without = extract(extractor_of(network), table, tmp_path / "store", mostly_white=0.69)
    assert (len(everything.table), len(without.table), without.left_out) == (61, 60, 1)
    assert "fine/plan.png" not in without.table.paths.tolist()


@pytest.mark.fault("F39")
def test_a_feature_that_is_not_finite_is_named_and_never_stored(photos, network, tmp_path):
    network.fault = float("nan")
    with pytest.raises(LikenessError, match="60 features are not finite") as refusal:
        extract(extractor_of(network), ImageFolder(str(photos)).table(), tmp_path / "store")
    assert "home000.png" in refusal.value.where
    assert not list((tmp_path / "store").rglob("shard-*"))


@pytest.mark.fault("F15")
def test_a_picture_that_changes_meanwhile_is_named(photos, network, tmp_path, monkeypatch):
    table = ImageFolder(str(photos)).table()
    hashed = extraction.digests

    def then_changed(files, workers, ledger):
        keys = hashed(files, workers, ledger)
        Image.new("RGB", (32, 32)).save(files[5])
        files[6].unlink()
        return keys

    monkeypatch.setattr(extraction, "digests", then_changed)
    with pytest.raises(LikenessError, match="2 pictures changed or vanished") as refusal:
        extract(extractor_of(network), table, tmp_path / "store")
    assert [str(table.path(row)) for row in (5, 6)] == refusal.value.where.splitlines()
    assert refusal.value.kept.startswith("58 features computed now, in ")
    assert network.seen() == 58
    monkeypatch.undo()
    again = extract(extractor_of(network), ImageFolder(str(photos)).table(), tmp_path / "store")
    assert (again.computed, again.reused) == (1, 58)


@pytest.mark.fault("F14")
def test_a_bad_picture_whose_name_is_no_text_is_named(photos, network, tmp_path, capsys):
    Path(os.fsdecode(os.fsencode(photos / "fine") + b"/caf\xe9.png")).write_bytes(b"")
    table, store = ImageFolder(str(photos)).table(), tmp_path / "store"
    with pytest.raises(LikenessError) as refusal:
        extract(extractor_of(network), table, store)
    assert f"{photos}/fine/caf\\xe9.png  (class 'fine'): [IMG-TRUNCATED] the file is empty" == refusal.value.where
    str(refusal.value).encode()


@pytest.mark.fault("F01")
def test_more_bad_pictures_than_a_message_can_hold_are_all_in_a_file(photos, network, tmp_path):
    bad = sorted(photos.rglob("*.png"))[:55]
    for picture in bad:
        picture.write_bytes(picture.name.encode())
    table = ImageFolder(str(photos)).table()
    with pytest.raises(LikenessError) as refusal:
        extract(extractor_of(network), table, tmp_path / "store")
    *shown, more, where = refusal.value.where.splitlines()
    assert (len(shown), more) == (50, "… and 5 more")
    lines = Path(where.removeprefix("full list: ")).read_text().splitlines()
    assert [line.split("  ")[0] for line in lines] == [str(path) for path in table.files() if path in bad]
    assert lines[:50] == shown


def test_more_rows_than_memory_stay_on_disk(photos, network, tmp_path):
    table = ImageFolder(str(photos)).table()
    in_memory = extract(extractor_of(network), table, tmp_path / "store")
    on_disk = extract(extractor_of(network), table, tmp_path / "store", memory_bytes=10.0)
    assert isinstance(on_disk.rows, MappedRows)
    assert torch.equal(on_disk.rows[torch.arange(60)], in_memory.rows)


def _extract_slowly(photos: Path, store: Path, log: Path) -> None:
    extraction._SECONDS_A_SHARD = 0.0
    extract(extractor_of(MeanColour(log, seconds=0.05)), ImageFolder(str(photos)).table(), store, batch_size=4)


@pytest.mark.fault("F33")
def test_a_killed_extraction_loses_no_finished_shard(photos, tmp_path):
    store, log = tmp_path / "store", tmp_path / "seen.txt"
    job = multiprocessing.get_context("fork").Process(target=_extract_slowly, args=(photos, store, log))
    job.start()
    while len(list(store.rglob("shard-*"))) < 5:
        assert job.is_alive()
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    finished = 4 * len(list(store.rglob("shard-*")))
    network = MeanColour(tmp_path / "after.txt")
    features = extract(extractor_of(network), ImageFolder(str(photos)).table(), store)
    assert (features.computed, features.reused) == (60 - finished, finished)
    assert network.seen() == 60 - finished
    assert not list(store.rglob(".tmp-*"))


class Raises(MeanColour):
    """A signal arrives while the network looks at the third batch."""

    def __init__(self, log: Path, sent: signal.Signals) -> None:
        super().__init__(log, seconds=0.05)
        self.sent, self.batches = sent, itertools.count(1)

    def forward(self, pictures):
        if next(self.batches) == 3:
            signal.raise_signal(self.sent)
        return super().forward(pictures)


@pytest.mark.fault("F35")
@pytest.mark.parametrize("sent", preemption.SIGNALS)
def test_a_signal_while_features_are_computed_costs_no_picture_a_second_look(photos, tmp_path, sent):
    table, network = ImageFolder(str(photos)).table(), Raises(tmp_path / "seen.txt", sent)
    options = {"batch_size": 7, "undisturbed": preemption.undisturbed}
    with preemption.listening(), pytest.raises(preemption.Preempted) as end:
        extract(extractor_of(network), table, tmp_path / "store", **options)
    assert (end.value.sent, end.value.step) == (sent, None)
    seen = network.seen()
    assert 21 <= seen < 60, "of the batch that it came in, and of those that other cores had before them"
    with preemption.listening():
        features = extract(extractor_of(network), table, tmp_path / "store", **options)
    assert (features.computed, features.reused) == (60 - seen, seen)
    assert sorted(Counter(network.log.read_text().split()).values()) == [1] * 60


def test_a_signal_while_the_last_rows_are_written_loses_none(photos, tmp_path, monkeypatch):
    def add(*given):
        signal.raise_signal(signal.SIGUSR1)
        return real(*given)

    real = Shelf.add
    monkeypatch.setattr(Shelf, "add", add)
    table, network = ImageFolder(str(photos)).table(), MeanColour(tmp_path / "seen.txt")
    with preemption.listening(), pytest.raises(preemption.Preempted):
        extract(extractor_of(network), table, tmp_path / "store", undisturbed=preemption.undisturbed)
    monkeypatch.undo()
    features = extract(extractor_of(network), table, tmp_path / "store")
    assert (features.computed, features.reused, network.seen()) == (0, 60, 60)


@pytest.mark.fault("F28")
def test_jobs_that_start_together_show_the_network_each_picture_once(photos, tmp_path):
    store, log = tmp_path / "store", tmp_path / "seen.txt"
    run_together(_extract_slowly, [(photos, store, log)] * 8)
    seen = log.read_text().split()
    assert (len(seen), len(set(seen))) == (60, 60)


def test_what_an_extraction_will_cost_is_told_and_nothing_is_kept(photos, network, tmp_path):
    shutil.copy(photos / "fine" / "home000.png", photos / "fine" / "copy.png")
    table, pace = ImageFolder(str(photos)).table(), {"batch_size": 64, "workers": 2}
    told = cost(extractor_of(network), table, tmp_path / "store", **pace)
    assert (told.network, told.images, told.missing, told.bytes) == ("mean colour", 61, 60, 60 * (3 * 4 + 32 + 4))
    assert told.seconds > 0
    assert not (tmp_path / "store").exists()
    extract(extractor_of(network), table, tmp_path / "store")
    again = cost(extractor_of(network), table, tmp_path / "store", **pace)
    assert again == told._replace(missing=0, seconds=None, bytes=0)


def test_the_pace_is_of_pictures_that_can_be_used_and_of_a_warm_network(photos, network, tmp_path, monkeypatch):
    """By a clock that moves a second at each look: one before the first picture, one after each of four batches."""
    for picture in sorted((photos / "fine").iterdir())[:10]:
        picture.write_bytes(picture.name.encode())
    monkeypatch.setattr(extraction, "time", SimpleNamespace(monotonic=count().__next__))
    few = cost(extractor_of(network), ImageFolder(str(photos)).table(), tmp_path, batch_size=5, workers=1)
    timed = np.linspace(0, 59, 20).astype(int)
    order = [path.parent.name == "fine" and path.name < "home010" for path in ImageFolder(str(photos)).table().files()]
    usable = sum(not order[row] for row in timed)
    assert few.seconds == pytest.approx(4 / usable * 60)
    assert network.seen() == 5 + usable


def test_pictures_that_cannot_be_used_have_no_pace(photos, network, tmp_path):
    for picture in photos.rglob("*.png"):
        picture.write_bytes(str(picture).encode())
    told = cost(extractor_of(network), ImageFolder(str(photos)).table(), tmp_path, batch_size=5, workers=1)
    assert (told.missing, told.seconds) == (60, None)


def test_a_backbones_feature_does_not_depend_on_its_batch(photos, tmp_path):
    extractor = Extractor(
        Decoder(), replace(SIMPLE, size=64), Backbone("shufflenet_v2_x0_5", "conv5", "avg", "bundled")
    )
    table = ImageFolder(str(photos)).table()
    alone = extract(extractor, table, tmp_path / "one", batch_size=1)
    together = extract(extractor, table, tmp_path / "many", batch_size=60)
    torch.testing.assert_close(alone.rows, together.rows, rtol=1e-4, atol=1e-5)


def test_rows_of_bf16_stand_on_a_shelf_of_their_own(photos, tmp_path):
    """They are float32 and near those of fp32, and each precision finds its own again."""
    table = ImageFolder(str(photos)).table()
    found = {}
    for precision in ("fp32", "bf16", "fp32", "bf16"):
        network = Backbone("shufflenet_v2_x0_5", "conv5", "avg", "bundled", precision=precision)
        features = extract(Extractor(Decoder(), replace(SIMPLE, size=64), network), table, tmp_path)
        assert features.computed == (0 if precision in found else 60)
        assert torch.equal(found.setdefault(precision, features.rows), features.rows)
        assert features.rows.dtype == torch.float32
    cosines = torch.cosine_similarity(found["fp32"], found["bf16"])
    assert 0.99 < cosines.min() < cosines.max() < 0.999999


def test_the_fingerprint_of_fp32_is_what_it_was_before_there_was_another():
    """Written down from a store of then: rows that were kept stay valid."""
    extractor = Extractor(Decoder(), SIMPLE, Backbone("shufflenet_v2_x0_5", "conv5", "avg", "bundled"))
    assert extractor.fingerprint.startswith("4c12ab0fafe94390")


class Late(MeanColour):
    """A network that is the slower the darker the picture."""

    def forward(self, pictures):
        time.sleep(0.02 * float(1 - pictures.mean()))
        return super().forward(pictures)


def test_features_stay_with_their_pictures_whatever_order_threads_end_in(photos, tmp_path, monkeypatch):
    """Four batches are looked at at once, late decoders and late networks among them; rows are NumPy's own."""
    prepare = extraction._prepare

    def late(extractor, path, key, index):
        time.sleep(0.003 * (key[0] % 4))
        return prepare(extractor, path, key, index)

    monkeypatch.setattr(extraction, "_prepare", late)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        table = ImageFolder(str(photos)).table()
        features = extract(extractor_of(Late()), table, tmp_path / "store", batch_size=3, workers=4)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    for row, path in enumerate(table.files()):
        pixels = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BILINEAR), float) / 255
        np.testing.assert_allclose(features.rows[row].numpy(), pixels.mean((0, 1)), atol=1e-6)


@pytest.mark.fault("F38")
def test_a_fault_of_the_network_ends_the_extraction_and_gives_the_threads_back(photos, tmp_path):
    class Broken(MeanColour):
        def forward(self, pictures):
            raise RuntimeError("out of memory")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="out of memory"):
        extract(extractor_of(Broken()), ImageFolder(str(photos)).table(), tmp_path / "store", batch_size=3)
    assert torch.get_num_threads() == before
