"""Every picture of the corpus through a folder into the store, in a process that is watched."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.pictures import Picture, corpus, encoded, flipped, noise
from features.mean_colour import MeanColour, extractor_of
from helpers import called
from torch import nn

from likeness.errors import LikenessError
from likeness.features.extraction import extract
from likeness.images.decoding import BadImage, Decoder
from likeness.images.folder import ImageFolder

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest has put its own filters in the place of the decoder's
_SECONDS = 240  # of a hang; all of it takes a few
_TOLERANCE = 1.01  # of 255, and what float32 adds
_PIXELS = 1 << 22  # of a mutated picture: above this is a matter of time, not of safety
_MEMORY = 1 << 30  # bytes on top of what the process has when it begins
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "pty.spawn")


class Quarters(nn.Module):
    """A network whose feature is the mean colour of each quarter, 0 to 1: channels, then rows, then columns."""

    def forward(self, pictures):
        return nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(1)

    def policy(self) -> dict[str, Any]:
        return {"network": "quarters"}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        return (12,)


def lay(root: Path, pictures: list[Picture]) -> dict[str, Picture]:
    """A class for each kind; the files by their paths under ``root``."""
    laid = {f"{picture.kind}/{picture.name}": picture for picture in pictures}
    assert len(laid) == len(pictures)
    for path, picture in laid.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture.data)
    return laid


def watched(work: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """What ``work`` gives in a process of its own with little memory, and what the process started and took."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_watch, args=(theirs, work, *given))
    child.start()
    theirs.close()
    try:
        told = ours.recv() if ours.poll(_SECONDS) else {"hangs": True}
    except EOFError:
        told = {}
    if told.get("hangs"):
        child.kill()
    child.join()
    return {"exit": child.exitcode, **told}


def _watch(pipe: Any, work: Callable[..., Any], *given: Any) -> None:
    started: list[str] = []
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(lambda event, _: started.append(event) if event.startswith(_STARTS) else None)
    result = work(*given)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    pipe.send({"started": started, "grown": grown, **result})


def _extracted_twice(root: Path, store: Path) -> dict[str, Any]:
    """With ``raise``, then with ``quarantine``: the refusal, the rows and the bad ones."""
    table, extractor = ImageFolder(str(root)).table(), extractor_of(Quarters())
    refusal = None
    try:
        extract(extractor, table, store)
    except LikenessError as error:
        refusal = error
    features = extract(extractor, table, store, on_bad_image="quarantine")
    return {
        "refusal": refusal,
        "rows": dict(zip(features.table.paths.tolist(), features.rows.numpy(), strict=True)),
        "bad": {bad.path: bad.code for bad in features.bad},
        "reused": features.reused,
    }


def shown(row: np.ndarray) -> np.ndarray:
    """The four colours of a feature of ``Quarters``, 0 to 255."""
    return row.reshape(3, 4).T * 255


@pytest.mark.fault("F01", "F02", "F04", "F05", "F06", "F07", "F08", "F09")
def test_each_picture_of_the_corpus_is_refused_by_name_or_shows_what_it_should(tmp_path, figure):
    laid = lay(tmp_path / "pictures", corpus())
    bad = {path: picture.code for path, picture in laid.items() if picture.code}
    right = {path: picture.shows for path, picture in laid.items() if picture.shows}
    figure("G7", "malformed pictures: files", ">= 120", len(laid), len(laid) >= 120)
    kinds = len({picture.kind for picture in laid.values()})
    figure("G7", "malformed pictures: kinds", ">= 39", kinds, kinds >= 39)

    seen = watched(_extracted_twice, tmp_path / "pictures", tmp_path / "store")
    figure("G7", "crashes and hangs", 0, int(seen["exit"] != 0) + seen.get("hangs", 0))
    figure("G7", "programs started", 0, len(seen["started"]))
    figure("G7", "memory taken, MiB", "< 512", seen["grown"] >> 20, seen["grown"] < 512 << 20)

    refusal = seen["refusal"]
    assert (refusal.code, refusal.exit_code) == ("IMG-BAD", 65)
    assert refusal.what == f"{len(seen['bad'])} of {len(laid)} pictures could not be used."
    assert "× IMG-TRUNCATED" in refusal.cause
    assert refusal.kept.startswith(f"{len(seen['rows'])} finished features in ")
    assert "data.on_bad_image=quarantine" in refusal.fix
    listed = Path(refusal.where.splitlines()[-1].removeprefix("full list: ")).read_text()
    lines = {f"{tmp_path / 'pictures' / path}  (class {laid[path].kind!r}): [{code}]" for path, code in bad.items()}
    named = [line for line in lines if line in listed]
    figure("G7", "bad ones named with their path, %", 100, 100 * len(named) / len(bad))
    assert {path: code for path, code in seen["bad"].items() if path in bad} == bad
    rot = laid.keys() - bad.keys() - right.keys()
    assert seen["rows"].keys() == right.keys() | (rot - seen["bad"].keys())
    assert seen["reused"] == len(seen["rows"]), "the good ones were finished before the bad ones were refused"

    wrong = [path for path, colours in right.items() if np.abs(shown(seen["rows"][path]) - colours).max() > _TOLERANCE]
    figure("G7", "silently wrong: colour of a quarter off by more than 1", [], wrong)


