"""Which values make sense, where the right type is not enough."""

from collections.abc import Iterator, Mapping
from typing import Any

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


def value_faults(plain: Mapping[str, Any]) -> Iterator[str]:
    """Values that have the right type and no meaning."""
    for path, least in _LEAST.items():
        value = at(plain, path)
        if isinstance(value, int | float) and not value >= least:
            yield f"{path}: {value} is less than {least}"
    for path, choices in _CHOICES.items():
        if (value := at(plain, path, choices[0])) not in choices:
            yield f"{path}: {value!r} is not one of {', '.join(str(choice) for choice in choices if choice)}"
    if (rate := at(plain, "rejection.rate")) is not None and not 0 < rate < 1:
        yield f"rejection.rate: {rate} is not a share between 0 and 1"
    if at(plain, "rejection.outside") and at(plain, "rejection.left_out"):
        yield "rejection: give outside or left_out, not both: each is a question of its own"
    if (last := plain.get("seed", 0) + plain.get("seeds", 1) - 1) > _GREATEST_SEED:
        yield f"seed: {last} is greater than {_GREATEST_SEED}"
    if plain.get("hits_every_n_epochs", 1) > 1:
        for path in ("callbacks.early_stopping.monitor", "callbacks.best.monitor"):
            if str(at(plain, path, "")).startswith("val/hit@"):
                yield f"{path}: {at(plain, path)} is judged each epoch, and needs hits_every_n_epochs=1"
    ks = at(plain, "metric.ks")
    if ks is not None and (1 not in ks or min(ks) < 1 or len(set(ks)) < len(ks)):
        yield f"metric.ks: {ks} must be different numbers from 1 up, and have 1 among them (runs are compared by hit@1)"


def at(node: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of a nest of mappings."""
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return default
        node = node[key]
    return node
