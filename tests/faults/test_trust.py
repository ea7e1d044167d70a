"""Files and options that want to run, to read or to write something: nothing of it happens, and a refusal says why."""

import json
import os
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.checkpoints import CARDS, HARMLESS, hostile
from omegaconf.errors import OmegaConfBaseException
from small_run import RaisedAt, config_of, drawn, train

from likeness import assembly
from likeness.config import refused
from likeness.errors import LikenessError
from likeness.features.backbone import Backbone
from likeness.runs import checkpoint
from likeness.runs.preemption import Preempted

MEMORY = 600 << 20  # 200 MB, and what torch maps for its threads
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "socket.connect", "socket.bind")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watched(work, folder: Path) -> dict[str, Any]:
    """What became of ``work`` in a child that may neither start, connect, import nor write anything new."""
    told = folder.parent / f"{folder.name}.json"
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return json.loads(told.read_text()) if told.exists() else {"died": status}
    events: list[str] = []

    def look(event: str, arguments: tuple) -> None:
        if event.startswith(FORBIDDEN):
            events.append(event)
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if writes and not str(arguments[0]).startswith((str(folder), str(told), "/dev/null")):
            events.append(f"wrote {arguments[0]}")

    found: dict[str, Any] = {}
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        sys.addaudithook(look)
        started = time.monotonic()
        try:
            work()
            found["code"] = "opened"
        except LikenessError as error:
            found["code"], found["told"] = error.code, str(error)
        except BaseException as error:
            found["code"] = f"{type(error).__name__}: {error}"
        found |= {"events": list(events), "seconds": time.monotonic() - started}
    finally:
        told.write_text(json.dumps(found))
        os._exit(0)
    return {}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[dict, dict]:
    """The contents of a checkpoint to score and of one to go on from, of a small training on the bundled network."""
    folder = tmp_path_factory.mktemp("good")
    config = config_of("trainer.max_epochs=2", "preprocessing.size=32")
    with pytest.raises(Preempted):
        train(config, folder, RaisedAt(4))
    resume = checkpoint.newest_checkpoint(folder / "checkpoints")
    train(config, folder / "whole", RaisedAt())
    best = torch.load(folder / "whole" / "checkpoints" / "best.ckpt", weights_only=True)
    extractor = assembly.build_extractor(config)
    pixels = {"class": "Preprocessing", **assembly._plain(asdict(extractor.preprocessing))}
    described = {"extractor": extractor.identity(), "fingerprint": extractor.fingerprint, "preprocessing": pixels}
    best[checkpoint.CARD] |= described
    return best, torch.load(resume, weights_only=True)


def written(made: dict, folder: Path) -> dict[str, Path]:
    paths = {}
    for number, (name, data) in enumerate(made.items()):
        paths[name] = folder / f"{number:03d}" / "best.ckpt"
        paths[name].parent.mkdir(parents=True)
        paths[name].write_bytes(data) if isinstance(data, bytes) else data(paths[name])
    return paths


def scored(path: Path) -> None:
    asked = {"data": {}, "backbone": {}, "extraction": {"device": "cpu"}, "metric": {}, "split": None}
    _, _, card = assembly.restore(path, asked)
    try:
        assembly.as_trained({**asked, "paths": {"store": None}}, card)
    except OmegaConfBaseException as error:
        raise refused(error) from error  # as run() tells it


def resumed(path: Path) -> None:
    os.rename(path, checkpoint.resume_path(path.parent, 4)) if not path.is_symlink() else None
    config = config_of("trainer.max_epochs=2")
    data = drawn()
    card = torch.load(GOOD[0], weights_only=True)[checkpoint.CARD]
    (module,) = assembly.build_heads([config], data.feature_shape, card)
    trainer = assembly.build_trainer(config, assembly.RunFolder(path.parent, config))
    assembly._fit_interruptibly(trainer, module, data, checkpoint.resume_path(path.parent, 4))


GOOD: list[Path] = []


def loaded(path: Path) -> None:
    Backbone("shufflenet_v2_x0_5", weights=str(path))


ENTRIES = {"evaluate": scored, "resume": resumed, "weights": loaded}


@pytest.mark.fault("F45")
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_hostile_checkpoint_runs_writes_or_fills_the_memory(entry, good, tmp_path, figure):
    canary = tmp_path / "canary"
    content = good[entry == "resume"]
    made = hostile(content, canary)
    GOOD[:] = [tmp_path / "good.ckpt"]
    torch.save(content, GOOD[0])
    paths = written(made, tmp_path / "files")
    found = {name: watched(lambda path=path: ENTRIES[entry](path), path.parent) for name, path in paths.items()}
    odd = {name: each for name, each in found.items() if each.get("code", "died").partition(":")[0] not in CODES}
    opened = {name for name, each in found.items() if each.get("code") == "opened"}
    ran = [name for name, each in found.items() if each.get("events")]
    slow = [name for name, each in found.items() if each.get("seconds", 99) > 2]
    figure("G8", f"hostile checkpoints, {entry}", ">= 40", len(made), len(made) >= 40)
    figure("G8", f"ran, wrote or connected, {entry}", 0, len(ran) + canary.exists())
    figure("G8", f"ended otherwise than in a refusal, {entry}", 0, len(odd))
    figure("G8", f"refusals over 2 s, {entry}", 0, len(slow))
    assert not any("weights_only" in each.get("told", "") for each in found.values())
    assert opened - OPENS[entry] == set()
    assert OPENS[entry] - opened == set()


RESUMED = {  # a run that goes on is built from its own options: of the card it reads what it learned from
    *HARMLESS,
    "content: a nest without end",
    *(
        f"card: {name}"
        for name in CARDS
        if "feature" not in name and "fingerprint" not in name and "schema" not in name
    ),
}
OPENS = {"evaluate": {*HARMLESS}, "resume": RESUMED, "weights": set()}
CODES = {"opened", "CKPT", "CKPT-MISSING", "CKPT-SCHEMA", "CKPT-UNTRUSTED", "CKPT-EXTRACTOR", "CONFIG", "HEAD"}
CODES |= {"WEIGHTS-MISSING", "WEIGHTS-FORMAT", "WEIGHTS-NAN", "WEIGHTS-SHAPE", "DATA-CHANGED", "NAN-LOSS", "BACKBONE"}
