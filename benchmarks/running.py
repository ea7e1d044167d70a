"""Several benchmarks in turn, each a process of its own: what fails or takes too long loses itself alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from measuring import ROOT

LOGS = ROOT / "outputs" / "benchmarks"
_LINES_OF_A_FAILURE = 15


class Part(NamedTuple):
    """One command.

    Attributes:
        words: What follows ``python``; the first is a script in benchmarks/ unless it begins with a dash.
        seconds: About how long it takes on two quiet cores.
        limit: After so many seconds it is ended.
    """

    name: str
    words: tuple[str, ...]
    seconds: int
    limit: int


def run_all(parts: Iterable[Part], environment: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Run each with its output in outputs/benchmarks/NAME.log; returns a row for each."""
    parts, rows = list(parts), []
    for number, part in enumerate(parts, start=1):
        left = sum(each.seconds for each in parts[number - 1 :])
        _say(f"[{number}/{len(parts)}] {part.name}: about {part.seconds} s of {left} s that are left")
        started = time.perf_counter()
        outcome = _outcome(part, {**os.environ, "PYTHONPATH": _path(), **(environment or {})})
        taken = time.perf_counter() - started
        rows.append({"part": part.name, "s": taken, "expected s": part.seconds, "outcome": outcome})
        _say(f"    {outcome} after {taken:.0f} s")
    return rows


def failures(rows: Iterable[Mapping[str, Any]]) -> int:
    """Say which parts failed; returns their number."""
    failed = [row["part"] for row in rows if row["outcome"] != "done" and not row["outcome"].startswith("missing")]
    if failed:
        _say(f"failed: {', '.join(failed)} (see {os.path.relpath(LOGS)}/NAME.log); the results of the others are kept")
    return len(failed)


def _path() -> str:
    """This checkout's package before any that is installed."""
    return os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])


def _outcome(part: Part, environment: Mapping[str, str]) -> str:
    words = list(part.words)
    if not words[0].startswith("-"):
        if not (ROOT / "benchmarks" / words[0]).exists():
            return f"missing: there is no benchmarks/{words[0]}"
        words[0] = str(ROOT / "benchmarks" / words[0])
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{part.name.replace(' ', '_')}.log"
    with open(log, "wb") as file:
        told = {"stdout": file, "stderr": subprocess.STDOUT, "cwd": ROOT, "env": environment, "start_new_session": True}
        with subprocess.Popen([sys.executable, *words], **told) as process:
            try:
                code = process.wait(part.limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
    if code == 0:
        return "done"
    _say(_last_lines(log))
    return f"ended: it took more than {part.limit} s" if code is None else f"failed with exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started and that still runs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LINES_OF_A_FAILURE:]
    return "\n".join(f"    | {line}" for line in lines)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
