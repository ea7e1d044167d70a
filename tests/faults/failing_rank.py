"""A training of two processes, started by Lightning as train.py's are; the second fails at its second batch."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

from small_run import RaisedAt, config_of, train

from likeness.errors import LikenessError
from likeness.runs.launch import run


class Fails(RaisedAt):
    """The process of rank 1 raises or is killed, as ``how`` says, in batch 2."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        super().on_train_batch_start(trainer, module, batch, batch_idx)
        if trainer.global_rank != 1 or len(self.seen) < 2:
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise LikenessError("NAN", "the rows of rank 1 are not finite.", fix="look at them")


def main(how: str, folder: Path) -> None:
    train(config_of("trainer.devices=2", "trainer.strategy=ddp"), folder, Fails(how))


if __name__ == "__main__":
    run(partial(main, sys.argv[1], Path(sys.argv[2])))
