"""Training that was cut at any batch and went on ends bit for bit as training that was not."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers import ROOT
from small_run import BATCHES, RaisedAt, config_of, drawn, train

from likeness.errors import LikenessError
from likeness.heads.autoencoder import Autoencoder
from likeness.runs import preemption
from likeness.runs.checkpoint import (
    newest_checkpoint,
    open_checkpoint,
    step_of,
)


def cut(config: dict, path: Path, at: int, sent: signal.Signals = signal.SIGUSR1) -> list[int]:
    """Train until a signal in batch ``at`` has been answered; the batches that were seen."""
    with pytest.raises(preemption.Preempted) as end:
        train(config, path, watcher := RaisedAt(at, sent))
    newest = newest_checkpoint(path / "checkpoints")
    assert newest is not None
    assert (end.value.sent, end.value.step) == (sent, step_of(newest))
    return watcher.seen


def assert_same_tensors(one, other, at: str = "") -> None:
    """Equal bit for bit, through all nesting."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_same_tensors(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_tensors(a, b, f"{at}[{index}]")
    else:
        assert one == other, at


def state_at_the_end(path: Path) -> dict:
    """What the last checkpoint of a finished training holds of optimizer, scheduler, early stopping and the module."""
    content = open_checkpoint(newest_checkpoint(path / "checkpoints"))
    stopping = {name: state for name, state in content["callbacks"].items() if name.startswith("EarlyStopping")}
    names = ("state_dict", "optimizer_states", "lr_schedulers", "likeness_progress", "epoch", "global_step")
    return {name: content[name] for name in names} | {"stopping": stopping}


