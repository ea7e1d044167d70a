"""From a checked config to objects: the one file that knows every room."""

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from jaxtyping import Float
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from likeness import config as configs
from likeness.archive import printable
from likeness.console import Advance, progress
from likeness.errors import LikenessError, listed
from likeness.features.datamodule import TRAINING_SPLITS, Batch, FeatureData, Split, asks_nothing_within_an_epoch
from likeness.features.extraction import Cost, Extractor, Features, cost, extract
from likeness.features.prediction import Filled, fill
from likeness.features.store import Share, Shelf, shelf_folder
from likeness.features.weights import not_fetching
from likeness.files import canonical_json, write_json
from likeness.heads.autoencoder import Autoencoder, codes_of, row_batches
from likeness.heads.compiling import compiled
from likeness.heads.linear import PCA, ClosedForm, Identity, RandomProjection
from likeness.heads.noise import NoNoise
from likeness.heads.recording import CudaRecorder
from likeness.heads.stacked import StackedAutoencoder
from likeness.images.demo import DrawnRooms
from likeness.images.splits import SPLITS
from likeness.images.table import ImageTable
from likeness.reports.classes import draw_per_class
from likeness.reports.confusion import draw_confusion
from likeness.reports.curve import draw_curve
from likeness.reports.gallery_page import write_gallery
from likeness.reports.media import media_of
from likeness.reports.projection import FEWEST_ROWS, project_each, sample_rows
from likeness.reports.projection_grid import Drawn, Found, Method, draw_grid, write_divergences
from likeness.reports.results import draw_neighbours, draw_projections, write_bad_images, write_queries
from likeness.reports.summary import flat_summary
from likeness.retrieval.comparison import compare, compare_seeds
from likeness.retrieval.metric import Scores, SimilarityRetrieval, score
from likeness.retrieval.significance import Interval
from likeness.runs import checkpoint, preemption, processes, trackers
from likeness.runs.callbacks import EpochProgress
from likeness.runs.folder import RunFolder
from likeness.runs.identity import columns, git_revision, short_name
from likeness.runs.journal import epochs, read
from likeness.runs.misfit import refuse_misfit
from likeness.runs.sweep import read_status, typed

log = logging.getLogger(__name__)

Config = Mapping[str, Any]
Encode = Callable[[Tensor], Tensor]
_BASELINES = "baselines.ckpt"
_FOLDER = "likeness.images.folder.ImageFolder"
_CARD = {"architecture", "scaling", "decoding", "preprocessing", "backbone", "data", "metric", "store", "fingerprint"}
_CARD |= {"extractor", "feature_shape", "seed", "options"}
_WORDS = ("CONFIG", "CONFIG-TARGET", "HEAD")  # refusals of what a file says, not of what is here
_OF_OWN_WEIGHTS = ("BACKBONE", "WEIGHTS-SHAPE")
_GPUS = ("gpu", "cuda", "mps")
_DEEPEST_HEAD = 1000  # layers
_DEFAULT_STORE = "outputs/features"
_OF_PROCESSES = ("_target_", "accelerator", "devices", "num_nodes", "strategy")  # of a trainer that only predicts
_NOT_OF_A_SEED = ("chance", "frozen", "pca")  # the same for all heads of a job
_last_pca: dict[tuple[str, str], PCA] = {}  # of the job before
_PLAIN = str | int | float | bool | list | dict | None


def build(node: Mapping[str, Any], **filled_in: Any) -> Any:
    """The object that a checked node describes: its target, if it is allowed, called with the node's arguments.

    Not Hydra's own ``instantiate``: that turns tuples and tensors given here into config nodes, and asks no allowlist.
    """
    target = configs.allowed(node["_target_"])
    arguments = {
        name: build(value) if isinstance(value, Mapping) and "_target_" in value else value
        for name, value in node.items()
        if name not in configs.SPECIAL
    }
    make = partial(_call, target, **arguments, **filled_in)
    return make if node.get("_partial_") else make()


def _call(target: Callable[..., Any], *given: Any, **arguments: Any) -> Any:
    """``target`` called; what a library says of arguments it cannot use becomes a refusal that names it."""
    try:
        return target(*given, **arguments)
    except LikenessError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError, MisconfigurationException) as error:
        raise LikenessError(
            "CONFIG",
            f"{target.__name__} cannot be made with these options.",
            where=", ".join(f"{name}={value!r}" for name, value in arguments.items() if isinstance(value, _PLAIN)),
            cause=str(error),
            fix="Correct the option that the cause names; --cfg job shows every option with its value.",
        ) from error


def build_extractor(config: Config, own_weights: Mapping[str, Tensor] | None = None) -> Extractor:
    """Decoding, preprocessing and the frozen network, on the device that ``extraction.device`` names.

    Args:
        own_weights: What an exported model brings, in the place of ``backbone.weights``.
    """
    device = _usable(config["extraction"]["device"])
    nodes = [config[name] for name in ("decoding", "preprocessing", "backbone")]
    if own_weights is None:
        return _last_extractor(canonical_json(nodes), device)
    return _extractor_of(nodes, device, state=own_weights)


def _usable(device: str) -> str:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LikenessError(
            "CONFIG",
            f"extraction.device={device} cannot be used here.",
            where="extraction.device",
            cause=str(error).splitlines()[0],
            fix="Give extraction.device=cpu, or auto for a GPU where there is one.",
        ) from error
    return device


@lru_cache(maxsize=1)  # of the job before: torch keeps the source of every network that is cut, 0.25 MB a job
def _last_extractor(nodes: str, device: str) -> Extractor:
    return _extractor_of(json.loads(nodes), device)


