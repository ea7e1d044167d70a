"""What a person sees while a head trains."""

from contextlib import ExitStack
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from likeness.console import Advance, progress


class EpochProgress(Callback):
    """Epochs done and time left; a bar for each epoch would cost more than a small head's epoch."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._advance: Advance | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.max_epochs is not None and trainer.max_epochs > 0:
            self._advance = self._shown.enter_context(progress("training", trainer.max_epochs, "epochs"))

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._advance is not None:
            self._advance()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._shown.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: Any) -> None:
        self._shown.close()