# Of three seeds the second gains less than this in the second epoch: it leaves, and the others go on.
STOPS_ONE = ("callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=0.0067")
NO_COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here")
COMPILED = pytest.param(
    ["optimizer=adadelta", "noise=gaussian", "compile_optimizer=true"], marks=NO_COMPILER, id="compiled"
)
VARIANTS = [
    ["optimizer=adamw", "noise=gaussian", "scheduler=cosine", "scaling=standardize"],
    ["optimizer=adadelta", "noise=masking", "scheduler=plateau", "scheduler.patience=0", "optimizer.lr=3"],
    ["optimizer=adamw", "noise=gaussian_as_published", "scaling=max_abs", "callbacks=last_weights"],
    ["optimizer=sgd", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=100"],
    ["optimizer=adamw", "noise=gaussian", "+trainer.max_steps=8", "scheduler=plateau"],
    ["optimizer=adamw", "+trainer.accumulate_grad_batches=2", "+trainer.val_check_interval=2", "scheduler=cosine"],
    ["seeds=3", "optimizer=adamw", "noise=gaussian", "scaling=standardize", "scheduler=cosine", *STOPS_ONE],
    ["seeds=3", "optimizer=adamw", "noise=gaussian", "architecture.l1=0.01", "callbacks=last_weights"],
]


@pytest.mark.fault("F35")
@pytest.mark.parametrize("variant", [*VARIANTS, COMPILED], ids=" ".join)
def test_cut_at_every_batch_the_end_is_the_same_bit_for_bit(variant, tmp_path, figure):
    config = config_of(*variant)
    module, trainer, history = train(config, tmp_path / "whole", whole := RaisedAt())
    expected = state_at_the_end(tmp_path / "whole")
    assert len(whole.seen) == (8 if "+trainer.max_steps=8" in variant else 6 if "optimizer=sgd" in variant else 9)
    accumulates = "+trainer.accumulate_grad_batches=2" in variant  # then only an epoch's start is one
    for at in whole.seen:
        path = tmp_path / str(at)
        seen = cut(config, path, at)
        resumed, again, found = train(config, path, rest := RaisedAt())
        assert seen + rest.seen == whole.seen, "no batch twice and none left out"
        assert len(seen) == (-(-at // BATCHES) * BATCHES if accumulates else at), "it ends at the next boundary"
        assert_same_tensors(dict(resumed.state_dict()), dict(module.state_dict()), f"cut at {at}")
        assert_same_tensors(state_at_the_end(path), expected, f"cut at {at}")
        assert found == history
        assert {"train/loss", "val/loss", "val/hit@1", "val/hit@1_best"} <= found[0].keys()
        assert again.current_epoch == trainer.current_epoch
    cuts = len(whole.seen)
    figure("G4", f"cuts that end bit for bit as uncut: {' '.join(variant)}"[:100], f"{cuts}/{cuts}", f"{cuts}/{cuts}")


class Counted(pl.Callback):
    """Counts the batches that are learned from without asking for a word between them; a signal arrives in one."""

    def __init__(self, monkeypatch, at: int | None = None) -> None:
        self.seen = 0
        show = Autoencoder._shown

        def watched(module, batch):
            self.seen += 1
            if self.seen == at:
                signal.raise_signal(signal.SIGUSR1)
            return show(module, batch)

        monkeypatch.setattr(Autoencoder, "_shown", watched)


UNDIVIDED = [
    *(variant for variant in VARIANTS if not any("trainer." in option for option in variant)),
    ["optimizer=adamw", "noise=gaussian", "trainer.precision=bf16-mixed"],
    ["optimizer=sgd", "optimizer.lr=1", "trainer.gradient_clip_val=0.05"],
]


@pytest.mark.parametrize("variant", [*UNDIVIDED, COMPILED], ids=" ".join)
def test_an_epoch_as_one_step_learns_what_its_batches_do_and_is_cut_at_any_of_them(variant, tmp_path):
    config = config_of(*variant)
    module, trainer, history = train(config, tmp_path / "divided", RaisedAt())
    assert not trainer.train_dataloader.undivided
    expected = state_at_the_end(tmp_path / "divided")
    with pytest.MonkeyPatch.context() as patch:
        whole, trainer, found = train(config, tmp_path / "whole", counted := Counted(patch))
        assert trainer.train_dataloader.undivided
    assert_same_tensors(dict(whole.state_dict()), dict(module.state_dict()))
    assert_same_tensors(state_at_the_end(tmp_path / "whole"), expected)
    assert found == history
    for at in range(1, counted.seen + 1):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(preemption.Preempted) as end:
            train(config, tmp_path / str(at), Counted(patch, at))
        assert end.value.step == at
        with pytest.MonkeyPatch.context() as patch:
            resumed, _, found = train(config, tmp_path / str(at), rest := Counted(patch))
        assert rest.seen == counted.seen - at
        assert_same_tensors(dict(resumed.state_dict()), dict(module.state_dict()), f"cut at {at}")
        assert_same_tensors(state_at_the_end(tmp_path / str(at)), expected, f"cut at {at}")
        assert found == history


ASKING = [
    "+trainer.max_steps=8",
    "+trainer.accumulate_grad_batches=2",
    "+trainer.val_check_interval=0.5",
    "+trainer.limit_train_batches=2",
    "trainer.precision=64-true",
    "+callbacks.timer={_target_: pytorch_lightning.callbacks.Timer, duration: '00:01:00:00'}",
]


@pytest.mark.parametrize("option", ASKING)
def test_batches_stay_apart_where_something_is_asked_between_them(option, tmp_path, monkeypatch):
    _, trainer, _ = train(config_of("optimizer=sgd", option), tmp_path, Counted(monkeypatch))
    assert not trainer.train_dataloader.undivided


class Killed(BaseException):
    """Nothing is saved on the way out, as when the process is killed."""


class KilledAt(RaisedAt):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        super().on_train_batch_start(trainer, module, batch, batch_idx)
        if len(self.seen) == 8:
            raise Killed


def kill(config: dict, path: Path) -> None:
    """Train until the eighth batch, and no further."""
    with pytest.raises(Killed):
        train(config, path, KilledAt())


def steps(path: Path) -> list[int]:
    return sorted(step_of(each) for each in (path / "checkpoints").glob("resume-*"))


ROLLING = [
    (["callbacks.resume.every_n_epochs=1"], [3, 6]),
    (["callbacks.resume.every_n_epochs=2"], [6]),
    (["callbacks.resume.every_seconds=0"], [6, 7]),
    (["callbacks.resume.every_n_epochs=1", "callbacks.resume.every_seconds=null"], [3, 6]),
]


@pytest.mark.parametrize(("often", "kept"), ROLLING)
def test_a_killed_run_goes_on_from_the_newest_checkpoint_of_two(often, kept, tmp_path):
    config = config_of("optimizer=adamw", "noise=gaussian", *often)
    module, _, history = train(config, tmp_path / "whole", RaisedAt())
    kill(config, tmp_path / "killed")
    assert steps(tmp_path / "killed") == kept
    resumed, _, found = train(config, tmp_path / "killed", rest := RaisedAt())
    assert rest.seen == list(range(kept[-1] + 1, 10))
    assert_same_tensors(dict(resumed.state_dict()), dict(module.state_dict()))
    assert found == history
    assert steps(tmp_path / "killed")[-1] == 9
    assert len(steps(tmp_path / "killed")) == 2


def test_without_a_rolling_checkpoint_a_kill_costs_the_training_so_far(tmp_path):
    config = config_of("optimizer=adamw", "callbacks.resume.every_seconds=null")
    kill(config, tmp_path)
    assert steps(tmp_path) == []


@pytest.mark.fault("F34")
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_taken(tmp_path, caplog):
    config = config_of("optimizer=adamw", "callbacks.resume.every_n_epochs=1")
    module, _, _ = train(config, tmp_path / "whole", RaisedAt())
    kill(config, tmp_path / "killed")
    newest = tmp_path / "killed" / "checkpoints" / "resume-00000006.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed, _, _ = train(config, tmp_path / "killed", rest := RaisedAt())
    assert f"[CKPT] {newest} cannot be gone on from" in caplog.text
    assert rest.seen == [4, 5, 6, 7, 8, 9]
    assert_same_tensors(dict(resumed.state_dict()), dict(module.state_dict()))


@pytest.mark.parametrize("sent", preemption.SIGNALS)
def test_every_signal_saves_and_says_so(sent, tmp_path):
    with pytest.raises(preemption.Preempted) as end:
        train(config_of(), tmp_path, RaisedAt(4, sent))
    verb = "interrupted" if sent == signal.SIGINT else "preempted"
    assert str(end.value) == f"{verb} at step 4; saved; resume with the same command"
    assert steps(tmp_path) == [4]


def test_the_best_weights_are_on_disk_with_each_checkpoint_and_at_the_end(tmp_path):
    config = config_of("optimizer=adamw", "callbacks.resume.every_seconds=null")
    cut(config, tmp_path, 5)
    best = open_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert (best["epoch"], best["global_step"]) == (0, 3)
    train(config, tmp_path, RaisedAt())
    best, last = (open_checkpoint(tmp_path / "checkpoints" / name) for name in ("best.ckpt", "resume-00000009.ckpt"))
    assert (best["epoch"], best["global_step"]) == (2, 9)
    assert_same_tensors(best["state_dict"], last["state_dict"])
    assert "optimizer_states" not in best


def test_hits_are_measured_from_the_first_epoch_on_every_so_often(tmp_path):
    _, _, history = train(config_of("optimizer=adamw", "hits_every_n_epochs=2"), tmp_path, RaisedAt())
    assert ["val/hit@1" in epoch for epoch in history] == [True, False, True]
    assert all("val/loss" in epoch for epoch in history)


def test_signals_during_the_save_destroy_nothing(tmp_path, monkeypatch):
    def insistent(*given):
        for sent in preemption.SIGNALS:
            signal.raise_signal(sent)
        return replace(*given)

    class Insistent(RaisedAt):
        def on_train_batch_end(self, *given):
            if self.seen[-1] == self.at:
                monkeypatch.setattr(os, "replace", insistent)

    replace = os.replace
    with pytest.raises(preemption.Preempted, match="preempted at step 4; saved"):
        train(config_of(), tmp_path, Insistent(4))
    assert steps(tmp_path) == [4]


def test_a_run_that_was_preempted_twice_and_moved_ends_the_same(tmp_path):
    config = config_of("optimizer=adamw", "noise=masking")
    module, _, history = train(config, tmp_path / "whole", RaisedAt())
    cut(config, tmp_path / "a", 5, signal.SIGTERM)
    (tmp_path / "a").rename(tmp_path / "b")
    cut(config, tmp_path / "b", 7, signal.SIGUSR2)
    resumed, trainer, found = train(config, tmp_path / "b", RaisedAt())
    assert_same_tensors(dict(resumed.state_dict()), dict(module.state_dict()))
    assert found == history
    assert {str(Path(c.best_model_path).parent) for c in trainer.checkpoint_callbacks[:1]} == {
        str(tmp_path / "b" / "checkpoints")
    }


def test_a_head_does_not_go_on_with_other_pictures(tmp_path):
    cut(config_of(), tmp_path, 4)
    with pytest.raises(LikenessError, match="other pictures") as refusal:
        train(config_of(), tmp_path, RaisedAt(), drawn(seed=1))
    assert refusal.value.code == "DATA-CHANGED"
    assert "pictures" in refusal.value.where


FAILS = [("fsync", 1), ("replace", 1), ("fsync", 2)]  # the file's, its name's, the folder's


@pytest.mark.fault("F34")
@pytest.mark.parametrize(("call", "time"), FAILS)
def test_a_full_disk_stops_training_and_names_the_last_good_step(call, time, tmp_path, monkeypatch):
    def full(*given):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given)

    config, left, real = config_of("callbacks.resume.every_n_epochs=1"), 0, getattr(os, call)

    class FullAt(RaisedAt):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            nonlocal left
            if trainer.global_step == 3:  # step 3 is on disk
                left = time
                monkeypatch.setattr(os, call, full)

    with pytest.raises(LikenessError) as refusal:
        train(config, tmp_path, FullAt())
    assert (refusal.value.code, refusal.value.exit_code) == ("CKPT", 74)
    assert refusal.value.what == "the checkpoint of step 6 could not be written. Training stops."
    assert "last good: step 3 (resume-00000003.ckpt)" in refusal.value.kept
    assert "No space left on device" in refusal.value.cause
    assert "bytes are free" in refusal.value.cause
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path / "checkpoints") is not None
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))
    module, _, _ = train(config, tmp_path, RaisedAt())
    whole, _, _ = train(config, tmp_path / "whole", RaisedAt())
    assert_same_tensors(dict(module.state_dict()), dict(whole.state_dict()))


@pytest.mark.fault("F35")
def test_two_processes_that_were_cut_end_as_if_they_were_not(tmp_path):
    """The signal reaches one of them; both save, and end, at the same batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    together |= {"MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(ROOT / "tests" / "small_run.py"), str(tmp_path)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "".join(told)
    states = {name: torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole-0", "whole-1")}
    for name in ("2-0", "2-1", "3-0", "3-1", "5-0", "5-1"):
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert found.pop("saved") == [int(name[0])], name
        whole = {key: value for key, value in states[f"whole-{name[-1]}"].items() if key != "saved"}
        assert_same_tensors(found, whole, name)
