"""A Hydra callback that writes down, after each job of a process, what a job could leave behind."""

import hashlib
import json
import logging
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.experimental.callback import Callback

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_PAGE = 4096


class JobWatch(Callback):
    def __init__(self, path: str) -> None:
        self.path = path

    def on_job_end(self, **given: Any) -> None:
        random_states = (np.random.get_state(), torch.get_rng_state().tolist())  # beartype draws from Python's own
        left = {
            "rss": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
            "random": hashlib.sha256(pickle.dumps(random_states)).hexdigest(),
            "signals": [str(signal.getsignal(each)) for each in _SIGNALS],
            "handlers": [type(handler).__name__ for handler in logging.getLogger().handlers],
            "files": len(list(Path("/proc/self/fd").iterdir())),
        }
        with open(self.path, "a") as file:
            file.write(json.dumps(left) + "\n")
