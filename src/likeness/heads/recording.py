"""A training step recorded as a CUDA graph and replayed: the host launches one thing in place of some hundred.

Not yet run on a GPU: what is known of it is that it learns the same bit for bit where a recorder only calls.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from likeness.errors import LikenessError

_WARM_UP = 3  # steps of a shape, after which the optimizer and the libraries have made what they keep


@runtime_checkable
class Recorder(Protocol):
    """What notes a step down. ``CudaRecorder`` is the one of use; a step must read and write in place."""

    def warm(self, take: Callable[[], Tensor]) -> Tensor:
        """Take a step as it is."""

    def record(self, take: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Note a step down without taking it; what is returned takes it, and gives the same tensor, filled anew."""


class CudaRecorder:
    """Records on a stream of its own, on which the steps before are taken too, as PyTorch's documentation asks."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def warm(self, take: Callable[[], Tensor]) -> Tensor:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = take()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def record(self, take: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                result = take()
        except RuntimeError as error:
            raise _not_recorded(error) from error
        return partial(_replayed, graph, result)


def _not_recorded(error: RuntimeError) -> LikenessError:
    return LikenessError(
        "CONFIG",
        "the training step could not be recorded as a CUDA graph.",
        where="cuda_graph=true",
        cause=(str(error).splitlines() or [""])[0],
        kept="The checkpoints of earlier epochs in the run folder's checkpoints/, and all features.",
        fix="Leave cuda_graph=false.",
    )


def _replayed(graph: torch.cuda.CUDAGraph, result: Tensor) -> Tensor:
    graph.replay()
    return result


class Recorded:
    """A step that is taken as it is for the first batches of a shape, then recorded, and replayed from there on.

    Args:
        take: The step; it takes the tensors of a batch and returns a tensor.
        optimizer: That the step uses. Where it can, it counts its steps on the device, and reads its rate there.
        recorder: What notes the step down.
    """

    def __init__(self, take: Callable[..., Tensor], optimizer: torch.optim.Optimizer, recorder: Recorder) -> None:
        self._take, self._optimizer, self._recorder = take, optimizer, recorder
        self._rates: list[tuple[dict[str, Any], Tensor]] = []
        for group in optimizer.param_groups:
            device = group["params"][0].device
            if "capturable" in group and device.type == "cuda":
                group["capturable"] = True
                self._rates.append((group, torch.tensor(float(group["lr"]), device=device)))
                _count_on_device(optimizer, group["params"])
        self._fixed: list[Any] = []
        self.follow()

    def follow(self) -> None:
        """Before each epoch: the rates of now; and where another number or tensor is fixed in them, no recordings."""
        for group, rate in self._rates:
            rate.fill_(group["lr"])
        fixed = list(self._fixed_now())
        if len(fixed) != len(self._fixed) or not all(map(_same, fixed, self._fixed)):
            self._fixed = fixed
            self._seen: Counter[torch.Size] = Counter()
            self._recordings: dict[torch.Size, tuple[list[Tensor], Callable[[], Tensor]]] = {}

    def __call__(self, *batch: Tensor) -> Tensor:
        """The step's tensor; of a replayed step, only until the next one is taken."""
        shape = batch[0].shape
        if shape not in self._recordings:
            self._seen[shape] += 1
            if self._seen[shape] <= _WARM_UP:
                return self._recorder.warm(partial(self._take, *batch))
            self._recordings[shape] = self._recording(batch)
        buffers, replay = self._recordings[shape]
        for buffer, given in zip(buffers, batch, strict=True):
            buffer.copy_(given)
        return replay()

    def _recording(self, batch: tuple[Tensor, ...]) -> tuple[list[Tensor], Callable[[], Tensor]]:
        buffers = [torch.empty_like(given) for given in batch]
        with self._rates_by_reference():
            return buffers, self._recorder.record(partial(self._take, *buffers))

    @contextmanager
    def _rates_by_reference(self) -> Iterator[None]:
        """A number would be fixed in a recording; for all but the recording it stays one, as schedulers expect."""
        plain = [group["lr"] for group, _ in self._rates]
        for group, rate in self._rates:
            group["lr"] = rate
        try:
            yield
        finally:
            for (group, _), number in zip(self._rates, plain, strict=True):
                group["lr"] = number

    def _fixed_now(self) -> Iterator[Any]:
        """What a recording of now holds for good: numbers by value, parameters by their place in memory."""
        for group in self._optimizer.param_groups:
            by_reference = {"lr"} if group.get("capturable") else set()
            yield from group["params"]
            yield from (value for name, value in group.items() if name not in {"params", *by_reference})


def _count_on_device(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> None:
    """Steps that a checkpoint had are counted on the CPU, where a graph cannot count on."""
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        if "step" in state:
            state["step"] = state["step"].to(parameter.device)


def _same(one: Any, other: Any) -> bool:
    return one is other if isinstance(one, Tensor) else bool(one == other)
