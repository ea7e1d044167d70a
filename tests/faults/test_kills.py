"""Jobs that fill a store are killed at any instant, paused, started together, and their locks lie."""

import errno
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from faults.broken_files import break_locks, hide_names
from faults.kill_points import killed_at_each_step
from faults.small_store import BATCH, SHARD, SmallStore, damaged, left_behind
from features.mean_colour import run_together

from likeness import locking
from likeness.features import store as stores

PICTURES = 60
SECONDS = 0.008  # a batch
MANY = 600
UNDER_WAY = SHARD + 2 * BATCH  # rows that are looked at and on no disk: a shard's, and the batches of one core
DECODED = 3 * BATCH  # pictures that wait to be looked at


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> SmallStore:
    return SmallStore(tmp_path_factory.mktemp("kills"), PICTURES)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> SmallStore:
    return SmallStore(tmp_path_factory.mktemp("many"), MANY)


def started(target, *given) -> multiprocessing.Process:
    job = multiprocessing.get_context("fork").Process(target=target, args=given)
    job.start()
    return job


@pytest.mark.fault("F33")
def test_what_a_kill_at_any_instant_costs(pictures, tmp_path, count, figure):
    """Two jobs on one store, each killed once; then one that nobody kills."""
    chance = np.random.default_rng(0)
    recomputed = wrong = temporary = 0
    redone = []
    for number in range(count(20, 200, 2000) // 2):
        store = tmp_path / str(number)
        logs = [tmp_path / f"{number}-{job}.txt" for job in range(3)]
        jobs = [started(pictures.fill, store, log, SECONDS) for log in logs[:2]]
        done = [_killed_later(job, pictures, store, logs, chance.uniform(0, 0.2)) for job in jobs]
        features = pictures.fill(store, logs[2])
        pictures.assert_right(features)
        looks = pictures.looks(*logs)
        recomputed += sum(looks[key] > before[key] for finished, before in done for key in finished)
        wrong += len(damaged(store)) + (looks.keys() != pictures.looks(*[pictures.place / "whole.txt"]).keys())
        temporary += len(left_behind(store))
        redone.append(sum(looks.values()) - PICTURES)
    figure("G1", "kill -9 at random: finished rows computed again", 0, recomputed)
    figure("G1", "kill -9 at random: corrupt or missing rows", 0, wrong)
    figure("G1", "kill -9 at random: temporary files after the next run", 0, temporary)
    most, allowed = max(redone), 2 * UNDER_WAY
    figure("G1", "kill -9 at random: rows done again by two killed jobs", f"<= {allowed}", most, most <= allowed)


def _killed_later(job, pictures: SmallStore, store: Path, logs: list[Path], seconds: float) -> tuple:
    """Kill it; what was finished then, and how often that had been looked at."""
    job.join(seconds)
    job.kill()
    job.join()
    return pictures.committed(store), pictures.looks(*logs)


@pytest.mark.fault("F33")
def test_a_kill_at_every_step_of_a_commit(tmp_path, count, figure):
    """Of the ledger, the extractor's identity and two shards."""
    pictures = SmallStore(tmp_path, 2 * SHARD)
    wrong, steps = 0, []
    folder, log = (lambda n: tmp_path / f"store-{n}"), (lambda n: tmp_path / f"{n}.txt")
    for step in killed_at_each_step(lambda n: pictures.fill(folder(n), log(n)), folder, count(3, 1, 1)):
        steps.append(step)
        finished = pictures.committed(folder(step))
        features = pictures.fill(folder(step), tmp_path / f"{step}-again.txt")
        pictures.assert_right(features)
        again = pictures.looks(tmp_path / f"{step}-again.txt")
        wrong += bool(finished & again.keys() or damaged(folder(step)) or left_behind(folder(step)))
    assert steps[-1] > 70
    figure("G1", f"kill -9 at {len(steps)} steps of a commit: work lost, corrupt or left behind", 0, wrong)


@pytest.mark.fault("F28")
def test_jobs_that_start_together_look_at_each_picture_once(pictures, tmp_path, count, figure):
    jobs, seconds = count(4, 4, 8), count(0, 0.25, 0.25)
    started_at = time.monotonic()
    pictures.fill(tmp_path / "alone", tmp_path / "alone.txt", seconds)
    alone = time.monotonic() - started_at
    logs = [tmp_path / f"{job}.txt" for job in range(jobs)]
    run_together(pictures.fill, [(tmp_path / "store", log, seconds) for log in logs])
    together = time.monotonic() - started_at - alone
    looks = pictures.looks(*logs)
    figure("G2", "jobs at once: pictures not looked at exactly once", 0, PICTURES - sum(n == 1 for n in looks.values()))
    if seconds:
        shown = f"{together / alone:.2f} x"
        figure("G2", f"{jobs} jobs at once: seconds of one alone", "<= 1.25 x", shown, together <= 1.25 * alone)


def _fill_with(fault: int | None, pictures: SmallStore, store: Path, log: Path) -> None:
    break_locks(fault)
    pictures.assert_right(pictures.fill(store, log, SECONDS))


FAULTS = {"no-op": None, **{errno.errorcode[number]: number for number in (37, 38, 5, errno.ESTALE)}}


@pytest.mark.fault("F29")
@pytest.mark.parametrize("fault", FAULTS)
def test_locks_that_lie_or_are_missing_cost_some_work_and_no_row(many, tmp_path, figure, fault):
    jobs = 4
    logs = [tmp_path / f"{job}.txt" for job in range(jobs)]
    before = time.monotonic()
    run_together(_fill_with, [(FAULTS[fault], many, tmp_path / "store", log) for log in logs])
    assert time.monotonic() - before < 120
    looks = many.looks(*logs)
    assert len(looks) == MANY
    figure(
        "G3", f"locks ({fault}): corrupt shards, rows that are missing or wrong", 0, len(damaged(tmp_path / "store"))
    )
    twice, allowed = sum(looks.values()) - MANY, 4 * jobs * (UNDER_WAY + DECODED)
    assert allowed < (jobs - 1) * MANY / 3, "what it would be if nobody saw the others"
    figure("G3", f"locks ({fault}), {jobs} jobs: looks more than needed", f"<= {allowed}", twice, twice <= allowed)


@pytest.mark.fault("F29")
def test_a_lock_that_does_not_work_is_told(pictures, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fcntl.flock", _raises(errno.ENOLCK))
    pictures.assert_right(pictures.fill(tmp_path / "store", tmp_path / "seen.txt"))
    assert f"[LOCK] no working lock in {tmp_path / 'store'}" in caplog.text
    assert "No locks available" in caplog.text


def _raises(number: int):
    def fail(*given):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.fault("F29")
def test_a_lock_that_keeps_nobody_out_is_seen_by_the_others_shards(pictures, tmp_path, caplog):
    """Another job writes the second half of the rows while this one looks at the first."""
    keys, rows = pictures.keys[PICTURES // 2 :], pictures.rows[PICTURES // 2 :].numpy()
    add = stores.Shelf.add
    with pytest.MonkeyPatch.context() as patch:

        def both(shelf, *given):
            patch.undo()
            add(shelf, *given)
            add(shelf, keys, rows, np.zeros(len(keys), np.float32))

        patch.setattr(stores.Shelf, "add", both)
        features = pictures.fill(tmp_path / "store", tmp_path / "seen.txt")
    pictures.assert_right(features)
    assert "another process fills" in caplog.text
    assert sum(pictures.looks(tmp_path / "seen.txt").values()) < PICTURES


@pytest.mark.fault("F30")
def test_a_job_takes_over_at_once_from_one_that_was_killed(pictures, tmp_path):
    logs = [tmp_path / "one.txt", tmp_path / "other.txt"]
    first = started(pictures.fill, tmp_path / "store", logs[0], 0.05)
    until(lambda: logs[0].exists())
    second = started(pictures.fill, tmp_path / "store", logs[1], 0.0)
    time.sleep(0.1)
    assert not logs[1].exists()
    first.kill()
    second.join(30)
    assert second.exitcode == 0
    pictures.assert_right(pictures.fill(tmp_path / "store", tmp_path / "none.txt"))
    assert not (tmp_path / "none.txt").exists()


@pytest.mark.fault("F30")
def test_a_paused_job_is_named_with_the_way_past_it_and_does_no_harm_when_it_goes_on(
    pictures, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(locking, "_SECONDS_BETWEEN_LINES", 0.1)
    logs = [tmp_path / "paused.txt", tmp_path / "other.txt"]
    paused = started(pictures.fill, tmp_path / "store", logs[0], 0.05)
    until(lambda: logs[0].exists())
    os.kill(paused.pid, signal.SIGSTOP)
    lock = next((tmp_path / "store").rglob(".lock-0-of-1"))
    remover = started(_remove_later, lock)
    pictures.assert_right(pictures.fill(tmp_path / "store", logs[1]))
    assert f"pid {paused.pid} comes first" in caplog.text
    assert f"end it or remove {lock}" in caplog.text
    os.kill(paused.pid, signal.SIGCONT)
    for job in (paused, remover):
        job.join(30)
        assert job.exitcode == 0
    pictures.assert_right(pictures.fill(tmp_path / "store", tmp_path / "none.txt"))
    assert not damaged(tmp_path / "store")
    assert max(pictures.looks(*logs).values()) <= 2
    assert not (tmp_path / "none.txt").exists()


def _remove_later(lock: Path) -> None:
    time.sleep(0.5)
    lock.unlink()


def _fill_unseeing(pictures: SmallStore, store: Path, log: Path, until_when: float) -> None:
    """The files of others are listed only later, as by a client of NFS that remembers the folder as it was."""
    hide_names(lambda path: "shard-" in path and time.monotonic() < until_when and path not in mine)
    mine: set[str] = set()
    replace = os.replace
    os.replace = lambda source, target: (replace(source, target), mine.add(str(target)))
    pictures.assert_right(pictures.fill(store, log, SECONDS))


@pytest.mark.fault("F31")
def test_files_that_are_late_to_appear_cost_a_second_look_and_no_row(pictures, tmp_path):
    logs = [tmp_path / f"{job}.txt" for job in range(2)]
    later = time.monotonic() + 2
    run_together(_fill_unseeing, [(pictures, tmp_path / "store", log, later) for log in logs])
    pictures.assert_right(pictures.fill(tmp_path / "store", tmp_path / "none.txt"))
    assert not (tmp_path / "none.txt").exists()
    assert max(pictures.looks(*logs).values()) <= 2


def until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
