"""What every benchmark here does: take turns, take medians, say on what machine, and write it down."""

import ctypes
import gc
import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from likeness.files import write_atomic, write_json

RESULTS = Path(__file__).parent / "results"
Row = Mapping[str, Any]


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each call, ``repeats`` of them, in turns: what else the machine does falls on all alike.

    Each is called once before, not counted. Every round begins with another call, so that none always follows the same.
    """
    names = list(calls)
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(repeats):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            started = clock()
            calls[name]()
            seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """The median, over the rounds, of how many times as long ``of`` took as ``to`` did in the same round."""
    return median(a / b for a, b in zip(seconds[of], seconds[to], strict=True))


def spread(seconds: Sequence[float]) -> float:
    """How far the slowest is above the fastest, as a part of the median: above 0.3 the machine was not quiet."""
    return (max(seconds) - min(seconds)) / median(seconds)


def peak_memory_of(call: Callable[[], object]) -> int | None:
    """Bytes of memory that a call needs at its peak, beyond what this process holds before it.

    The kernel's own high-water mark, so that no allocator can hide any. None where there is no Linux to ask.
    """
    if platform.system() != "Linux":
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts again from what is resident now
    before = _resident("VmRSS")
    call()
    return max(_resident("VmHWM") - before, 0)


def _resident(mark: str) -> int:
    found = re.search(rf"{mark}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def environment(peers: Sequence[str] = ()) -> dict[str, Any]:
    """The machine, its load, and the versions of torch and of the named distributions; one not installed is missing."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", *peers)},
    }


def _processor() -> str:
    """Family and model as well, where the name says only whose it is."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    return (
        f"{found.get('model name', platform.machine())}, family {found.get('cpu family')}, model {found.get('model')}"
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def report(name: str, rows: Sequence[Row], environment: Mapping[str, Any], folder: Path = RESULTS) -> str:
    """Write ``NAME.json`` (everything) and ``NAME.md`` (a table), and return the Markdown.

    Args:
        rows: Flat; lists and mappings stand in the JSON alone.
    """
    write_json(folder / f"{name}.json", {"environment": environment, "rows": rows})
    text = f"{markdown(rows)}\n\n{_told(environment)}\n"
    write_atomic(folder / f"{name}.md", text.encode())
    return text


def markdown(rows: Sequence[Row]) -> str:
    """A table of figures to three digits; a row without a value leaves its cell empty."""
    plain = (column for row in rows for column, value in row.items() if not isinstance(value, list | Mapping))
    columns = list(dict.fromkeys(plain))
    lines = [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *lines])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _told(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    plain = ", ".join(f"{name} {value}" for name, value in environment.items() if name != "versions")
    return f"{plain}; {versions}."
