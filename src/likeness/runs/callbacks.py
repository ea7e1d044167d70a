"""Around each epoch and batch: what a person sees, and the checkpoints to go on from."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from likeness.console import Advance, progress
from likeness.runs import preemption
from likeness.runs.checkpoint import open_checkpoint, resume_path, resume_paths

_KEPT_AS = "likeness_resume"
_DUE = 1  # less than the number of any signal that is listened to


class EpochProgress(Callback):
    """Epochs done and time left; a bar for each epoch would cost more than a small head's epoch."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._advance: Advance | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.max_epochs is not None and trainer.max_epochs > 0:
            left = trainer.max_epochs - trainer.current_epoch
            self._advance = self._shown.enter_context(progress("training", left, "epochs"))

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._advance is not None:
            self._advance()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._shown.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: Any) -> None:
        self._shown.close()


class ResumeCheckpoint(Checkpoint):
    """Writes checkpoints from which training goes on bit for bit; a signal that asks the run to end is answered here.

    One is written now and then, when training ends, and before ``Preempted`` is raised. Each is read back from disk
    before an older one is deleted; two are kept. They are written between two batches where nothing but the next batch
    comes next, so that a resumed run leaves out no validation and no end of an epoch.

    Args:
        dirpath: The folder.
        every_n_epochs: At the start of each n-th epoch; None writes none for this reason.
        every_seconds: Between two batches, this long after the last one; None writes none for this reason.
    """

    asks_between_steps = True

    def __init__(
        self, dirpath: str = "checkpoints", every_n_epochs: int | None = None, every_seconds: float | int | None = 60
    ) -> None:
        self._folder, self._every_n_epochs, self._every_seconds = Path(dirpath), every_n_epochs, every_seconds
        self._kept: list[Path] = []
        self._written = time.monotonic()
        self._finished = False
        self._metrics: dict[str, torch.Tensor] = {}
        self._deferred = ExitStack()

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out: metrics that an epoch without validation goes by, and whether this is the end.

        ``should_stop`` is no such sign: it is set before the epoch's end is done.
        """
        checkpoint[_KEPT_AS] = {"finished": self._finished, "metrics": dict(trainer.callback_metrics)}

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The run's folder may have been moved: what other callbacks remember of it moves along."""
        self._finished, self._metrics = checkpoint[_KEPT_AS]["finished"], checkpoint[_KEPT_AS]["metrics"]
        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                _move(state, self._folder)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._finished

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._kept = [Path(trainer.ckpt_path)] if trainer.ckpt_path else []
        self._written = time.monotonic()
        trainer.callback_metrics.update(self._metrics)
        module.between_steps = partial(self._between_batches, trainer)  # type: ignore[assignment]
        self._deferred.enter_context(preemption.deferred())  # not before: Lightning has put its own handlers just now
        trainer.fit_loop._restarting = False  # or it takes no step of a plateau scheduler at the end of this epoch
        if trainer.fit_loop.restarted_on_epoch_start:
            trainer.fit_loop.epoch_loop.restarting = False  # the batches before are another epoch's

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        epoch, every = trainer.current_epoch, self._every_n_epochs
        self._between_batches(trainer, due=bool(every and epoch and epoch % every == 0))

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        last = loop._is_training_done or trainer.should_stop  # of the epoch
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not (last or loop._should_check_val_fx(fetcher) or loop._should_accumulate()):
            self._between_batches(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finished = True
        self._save(trainer)
        self._deferred.close()
        if sent := preemption.asked():
            raise preemption.Preempted(sent, trainer.global_step)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._deferred.close()

    def _between_batches(self, trainer: Trainer, due: bool = False) -> None:
        late = self._every_seconds is not None and time.monotonic() - self._written >= self._every_seconds
        wish = _agreed(trainer, preemption.asked() or (_DUE if due or late else 0))
        if wish:
            self._save(trainer)
        if wish > _DUE:
            raise preemption.Preempted(wish, trainer.global_step)

    def _save(self, trainer: Trainer) -> None:
        path = resume_path(self._folder, trainer.global_step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            open_checkpoint(path)
            self._kept = [*(kept for kept in self._kept if kept != path), path][-2:]
            for old in set(resume_paths(self._folder)) - set(self._kept):
                old.unlink()
        self._written = time.monotonic()


class BestWeights(ModelCheckpoint):
    """A ``ModelCheckpoint`` that writes when it matters: with each checkpoint to go on from, and when training ends.

    Until then the best weights so far are kept where they are, in memory: writing them after every epoch that is better
    takes longer than a small head's epoch.

    Args:
        dirpath: The folder.
        monitor: What is the better the lower it is (``mode="min"``) or the higher (``"max"``).
    """

    def __init__(
        self,
        dirpath: str = "checkpoints",
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        filename: str = "best",
    ) -> None:
        super().__init__(dirpath, filename, monitor, mode=mode, save_weights_only=True, enable_version_counter=False)
        self._kept: tuple[str, dict[str, Any]] | None = None

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        module = trainer.lightning_module
        content: dict[str, Any] = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        content["state_dict"] = {name: value.clone() for name, value in module.state_dict().items()}
        module.on_save_checkpoint(content)
        self._kept = filepath, content
        self._last_global_step_saved = trainer.global_step
        self._last_checkpoint_saved = filepath

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_end(trainer, module)
        self._write(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, module, exception)
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._kept is not None:
            path, content = self._kept
            trainer.strategy.save_checkpoint(content, path)
            self._kept = None


def _agreed(trainer: Trainer, wish: int) -> int:
    """The greatest wish of all processes, so that they save and end at the same batch."""
    if trainer.world_size == 1:
        return wish
    mine = torch.tensor(wish, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(mine, reduce_op="max"))


def _move(state: dict[str, Any], folder: Path) -> None:
    """A ModelCheckpoint's state, its paths in another folder."""
    state["dirpath"] = str(folder)
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = state[name] and str(folder / Path(state[name]).name)
    state["best_k_models"] = {str(folder / Path(path).name): score for path, score in state["best_k_models"].items()}
