"""A network that counts what it looks at, for tests of who looks at what."""

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from likeness.features.extraction import Extractor
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing


class MeanColour(nn.Module):
    """A network whose feature is the mean colour; it writes down which pictures it saw, and may be slow."""

    def __init__(self, log: Path | None = None, seconds: float = 0.0, fault: float = 0.0) -> None:
        super().__init__()
        self.log, self.seconds, self.fault = log, seconds, fault
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, pictures):
        time.sleep(self.seconds)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(
                    "".join(f"{hashlib.sha256(picture.numpy().tobytes()).hexdigest()}\n" for picture in pictures)
                )
        return pictures.mean((2, 3)) * self.weight + self.fault

    def policy(self):
        return {"network": "mean colour"}

    def feature_shape(self, size):
        return (3,)

    def seen(self) -> int:
        return len(self.log.read_text().split()) if self.log.exists() else 0


def run_together(target: Callable[..., None], each: Sequence[tuple]) -> None:
    """A process for each tuple of arguments, all at once; every one of them must end well."""
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=target, args=given) for given in each]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0


SIMPLE = Preprocessing(size=16, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])


def extractor_of(network) -> Extractor:
    return Extractor(Decoder(), SIMPLE, network)
