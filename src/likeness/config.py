"""What a config may say: the typed root, and one check of every node against the constructor that it names.

Only standard-library and Hydra imports at the top: ``--help`` and ``--cfg job`` must answer at once.
"""

import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from likeness.errors import LikenessError, listed

ROOMS = ("images", "features", "heads", "retrieval", "reports", "runs")
# Beside the public names of this package's rooms, a config may name these and nothing else.
_ALLOWED = {
    "torch.optim": ("Adadelta", "Adam", "AdamW", "SGD"),
    "torch.optim.lr_scheduler": ("CosineAnnealingLR", "ReduceLROnPlateau", "StepLR", "ExponentialLR"),
    "torch.nn": ("MSELoss", "HuberLoss"),
    "pytorch_lightning": ("Trainer",),
    "pytorch_lightning.callbacks": ("EarlyStopping", "ModelCheckpoint", "LearningRateMonitor", "Timer"),
}
# Of this package's own names a config may name classes, and these functions.
_FUNCTIONS = ("own_preprocessing", "csv_logger", "mlflow_logger", "tensorboard_logger", "wandb_logger")
# Arguments that the assembly fills in: what only other parts know.
_FILLED_IN = {"feature_shape", "params", "optimizer", "state"}
# What train.py cannot do without.
_NODES = (
    "data",
    "backbone",
    "decoding",
    "preprocessing",
    "architecture",
    "scaling",
    "noise",
    "loss",
    "optimizer",
    "trainer",
)
SPECIAL = {"_target_", "_partial_"}
# Of Hydra's own config: what it calls itself, and what of that a log may be made of.
_CALLED = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
_OF_A_LOG = {
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.handlers.RotatingFileHandler"),
    *("colorlog.ColoredFormatter", "ext://sys.stdout", "ext://sys.stderr"),
}
_OF_A_SECRET = re.compile(r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?)(?:_|$)")
_SHORTEST_SECRET = 8
_PASSWORD_IN_URL = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@")
# Lines of Hydra's and OmegaConf's messages that repeat what is said elsewhere, or advise what is refused here.
_NOISE = ("full_key:", "object_type=", "reference_type=", "To append to your config")


@dataclass
class Paths:
    """Where results go. ``store`` holds the features and may be shared by any number of runs."""

    outputs: str = "outputs"
    store: str | None = "${oc.env:LIKENESS_STORE,${paths.outputs}/features}"


@dataclass
class Extraction:
    """How features are computed; nothing here changes a feature. None fits the machine.

    ``rehash`` reads every picture's file, also those whose size and time of change are as when they were last read.
    """

    batch_size: int | None = None
    workers: int | None = None
    device: str = "auto"
    memory_gb: float = 16.0
    rehash: bool = False


@dataclass
class Scoring:
    """How codes are scored; see ``likeness.retrieval.metric``."""

    ks: list[int] = field(default_factory=lambda: [1, 5])
    exclude_home: bool = False
    ties: str = "by_id"
    vote_k: int = 5
    vote_weights: str = "uniform"
    map_at_r: bool = True


@dataclass
class Figures:
    """Which figures a run draws: ``auto`` draws in a single run and not in a multirun."""

    draw: str = "auto"
    split: str = "test"
    perplexity: float = 30.0


@dataclass
class Places:
    """What stands for the thesis' "places" scheme: what the backbone's weights were trained with."""

    channels: str = "bgr"
    scale: float = 1.0
    mean: list[float] = field(default_factory=lambda: [104.006, 116.669, 122.679])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])


@dataclass
class Thesis:
    """What the rows of the thesis have in common, for their files to refer to; nothing else reads it.

    The defaults are what should have been done (``protocol=mended``) on the backbones of the thesis.
    """

    output: str = "identity"
    odd_output: str = "identity"
    scaling: str = "standardize"
    gaussian: str = "likeness.heads.noise.Gaussian"
    imagenet_std: float = 1.0
    size: int = 224
    places: Places = field(default_factory=Places)


@dataclass
class Sweep:
    """How a multirun goes about its jobs. A sweep of the same name goes on where it was.

    ``wait=false`` leaves the jobs to Slurm; ``at_once`` is the number of jobs of ``launcher=slurm_local``.
    """

    name: str = "${now:%Y-%m-%d_%H-%M-%S-%f}"
    dry_run: bool = False
    wait: bool = True
    at_once: int = 2


