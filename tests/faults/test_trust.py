"""Files and options that want to run, to read or to write something: nothing of it happens, and a refusal says why."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.checkpoints import CARDS, HARMLESS, hostile
from helpers import ROOT, draw_striped
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from small_run import RaisedAt, config_of, drawn, train
from test_architecture import FILES, code_runners
from test_config import HOSTILE

from likeness import assembly
from likeness.config import faults, refused, register
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


MORE = ["torch.jit.load", "torch.utils.cpp_extension.load", "numpy.load", "joblib.load", "ctypes.CDLL", "code.interact"]
MORE += ["urllib.request.urlopen", "http.server.test", "site.main", "webbrowser.open", "builtins.open", "builtins.exec"]


@pytest.mark.fault("F46")
def test_no_hostile_target_is_resolved_wherever_it_stands(figure):
    targets = [*HOSTILE, *MORE]
    wraps = [lambda t: t, lambda t: {"a": [{"b": t}]}, lambda t: {"_target_": "torch.optim.AdamW", "lr": t}]
    passed = [(t, w) for t in targets for w in wraps if not any("_target_" in f for f in faults(w({"_target_": t})))]
    figure("G9", "hostile targets", ">= 60", len(targets), len(targets) >= 60)
    figure("G9", "resolved, alone, in a list or as an argument", 0, len(passed))


SECRETS = {
    "WANDB_API_KEY": "canary0key",
    "AWS_SECRET_ACCESS_KEY": "canary0secret",
    "HF_TOKEN": "canary0token",
    "DB_PASSWORD": "canary0password",
    "DATABASE_URL": "postgres://u:canary0@host/db",
}


@pytest.mark.fault("F46")
@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "spelled", ["${{oc.env:{}}}", "${{oc.env:{},none}}", "a/${{oc.env:{}}}", "${{oc.env:${{job}}}}"]
)
def test_a_config_does_not_read_secrets(name, spelled, monkeypatch):
    register()
    monkeypatch.setenv(name, SECRETS[name])
    cfg = OmegaConf.create({"job": name, "root": spelled.format(name), "home": "${oc.env:HOME}"})
    with pytest.raises(OmegaConfBaseException, match="looks like a secret") as caught:
        OmegaConf.to_container(cfg, resolve=True)
    assert "canary0" not in str(refused(caught.value))
    assert cfg.home == os.environ["HOME"]


@pytest.mark.fault("F46")
def test_no_secret_of_the_environment_is_in_any_file_of_a_run(tmp_path, figure):
    """Of a run with every kind of file: config, checkpoints, journal, status, wandb's own."""
    for period, kind in ((4, "fine"), (9, "medium")):
        for home in range(20):
            draw_striped(tmp_path / "photos" / kind / f"{home}.png", period, home)
    options = ["data=folder", "data.root=photos", "preprocessing.size=32", "architecture=dense", "hydra.run.dir=run"]
    options += ["architecture.widths=[8]", "trainer.max_epochs=2", "logger=[csv,wandb]", "figures.draw=none"]
    options += ["metric.ks=[1]", "metric.vote_k=1", "callbacks.resume.every_n_epochs=1"]
    environment = {**os.environ, **SECRETS, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".wandb", ".ckpt", ".jsonl", ".yaml", ".json", ".csv"} <= {path.suffix for path in files}
    held = [str(path) for path in files if b"canary0" in path.read_bytes()]
    figure("G20", f"files that hold a secret, of {len(SECRETS)} in the environment", 0, len(held))
    assert "canary0" not in done.stdout + done.stderr


@pytest.mark.fault("F45", "F46")
def test_nothing_in_the_package_runs_a_file_a_text_or_a_shell(figure):
    found = [told for path in FILES for told in code_runners(path.name, path.read_text())]
    figure("G19", f"calls that could run code, in {len(FILES)} files", 0, len(found))
