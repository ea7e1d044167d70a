"""An optimizer's step as one compiled pass over its parameters."""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from likeness.errors import LikenessError


def compiled(make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """As ``make``, with a step that is compiled when it is first taken: some ten seconds, then a fraction of the time.

    PyTorch's own step reads and writes all parameters, and all that is remembered of them, once for each operation.
    Rounding may differ in the last place. The learning rate becomes a tensor, so that a scheduler changes no code.
    """

    def made(parameters: Any) -> torch.optim.Optimizer:
        optimizer = make(parameters)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"])
        torch.compiler.reset()  # what was compiled for earlier jobs' optimizers counts towards a limit of eight
        take = torch.compile(partial(type(optimizer).step.__wrapped__, optimizer))  # type: ignore[attr-defined]

        def step(optimizer: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            try:
                take()
            except torch._dynamo.exc.TorchDynamoException as error:
                raise _not_compiled(error) from error
            return loss

        optimizer.register_state_dict_post_hook(_unmarked)
        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
        return optimizer

    return made


def _unmarked(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The compiler marks tensors, and a marked one would be saved as more than a tensor: no checkpoint holds such."""
    return tree_map_only(torch.Tensor, torch.Tensor.detach, state)


def _not_compiled(error: Exception) -> LikenessError:
    return LikenessError(
        "CONFIG",
        "the optimizer could not be compiled.",
        where="compile_optimizer=true",
        cause=str(error).strip().splitlines()[0],
        kept="All features.",
        fix="Install a C++ compiler (g++ or clang++) and Python's headers, or leave compile_optimizer=false.",
    )
