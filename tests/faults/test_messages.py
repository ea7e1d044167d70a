"""Every code of the table is provoked once, and its message has every part."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import small_run
import torch
from faults.messages import assert_message
from filelock import FileLock
from helpers import draw_striped
from retrieval import galleries
from safetensors.torch import save_file

from likeness.assembly import extracting, restoring, scoring, training
from likeness.config import secrecy
from likeness.config.refusals import refuse
from likeness.config.targets import allowed
from likeness.errors import CODES, LikenessError
from likeness.features import store
from likeness.features.backbone import Backbone
from likeness.features.extraction import Extractor, extract
from likeness.features.weights import check_fits, not_fetching, read_file, refuse_fetching
from likeness.files import write_atomic
from likeness.heads.dense import Dense
from likeness.images.decoding import Decoder
from likeness.images.folder import ImageFolder
from likeness.images.manifest import ImageManifest
from likeness.images.preprocessing import Preprocessing
from likeness.retrieval import index
from likeness.retrieval.neighbours import neighbours
from likeness.retrieval.qdrant_engine import Points, connect, sync
from likeness.runs import sweep, trackers
from likeness.runs.checkpoint import CARD, SCHEMA, open_checkpoint, refuse_other_pictures, write_checkpoint
from likeness.runs.processes import told_apart
from likeness.serving.server import listening

Patch = pytest.MonkeyPatch


class Case(NamedTuple):
    """What provokes a code, and what its message's parts say; no ``cause`` where the first line says it all."""

    provoke: Callable[[Path, Patch], Any]
    what: str
    where: str
    fix: str
    cause: str = ""


def photos(place: Path, broken: bool = False) -> str:
    for name, period in (("fine", 4), ("coarse", 25)):
        draw_striped(place / "photos" / name / "1.png", period, 0)
        draw_striped(place / "photos" / name / "2.png", period, 1)
    if broken:
        (place / "photos" / "fine" / "2.png").write_bytes(b"")
    return str(place / "photos")


def looked_at(place: Path, network: Any = None, broken: bool = False) -> None:
    extractor = Extractor(Decoder(), Preprocessing(16, [0.0] * 3, [1.0] * 3), network or Colour(0.0))
    extract(extractor, ImageFolder(photos(place, broken)).table(), place / "store", batch_size=2, workers=1)


