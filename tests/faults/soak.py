"""Mixed work for an hour: trainings on one store, killed at random and begun again, then evaluated; nothing is wrong.

    PYTHONPATH=tests python tests/faults/soak.py MINUTES [PROCESSES]        (make soak MINUTES=60)

Each of eight workers trains a head on pictures that all share, through a store that is begun anew every few minutes,
and evaluates it. Half of the trainings get a signal at a random moment, often several, and are begun again by the same
command. What comes out is compared with an undisturbed run, number by number. Prints a line a minute and ends with 1
when a number was wrong, a command ended as it should not, files were left over, or memory grew.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from helpers import ROOT, draw_striped

SECONDS_A_STORE = 180
HEADS = {
    "dense": ["architecture=dense", "architecture.widths=[16]", "noise=gaussian", "trainer.max_epochs=8"],
    "seeds": ["architecture=dense", "architecture.widths=[8]", "seeds=2", "trainer.max_epochs=6"],
    "pca": ["architecture=pca", "architecture.width=8"],
    "neighbours": ["architecture=neighbour_average", "architecture.width=8", "architecture.k=5"],
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ENDS = {
    0,
    75,
    -signal.SIGKILL,
    -signal.SIGTERM,
    -signal.SIGINT,
    -signal.SIGUSR1,
}  # a signal may come before Python does


class Soak:
    """What all workers share: the place, the expected numbers, and what was counted."""

    def __init__(self, place: Path) -> None:
        self.place, self.counts, self.lock = place, Counter[str](), threading.Lock()
        self.faults: list[str] = []
        self.residents: list[int] = []
        self.expected: dict[str, dict] = {}
        self.started = time.monotonic()

    def store(self) -> Path:
        return self.place / "stores" / str(int((time.monotonic() - self.started) / SECONDS_A_STORE))

    def command(self, script: str, *options: str) -> list[str]:
        return [sys.executable, str(ROOT / script), *options]

    def training(self, head: str, folder: Path, store: Path) -> list[str]:
        pictures = [f"data.root={self.place / 'photos'}", "data=folder", "preprocessing.size=48", "figures.draw=none"]
        places = [f"hydra.run.dir={folder}", f"paths.store={store}", "callbacks.resume.every_n_epochs=1"]
        return self.command("train.py", *pictures, *HEADS[head], "batch_size=16", *places)

    def run(self, command: list[str], sent: signal.Signals | None = None, after: float = 0.0) -> int:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=environment, cwd=self.place, **pipes)
        if sent is not None:
            threading.Timer(after, lambda: process.poll() is None and process.send_signal(sent)).start()
        told = process.communicate()[1]
        with self.lock:
            self.counts["commands"] += 1
            self.counts[f"exit {process.returncode}"] += 1
            if process.returncode not in ENDS or (sent is None and process.returncode):
                self.faults.append(f"exit {process.returncode}: {' '.join(command[1:])}\n{told[-2000:]}")
        return process.returncode

    def job(self, worker: int, number: int, chance: random.Random) -> None:
        """One training, cut some times, and its evaluation."""
        head, folder, store = chance.choice(list(HEADS)), self.place / f"worker{worker}" / str(number), self.store()
        command = self.training(head, folder, store)
        for _ in range(chance.choice((0, 0, 1, 2, 4))):
            if self.run(command, chance.choice(SIGNALS), chance.uniform(0, 40)) == 0:
                break
            self.counts["cut"] += 1
        if not (folder / "metrics.json").exists() and self.run(command):
            return
        self.compare(head, folder, "training")
        if (
            self.run(self.command("evaluate.py", f"run={folder}", f"hydra.run.dir={folder}/again", "figures.draw=none"))
            == 0
        ):
            self.compare(head, folder / "again", "evaluation")
        shutil.rmtree(folder)

    def compare(self, head: str, folder: Path, what: str) -> None:
        found = numbers_of(folder)
        with self.lock:
            self.counts["compared"] += 1
            wanted = self.expected[head]
            if (
                any(found.get(name, value) != value for name, value in wanted.items())
                or not found.keys() & wanted.keys()
            ):
                self.counts["wrong"] += 1
                self.faults.append(f"{what} of {head} in {folder}: other numbers than undisturbed")

    def work(self, worker: int, until: float) -> None:
        chance = random.Random(worker)
        for number in range(10**9):
            if time.monotonic() >= until:
                return
            self.job(worker, number, chance)

    def tidied(self) -> int:
        """Remove the stores that nobody can use any more; how many files in them should not have been there."""
        latest, left = int(self.store().name), 0
        for store in (self.place / "stores").iterdir():
            if int(store.name) < latest - 3:
                files = [path.name for path in store.rglob("*") if path.is_file()]
                left += sum("corrupt" in name for name in files)
                shutil.rmtree(store)
        return left


def numbers_of(folder: Path) -> dict[str, float]:
    """Every number of val and test of the head and its baselines, by a dotted name."""
    splits = json.loads((folder / "metrics.json").read_text())["splits"]
    return {
        f"{split}.{method}.{name}": measured["value"]
        for split, methods in splits.items()
        for method, measures in methods.items()
        if isinstance(measures, dict)
        for name, measured in measures.items()
        if isinstance(measured, dict) and "value" in measured
    }


def resident(pids: list[int]) -> int:
    """MiB of these processes and all that they started."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        except (OSError, IndexError):
            continue
    return total


def children() -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def main(minutes: float, processes: int) -> int:
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    for period, kind in ((4, "fine"), (9, "medium"), (25, "coarse")):
        for home in range(30):
            draw_striped(place / "photos" / kind / f"{home}.png", period, home, 48)
    soak = Soak(place)
    for head in HEADS:
        assert soak.run(soak.training(head, place / "expected" / head, place / "stores" / "0")) == 0, soak.faults
        soak.expected[head] = numbers_of(place / "expected" / head)
        assert soak.expected[head]
    until, left, peaks = time.monotonic() + 60 * minutes, 0, []
    workers = [threading.Thread(target=soak.work, args=(worker, until)) for worker in range(processes)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        for _ in range(30):
            soak.residents.append(resident(children()))
            time.sleep(2)
        peaks.append(max(soak.residents[-30:]))
        left += soak.tidied()
        told = ", ".join(f"{name} {count}" for name, count in sorted(soak.counts.items()))
        sys.stdout.write(f"{(time.monotonic() - soak.started) / 60:5.1f} min  {told}, peak {peaks[-1]} MiB\n")
        sys.stdout.flush()
    temporary = list(place.rglob(".tmp-*"))
    half = len(peaks) // 2
    grew = half > 3 and max(peaks[half:]) > 1.2 * max(peaks[:half])
    for fault in soak.faults:
        sys.stdout.write(f"{fault}\n")
    told = f"wrong numbers {soak.counts['wrong']}, ends that should not be {len(soak.faults) - soak.counts['wrong']}"
    sys.stdout.write(
        f"{told}, damaged files {left}, temporary files {len(temporary)}, memory {'grew' if grew else 'flat'}\n"
    )
    failed = bool(soak.faults or left or grew)
    if not failed:
        shutil.rmtree(place)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8))