@dataclass
class Shared:
    """What training and evaluation have in common."""

    data: Any = MISSING
    backbone: Any = MISSING
    paths: Paths = field(default_factory=Paths)
    extraction: Extraction = field(default_factory=Extraction)
    figures: Figures = field(default_factory=Figures)
    sweep: Sweep = field(default_factory=Sweep)
    logger: Any = MISSING
    debug: bool = False


@dataclass
class ScoringAsTrained:
    """What an evaluation scores otherwise than training did; None is as in training."""

    ks: list[int] | None = None
    exclude_home: bool | None = None
    ties: str | None = None
    vote_k: int | None = None
    vote_weights: str | None = None
    map_at_r: bool | None = None


@dataclass
class Rejection:
    """How pictures that are like nothing in the gallery are told from known ones; see ``likeness.retrieval.rejection``.

    ``outside`` is a folder of such pictures. In its place ``left_out`` names classes that are taken out of the gallery.
    """

    outside: str | None = None
    left_out: list[str] = field(default_factory=list)
    rate: float = 0.05
    k: int = 10


@dataclass
class Train(Shared):
    """The root of ``train.py``."""

    decoding: Any = MISSING
    preprocessing: Any = MISSING
    architecture: Any = MISSING
    scaling: Any = MISSING
    noise: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    trainer: Any = MISSING
    callbacks: Any = MISSING
    metric: Scoring = field(default_factory=Scoring)
    thesis: Thesis = field(default_factory=Thesis)
    batch_size: int = 128
    hits_every_n_epochs: int = 5
    compile_optimizer: bool = False
    cuda_graph: bool = False
    seed: int = 0
    seeds: int = 1


@dataclass
class Evaluate(Shared):
    """The root of ``evaluate.py``: which head, on which pictures, against which gallery."""

    run: str | None = None
    checkpoint: str | None = None
    split: str | None = None
    gallery: str | None = None
    metric: ScoringAsTrained = field(default_factory=ScoringAsTrained)
    rejection: Rejection = field(default_factory=Rejection)


def register() -> None:
    """Make the typed roots known to Hydra, for ``conf/train.yaml`` and ``conf/evaluate.yaml`` to build on."""
    # There is one, and it copies what it gives out; Hydra copies all of it for each job, and 173 times for --help.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    store.store(name="train_schema", node=Train)
    store.store(name="evaluate_schema", node=Evaluate)
    if not hasattr(ConfigLoaderImpl.load_configuration, "__wrapped__"):
        ConfigLoaderImpl.load_configuration = _guarded(ConfigLoaderImpl.load_configuration)  # type: ignore[method-assign]


def _guarded(load: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """``load``, after which a config is looked at before Hydra calls, opens or writes anything on its word."""

    @functools.wraps(load)
    def loaded(*given: Any, **named: Any) -> DictConfig:
        cfg = load(*given, **named)
        with open_dict(cfg):
            refuse_secrets(OmegaConf.to_container(cfg))
            refuse_secrets({f"hydra.{kind}.dir": _or_none(cfg.hydra[kind], "dir") for kind in ("run", "sweep")})
            refuse([fault for name in _CALLED for fault in _called_faults(cfg.hydra.get(name), f"hydra.{name}")])
        return cfg

    return loaded


def _called_faults(node: Any, path: str) -> Iterator[str]:
    """What Hydra may not call: it makes plugins of its own, callbacks of this package, and a log's usual handlers."""
    if isinstance(node, DictConfig):
        for key in map(str, node):
            value = _or_none(node, key)
            if key in ("_target_", "()", "class", "stream"):
                yield from _called_fault(str(value), f"{path}.{key}")
            elif isinstance(value, str) and value.startswith(("ext://", "cfg://")):
                yield f"{path}.{key}: {value} is not allowed"
            yield from _called_faults(value, f"{path}.{key}")
    elif isinstance(node, ListConfig):
        for index in range(len(node)):
            yield from _called_faults(_or_none(node, index), f"{path}[{index}]")


def _called_fault(value: str, path: str) -> Iterator[str]:
    owner, _, key = path.rpartition(".")
    if key != "_target_":
        fine = value in _OF_A_LOG
    elif owner in ("hydra.launcher", "hydra.sweeper"):
        fine = value.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))  # of these, Hydra takes plugins
    else:
        fine = owner == "hydra.sweeper.sampler" and re.fullmatch(r"optuna\.samplers\.\w+Sampler", value) is not None
    if not fine and key == "_target_":
        try:
            allowed(value)
        except LikenessError as error:
            yield f"{path}: {error.what}"
    elif not fine:
        yield f"{path}: {value} is not allowed"