def _extractor_of(nodes: Sequence[Config], device: str, **of_backbone: Mapping[str, Tensor]) -> Extractor:
    decoder, preprocessing, backbone = build(nodes[0]), build(nodes[1]), build(nodes[2], **of_backbone)
    return Extractor(decoder, preprocessing, backbone.to(device, memory_format=torch.channels_last), device)


def find_features(config: Config, extractor: Extractor) -> Features:
    """The features of every picture of the data: found in the store, or computed now and kept there."""
    data = build(config["data"])
    return features_of(data.table(), config, extractor, data.on_bad_image, data.mostly_white)


def features_of(
    table: ImageTable, config: Config, extractor: Extractor, on_bad_image: str, mostly_white: float | None = None
) -> Features:
    """As ``find_features``, of a table; of the config ``paths.store`` and ``extraction`` count."""
    store = Path(config["paths"]["store"])
    return extract(
        extractor,
        table,
        store,
        on_bad_image=on_bad_image,
        mostly_white=mostly_white,
        memory_bytes=config["extraction"]["memory_gb"] * 1e9,
        undisturbed=preemption.undisturbed,
        rehash=config["extraction"]["rehash"],
        shelf=_last_shelf(store.absolute(), canonical_json(extractor.identity())),
        **_pace(config, extractor.device),
    )


@lru_cache(maxsize=1)  # of the job before, which verified its rows; which of them are a picture's its bytes say anew
def _last_shelf(store: Path, identity: str) -> Shelf:
    return Shelf(store, json.loads(identity))


def fill_store(config: Config, number: int, of: int) -> tuple[Filled, Path] | None:
    """``likeness extract``: compute what the store lacks of share ``number`` of ``of``, and where that is.

    Of the trainer's options those of its processes count; features are float32 whatever its precision. None in all
    processes but the first.

    Raises:
        LikenessError: CONFIG, and what ``extract`` raises.
    """
    configs.refuse(list(_fill_faults(config)))
    trainer = _trainer({name: config["trainer"][name] for name in _OF_PROCESSES if name in config["trainer"]})
    _refuse_other_tasks(trainer.num_devices * trainer.num_nodes)
    extractor = build_extractor({**config, "extraction": {"device": "cpu"}})  # Lightning moves it
    data, store = build(config["data"]), Path(config["paths"]["store"])
    pace = _pace(config, trainer.strategy.root_device.type, trainer.num_devices)
    with processes.told_apart():
        filled = fill(
            trainer,
            extractor,
            data.table(),
            store,
            share=Share(number, of),
            on_bad_image=data.on_bad_image,
            rehash=config["extraction"]["rehash"],
            **pace,
        )
    return (filled, store) if trainer.is_global_zero else None


def _fill_faults(config: Config) -> Iterator[str]:
    if (device := config["extraction"]["device"]) != "auto":
        yield f"extraction.device: {device!r} is not followed here: give trainer.accelerator and trainer.devices"
    if (strategy := config["trainer"].get("strategy", "auto")) not in ("auto", "ddp"):
        yield f"trainer.strategy: {strategy!r} is not one of auto, ddp: each process looks with a whole network"


def _refuse_other_tasks(processes: int) -> None:
    """Within a job of Slurm its tasks are the processes, and nobody starts others."""
    if processes > 1 and SLURMEnvironment.detect() and (tasks := SLURMEnvironment().world_size()) != processes:
        raise LikenessError(
            "CONFIG",
            f"trainer.devices on trainer.num_nodes make {processes} processes; this job of Slurm has {tasks}.",
            where="SLURM_NTASKS",
            kept="Nothing was opened or computed yet.",
            fix="Give the job a task a device (--ntasks-per-node=) and start this command with srun.",
        )


def extraction_cost(config: Config) -> Cost:
    """What ``find_features`` would compute; nothing is downloaded or kept, and what is wrong is the cost's fault."""
    try:
        with not_fetching():
            extractor = build_extractor(config)
        table, store = build(config["data"]).table(), Path(config["paths"]["store"])
        rehash = config["extraction"]["rehash"]
        return cost(extractor, table, store, rehash=rehash, **_pace(config, extractor.device))
    except LikenessError as error:
        return Cost(str(config["backbone"]["name"]), fault=error)