def _mutated(times: int) -> dict[str, Any]:
    """What comes of files of the corpus in which some bytes are others, left out or doubled, other than a refusal."""
    rng = np.random.default_rng(0)
    files = [picture.data for picture in corpus() if 0 < len(picture.data) < 50_000]
    others, refusals = [], 0
    for turn in range(times):
        data = bytearray(files[turn % len(files)])
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[at : at + 1] = rng.bytes(rng.integers(3))
        try:
            decoded = Decoder(max_pixels=_PIXELS).decode(bytes(data))
            assert decoded.image.mode == "RGB"
        except BadImage:
            refusals += 1
        except Exception as error:
            others.append((turn, repr(error)))
    return {"others": others, "refusals": refusals}


@pytest.mark.fault("F01", "F03", "F04")
def test_mutated_pictures_are_decoded_or_refused_and_nothing_else(count, figure):
    times = count(500, 10_000, 200_000)
    seen = watched(_mutated, times)
    figure("G7", "mutated pictures: crashes and hangs", 0, int(seen["exit"] != 0) + seen.get("hangs", 0))
    figure("G7", "mutated pictures: errors that are no refusal", [], seen["others"])
    assert 0 < seen["refusals"] < times


def _command_twice(root: Path, store: Path) -> dict[str, Any]:
    common = ("extract", "data=folder", f"data.root={root}", f"paths.store={store}", "trainer.accelerator=cpu")
    refused = called(*common)
    went_on = called(*common, "data.on_bad_image=quarantine")
    return {"codes": [refused.code, went_on.code], "told": [refused.err, went_on.out]}


@pytest.mark.fault("F01", "F02")
def test_the_command_ends_with_65_and_goes_on_when_told_to(tmp_path):
    """A picture of each kind: 144 pixels a side of a real network."""
    of_each = {picture.kind: picture for picture in corpus() if picture.code or picture.shows}
    laid = lay(tmp_path / "pictures", [*of_each.values()])
    bad = {picture.data for picture in laid.values() if picture.code}
    seen = watched(_command_twice, tmp_path / "pictures", tmp_path / "store")

    assert seen["codes"] == [65, 0]
    assert "[IMG-BAD]" in seen["told"][0]
    assert f"{len(bad)} bad pictures" in seen["told"][1]


@pytest.mark.fault("F03")
def test_a_picture_that_rots_is_another_picture_and_the_old_feature_stays(tmp_path):
    """40 bits flipped: most such JPEGs decode, and nothing but the digest of the file tells them from the old."""
    root, store, whole = tmp_path / "pictures", tmp_path / "store", encoded(noise(1), "JPEG")
    lay(root, [Picture(kind, f"{i}.png", encoded(noise(i), "PNG")) for kind in "ab" for i in range(3)])
    picture = root / "a" / "rots.jpg"
    picture.write_bytes(whole)
    network = MeanColour(tmp_path / "seen.txt")
    first = extract(extractor_of(network), ImageFolder(str(root)).table(), store)
    shards = {path: path.read_bytes() for path in store.rglob("shard-*")}
    looked = network.seen()
    decodes = [rotten for seed in range(20) if _decodes(rotten := flipped(whole, seed))]
    assert len(decodes) > 2
    for turn, rotten in enumerate(decodes, start=1):
        picture.write_bytes(rotten)
        again = extract(extractor_of(network), ImageFolder(str(root)).table(), store)
        assert (again.computed, network.seen()) == (1, looked + turn)
    assert {path: path.read_bytes() for path in shards} == shards
    picture.write_bytes(whole)
    back = extract(extractor_of(network), ImageFolder(str(root)).table(), store)
    assert torch.equal(back.rows, first.rows)
    assert network.seen() == looked + len(decodes)


def _decodes(data: bytes) -> bool:
    try:
        return bool(Decoder().decode(data))
    except BadImage:
        return False