def _or_none(node: Any, key: Any) -> Any:
    """A value with its interpolations followed; None where they lead nowhere yet."""
    try:
        return node[key]
    except OmegaConfBaseException:
        return None


def _secrets() -> Iterator[tuple[str, str]]:
    """Names and values of the environment that are nobody's to keep; a path to a secret is none."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _OF_A_SECRET.search(name.upper()) and not os.path.exists(value):
            yield name, value


def refuse_secrets(plain: Any) -> None:
    """Raises CONFIG-SECRET where a value of a config is a secret: it would be kept in the run's folder, and sent on."""
    secrets = list(_secrets())
    found = []
    for path, text in _texts_by_path(plain):
        found += [f"{path}: the value of {name}" for name, value in secrets if value in text]
        found += [f"{path}: a URL with a password"] if _PASSWORD_IN_URL.search(text) else []
    if found:
        raise LikenessError(
            "CONFIG-SECRET",
            "an option holds a secret, and options are kept in the run's folder.",
            where=listed(dict.fromkeys(found)),
            kept="Nothing was opened, computed or kept yet.",
            fix="Leave it to the environment, where wandb, MLflow and others look themselves (WANDB_API_KEY, ...).",
        )


def redacted(text: str) -> str:
    """``text`` with the names of secrets in the place of their values."""
    for name, value in _secrets():
        text = text.replace(value, f"<{name}>")
    return _PASSWORD_IN_URL.sub(r"\1<password>@", text)


