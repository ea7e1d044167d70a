"""For benchmarks that are given no run and no photos: drawn rooms, and the default model trained on such."""

import subprocess
import sys
from pathlib import Path

from measuring import ROOT

from likeness.images.demo import write_rooms


def trained(run: Path) -> Path:
    """A run of train.py as it is without options: the default backbone and head, on drawn rooms."""
    words = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={run}", "logger=none"]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return run


def rooms(folder: Path) -> Path:
    write_rooms(folder, homes=16)
    return folder


if __name__ == "__main__":
    trained(Path(sys.argv[1]))
