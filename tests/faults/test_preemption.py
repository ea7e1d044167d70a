"""Real signals at any instant of a real training: the run goes on from where it was and ends as if nothing had been."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import RaisedAt, config_of, train

from likeness.runs import preemption
from likeness.runs.journal import read

SENT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGKILL)
STEPS = 9
SECONDS = 0.02  # a batch
PREEMPTED = 75


class Slow(RaisedAt):
    """Each batch takes a while, and is written down when it begins."""

    def __init__(self, begun: Path) -> None:
        super().__init__()
        self.begun = begun

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        with open(self.begun, "a") as file:
            file.write(f"{trainer.global_step + 1}\n")
        time.sleep(SECONDS)


def _begun(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def _ended_by(sent: signal.Signals, seconds: float, config: dict, folder: Path, begun: Path) -> int:
    """Its exit code, when the signal comes so long after its first batch began."""
    child = os.fork()
    if not child:
        _train_and_leave(config, folder, begun)
    while not _begun(begun):
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(child, sent)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _train_and_leave(config: dict, folder: Path, begun: Path) -> None:
    try:
        train(config, folder, Slow(begun))
        os._exit(0)
    except preemption.Preempted:
        os._exit(PREEMPTED)
    finally:
        os._exit(1)


@pytest.mark.fault("F35")
def test_a_signal_at_any_instant_of_a_training_changes_no_number(tmp_path, count, figure):
    config = config_of("optimizer=adamw", "noise=gaussian", "callbacks.resume.every_n_epochs=1")
    module, _, _ = train(config, tmp_path / "whole", Slow(tmp_path / "whole.txt"))
    chance = np.random.default_rng(0)
    other = lost = lost_to_kills = 0
    for number in range(count(4, 16, 50)):
        sent, folder, begun = SENT[number % 4], tmp_path / str(number), tmp_path / f"{number}.txt"
        code = _ended_by(sent, chance.uniform(0, STEPS * SECONDS), config, folder, begun)
        assert code in ((-signal.SIGKILL, 0) if sent == signal.SIGKILL else (PREEMPTED, 0))
        resumed, _, _ = train(config, folder, Slow(begun))
        again = len(_begun(begun)) - STEPS
        other += any(not torch.equal(resumed.state_dict()[name], value) for name, value in module.state_dict().items())
        lost, lost_to_kills = (lost, max(lost_to_kills, again)) if code < 0 else (max(lost, again), lost_to_kills)
        assert read(folder / "journal.jsonl")
    figure("G5", "signals at random: runs that end with other weights", 0, other)
    figure("G5", "SIGTERM, SIGUSR1, SIGUSR2: batches done twice, at most", "<= 1", lost, lost <= 1)
    allowed = 4  # an epoch of three between checkpoints, and the batch under way
    figure("G5", "SIGKILL: batches done twice, at most", f"<= {allowed}", lost_to_kills, lost_to_kills <= allowed)
