"""What a job of several seeds cannot do for each of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from likeness.config.targets import SPECIAL
from likeness.config.values import at

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


def stack_faults(plain: Mapping[str, Any]) -> Iterator[str]:
    """What a job of several seeds cannot do for each of them."""
    if plain.get("seeds", 1) <= 1:
        return
    for path, values, why in _ALONE:
        value = at(plain, path, values[0])
        if not any(type(value) is type(one) and value == one for one in values):  # 1 is a batch, and 1.0 an epoch
            yield f"{path}: {value!r} needs seeds=1: {why}"
    if "ReduceLROnPlateau" in str(at(plain, "scheduler._target_")):
        yield "scheduler: plateau needs seeds=1: one rate would follow the mean loss of all seeds"
    callbacks = plain["callbacks"] if isinstance(plain["callbacks"], Mapping) else {}
    for kind, followed in _FOLLOWED.items():
        judging = {n: c for n, c in callbacks.items() if at(c, "_target_", "").endswith(kind) and at(c, "monitor")}
        if len(judging) > 1:
            yield f"callbacks: {' and '.join(judging)} are more than one {kind} that judges: that needs seeds=1"
        for name, node in judging.items():
            unknown = sorted(node.keys() - followed - SPECIAL)
            yield from (
                f"callbacks.{name}.{option}: needs seeds=1; it is not followed for each seed" for option in unknown
            )
