"""What a training step that is recorded as a CUDA graph does not go with."""

from collections.abc import Iterator, Mapping
from typing import Any

from likeness.config.values import at


def graph_faults(plain: Mapping[str, Any]) -> Iterator[str]:
    """What a step that is recorded as a CUDA graph cannot be of."""
    if not plain.get("cuda_graph"):
        return
    if (accelerator := at(plain, "trainer.accelerator", "auto")) not in ("auto", "gpu", "cuda"):
        yield f"cuda_graph: true needs a CUDA device, and trainer.accelerator={accelerator}"
    if at(plain, "trainer.devices", 1) not in (1, "1", [0], "auto") or at(plain, "trainer.num_nodes", 1) != 1:
        yield "cuda_graph: true needs trainer.devices=1 and trainer.num_nodes=1: processes agree between two batches"
    if str(at(plain, "architecture._target_")).startswith("likeness.heads.linear."):
        yield "cuda_graph: true needs an architecture that is trained in steps: this one is solved"
    if plain.get("compile_optimizer"):
        yield "cuda_graph: true and compile_optimizer=true have not been run together: give one of them"
