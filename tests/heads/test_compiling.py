"""A compiled step: the same numbers as PyTorch's own, up to rounding, whatever calls it and whatever sets its rate."""

import shutil
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from likeness.errors import LikenessError
from likeness.heads.compiling import compiled

OPTIMIZERS = {
    "Adadelta": partial(torch.optim.Adadelta, lr=1.0, rho=0.95, eps=1e-7),
    "AdamW": partial(torch.optim.AdamW, lr=0.001, eps=1e-4),
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}
compiles = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here")


def learned(make, steps=12, by_closure=False):
    """Weights after some steps at a rate that falls with each."""
    torch.manual_seed(0)
    model, rows = nn.Sequential(nn.Linear(12, 3), nn.ReLU(), nn.Linear(3, 12)), torch.randn(16, 12)
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(rows), rows)
        loss.backward()
        return loss

    for _ in range(steps):
        if by_closure:
            assert optimizer.step(closure) > 0
        else:
            closure()
            optimizer.step()
        scheduler.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@compiles
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns_what_the_plain_step_learns(name):
    make = OPTIMIZERS[name]
    plain = learned(make)
    assert not torch.allclose(plain, learned(make, steps=1), atol=1e-4), "the weights move"
    torch.testing.assert_close(learned(compiled(make)), plain, rtol=1e-5, atol=1e-6)
    assert torch.equal(learned(compiled(make), by_closure=True), learned(compiled(make)))


@compiles
def test_a_rate_that_falls_at_each_step_compiles_nothing_anew():
    graphs = counters["stats"]["unique_graphs"]
    learned(compiled(OPTIMIZERS["Adadelta"]))
    assert counters["stats"]["unique_graphs"] == graphs + 1


@compiles
def test_every_job_of_a_process_gets_a_compiled_step():
    graphs = counters["stats"]["unique_graphs"]
    for _ in range(12):
        learned(compiled(OPTIMIZERS["Adadelta"]), steps=1)
    assert counters["stats"]["unique_graphs"] == graphs + 12


def test_without_a_compiler_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    without = torch._inductor.config.patch({"cpp.cxx": ("/none/g++",), "fx_graph_cache": False})
    with without, pytest.raises(LikenessError) as caught:
        learned(compiled(OPTIMIZERS["SGD"]))
    error = caught.value
    assert (error.code, error.where, error.kept) == ("CONFIG", "compile_optimizer=true", "All features.")
    assert "InvalidCxxCompiler" in error.cause
    assert "C++ compiler" in error.fix
