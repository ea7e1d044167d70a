"""A signal is noted at once, answered once, and handed on to whoever listened before."""

import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from likeness.runs import preemption
from likeness.runs.preemption import SIGNALS, Preempted, asked, deferred, hand_on, listening, undisturbed


@pytest.mark.parametrize("sent", SIGNALS)
def test_the_first_signal_ends_what_is_under_way_and_later_ones_change_nothing(sent):
    with listening():
        with pytest.raises(Preempted) as end:
            signal.raise_signal(sent)
        for later in SIGNALS:
            signal.raise_signal(later)
        assert (end.value.sent, end.value.step, asked()) == (sent, None, sent)


def test_a_deferred_signal_is_noted_until_someone_asks():
    with listening(), deferred():
        assert asked() is None
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)
        assert asked() == signal.SIGUSR2


def test_deferring_takes_a_signal_back_from_whoever_took_it_meanwhile():
    with listening():
        signal.signal(signal.SIGTERM, lambda *given: pytest.fail("Lightning's handler was called"))
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            assert asked() == signal.SIGTERM


def test_what_is_undisturbed_ends_before_a_signal_is_answered_and_later_ones_change_nothing():
    def work(sent):
        with undisturbed():
            signal.raise_signal(sent)
            done.append(sent)

    done = []
    with listening():
        with pytest.raises(Preempted) as end:
            work(signal.SIGUSR1)
        assert (done, end.value.sent, end.value.step) == ([signal.SIGUSR1], signal.SIGUSR1, None)
        work(signal.SIGTERM)  # as when rows are written on the way out
    assert done == [signal.SIGUSR1, signal.SIGTERM]


def test_a_fault_in_what_is_undisturbed_is_told_and_the_next_signal_is_answered_at_once():
    with listening():
        with pytest.raises(OSError, match="full"), undisturbed():
            raise OSError("full")
        with pytest.raises(Preempted):
            signal.raise_signal(signal.SIGTERM)


def test_earlier_handlers_stand_again_afterwards():
    before = [signal.getsignal(each) for each in SIGNALS]
    with listening(), deferred():
        assert [signal.getsignal(each) for each in SIGNALS] != before
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_each_job_of_a_process_listens_anew():
    with listening(), pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)
    assert asked() is None
    with listening():
        assert asked() is None
        with pytest.raises(Preempted):
            signal.raise_signal(signal.SIGUSR1)


def test_outside_the_main_thread_nothing_is_installed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with listening(), deferred():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (Preempted(signal.SIGTERM, 1234), "preempted at step 1234; saved; resume with the same command"),
        (Preempted(signal.SIGINT, 0), "interrupted at step 0; saved; resume with the same command"),
        (
            Preempted(signal.SIGUSR1),
            "preempted; features and checkpoints are kept; resume with the same command",
        ),
    ],
)
def test_the_end_says_what_to_do(end, told):
    assert str(end) == told
    end.folder_option = "hydra.run.dir=a/b"
    assert str(end) == f"{told} and hydra.run.dir=a/b"


@pytest.fixture
def handlers() -> Iterator[None]:
    """All are put back after the test."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("earlier", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_pythons_own_handlers_are_not_called(handlers, earlier):
    signal.signal(signal.SIGUSR2, earlier)
    with listening():
        hand_on(Preempted(signal.SIGUSR2, 3))


@pytest.fixture
def requeued(handlers, tmp_path, monkeypatch) -> Callable[[int, int], list[int]]:
    """submitit listens as in a job of an hour; gives what it requeues, each by how often the job may still time out."""
    environment = pytest.importorskip("submitit.core.job_environment")
    monkeypatch.setattr(environment, "_checkpoint", lambda *given: "")

    def listen(minutes: int, left: int) -> list[int]:
        told: list[int] = []
        slurm = SimpleNamespace(global_rank=0, _requeue=told.append)
        job = SimpleNamespace(_timeout_min=60, _timeout_countdown=left, function=SimpleNamespace(checkpoint=None))
        submitit = environment.SignalHandler(slurm, SimpleNamespace(submitted_pickle=tmp_path / "job"), job)
        submitit._start_time -= 60 * minutes
        signal.signal(signal.SIGUSR2, submitit.checkpoint_and_try_requeue)
        signal.signal(signal.SIGTERM, submitit.bypass)
        return told

    return listen


@pytest.mark.parametrize(("minutes", "left"), [(5, 3), (55, 2)], ids=["preempted", "out of time"])
def test_submitit_requeues_the_job_once_and_leaves(requeued, minutes, left):
    """What Slurm sends before the time is up is what it sends before a preemption; submitit counts the former."""
    told = requeued(minutes, 3)
    with listening():
        with deferred():
            signal.raise_signal(signal.SIGUSR2)
            assert preemption.asked() == signal.SIGUSR2
            assert told == []
        with pytest.raises(SystemExit):
            hand_on(Preempted(signal.SIGUSR2, 3))
    assert told == [left]


def test_a_job_that_was_out_of_time_too_often_is_not_requeued(requeued):
    told = requeued(55, 0)
    with listening(), pytest.raises(Exception, match="timed-out too many times"):
        hand_on(Preempted(signal.SIGUSR2, 3))
    assert told == []


def test_submitit_does_not_requeue_for_a_bare_sigterm(requeued):
    told = requeued(5, 3)
    with listening():
        hand_on(Preempted(signal.SIGTERM, 3))
    assert told == []
