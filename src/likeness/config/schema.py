"""The typed roots of train.py and evaluate.py: which options there are, of which type, with which default."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


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
