"""What every benchmark here does: take turns, take medians, say on what machine, and write it down."""

import ctypes
import gc
import importlib.metadata
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from likeness.files import write_atomic, write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")  # elsewhere, to try one
Row = Mapping[str, Any]


class Rounds(list[float]):
    """The clock's seconds of each round.

    Attributes:
        processor: Those of the processor in the same rounds, of all threads and of children that have ended.
        missing: The package without which there are no rounds.
        peak: Bytes of memory that the last round needed beyond what was held before it, where that was asked.
    """

    peak: int | None = None

    def __init__(
        self, clock: Iterable[float] = (), processor: Iterable[float] = (), missing: str | None = None
    ) -> None:
        super().__init__(clock)
        self.processor, self.missing = list(processor), missing


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int, memory: bool = False) -> dict[str, Rounds]:
    """Seconds of each call, ``repeats`` of them, in turns: what else the machine does falls on all alike.

    Each is called once before, not counted; one whose package is not installed is missing from then on. Every round
    begins with another call, so that none always follows the same.
    """
    taken = {name: Rounds(missing=missing_for(call)) for name, call in calls.items()}
    names = [name for name in calls if taken[name].missing is None]
    for round_ in range(repeats):
        first = round_ % max(1, len(names))
        for name in names[first:] + names[:first]:
            each = partial(note, taken[name], calls[name])
            if memory and round_ == repeats - 1:
                taken[name].peak = peak_memory_of(each)
            else:
                each()
    return taken


def note(taken: Rounds, call: Callable[[], Any]) -> Any:
    """Call it, add what it took, and return what it returns."""
    started, used = time.perf_counter(), processor_seconds()
    found = call()
    taken.append(time.perf_counter() - started)
    taken.processor.append(processor_seconds() - used)
    return found


def missing_for(call: Callable[[], object]) -> str | None:
    """Call it; the name of the package that it lacks."""
    try:
        call()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "likeness":
            raise
        return error.name
    return None


def processor_seconds() -> float:
    """Of this process, all its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def busy_seconds() -> float:
    """Of all cores since the machine was started, with what a hypervisor took; 0 where there is no Linux to ask."""
    try:
        told = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(int, told)
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


# This module is read before anything is measured.
_LOAD_BEFORE, _BEGUN = os.getloadavg()[0], (time.perf_counter(), processor_seconds(), busy_seconds())


def share_of_others() -> float:
    """Of all cores' time since this process was begun, the part that other processes had."""
    passed, own, busy = (
        now - then for now, then in zip((time.perf_counter(), processor_seconds(), busy_seconds()), _BEGUN, strict=True)
    )
    return max(0.0, busy - own) / (passed * (os.cpu_count() or 1))


def figures(
    seconds: Mapping[str, Rounds], name: str, unit: str = "s", per: float = 1, base: tuple[str, str] | None = None
) -> dict[str, Any]:
    """The columns that every row has: medians of clock and processor, how far they spread, and each round's seconds.

    Args:
        unit: s or ms.
        per: How many pieces of work a call does.
        base: Of which other call's time this one's is how many times, and what that is called in the table.
    """
    taken, scale = seconds[name], {"s": 1, "ms": 1000}[unit] / per
    if taken.missing is not None:
        return {"missing": taken.missing}
    row: dict[str, Any] = {unit: scale * median(taken)}
    if base is not None and seconds[base[0]].missing is None:
        row[f"× {base[1]}"] = ratio(seconds, name, base[0])
    row |= {"spread": spread(taken), f"processor {unit}": scale * median(taken.processor)}
    if taken.peak is not None:
        row["MiB"] = taken.peak / 2**20
    return row | {"seconds": list(taken), "processor seconds": taken.processor}


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
    """When and where, load, others' share of the cores, and versions of torch and of the named packages."""
    import torch

    return {
        "date": date.today().isoformat(),
        "command": command(sys.argv),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "load before": round(_LOAD_BEFORE, 2),
        "load after": round(os.getloadavg()[0], 2),
        "others": round(share_of_others(), 3),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", *peers)},
    }


def command(words: Sequence[str]) -> str:
    """The command as one would give it from the checkout, with the last part of paths that lead elsewhere.

    >>> command([str(ROOT / "benchmarks" / "x.py"), "--photos", "/home/me/rooms"])
    'python benchmarks/x.py --photos rooms'
    """
    told = [str(Path(word).relative_to(ROOT)) if word.startswith(f"{ROOT}/") else word for word in words]
    return " ".join(["python", *(Path(word).name if Path(word).is_absolute() else word for word in told)])


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
    lines = [[shown(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *lines])


def shown(value: Any) -> str:
    """A value as it reads in a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _told(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    plain = ", ".join(f"{name} {value}" for name, value in environment.items() if name not in ("versions", "command"))
    return f"`{environment['command']}`: {plain}; {versions}."