def _texts_by_path(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_by_path(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts_by_path(item, f"{path}[{index}]")


def _checkout() -> Path:
    """Where ``conf`` lies beside the package, if it was installed from there."""
    return Path(__file__).parents[2]


def composed(words: Sequence[str]) -> DictConfig:
    """What ``train.py`` would be told by these words of its command line, without its run: so without trackers.

    Raises:
        LikenessError: CONFIG where the package was installed without the checkout's ``conf``.
    """
    folder = _checkout() / "conf"
    if not (folder / "train.yaml").is_file():
        raise LikenessError(
            "CONFIG",
            "the options of train.py are not beside this package.",
            where=str(folder),
            fix="Install likeness from its checkout with pip install -e .",
        )
    register()
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose("train", list(words))
    cfg.logger = {}
    return cfg


def checked(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, every node of it checked; what is built later is built from these very values.

    Raises:
        LikenessError: CONFIG with all faults at once, each with its dotted path; where torch is not imported yet, with
            those that are seen without the seconds that this takes, if there are any.
    """
    try:
        plain = typing.cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        refuse(list(_missing(OmegaConf.to_container(cfg))))
        raise refused(error) from error
    refuse_secrets(plain)
    bare = _bare(plain) if "architecture" in plain else []
    values = [*_value_faults(plain), *_stack_faults(plain), *_graph_faults(plain)]
    seen = [*_unknown(OmegaConf.get_type(cfg), plain), *bare, *values, *_missing(plain)]
    if "torch" not in sys.modules:
        refuse(seen)
    refuse(list(dict.fromkeys([*seen, *faults(plain)])))
    return plain


def scoring_faults(metric: Mapping[str, Any]) -> list[str]:
    """What is wrong with options of scoring that come from elsewhere than a config."""
    hints = typing.get_type_hints(Scoring)
    wrong = [
        f"metric.{name}: {value!r:.60} is not {_spelled(hints[name])}"
        for name, value in metric.items()
        if name in hints and not _fits(value, hints[name])
    ]
    return [*_unknown(Scoring, metric, "metric."), *wrong] or list(_value_faults({"metric": metric}))


def of_each_seed(cfg: DictConfig) -> list[dict[str, Any]]:
    """The checked configs of the single runs that this one stands for: ``seeds`` of them, from ``seed`` up.

    Raises:
        LikenessError: CONFIG also when something that the heads of one job share follows the seed.
    """
    first = checked(cfg)
    if first["seeds"] == 1:
        return [first]
    seeds = range(first["seed"] + 1, first["seed"] + first["seeds"])
    others = [OmegaConf.to_container(OmegaConf.merge(cfg, {"seed": seed}), resolve=True) for seed in seeds]
    each = [first, *typing.cast(list[dict[str, Any]], others)]
    follow = [name for name in _SHARED if any(config[name] != first[name] for config in each)]
    refuse(
        [f"{name}: follows the seed, and all seeds of a job share it: give one value, or seeds=1" for name in follow]
    )
    return each


def _missing(node: Any, path: str = "") -> Iterator[str]:
    """Mandatory values that nobody gave, where other values refer to them and nothing can be resolved."""
    if node == MISSING:
        yield f"{path}: missing, give it with {path}=…"
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))


def _unknown(schema: Any, plain: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Options that no typed root has: Hydra's ``+name=`` adds them, and nothing would read them."""
    hints = typing.get_type_hints(schema) if is_dataclass(schema) else dict.fromkeys(plain)
    for name, value in plain.items():
        if name not in hints:
            yield f"{path}{name}: unknown{_suggestion(name, hints)}"
        elif is_dataclass(hints[name]):
            yield from _unknown(hints[name], value, f"{path}{name}.")


def _bare(plain: Mapping[str, Any]) -> Iterator[str]:
    """What must name a class and does not."""
    nodes = {name: plain[name] for name in _NODES}
    for group in ("callbacks", "logger"):
        members = plain[group]
        nodes |= {f"{group}.{n}": m for n, m in members.items()} if isinstance(members, Mapping) else {group: members}
    for name, node in nodes.items():
        if node != MISSING and not (isinstance(node, Mapping) and "_target_" in node):
            yield f"{name}: {node!r} names no class (_target_)"


# Least value of numbers, by dotted path; None is allowed where it is the default.
_LEAST = {
    "batch_size": 1,
    "hits_every_n_epochs": 1,
    "sweep.at_once": 1,
    "seed": 0,
    "seeds": 1,
    "extraction.batch_size": 1,
    "extraction.workers": 1,
    "extraction.memory_gb": 0,
    "figures.perplexity": 1,
    "metric.vote_k": 1,
    "rejection.k": 1,
    "architecture.l1": 0,
    "architecture.width": 1,
    "architecture.stride": 1,
    "architecture.k": 1,
    "architecture.widths_for": 1,
    "optimizer.lr": 0,
    "scheduler.T_max": 1,
    "callbacks.resume.every_n_epochs": 1,
    "callbacks.resume.every_seconds": 0,
}
_GREATEST_SEED = 2**63 - 1
_SPLITS = ("train", "val", "test", "unlabelled")
_MONITORS = ("train/loss", "val/loss", "val/hit@1")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "figures.draw": ("auto", "all", "none"),
    "figures.split": (*_SPLITS, "all"),
    "split": (*_SPLITS, "all", None),
    "gallery": (*_SPLITS, "all", None),
    "metric.ties": ("by_id", "pessimistic", None),
    "metric.vote_weights": ("uniform", "similarity", None),
    "trainer.precision": ("32-true", "16-mixed", "bf16-mixed", "64-true"),
    "callbacks.early_stopping.monitor": _MONITORS,
    "callbacks.best.monitor": _MONITORS,
}


def _value_faults(plain: Mapping[str, Any]) -> Iterator[str]:
    """Values that have the right type and no meaning."""
    for path, least in _LEAST.items():
        value = _at(plain, path)
        if isinstance(value, int | float) and not value >= least:
            yield f"{path}: {value} is less than {least}"
    for path, choices in _CHOICES.items():
        if (value := _at(plain, path, choices[0])) not in choices:
            yield f"{path}: {value!r} is not one of {', '.join(str(choice) for choice in choices if choice)}"
    if (rate := _at(plain, "rejection.rate")) is not None and not 0 < rate < 1:
        yield f"rejection.rate: {rate} is not a share between 0 and 1"
    if _at(plain, "rejection.outside") and _at(plain, "rejection.left_out"):
        yield "rejection: give outside or left_out, not both: each is a question of its own"
    if (last := plain.get("seed", 0) + plain.get("seeds", 1) - 1) > _GREATEST_SEED:
        yield f"seed: {last} is greater than {_GREATEST_SEED}"
    if plain.get("hits_every_n_epochs", 1) > 1:
        for path in ("callbacks.early_stopping.monitor", "callbacks.best.monitor"):
            if str(_at(plain, path, "")).startswith("val/hit@"):
                yield f"{path}: {_at(plain, path)} is judged each epoch, and needs hits_every_n_epochs=1"
    ks = _at(plain, "metric.ks")
    if ks is not None and (1 not in ks or min(ks) < 1 or len(set(ks)) < len(ks)):
        yield f"metric.ks: {ks} must be different numbers from 1 up, and have 1 among them (runs are compared by hit@1)"


def _graph_faults(plain: Mapping[str, Any]) -> Iterator[str]:
    """What a step that is recorded as a CUDA graph cannot be of."""
    if not plain.get("cuda_graph"):
        return
    if (accelerator := _at(plain, "trainer.accelerator", "auto")) not in ("auto", "gpu", "cuda"):
        yield f"cuda_graph: true needs a CUDA device, and trainer.accelerator={accelerator}"
    if _at(plain, "trainer.devices", 1) not in (1, "1", [0], "auto") or _at(plain, "trainer.num_nodes", 1) != 1:
        yield "cuda_graph: true needs trainer.devices=1 and trainer.num_nodes=1: processes agree between two batches"
    if str(_at(plain, "architecture._target_")).startswith("likeness.heads.linear."):
        yield "cuda_graph: true needs an architecture that is trained in steps: this one is solved"
    if plain.get("compile_optimizer"):
        yield "cuda_graph: true and compile_optimizer=true have not been run together: give one of them"


# What the heads of a job of several seeds have in common.
_SHARED = (
    *(name for name in _NODES if name != "architecture"),
    "scheduler",
    "callbacks",
    "metric",
    "batch_size",
    "hits_every_n_epochs",
    "compile_optimizer",
    "cuda_graph",
)
# What several heads cannot be trained with at once: path, the values that they can, why not.
_ALONE: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("trainer.gradient_clip_val", (None, 0, 0.0), "one norm would be taken over the gradients of all seeds"),
    ("trainer.precision", ("32-true", "bf16-mixed", "64-true"), "one seed's overflow would skip the step of all"),
    ("trainer.devices", (1, "1", [0]), "a job of several seeds trains on one device"),
    ("trainer.num_nodes", (1,), "a job of several seeds trains on one device"),
    ("trainer.val_check_interval", (None, 1.0), "seeds stop at the end of an epoch"),
    ("trainer.min_epochs", (None,), "each seed stops for itself"),
    ("trainer.min_steps", (None,), "each seed stops for itself"),
)
# Options of the callbacks that are followed for each seed.
_FOLLOWED = {
    "EarlyStopping": {
        *("monitor", "mode", "patience", "min_delta", "check_finite", "stopping_threshold", "divergence_threshold"),
        *("strict", "verbose"),
    },
    "BestWeights": {"monitor", "mode", "filename"},
    "ModelCheckpoint": {"monitor", "mode", "filename", "save_weights_only", "enable_version_counter", "verbose"},
}


def _stack_faults(plain: Mapping[str, Any]) -> Iterator[str]:
    """What a job of several seeds cannot do for each of them."""
    if plain.get("seeds", 1) <= 1:
        return
    for path, values, why in _ALONE:
        value = _at(plain, path, values[0])
        if not any(type(value) is type(one) and value == one for one in values):  # 1 is a batch, and 1.0 an epoch
            yield f"{path}: {value!r} needs seeds=1: {why}"
    if "ReduceLROnPlateau" in str(_at(plain, "scheduler._target_")):
        yield "scheduler: plateau needs seeds=1: one rate would follow the mean loss of all seeds"
    callbacks = plain["callbacks"] if isinstance(plain["callbacks"], Mapping) else {}
    for kind, followed in _FOLLOWED.items():
        judging = {n: c for n, c in callbacks.items() if _at(c, "_target_", "").endswith(kind) and _at(c, "monitor")}
        if len(judging) > 1:
            yield f"callbacks: {' and '.join(judging)} are more than one {kind} that judges: that needs seeds=1"
        for name, node in judging.items():
            unknown = sorted(node.keys() - followed - SPECIAL)
            yield from (
                f"callbacks.{name}.{option}: needs seeds=1; it is not followed for each seed" for option in unknown
            )


def _at(node: Any, path: str, default: Any = None) -> Any:
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return default
        node = node[key]
    return node


def refuse(found: list[str]) -> None:
    """Raises CONFIG when any fault was found."""
    if found:
        raise LikenessError(
            "CONFIG-TARGET" if all("is not allowed" in fault for fault in found) else "CONFIG",
            f"{len(found)} {'fault' if len(found) == 1 else 'faults'} in the config.",
            where="\n".join(found),
            kept="Nothing was opened or computed yet.",
            fix="Correct these options; --cfg job shows every option with its value.",
        )


def faults(node: Any, path: str = "") -> Iterator[str]:
    """Every fault of every node that names a ``_target_``, as ``dotted.path: what is wrong``."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from faults(item, f"{path}[{index}]")
    if node == MISSING:
        yield f"{path}: missing, give it with {path}=…"
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _node_faults(node, path)
    for key, value in node.items():
        yield from faults(value, f"{path}.{key}" if path else str(key))


def _node_faults(node: Mapping[str, Any], path: str) -> Iterator[str]:
    try:
        target = allowed(node["_target_"])
    except LikenessError as error:
        yield f"{path}._target_: {error.what}"
        return
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    known = [name for name, parameter in parameters.items() if _by_name(parameter) and name not in _FILLED_IN]
    for name, value in node.items():
        if name in SPECIAL:
            continue
        if name not in known:
            yield f"{path}.{name}: unknown to {target.__name__}{_suggestion(name, known)}"
        elif value != MISSING and name in hints and not _fits(value, hints[name]):
            yield f"{path}.{name}: {value!r} is not {_spelled(hints[name])}"
    if not node.get("_partial_"):
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in node.keys() | _FILLED_IN and _by_name(parameter):
                yield f"{path}.{name}: missing, {target.__name__} needs it"


def _by_name(parameter: inspect.Parameter) -> bool:
    named = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return parameter.kind in named and not parameter.name.startswith("_")


def _suggestion(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f" (it takes {', '.join(known) or 'no option'})"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value is of the annotated type; a list may stand for a tuple, an integer for a float."""
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if isinstance(value, bool) and bool not in (hint, *typing.get_args(hint)) and hint is not Any:
        return False
    conf = BeartypeConf(is_pep484_tower=True)
    return is_bearable(value, hint, conf=conf) or (
        isinstance(value, list) and is_bearable(tuple(value), hint, conf=conf)
    )


def _spelled(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "").replace("collections.abc.", "")


def allowed(target: object) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names, if a config may name it.

    It must be a public name, defined (not merely imported) in a file of one of this package's rooms, or be listed.

    Raises:
        LikenessError: CONFIG-TARGET. Nothing is imported for a refused name outside the rooms.
    """
    module, _, name = str(target).rpartition(".")
    parts = module.split(".")
    ours = len(parts) == 3 and parts[0] == "likeness" and parts[1] in ROOMS and parts[2] in files_of(parts[1])
    if name in _ALLOWED.get(module, ()):
        return getattr(importlib.import_module(module), name)
    if ours and not name.startswith("_"):
        found: Any = getattr(importlib.import_module(module), name, None)
        if (inspect.isclass(found) or name in _FUNCTIONS) and getattr(found, "__module__", None) == module:
            return found
    raise LikenessError(
        "CONFIG-TARGET",
        f"{target} is not allowed (allowed: this package, {sum(map(len, _ALLOWED.values()))} names of others)",
        where="_target_",
        fix="Name a class of likeness, or one of " + ", ".join(f"{m}.{n}" for m, ns in _ALLOWED.items() for n in ns),
    )


def files_of(room: str) -> list[str]:
    """The modules of a room, by name."""
    package = importlib.import_module(f"likeness.{room}")
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def recorded(node: Mapping[str, Any]) -> dict[str, Any]:
    """A checked node as a checkpoint keeps it: its class by name alone, so that a file never says what to import."""
    return {"class": str(node["_target_"]).rpartition(".")[2], **{k: v for k, v in node.items() if k != "_target_"}}


def restored(room: str, node: Any, where: str = "") -> dict[str, Any]:
    """The node that ``recorded`` was given: the class of that name is looked for in the room's own files.

    Raises:
        LikenessError: CKPT-SCHEMA when the room has no such class; CKPT-UNTRUSTED when the node says what to import, or
            holds an interpolation, which would read this machine's environment.
    """
    if any(text == "_target_" or "${" in text for text in _texts(node)):
        raise LikenessError(
            "CKPT-UNTRUSTED",
            "the checkpoint's description of itself holds an import path or an interpolation.",
            where=where,
            cause="train.py writes plain values only.",
            kept="Nothing in it was run or resolved.",
            fix="Ask its author for a checkpoint that train.py wrote.",
        )
    asked = node.get("class") if isinstance(node, Mapping) else None
    for file in files_of(room):
        target = f"likeness.{room}.{file}.{asked}"
        try:
            allowed(target)
        except LikenessError:
            continue
        return {"_target_": target, **{k: v for k, v in node.items() if k != "class"}}
    raise LikenessError(
        "CKPT-SCHEMA",
        f"the checkpoint asks for {asked!r:.60}, and {room} has no such class.",
        where=where,
        kept="Nothing was built from it; the file is as it was.",
        fix="Use the version of likeness that wrote the checkpoint.",
    )


def _texts(value: Any) -> Iterator[str]:
    """Every key and every text in a nest of plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value:
            yield from _texts(item)
        if isinstance(value, Mapping):
            yield from _texts(list(value.values()))


def _nearest_option(missing: str) -> str | None:
    """``group=option`` for the option of this project that is spelled most like ``group/option``."""
    folder = _checkout() / "conf"
    group, _, name = missing.partition("/")
    options = {path.relative_to(folder / group).with_suffix("").as_posix() for path in (folder / group).rglob("*.yaml")}
    close = get_close_matches(name, options, 1)
    return f"{group}={close[0]}" if close else None


def _how_to_spell(override: str) -> str:
    name, given, value = override.partition("=")
    if given:
        return f"""Quote brackets, commas and blanks twice, for the shell and for Hydra: {name}="'{value}'\""""
    groups = sorted(path.parent.name for path in (_checkout() / "conf").glob("*/*.yaml") if path.stem == name)
    return "Options are given as name=value" + (f": did you mean {groups[0]}={name}?" if groups else ".")


def refused(error: Exception) -> LikenessError:
    """Hydra's and OmegaConf's own refusals, in this project's form."""
    cause = getattr(error, "__cause__", None) or error
    key = getattr(cause, "full_key", None)
    text = str(error).strip().splitlines()
    what = " ".join(text[:1]) or type(error).__name__
    fix = "Correct the option; --help lists the groups, --cfg job shows every option."
    known = [str(name) for name in getattr(cause, "parent_node", None) or []]
    last = str(key).rsplit(".", 1)[-1]
    if key and last not in known and (close := get_close_matches(last, known, 1)):
        parent = f"{key.rsplit('.', 1)[0]}." if "." in key else ""
        fix = f"Did you mean {parent}{close[0]}? --cfg job shows every option."
    if isinstance(error, MissingConfigException) and (meant := _nearest_option(str(error.missing_cfg_file))):
        fix = f"Did you mean {meant}? --help lists the groups and their options."
    if isinstance(error, OverrideParseException):
        fix = _how_to_spell(error.override)
    below = [] if cause is error else str(cause).splitlines()
    lines = [line.strip() for line in text[1:] + below if not line.strip().startswith(_NOISE)]
    told = "\n".join(line for line in dict.fromkeys(lines) if line and line not in text[:1])
    return LikenessError("CONFIG", redacted(what), where=key or "", cause=redacted(told), fix=redacted(fix))
