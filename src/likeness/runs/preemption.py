"""Signals that ask a run to end: noted at once, answered where nothing is lost, told to whoever listened before."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

# What Slurm, Kubernetes and people send; Slurm's warning before a walltime limit is one of these as well.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Preempted(KeyboardInterrupt):
    """A signal ended the run. Where a step is given, a checkpoint of that step is on disk.

    Args:
        sent: The signal.
        step: Optimizer steps done and saved; None where no training was under way.

    ``folder_option`` is what must be added to the command to find this run again, if anything.
    """

    folder_option = ""

    def __init__(self, sent: int, step: int | None = None) -> None:
        super().__init__(sent, step)
        self.sent, self.step = signal.Signals(sent), step

    @property
    def state(self) -> str:
        """How ``status.json`` calls this end."""
        return "interrupted" if self.sent == signal.SIGINT else "preempted"

    def __str__(self) -> str:
        again = "the same command" + (f" and {self.folder_option}" if self.folder_option else "")
        if self.step is None:
            return f"{self.state}; features and checkpoints are kept; resume with {again}"
        return f"{self.state} at step {self.step}; saved; resume with {again}"


@dataclass
class _Asked:
    """What this process was asked; signals are a process's, so there is one."""

    sent: signal.Signals | None = None
    deferred: bool = False
    earlier: dict[signal.Signals, Any] = field(default_factory=dict)


_asked = _Asked()


def asked() -> signal.Signals | None:
    """The first signal that asked this run to end."""
    return _asked.sent


@contextmanager
def listening() -> Iterator[None]:
    """Within, the first signal raises ``Preempted``, or is noted where that is ``deferred``; later ones change nothing.

    Handlers that were there before are kept for ``hand_on``, and stand again afterwards.
    """
    if threading.current_thread() is not threading.main_thread():  # only there Python takes handlers
        yield
        return
    _asked.earlier = {each: signal.getsignal(each) for each in SIGNALS}
    _install()
    try:
        yield
    finally:
        for each, handler in _asked.earlier.items():
            signal.signal(each, handler)
        _asked.sent = None


@contextmanager
def deferred() -> Iterator[None]:
    """Within, a signal is only noted: who trains looks at ``asked`` where a step is whole."""
    _asked.deferred = True
    _install()
    try:
        yield
    finally:
        _asked.deferred = False


@contextmanager
def undisturbed() -> Iterator[Callable[[], bool]]:
    """Where ``listening``, a first signal within is answered at the end: for what takes seconds, and is lost if cut.

    What it gives says whether one has arrived.
    """
    before, _asked.deferred = _asked.sent, True
    try:
        yield lambda: _asked.sent is not None
    finally:
        _asked.deferred = False
    if _asked.sent is not None and before is None:
        raise Preempted(_asked.sent)


def _install() -> None:
    if threading.current_thread() is threading.main_thread():
        for each in SIGNALS:
            signal.signal(each, _note)


def _note(number: int, frame: Any) -> None:
    if _asked.sent is None:
        _asked.sent = signal.Signals(number)
        if not _asked.deferred:
            raise Preempted(number)


def hand_on(end: Preempted) -> None:
    """Call the handler that stood before ours, if a program put one there: submitit's asks Slurm to requeue the job."""
    handler = _asked.earlier.get(end.sent)
    if callable(handler) and handler is not signal.default_int_handler:
        log.info("%s; %s is handed on", end, end.sent.name)
        handler(end.sent, None)