def _pace(config: Config, device: str, processes: int = 1) -> dict[str, int]:
    """Of one of so many processes of this machine."""
    options = config["extraction"]
    return {
        "batch_size": options["batch_size"] or (16 if device == "cpu" else 256),
        "workers": options["workers"] or max(1, (os.cpu_count() or 1) // processes),
    }


def build_data(config: Config, features: Features) -> FeatureData:
    """The features by split.

    Raises:
        LikenessError: CONFIG when val or test has too few pictures for the largest of ``metric.ks``.
    """
    data = FeatureData(features, config["batch_size"], config["seed"])
    for split in ("val", "test"):
        if "architecture" in config and len(rows := data.split(split)):
            _refuse_too_few(split, int((rows.is_gallery & (rows.labels >= 0)).sum()), config["metric"])
    return data


def build_head(config: Config, feature_shape: tuple[int, ...], card: dict[str, Any] | None = None) -> Autoencoder:
    """The LightningModule, its weights drawn from the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(config["seed"])
        head = build(config["architecture"], feature_shape=feature_shape)
    metric = {name: value for name, value in config["metric"].items() if name in ("ks", "ties")}
    optimizer = build(config["optimizer"])
    module = Autoencoder(
        head=head,
        scaling=build(config["scaling"], feature_shape=feature_shape),
        noise=build(config["noise"]),
        loss=build(config["loss"]),
        optimizer=compiled(optimizer) if config["compile_optimizer"] else optimizer,
        scheduler=build(config["scheduler"]) if config["scheduler"] else None,
        metric=SimilarityRetrieval(only_hits=True, exclude_group=config["metric"]["exclude_home"], **metric),
        hits_every_n_epochs=config["hits_every_n_epochs"],
        seed=config["seed"],
        card=card,
        recorder=CudaRecorder if config["cuda_graph"] else None,
    )
    if not isinstance(head, ClosedForm):
        module.configure_optimizers()  # an impossible option is told now, not in the first epoch
    return module


def build_heads(each: Sequence[Config], feature_shape: tuple[int, ...], card: dict[str, Any]) -> list[Autoencoder]:
    """A LightningModule for each config of one job; its card is that of the first, with its own seed."""
    return [
        build_head(
            config,
            feature_shape,
            {**card, "seed": config["seed"], "architecture": configs.recorded(config["architecture"])},
        )
        for config in each
    ]


def build_card(config: Config, options: Mapping[str, Any], extractor: Extractor, data: FeatureData) -> dict[str, Any]:
    """What travels in a checkpoint: all that scoring needs, as plain values, classes by name."""
    backbone = config["backbone"]
    if Path(backbone["weights"]).is_file():
        backbone = {**backbone, "weights": str(Path(backbone["weights"]).absolute())}
    places = {
        name: str(Path(config["data"][name]).absolute()) for name in ("root", "manifest") if config["data"].get(name)
    }
    nodes = {name: configs.recorded(config[name]) for name in ("architecture", "scaling", "decoding")}
    return {
        "schema": checkpoint.SCHEMA,
        **nodes,
        "backbone": configs.recorded(backbone),
        "preprocessing": {"class": "Preprocessing", **_plain(asdict(extractor.preprocessing))},
        "data": configs.recorded({**config["data"], **places}),
        "store": str(Path(config["paths"]["store"]).absolute()),
        "metric": dict(config["metric"]),
        "seed": config["seed"],
        "options": dict(options),
        "extractor": extractor.identity(),
        "fingerprint": extractor.fingerprint,
        "feature_shape": list(data.feature_shape),
        "classes": list(data.classes),
        "pictures": data.digest(),
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def build_trainer(config: Config, folder: RunFolder) -> pl.Trainer:
    """Lightning's trainer: the journal first, then the trackers; checkpoints through one atomic writer."""
    callbacks = [build({**node, **_kept_in(node, folder.path)}) for node in config["callbacks"].values()]
    add_trackers(config, folder)
    trainer = _trainer(
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


def _trainer(
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
        _announce("train", module, data, folder)
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
        _announce("train", heads[0], data, folder, len(heads))
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


def _announce(job_type: str, module: Autoencoder, data: FeatureData, folder: RunFolder, heads: int = 1) -> None:
    """What the run is, into the journal and then to the trackers: they open when its head is known."""
    options = module.card["options"]
    tags = [options[name] for name in ("backbone", "architecture", "data") if options.get(name)]
    overrides, sweep = _called() if HydraConfig.initialized() else ([], None)
    folder.journal.write("run", group=sweep, name=short_name(overrides), job_type=job_type, tags=tags)
    described = _columns(module, data, folder) | ({"seeds": heads} if heads > 1 else {})
    for logger in folder.loggers:
        logger.log_hyperparams(described)


def _called() -> tuple[list[str], str | None]:
    """The job's overrides, and the name of its sweep's folder."""
    hydra = HydraConfig.get()
    return typed(hydra.overrides.task), Path(hydra.sweep.dir).name if in_multirun() else None


def _columns(module: Autoencoder, data: FeatureData, folder: RunFolder) -> dict[str, Any]:
    """Flat scalars for a dashboard's columns and axes."""
    card = module.card
    layers = card["architecture"].get("widths") or card["architecture"].get("channels") or []
    return {
        **columns({**folder.config, "architecture": card["architecture"]}, card["options"]),
        "seed": card["seed"],
        "depth": len(layers),
        **_sizes(module, data),
        "feature_width": prod(data.feature_shape),
        "fingerprint": card["fingerprint"][:16],
        "data_root": str(data.features.table.root.absolute()),
        "folder": str(folder.path.absolute()),
        "git": git_revision(),
    }


def code_width(module: Autoencoder, data: FeatureData) -> int:
    """The width of a code, asked of the head."""
    with torch.inference_mode():
        return module.encode(torch.zeros(1, *data.feature_shape)).shape[1]


def _sizes(module: Autoencoder, data: FeatureData) -> dict[str, int]:
    return {
        "code_width": code_width(module, data),
        "parameters": sum(parameter.numel() for parameter in module.head.parameters()),
    }


def fit_methods(
    module: Autoencoder, data: FeatureData, seed: int, folder: RunFolder, others: Sequence[Autoencoder] = ()
) -> dict[str, Encode]:
    """The head and its baselines: frozen features, PCA and random projection of the head's width.

    The fitted baselines are kept beside the checkpoint, so that an evaluation compares with the same ones; those that
    follow the seed also for the other heads of the job.
    """
    baselines = _baselines(code_width(module, data), data.feature_shape, seed)
    _fit_pca(baselines["pca"], data, (module.card["fingerprint"], module.card["pictures"]))
    states = {name: baseline.state_dict() for name, baseline in baselines.items()}
    trained = np.isin(data.features.table.splits, TRAINING_SPLITS)
    content = {"states": states, "trained_on": _short(data.features.keys[trained])}
    content["by_seed"] = {head.seed: {"random_projection": _projection(head, data).state_dict()} for head in others}
    content[checkpoint.CARD] = {"schema": checkpoint.SCHEMA}
    checkpoint.write_checkpoint(content, folder.path / "checkpoints" / _BASELINES)
    return _methods(module, baselines)


def _fit_pca(pca: PCA, data: FeatureData, known_by: tuple[str, str]) -> None:
    """Fit it, or where the job before had the same rows and as many axes, take those: a grid of heads solves it once.

    Args:
        known_by: Fingerprint of the features and digest of the pictures.
    """
    before = _last_pca.get(known_by)
    if before is None or before.axes.shape[1] < pca.axes.shape[1]:
        pca.fit(row_batches(data.training_split()))
        _last_pca.clear()
        _last_pca[known_by] = pca
    else:
        pca.mean.copy_(before.mean)
        pca.axes.copy_(before.axes[:, : pca.axes.shape[1]])


def _short(keys: np.ndarray) -> Tensor:
    """The first 8 bytes of each picture's SHA-256, as one number: enough to know a picture again."""
    return torch.from_numpy(np.ascontiguousarray(keys[:, :8]).view(np.int64)[:, 0].copy())


def read_methods(
    module: Autoencoder, data: FeatureData, splits: Sequence[str], card: Mapping[str, Any], folder: Path
) -> dict[str, Encode]:
    """The head and the baselines that lie beside its checkpoint; without those, the frozen features alone.

    Warns where pictures of ``splits`` are among those that the head was trained on.
    """
    path = folder / _BASELINES
    if not path.exists():
        log.warning("no %s beside the checkpoint: PCA and random projection are not scored", _BASELINES)
        return _methods(module, {})
    content = checkpoint.open_checkpoint(path)
    states, trained_on = _kept_states(content, card["seed"], path), content["trained_on"]
    asked = np.isin(data.features.table.splits, _names(splits))
    seen = int(torch.isin(_short(data.features.keys[asked]), trained_on).sum())
    if seen:
        log.warning("[DATA-LEAK] the head was trained on %d of these %d pictures: they flatter it", seen, asked.sum())
    width = states["random_projection"]["matrix"].shape[1]
    shape = tuple(card["feature_shape"])
    baselines = {
        "pca": _loaded(partial(PCA, shape, width), states["pca"], path),
        "random_projection": _loaded(partial(RandomProjection, shape, width), states["random_projection"], path),
    }
    return _methods(module, baselines)


def _kept_states(content: Mapping[str, Any], seed: int, path: Path) -> dict[str, dict[str, Tensor]]:
    """The baselines' weights by name, and beside them the pictures that the head was trained on."""
    by_seed, trained_on = content.get("by_seed", {}), content.get("trained_on")
    states = content.get("states")
    own = by_seed.get(seed, {}) if isinstance(by_seed, dict) else None
    if not (isinstance(states, dict) and isinstance(own, dict)):
        raise checkpoint.not_as_written(path, ["states", "by_seed"])
    states = states | own
    wrong = [name for name in ("pca", "random_projection") if not checkpoint.is_state(states.get(name))]
    if wrong or getattr(states["random_projection"].get("matrix"), "ndim", 0) != 2:
        raise checkpoint.not_as_written(path, [f"states.{name}" for name in wrong or ["random_projection.matrix"]])
    if not isinstance(trained_on, Tensor) or trained_on.dtype != torch.int64:
        raise checkpoint.not_as_written(path, ["trained_on"])
    return states


def _projection(head: Autoencoder, data: FeatureData) -> RandomProjection:
    """The random projection that a head of this seed is compared with."""
    return RandomProjection(data.feature_shape, code_width(head, data), head.seed)


def _baselines(width: int, feature_shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    return {"pca": PCA(feature_shape, width), "random_projection": RandomProjection(feature_shape, width, seed)}


def _methods(module: Autoencoder, baselines: Mapping[str, PCA | RandomProjection]) -> dict[str, Encode]:
    frozen = Identity(())
    return {"head": module.encode, "frozen": frozen.encode} | {name: each.encode for name, each in baselines.items()}


@dataclass(frozen=True)
class Results:
    """Every method's scores on every split; ``gallery`` names the split that was searched, None the queries' own."""

    scores: dict[str, dict[str, Scores]]
    gallery: str | None
    ks: tuple[int, ...]


def score_splits(
    methods: Mapping[str, Encode], data: FeatureData, splits: Sequence[str], gallery: str | None, options: Config
) -> Results:
    """Score every method on each split that has pictures, within the split or against another one.

    Raises:
        LikenessError: DATA-SPLIT when no split that was asked for has a picture, or the gallery has none.
    """
    present = [split for split in splits if len(_rows_of(data, split))]
    if not present or (gallery is not None and not len(_rows_of(data, gallery))):
        raise LikenessError(
            "DATA-SPLIT",
            f"no pictures in {' or '.join(splits) if not present else gallery}.",
            where=str(data.features.table.root),
            cause="the folder has " + _counted(data.features.table.splits),
            fix="Choose another split= or gallery=, or split=all.",
        )
    scores = {split: _scores_of(methods, data, split, gallery or split, options) for split in present}
    return Results(scores, gallery, tuple(options["ks"]))


@dataclass(frozen=True)
class OfSeed:
    """What one head of a job of several seeds came to, and the epochs that it learned."""

    seed: int
    epochs: int
    results: Results


def score_seeds(
    heads: Sequence[Autoencoder], epochs: Sequence[int], first: Results, data: FeatureData, options: Config
) -> list[OfSeed]:
    """The results of every head of a job of several seeds, and none of a single one.

    Args:
        first: Of the first head: a method that does not follow the seed has the same results for the others.
    """
    if len(heads) == 1:
        return []
    found = [OfSeed(heads[0].seed, epochs[0], first)]
    for head, learned in zip(heads[1:], epochs[1:], strict=True):
        own = {"head": head.encode, "random_projection": _projection(head, data).encode}
        scores = score_splits(own, data, list(first.scores), None, options).scores
        both = {split: {**first.scores[split], **scores[split]} for split in scores}
        found.append(OfSeed(head.seed, learned, Results(both, first.gallery, first.ks)))
    return found


def _names(splits: Sequence[str]) -> tuple[str, ...]:
    return SPLITS if "all" in splits else tuple(splits)


def _rows_of(data: FeatureData, *splits: str) -> Split:
    return data.split(*_names(splits))


def _counted(splits: np.ndarray) -> str:
    return ", ".join(f"{count} in {name}" for name, count in zip(*np.unique(splits, return_counts=True), strict=True))


def _scores_of(
    methods: Mapping[str, Encode], data: FeatureData, split: str, gallery: str, options: Config
) -> dict[str, Scores]:
    """Scores of one split's queries against one split's gallery; the two may share pictures, or be the same."""
    rows = _rows_of(data, split, gallery)
    is_query = rows.is_query & torch.isin(rows.sample_ids, _rows_of(data, split).sample_ids)
    is_gallery = rows.is_gallery & torch.isin(rows.sample_ids, _rows_of(data, gallery).sample_ids)
    _refuse_too_few(split, int((is_gallery & (rows.labels >= 0)).sum()), options)
    rest = {name: value for name, value in options.items() if name != "exclude_home"}
    return {
        name: score(
            codes_of(encode, rows),
            rows.labels,
            rows.sample_ids,
            group_ids=rows.homes,
            is_query=is_query,
            is_gallery=is_gallery,
            exclude_group=options["exclude_home"],
            **rest,
        )
        for name, encode in methods.items()
    }


def _refuse_too_few(split: str, gallery: int, options: Config) -> None:
    if gallery <= max(options["ks"]):
        raise LikenessError(
            "CONFIG",
            f"metric.ks asks for {max(options['ks'])} neighbours; {split} has {gallery} labelled pictures to search.",
            where="metric.ks",
            kept="All features.",
            fix=f"Add pictures, or ask for fewer neighbours: metric.ks='{sorted({1, max(1, gallery - 1)})}'",
        )


def write_results(
    results: Results,
    module: Autoencoder,
    data: FeatureData,
    folder: RunFolder,
    trainer: pl.Trainer | None = None,
    by_seed: Sequence[OfSeed] = (),
    rejection: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``metrics.json`` and ``queries.csv``; the numbers go to journal and trackers as well. Returns the metrics.

    Of several seeds these are of the first; each, and their mean, stand under ``seeds`` and ``over_seeds``, and the
    queries of each other in ``queries-seed-K.csv``. Journal and trackers get the means.
    """
    features, card = data.features, module.card
    splits = {}
    for split, scores in results.scores.items():
        name = split if results.gallery is None else f"{split} against {results.gallery}"
        splits[name] = compare(scores, data.classes, results.ks)
    metrics = {
        "schema": 1,
        "head": card["options"]["architecture"],
        "backbone": card["options"]["backbone"],
        "options": {name: option for name, option in card["options"].items() if not name.startswith("hydra")},
        "data": card["data"],
        "pictures": str(features.table.root.absolute()),
        "splits": splits,
        **({"rejection": rejection} if rejection else {}),
        "extractor": {"fingerprint": card["fingerprint"], **card["extractor"]},
        "features": {"rows": len(features.table), "computed": features.computed, "reused": features.reused}
        | {"bad": len(features.bad), "mostly_white": features.left_out},
        "seconds": folder.seconds,
        **_sizes(module, data),
        "widths": getattr(module.head, "widths", None),
        "epochs": trainer.current_epoch if trainer else None,
        "seed": card["seed"],
        **(_of_seeds(by_seed, data.classes) if by_seed else {}),
    }
    write_json(folder.path / "metrics.json", metrics)
    write_queries(results.scores, features.table, folder.path / "queries.csv")
    for each in by_seed[1:]:
        write_queries(each.results.scores, features.table, folder.path / f"queries-seed-{each.seed}.csv")
    if features.bad:
        write_bad_images(features.bad, folder.path / "bad_images.csv")
    if trainer is None:
        _announce("evaluate", module, data, folder)
    for logger in folder.loggers:
        logger.log_metrics(flat_summary(metrics, epochs(read(folder.journal.path))))
        logger.finalize("success")
    return metrics


def _of_seeds(by_seed: Sequence[OfSeed], classes: Sequence[str]) -> dict[str, Any]:
    """What ``metrics.json`` gains: the scores of each seed's head, and their means with Student's intervals."""
    each: list[dict[str, Any]] = []
    for found in by_seed:
        splits = {split: compare(scores, classes, found.results.ks) for split, scores in found.results.scores.items()}
        own = {
            split: {name: found for name, found in summary.items() if name not in _NOT_OF_A_SEED}
            for split, summary in splits.items()
        }
        each.append({"seed": found.seed, "epochs": found.epochs, "splits": own})
    runs = {split: [found.results.scores[split] for found in by_seed] for split in by_seed[0].results.scores}
    over = {split: compare_seeds(scores) for split, scores in runs.items()}
    return {"epochs": by_seed[0].epochs, "seeds": each, "over_seeds": over}


def in_multirun() -> bool:
    """Whether this job is one of many."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def are_drawn(options: Config) -> bool:
    """Whether there are figures: ``auto`` draws none in a multirun, where they would cost most."""
    return options["draw"] == "all" or (options["draw"] == "auto" and not in_multirun())


def draw_figures(
    results: Results,
    metrics: dict[str, Any],
    methods: Mapping[str, Encode],
    data: FeatureData,
    extractor: Extractor,
    folder: RunFolder,
    options: Config,
) -> None:
    """The figures of one split into ``figures/``, where any are asked for."""
    if not are_drawn(options):
        return
    figures = folder.path / "figures"
    split = options["split"] if options["split"] in results.scores else list(results.scores)[-1]
    found, rows = results.scores[split]["head"], _rows_of(data, split)
    table, summary = data.features.table, list(metrics["splits"].values())[list(results.scores).index(split)]
    with folder.timed("draw"):
        draw_neighbours(found, table, split, figures, lambda path: extractor.decoder.decode(path.read_bytes()).image)
        if summary["n"]:
            draw_per_class(summary["per_class"], "hit@1", summary["chance"]["hit@1"], figures / "per_class.png")
            draw_confusion(summary["votes"], f"vote@{found.vote_k}", figures / "confusion.png")
        frozen = _value(metrics["splits"].get("val"), "frozen")
        history = epochs(read(folder.journal.path))
        best = int(min(history, key=lambda epoch: epoch.get("val/loss", np.inf))["epoch"]) if history else None
        draw_curve(history, figures / "training_curve.png", {} if frozen is None else {"frozen": frozen}, best)
        divergences = _draw_projections(methods, rows, data.classes, options["perplexity"], figures)
        if summary["n"]:
            write_gallery(folder.path, figures / "gallery.html", split)
    folder.journal.write("projection", split=split, **divergences)


def send_media(folder: RunFolder) -> None:
    """Figures and a table of queries, to the trackers that show pictures."""
    for tracker in folder.loggers:
        if isinstance(tracker, trackers.Tolerant):
            tracker.log_media(partial(media_of, folder.path), drawn=(folder.path / "figures").is_dir())


def _draw_projections(
    methods: Mapping[str, Encode], rows: Split, classes: Sequence[str], perplexity: float, figures: Path
) -> dict[str, float]:
    """Features beside codes of at most 2000 labelled rows; nothing where there are too few to lay out."""
    labelled = np.flatnonzero(rows.labels.numpy() >= 0)
    if len(labelled) < FEWEST_ROWS:
        return {}
    batch = rows[torch.from_numpy(labelled[sample_rows(len(labelled))])]
    panels = {"features": _unit_codes(methods["frozen"], batch), "codes": _unit_codes(methods["head"], batch)}
    return draw_projections(panels, batch.labels.numpy(), classes, perplexity, figures)


def project_run(
    run: Path, perplexities: Sequence[float], splits: Sequence[str], folder: Path, most: int
) -> tuple[Found, str]:
    """``likeness project``: maps of a finished run's features and codes, a figure a split, and the KL of every map.

    Args:
        most: Labelled pictures that are drawn of a split; of more, a sample. Hits are of the whole split.

    Returns:
        The maps by split, and a title that names the run's backbone and head.

    Raises:
        LikenessError: CONFIG when a split is too small for a perplexity and DATA-SPLIT when none has a labelled
            picture, both before the first map; RUN-MISSING and CKPT-* from the run.
    """
    paths = configs.Paths(store=os.environ.get("LIKENESS_STORE"))
    config = asdict(configs.Evaluate(data={}, backbone={}, run=str(run), paths=paths))
    path = checkpoint_path(config)
    module, extractor, card = restore(path, config)
    config = as_trained(config, card)
    data = build_data(config, find_features(config, extractor))
    drawn = _drawn(data, splits, perplexities, most)
    methods = read_methods(module, data, (), card, path.parent)
    title = f"{card['options']['backbone']} → {card['options']['architecture']}"
    found: dict[Drawn, list[Method]] = {}
    with progress("projecting", len(drawn) * len(methods) * len(perplexities), "maps") as advance:
        for named, rows in drawn.items():
            hits = _hits(methods, data, named.split, config["metric"])
            found[named] = [
                _mapped(name, encode, rows, perplexities, hits, advance) for name, encode in methods.items()
            ]
            path = folder / f"projection_{named.split}.png"
            draw_grid(found[named], rows.labels.numpy(), data.classes, f"{title}\n{named}", path)
    write_divergences(found, title, folder)
    return found, title


def _drawn(data: FeatureData, splits: Sequence[str], perplexities: Sequence[float], most: int) -> dict[Drawn, Batch]:
    """The labelled rows to draw of each split that has some."""
    rows = {split: _rows_of(data, split) for split in splits}
    labelled = {split: np.flatnonzero(found.labels.numpy() >= 0) for split, found in rows.items()}
    if bare := [split for split, at in labelled.items() if not len(at)]:
        if len(bare) == len(rows):
            raise LikenessError(
                "DATA-SPLIT",
                f"no labelled picture in {' or '.join(bare)}.",
                where=str(data.features.table.root),
                cause="the folder has " + _counted(data.features.table.splits),
                fix="Choose another split=, or split=all.",
            )
        log.warning("%s has no labelled picture and is left out", ", ".join(bare))
    chosen = {split: at[sample_rows(len(at), most)] for split, at in labelled.items() if len(at)}
    _refuse_too_few_to_map({split: len(at) for split, at in chosen.items()}, max(perplexities))
    return {
        Drawn(split, len(at), len(labelled[split])): rows[split][torch.from_numpy(at)] for split, at in chosen.items()
    }


def _refuse_too_few_to_map(counts: Mapping[str, int], perplexity: float) -> None:
    least = max(FEWEST_ROWS, math.floor(perplexity) + 1)
    if few := {split: count for split, count in counts.items() if count < least}:
        raise LikenessError(
            "CONFIG",
            f"perplexity={perplexity:g} needs at least {least} pictures of a split.",
            where="\n".join(f"{split}: {count} labelled pictures" for split, count in few.items()),
            kept="All features; no map was begun.",
            fix="Give a lower perplexity=, or other splits with split=.",
        )


def _hits(methods: Mapping[str, Encode], data: FeatureData, split: str, options: Config) -> dict[str, Interval]:
    """hit@1 of each method on the whole split; none where no query is counted."""
    summary = compare(_scores_of(methods, data, split, split, {**options, "map_at_r": False}), data.classes, (1,))
    return {name: Interval(**summary[name]["hit@1"]) for name in methods if name in summary}


def _unit_codes(encode: Encode, rows: Batch) -> Float[np.ndarray, "n code"]:
    """Codes of unit length: on a map then is near what the cosine calls near."""
    with torch.inference_mode():
        return torch.nn.functional.normalize(encode(rows.features).flatten(1), dim=1).numpy()


def _mapped(
    name: str,
    encode: Encode,
    rows: Batch,
    perplexities: Sequence[float],
    hits: Mapping[str, Interval],
    advance: Advance,
) -> Method:
    """A method's codes of some rows, mapped at every perplexity."""
    codes, maps = _unit_codes(encode, rows), []
    for projection in project_each(codes, perplexities):
        maps.append(projection)
        advance()
    return Method(name, codes.shape[1], maps, hits.get(name))


def _value(summary: Mapping[str, Any] | None, method: str) -> float | None:
    found = (summary or {}).get(method, {}).get("hit@1")
    return found["value"] if found else None


def validation_value(metrics: Mapping[str, Any]) -> float | None:
    """The head's hit@1 on val, by which a sweep chooses, the mean of several seeds; None where val was not scored."""
    return _value(metrics.get("over_seeds", metrics["splits"]).get("val"), "head")


def checkpoint_path(config: Config) -> Path:
    """The checkpoint that ``run=`` or ``checkpoint=`` names.

    Raises:
        LikenessError: CONFIG when both or neither is given, RUN-MISSING when the run's folder has none.
    """
    if (config["run"] is None) == (config["checkpoint"] is None):
        raise LikenessError(
            "CONFIG",
            "give run=FOLDER or checkpoint=FILE" + (", not both." if config["run"] else "."),
            where="run, checkpoint",
            fix="python evaluate.py run=outputs/train/NAME",
        )
    if config["checkpoint"] is not None:
        return Path(config["checkpoint"])
    path = Path(config["run"]) / "checkpoints" / "best.ckpt"
    if path.exists() and (state := read_status(path.parents[1]).get("state", "unknown")) != "done":
        log.warning("[RUN-MISSING] this run is %s, not done: its checkpoint is not its last word", state)
    if not path.exists():
        raise LikenessError(
            "RUN-MISSING",
            f"there is no finished run in {config['run']}.",
            where=str(path.absolute()),
            fix="Give the folder that train.py printed, or the file of a checkpoint.",
        )
    return path


def as_trained(config: Config, card: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation's config with everything that was not given taken from training.

    Where ``data.root`` names another folder than in training, all its pictures are scored unless ``split`` says less.
    """
    given = {name: value for name, value in config["data"].items() if value is not None}
    elsewhere = bool({"_target_", "root"} & given.keys())
    data = given if "_target_" in given else _data_node(given, card)
    configs.refuse(list(configs.faults(data, "data")))
    splits = [config["split"]] if config["split"] else ["all"] if elsewhere else ["val", "test"]
    metric = {**card["metric"], **{name: value for name, value in config["metric"].items() if value is not None}}
    if "_target_" not in given:
        _refuse_drawing(data)
    paths = {**config["paths"], "store": store_of(card, config["paths"]["store"])}
    changed = {"data": data, "splits": splits, "metric": metric, "paths": paths}
    return {**config, **changed, "batch_size": 1, "seed": card["seed"]}


def store_of(card: Mapping[str, Any], given: str | None) -> str:
    """The store of features that is given, else the one of training where it is here, else that of ``train.py``."""
    kept = shelf_folder(Path(card["store"]), card["fingerprint"]).is_dir()  # or a file would say where we write
    return given or (card["store"] if kept else _DEFAULT_STORE)


def _refuse_drawing(data: Config) -> None:
    """Rooms that a checkpoint speaks of are read; what and where it says to draw is not done on its word."""
    rooms = build(data)
    if isinstance(rooms, DrawnRooms) and not rooms.folder.is_dir():
        raise LikenessError(
            "DATA-MISSING",
            "the drawn rooms that this head was trained on are not here.",
            where=str(rooms.folder.absolute()),
            kept="Nothing was drawn or scored.",
            fix="Draw them again with data=demo, or score other pictures with data.root=.",
        )


def _data_node(given: Config, card: Mapping[str, Any]) -> dict[str, Any]:
    """The data of training with what was given in its place. Another folder has its own names, so its own homes."""
    trained = configs.restored("images", card["data"])
    if "root" not in given or str(Path(given["root"]).absolute()) == trained.get("root"):
        return {**trained, **given}
    kept = trained if trained["_target_"] == _FOLDER else {"_target_": _FOLDER}
    return {**kept, "home_pattern": None, **given}


def restore(path: Path, overrides: Config) -> tuple[Autoencoder, Extractor, dict[str, Any]]:
    """A head from its checkpoint, its extractor built anew, and the card. An exported model brings its own weights.

    Args:
        overrides: ``backbone.weights`` names another place of the weights; ``extraction.device``.

    Raises:
        LikenessError: CKPT-EXTRACTOR when what is built here is not what the head was trained on; CKPT-* from opening.
    """
    content = checkpoint.open_checkpoint(path)
    card = content[checkpoint.CARD]
    if lacking := sorted(_CARD - card.keys()):
        raise LikenessError(
            "CKPT-SCHEMA",
            f"{path.name} describes no head: its card lacks {', '.join(lacking)}.",
            where=str(path.absolute()),
            fix="Give checkpoints/best.ckpt as train.py wrote it.",
        )
    if seeds := card.get("seeds"):
        raise LikenessError(
            "CKPT-SCHEMA",
            f"{path.name} is the training state of {len(seeds)} heads, and no head to score.",
            where=str(path.absolute()),
            fix=f"Give one head's file beside it: seed-{seeds[0]}.ckpt to seed-{seeds[-1]}.ckpt, written when all end.",
        )
    state, shape = content.get("state_dict"), tuple(card["feature_shape"])
    if state is None or (layers := _most_layers(card["architecture"])) > _DEEPEST_HEAD:
        raise checkpoint.not_as_written(path, ["state_dict" if state is None else f"{layers} layers"])
    own_weights = content.get("backbone")
    if own_weights is not None and overrides["backbone"].get("weights"):
        configs.refuse([f"backbone.weights: {path.name} has its own"])
    checkpoint.refuse_non_finite(path, own_weights or {})
    with _described_in(path, _WORDS if own_weights is None else (*_WORDS, *_OF_OWN_WEIGHTS)):
        config = _config_of(card, overrides, path)
        module = _loaded(lambda: _scored_module(config, shape, card), state, path)
        extractor = build_extractor(config, own_weights)
    if extractor.fingerprint != card["fingerprint"]:
        raise _other_extractor(path, card["extractor"], extractor.identity())
    return module.eval(), extractor, card


def _most_layers(architecture: Mapping[str, Any]) -> int:
    return max((len(value) for value in architecture.values() if isinstance(value, list)), default=0)


def _config_of(card: Mapping[str, Any], overrides: Config, path: Path) -> dict[str, Any]:
    """The checked nodes that a card describes, with what was given in their place."""
    rooms = {"architecture": "heads", "scaling": "heads", "decoding": "images", "preprocessing": "images"}
    nodes = {name: configs.restored(room, card[name], str(path)) for name, room in rooms.items()}
    backbone = configs.restored("features", card["backbone"], str(path))
    backbone["weights"] = overrides["backbone"].get("weights") or backbone["weights"]
    config = {**nodes, "backbone": backbone, "extraction": overrides["extraction"]}
    configs.refuse([*configs.faults(config), *configs.scoring_faults(card["metric"])])
    return config


def _scored_module(config: Config, shape: tuple[int, ...], card: dict[str, Any]) -> Autoencoder:
    head, scaling = (build(config[name], feature_shape=shape) for name in ("architecture", "scaling"))
    return Autoencoder(head, scaling, NoNoise(), torch.nn.MSELoss(), torch.optim.SGD, card=card)


@contextmanager
def _described_in(path: Path, codes: Sequence[str]) -> Iterator[None]:
    """What a config may not say, a checkpoint may not describe either; the refusal says whose words they are."""
    try:
        yield
    except LikenessError as error:
        if error.code not in codes:
            raise
        raise checkpoint.not_as_written(
            path, error.where.splitlines(), f"{error.what} {error.cause}".strip()
        ) from error


def _loaded(make: Callable[[], Any], state: Mapping[str, Tensor], path: Path) -> Any:
    """What ``make`` builds, with these weights; it is built without memory first, and they must fit and be finite."""
    with torch.device("meta"):
        bare = make()
    wanted = bare.state_dict()
    other = [name for name in wanted.keys() & state.keys() if _is_float(wanted[name]) != _is_float(state[name])]
    if other:
        raise checkpoint.not_as_written(path, other)
    try:
        bare.load_state_dict({name: value.to("meta") for name, value in state.items()})
    except RuntimeError as error:
        raise LikenessError(
            "CKPT-SCHEMA",
            "the checkpoint's weights do not fit the head that it describes.",
            where=str(path.absolute()),
            cause="\n".join(printable(line) for line in str(error).splitlines()[1:4]),
            kept="Nothing was built from it; the file is as it was.",
            fix="Give a checkpoint as train.py wrote it.",
        ) from error
    checkpoint.refuse_non_finite(path, state)
    with torch.random.fork_rng():
        module = make()
    module.load_state_dict(state)
    return module


def _is_float(value: Tensor) -> bool:
    return value.is_floating_point()


def _other_extractor(path: Path, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> LikenessError:
    changed = [
        printable(f"{part}.{name}: trained with {values.get(name)!r}, here {here.get(name)!r}", 200)
        for part, values in wanted.items()
        if isinstance(values, Mapping)
        for here in [got.get(part, {})]
        for name in {**values, **here}
        if here.get(name) != values.get(name)
    ]
    return LikenessError(
        "CKPT-EXTRACTOR",
        "the features that this head was trained on cannot be made here.",
        where=f"{path}\n" + listed(changed),
        kept="Nothing was scored.",
        fix="Give the same weights with backbone.weights=FILE, or the version of likeness that trained the head.",
    )
