"""Lightning's trainer, and heads fitted by it: one, or several seeds as one."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment

from likeness.assembly.building import Config, build
from likeness.assembly.describing import announce
from likeness.errors import LikenessError
from likeness.features.datamodule import FeatureData, asks_nothing_within_an_epoch
from likeness.heads.autoencoder import Autoencoder
from likeness.heads.linear import ClosedForm
from likeness.heads.stacked import StackedAutoencoder
from likeness.runs import checkpoint, processes, trackers
from likeness.runs.callbacks import EpochProgress
from likeness.runs.folder import RunFolder
from likeness.runs.misfit import refuse_misfit

log = logging.getLogger(__name__)

_GPUS = ("gpu", "cuda", "mps")


def build_trainer(config: Config, folder: RunFolder) -> pl.Trainer:
    """Lightning's trainer: the journal first, then the trackers; checkpoints through one atomic writer."""
    callbacks = [build({**node, **_kept_in(node, folder.path)}) for node in config["callbacks"].values()]
    add_trackers(config, folder)
    trainer = lightning_trainer(
        config["trainer"],
        logger=folder.loggers,
        callbacks=[*callbacks, EpochProgress()],
        plugins=[checkpoint.AtomicCheckpointIO()],
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    if config["cuda_graph"]:
        _refuse_unrecorded(trainer)
    return trainer


def _refuse_unrecorded(trainer: pl.Trainer) -> None:
    """A step is recorded on a CUDA device, and where nothing is asked between two of them."""
    if trainer.strategy.root_device.type != "cuda":
        raise LikenessError(
            "CONFIG",
            f"cuda_graph=true, and this head would be trained on {trainer.strategy.root_device.type}.",
            where="cuda_graph, trainer.accelerator",
            cause=f"torch {torch.__version__}, built for CUDA {torch.version.cuda or 'not at all'}",
            fix="Leave cuda_graph=false, or train where there is a CUDA device.",
        )
    if not asks_nothing_within_an_epoch(trainer):
        raise LikenessError(
            "CONFIG",
            "cuda_graph=true, and something is asked between two batches of an epoch.",
            where="cuda_graph, trainer, callbacks",
            cause="Several devices, accumulated gradients, max_steps, a part of an epoch, precision other than 32-true "
            "and bf16-mixed, or a callback of batches.",
            fix="Leave cuda_graph=false, or that option.",
        )


def lightning_trainer(
    node: Config, *, logger: Any = False, plugins: Sequence[Any] = (), enable_checkpointing: bool = False, **own: Any
) -> pl.Trainer:
    """Lightning's trainer, without what it shows and keeps of itself."""
    if node.get("accelerator") in _GPUS and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise LikenessError(
            "CONFIG",
            f"trainer.accelerator={node['accelerator']}, and torch finds no GPU on this machine.",
            where="trainer.accelerator",
            cause=f"torch {torch.__version__}, built for CUDA {torch.version.cuda or 'not at all'}",
            fix="Give trainer.accelerator=cpu, or auto for a GPU where there is one.",
        )
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\). is deprecated")  # Lightning's own
    warnings.filterwarnings("ignore", message="The .srun. command is available")  # of each run beside a Slurm
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # says on each start what this machine lacks
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []  # who submitted it requeues
    return build(
        node,
        logger=logger,
        plugins=[*plugins, *slurm],
        enable_checkpointing=enable_checkpointing,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **own,
    )


def add_trackers(config: Config, folder: RunFolder) -> None:
    """The trackers that the config names join the run's journal; one that fails is named and left out."""
    folder.loggers += [trackers.Tolerant(partial(build, node), name) for name, node in config["logger"].items()]


def _kept_in(node: Mapping[str, Any], folder: Path) -> dict[str, str]:
    return {"dirpath": str(folder / "checkpoints")} if node["_target_"].endswith(("Checkpoint", "BestWeights")) else {}


