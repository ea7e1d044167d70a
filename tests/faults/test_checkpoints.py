"""Hostile checkpoints and weight files: refused or harmless, through every place that opens one."""

import codecs
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_run
import torch
from faults.checkpoints import ENTRIES, FILES
from faults.sandbox import Seen, watched

from likeness.assembly import describing, extracting, modules, restoring, training
from likeness.features.weights import check_fits, read_file
from likeness.runs.callbacks import EpochProgress
from likeness.runs.checkpoint import open_checkpoint, resume_paths
from likeness.runs.folder import RunFolder

NEVER_OURS = ("weights_only", "\x1b", "Traceback")
WEIGHTS = {"head.encoder.0.weight": torch.ones(4, 4), "bias": torch.ones(4)}
OPTIONS = ("backbone=random", "preprocessing=simple", "preprocessing.size=32", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def right(tmp_path_factory) -> SimpleNamespace:
    """What right files hold, by entry point; and all that opening one imports is imported."""
    place = tmp_path_factory.mktemp("right")
    config = small_run.config_of(*OPTIONS, "callbacks.resume.every_n_epochs=1")
    extractor = extracting.build_extractor(config)
    data = small_run.drawn(width=extractor.backbone.feature_shape(32)[0])
    small_run.train(config, place / "run", small_run.RaisedAt(), data, extractor)
    places = place / "run" / "checkpoints"
    contents = {
        "evaluate": open_checkpoint(places / "best.ckpt"),
        "resume": open_checkpoint(min(resume_paths(places))),
        "weights": {"state_dict": WEIGHTS},
    }
    right = SimpleNamespace(contents=contents, config=config, extractor=extractor, data=data)
    opened("evaluate", places / "best.ckpt", right)
    codecs.lookup("cp437")  # of names in archives that are not UTF-8
    return right


def opened(entry: str, path: Path, right: SimpleNamespace) -> str:
    if entry == "weights":
        check_fits(read_file(path), WEIGHTS, set(WEIGHTS), "small", str(path))
    elif entry == "evaluate":
        overrides = {"backbone": {}, "extraction": right.config["extraction"]}
        _, _, card = restoring.restore(path, overrides)
        given = {"data": {}, "split": None, "metric": {}, "paths": {"store": None}}
        restoring.as_trained(given, card)
    else:
        describing.git_revision = lambda: None  # asks git
        folder = RunFolder(path.parent / "run", right.config)
        folder.resume_from = path
        card = modules.build_card(right.config, {"architecture": "x", "backbone": "y"}, right.extractor, right.data)
        (head,) = modules.build_heads([right.config], right.data.feature_shape, card)
        trainer = training.build_trainer(right.config, folder)
        trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, EpochProgress)]  # typed anew
        training.fit(trainer, head, right.data, folder)
    return "read"


def tried(entry: str, name: str, right: SimpleNamespace, place: Path) -> Seen:
    path, canary = place / ("a.pth" if entry == "weights" else "a.ckpt"), place / "ran"
    FILES[name].write(path, right.contents[entry], canary)
    seen = watched(lambda: opened(entry, path, right), place / "run")
    if canary.exists() or (place / "escaped").exists():
        seen.calls.append("a file was made")
    return seen


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_right_file_is_read(entry, right, tmp_path):
    torch.save(right.contents[entry], path := tmp_path / ("a.pth" if entry == "weights" else "a.ckpt"))
    seen = watched(lambda: opened(entry, path, right), tmp_path / "run")
    assert (seen.code, seen.calls) == ("loaded", []), seen


def test_the_sandbox_sees_code_and_memory(tmp_path):
    made = tmp_path / "made"
    assert watched(made.mkdir).calls == [f"os.mkdir ({str(made)!r}, 511, -1)"]
    assert "open" in watched(lambda: made.with_name("b").write_text("x")).calls[0]
    assert watched(lambda: made.with_name("c").write_text("x"), tmp_path).calls == []
    assert watched(lambda: len(b"x" * (300 << 20))).peak > 250 << 20
    assert watched(lambda: len(b"x" * (8 << 30))).code == "MemoryError"


@pytest.mark.fault("F45")
def test_nothing_in_a_hostile_file_is_run_or_written_and_its_refusal_is_quick_and_small(right, tmp_path, figure, count):
    ways = count(1, len(ENTRIES), len(ENTRIES))
    tries = {
        (entry, name): None
        for number, name in enumerate(FILES)
        for entry in [ENTRIES[(number + i) % len(ENTRIES)] for i in range(ways)]
    }
    for number, (entry, name) in enumerate(tries):
        (place := tmp_path / str(number)).mkdir()
        tries[entry, name] = tried(entry, name, right, place)
    wrong = {
        key: (seen.code, seen.told[-300:])
        for key, seen in tries.items()
        if ("-" in seen.code or seen.code == "CKPT") != (key[0] in FILES[key[1]].refused_by)
        or any(word in seen.told for word in NEVER_OURS)
        or (seen.code != "loaded" and FILES[key[1]].told not in seen.told)
        or (seen.code != "loaded" and not all(f"{part:<5} :" in seen.told for part in ("where", "fix")))
    }
    acted = {key: seen.calls for key, seen in tries.items() if seen.calls}
    what = f"{len(FILES)} hostile files through {ways} of {len(ENTRIES)} ways"
    figure("G8", f"{what}: that ran or wrote something", 0, acted or 0)
    figure("G8", f"{what}: neither refused as they should be nor harmless", 0, wrong or 0)
    slowest, largest = (max(getattr(seen, of) for seen in tries.values()) for of in ("seconds", "peak"))
    figure("G8", "longest refusal, seconds of the processor", "< 2", f"{slowest:.2f}", slowest < 2)
    figure("G8", "most memory of a refusal, MB", "< 200", f"{largest / 1e6:.0f}", largest < 200e6)