class Colour(torch.nn.Module):
    """The mean colour plus something."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = torch.nn.Parameter(torch.tensor(more))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3)) + self.more

    def policy(self) -> dict:
        return {"network": "mean colour"}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        return (3,)


def checkpoint(place: Path, **content: Any) -> Path:
    write_checkpoint({CARD: {"schema": SCHEMA, "pictures": "0" * 64}, **content}, path := place / "a.ckpt")
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-9])
    return path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def saved(place: Path, content: Any, name: str = "a.pth") -> Path:
    torch.save(content, path := place / name)
    return path


@contextmanager
def failing(patch: Patch, number: int) -> Iterator[None]:
    def fail(*given: Any) -> None:
        raise OSError(number, os.strerror(number))

    with patch.context() as patched:
        patched.setattr(os, "replace", fail)
        yield


def unwritable(place: Path, patch: Patch, number: int) -> None:
    with failing(patch, number):
        write_atomic(place / "a", b"x")


def secret(place: Path, patch: Patch) -> None:
    patch.setenv("HF_TOKEN", "canary0token")
    secrecy.refuse_secrets({"logger": {"x": "canary0token"}})


def newer_store(place: Path, patch: Patch) -> None:
    shelf = store.Shelf(place, {"a": 1})
    with patch.context() as newer:
        newer.setattr(store, "SCHEMA", 9)
        shelf.add(np.zeros((1, 32), np.uint8), np.zeros((1, 3), np.float32), np.zeros(1, np.float32))
    store.Shelf(place, {"a": 1}).refresh()


def left_alone(path, monkeypatch):
    with told_apart():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:2463")


def silent_slurm(place: Path, patch: Patch) -> None:
    tool = written(place / "bin" / "squeue", "#!/bin/sh\necho nobody home >&2\nexit 1\n")
    tool.chmod(0o755)
    patch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    sweep.note_submitted(place, {"job": "7"})
    sweep.queued_jobs(place)


def running_sweep(place: Path, patch: Patch) -> None:
    sweep.note_command(place, ["train.py"], ["job"], first=True)
    sweep.note(place / "job", "running", {})
    with FileLock(place / "job" / ".lock"):
        sweep.remove_jobs(place, finished=True)


def diverging(place: Path, patch: Patch) -> None:
    options = small_run.config_of("optimizer=sgd", "optimizer.lr=1e30", "logger=none")
    small_run.train(options, place / "run", small_run.RaisedAt())


def other_extractor(place: Path, patch: Patch) -> None:
    options = small_run.config_of("backbone=random", "preprocessing=simple", "preprocessing.size=32")
    options["trainer"]["max_epochs"] = 1
    extractor = extracting.build_extractor(options)
    small_run.train(options, place, small_run.RaisedAt(), small_run.drawn(width=1024), extractor)
    path = place / "checkpoints" / "best.ckpt"
    content = open_checkpoint(path)
    content[CARD] |= {"fingerprint": "0" * 64}
    content[CARD]["extractor"]["backbone"]["weights"] = "another digest"
    write_checkpoint(content, path)
    restoring.restore(path, {"backbone": {}, "extraction": options["extraction"]})


def no_pictures(place: Path, patch: Patch) -> None:
    scoring.score_splits({}, small_run.drawn(), ["test"], None, {"ks": [1]})


def tampered(place: Path, patch: Patch) -> None:
    facts = {"schema": "1", "network": "small", "digest": "0" * 64, "preprocessing": json.dumps(PREPROCESSING)}
    save_file({"a": torch.ones(2)}, path := place / "a.safetensors", facts)
    read_file(path)


def points(model: str) -> Points:
    return Points(1, model * 64, EYE, IDS, ["kitchen"] * 2, [""] * 2, ["1.png", "2.png"])


def other_models_collection(place: Path, patch: Patch) -> None:
    connection = connect(":memory:")
    sync(connection, "homes", points("a"))
    sync(connection, "homes", points("b"))


def newer_index(place: Path, patch: Patch) -> None:
    with patch.context() as newer:
        newer.setattr(index, "SCHEMA", 9)
        galleries.made(place)
    index.Index.open(place / "index")


def twice_in_an_index(place: Path, patch: Patch) -> None:
    galleries.made(place).add([galleries.entries(["a/h1-1", "a/h1-1"])], galleries.MODEL)


def overtaken(place: Path, patch: Patch) -> None:
    found = galleries.made(place)
    patch.setattr(index, "write_once", lambda path, data: False)
    found.calibrate(None)


def cut_index(place: Path, patch: Patch) -> None:
    found = galleries.made(place)
    written(place / "index" / "generation-00000002.json", "{")
    found.newest()


def second_index(place: Path, patch: Patch) -> None:
    galleries.made(place)
    galleries.made(place)


PREPROCESSING = {"size": 8, "mean": [0.0] * 3, "std": [1.0] * 3}
EYE, IDS = torch.eye(2), torch.arange(2)
CASES = {
    "CONFIG": Case(lambda p, m: refuse(["a.b: unknown"]), "1 fault in the config", "a.b: unknown", "--cfg job"),
    "CONFIG-TARGET": Case(lambda p, m: allowed("os.system"), "os.system is not allowed", "_target_", "likeness"),
    "CONFIG-EXTRA": Case(
        lambda p, m: trackers.need("nonesuch"), "nonesuch is not installed", "logger", "likeness[nonesuch]"
    ),
    "CONFIG-SECRET": Case(secret, "holds a secret", "logger.x: the value of HF_TOKEN", "environment"),
    "DATA-MISSING": Case(lambda p, m: ImageFolder(str(p / "no")).table(), "does not exist", "/no", "root"),
    "DATA-LAYOUT": Case(lambda p, m: ImageFolder(str(p)).table(), "no image", "", "class", cause="found"),
    "DATA-MANIFEST": Case(
        lambda p, m: ImageManifest(str(written(p / "a.csv", "file\nx\n"))).table(), "manifest", "a.csv", "line"
    ),
    "DATA-HOMES": Case(
        lambda p, m: ImageFolder(photos(p), home_pattern="home").table(),
        "found in none of 4",
        "home_pattern='home'",
        "leave it out",
        cause="a file name is '1.png'",
    ),
    "DATA-CHANGED": Case(
        lambda p, m: refuse_other_pictures(at := checkpoint(p), open_checkpoint(at), {"pictures": "1" * 64}),
        "other pictures",
        "differing: pictures",
        "hydra.run.dir",
    ),
    "DATA-SPLIT": Case(no_pictures, "no pictures in test", "/none", "split=", cause="40 in train, 20 in val"),
    "IMG-BAD": Case(
        lambda p, m: looked_at(p, broken=True),
        "1 of 4 pictures",
        "2.png  (class 'fine'): [IMG-TRUNCATED]",
        "quarantine",
        cause="1 × IMG-TRUNCATED",
    ),
    "WEIGHTS-MISSING": Case(lambda p, m: read_file(p / "no.pth"), "no weight file", "no.pth", "backbone.weights="),
    "WEIGHTS-FORMAT": Case(
        lambda p, m: read_file(written(p / "a.pth", "<html>")), "could not be opened", "a.pth", ".pth", cause="HTML"
    ),
    "WEIGHTS-SHAPE": Case(
        lambda p, m: check_fits({"a": EYE}, {"a": EYE[0]}, {"a"}, "small", "a.pth"),
        "1 of 1 tensors disagree",
        "a: file (2, 2), network (2,)",
        "backbone.name",
        cause="no network",
    ),
    "WEIGHTS-NAN": Case(
        lambda p, m: read_file(saved(p, {"a": EYE / 0})),
        "1 of 1 tensors are not finite",
        "a.pth\na",
        "again",
        cause="damaged",
    ),
    "WEIGHTS-HASH": Case(tampered, "does not hold the weights", "a.safetensors", "fetch", cause="stated 000"),
    "NET": Case(lambda p, m: offline(), "a.pth is not here yet", "http://x/a.pth", "Start the run"),
    "BACKBONE": Case(lambda p, m: Backbone("resnet51"), "no model 'resnet51'", "backbone.name", "resnet50"),
    "HEAD": Case(lambda p, m: Dense((3,), []), "no layer widths", "architecture.widths", "positive integers"),
    "NAN": Case(
        lambda p, m: looked_at(p, Colour(float("nan"))), "4 features are not finite", "1.png", "preprocessing", "NaN"
    ),
    "NAN-LOSS": Case(diverging, "loss is", "seed 0", "optimizer.lr", cause="diverged"),
    "DISK": Case(lambda p, m: unwritable(p, m, errno.ENOSPC), "1 bytes", "/a", "Free some space", "No space left"),
    "STORE-PERM": Case(lambda p, m: unwritable(p, m, errno.EACCES), "cannot be written", "/a", "access", "Permission"),
    "INDEX-MISSING": Case(
        lambda p, m: index.Index.open(p / "no"), "no index in this folder", "/no", "likeness index create"
    ),
    "INDEX-EXISTS": Case(second_index, "an index in this folder already", "/index", "likeness index add"),
    "INDEX-ID": Case(
        twice_in_an_index, "1 of 2 pictures", "a/h1-1.jpg: as ", "--skip-present", cause="bytes of the file"
    ),
    "INDEX-MODEL": Case(
        lambda p, m: galleries.made(p).refuse_other({"extractor": "e" * 64, "head": "f" * 64}),
        "cannot be compared",
        "/index",
        "another index",
        cause="head: dddd",
    ),
    "INDEX-BUSY": Case(overtaken, "at the same time", "/index", "same command again", cause="locks"),
    "INDEX-DAMAGED": Case(cut_index, "not what was written", "/index", "--mend", cause="generation-00000002.json"),
    "INDEX-VERSION": Case(newer_index, "schema 9", "index.json", "Upgrade likeness", cause="newer likeness"),
    "STORE-VERSION": Case(newer_store, "schema 9", "shard-", "upgrade likeness", cause="A newer likeness"),
    "RETRIEVAL": Case(lambda p, m: neighbours(EYE * torch.nan, EYE, 1, query_ids=IDS, gallery_ids=IDS), "", "", ""),
    "ENGINE": Case(
        lambda p, m: sync(connect("http://127.0.0.1:9"), "homes", points("a")),
        "server does not do what is asked",
        "http://127.0.0.1:9",
        "--url",
        cause="refused",
    ),
    "ENGINE-MODEL": Case(other_models_collection, "'homes' holds codes of model aaa", ":memory:", "--collection NAME"),
    "RUN-DIR": Case(running_sweep, "1 jobs of the sweep are running", "job", "Wait for them"),
    "RUN-MISSING": Case(
        lambda p, m: restoring.checkpoint_path({"run": str(p), "checkpoint": None}),
        "no finished run",
        "best.ckpt",
        "train.py printed",
    ),
    "QUEUE": Case(silent_slurm, "Slurm does not say", "squeue", "same command", cause="nobody home"),
    "SERVE": Case(lambda p, m: listening("192.0.2.1", 0), "listened at", "192.0.2.1:0", "--port", cause="assign"),
    "RANK-LOST": Case(left_alone, "another process", "first message above", "same command", cause="closed by peer"),
    "CKPT": Case(
        lambda p, m: open_checkpoint(cut(checkpoint(p))), "could not be read", "a.ckpt", "train again", cause="cut"
    ),
    "CKPT-MISSING": Case(lambda p, m: open_checkpoint(p / "no.ckpt"), "no checkpoint", "no.ckpt", "a run's folder"),
    "CKPT-UNTRUSTED": Case(
        lambda p, m: open_checkpoint(saved(p, {"a": print}, "a.ckpt")),
        "contains code (__builtin__.print)",
        "a.ckpt",
        "its author",
        cause="plain values",
    ),
    "CKPT-SCHEMA": Case(
        lambda p, m: open_checkpoint(saved(p, {"a": 1}, "a.ckpt")),
        "no checkpoint of likeness",
        "a.ckpt",
        "train.py wrote",
        cause="reads schema 1",
    ),
    "CKPT-NAN": Case(
        lambda p, m: training.checkpoint.refuse_non_finite(p / "a.ckpt", {"head.weight": EYE / 0}),
        "1 of 1 tensors of a.ckpt are not finite",
        "a.ckpt\nhead.weight",
        "another checkpoint",
    ),
    "CKPT-EXTRACTOR": Case(
        other_extractor, "cannot be made here", "backbone.weights: trained with 'another digest'", "backbone.weights="
    ),
}


def offline() -> None:
    with not_fetching():
        refuse_fetching("a.pth", "http://x/a.pth")


@pytest.mark.fault("F47")
@pytest.mark.parametrize("code", CASES)
def test_a_message_has_every_part(code, tmp_path, monkeypatch):
    case = CASES[code]
    with pytest.raises(LikenessError) as caught:
        case.provoke(tmp_path, monkeypatch)
    assert_message(caught.value, code, what=case.what, where=case.where, cause=case.cause, fix=case.fix)


@pytest.mark.fault("F47")
def test_no_code_is_without_such_a_message(figure):
    figure("G18", "codes whose message a test asserts part by part", len(CODES), len(CASES.keys() & CODES.keys()))