def fit(trainer: pl.Trainer, module: Autoencoder, data: FeatureData, folder: RunFolder) -> None:
    """Train the head, and leave it with its best weights where a callback keeps them; a closed-form head is solved.

    Both leave ``checkpoints/best.ckpt``: the very weights that are scored.
    """
    best = folder.path / "checkpoints" / "best.ckpt"
    if trainer.is_global_zero:
        announce("train", module, data, folder)
    if isinstance(module.head, ClosedForm):
        module.fit_closed_form(data.training_split())
    else:
        _fit_interruptibly(trainer, module, data, folder.resume_from)
        _take_best_weights(trainer, module)
    module.eval()
    if trainer.is_global_zero and not best.exists():
        _write_head(module, best)


def _write_head(module: Autoencoder, path: Path) -> None:
    checkpoint.write_checkpoint({"state_dict": module.state_dict(), checkpoint.CARD: module.card}, path)


def fit_heads(trainer: pl.Trainer, heads: Sequence[Autoencoder], data: FeatureData, folder: RunFolder) -> list[int]:
    """Train the heads of one job as :func:`fit` would each, all at once; returns the epochs that each learned.

    Beside ``best.ckpt``, the first head's, several leave a ``seed-K.ckpt`` each.
    """
    if len(heads) == 1:
        fit(trainer, heads[0], data, folder)
        return [trainer.current_epoch]
    if trainer.is_global_zero:
        announce("train", heads[0], data, folder, len(heads))
    closed = isinstance(heads[0].head, ClosedForm)
    epochs = _solve_each(heads, data) if closed else _fit_stacked(trainer, heads, data, folder.resume_from)
    places = folder.path / "checkpoints"
    for head in heads:
        head.eval()
        _write_head(head, places / f"seed-{head.seed}.ckpt")
    _write_head(heads[0], places / "best.ckpt")
    return epochs


def _solve_each(heads: Sequence[Autoencoder], data: FeatureData) -> list[int]:
    """A closed form that does not follow the seed is solved once."""
    first = heads[0]
    first.fit_closed_form(data.training_split())
    for head in heads[1:]:
        if head.card["architecture"] == first.card["architecture"]:
            head.load_state_dict(first.state_dict())
        else:
            head.fit_closed_form(data.training_split())
    return [0] * len(heads)


def _fit_stacked(
    trainer: pl.Trainer, heads: Sequence[Autoencoder], data: FeatureData, resume_from: Path | None
) -> list[int]:
    """The callbacks that judge a whole run judge each head instead."""
    stopping, best = (_taken_out(trainer, kind) for kind in (EarlyStopping, ModelCheckpoint))
    stack = StackedAutoencoder(heads, stopping, best)
    _fit_interruptibly(trainer, stack, data, resume_from)
    stack.give_back(heads)
    if best is not None and (stack.best_epoch < 0).any():
        _warn_of_last_weights()
    return stack.epochs.tolist()


def _taken_out(trainer: pl.Trainer, kind: Any) -> Any:
    """The trainer's callback of this kind that judges epochs, which it then has no more; None where there is none."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    found = next((each for each in callbacks if isinstance(each, kind) and each.monitor), None)
    trainer.callbacks = [each for each in callbacks if each is not found]  # type: ignore[attr-defined]
    return found


def _take_best_weights(trainer: pl.Trainer, module: Autoencoder) -> None:
    """The weights that a callback kept as the best, if one was asked to (the thesis' code asked none)."""
    best = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint) and c.monitor]  # type: ignore[attr-defined]
    if best and best[0].best_model_path:
        module.load_state_dict(checkpoint.open_checkpoint(Path(best[0].best_model_path))["state_dict"])
    elif best:
        _warn_of_last_weights()


def _warn_of_last_weights() -> None:
    log.warning("[CKPT] no epoch was validated and kept: the head is scored and saved as it is after the last")


def _fit_interruptibly(trainer: pl.Trainer, module: Autoencoder, data: FeatureData, resume_from: Path | None) -> None:
    if resume_from:
        content = checkpoint.open_checkpoint(resume_from)
        checkpoint.refuse_other_pictures(resume_from, content, module.card)
        refuse_misfit(resume_from, content, trainer, module)
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # it should be
    try:
        with processes.told_apart():
            trainer.fit(module, data, ckpt_path=resume_from)
    except SystemExit as left:  # Lightning turns an interruption into exit 1
        if isinstance(left.__context__, KeyboardInterrupt):
            raise left.__context__ from None
        raise
