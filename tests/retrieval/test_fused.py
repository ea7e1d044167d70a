"""Which path is taken; and the kernels where there is no GPU, by Triton's interpreter and compiled for a Hopper."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from likeness.errors import LikenessError
from likeness.retrieval import filtering, neighbours

LOW = torch.zeros(1, 1, dtype=torch.bfloat16)

COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from likeness.retrieval import fused

tile = fused._LARGE
fixed = {"width": 512, "size": 32, "queries": tile.queries, "rows": tile.rows, "depth": fused._DEPTH}
fixed |= {"along": fused._ALONG, "agree_q": None, "agree_g": None}
kinds = {"query": "*bf16", "row": "*bf16", "greatest": "*fp32", "differ_q": "*i32", "differ_g": "*i32"}
kinds |= {"count_q": "i32", "count_g": "i32", "apart": "i32"}
names = fused._maxima.arg_names
signature = {name: "constexpr" if name in fixed else kinds.get(name, "*i64") for name in names}
aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
source = ASTSource(fused._maxima, signature, {(names.index(name),): value for name, value in fixed.items()}, aligned)
options = {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}
done = compile(source, GPUTarget("cuda", 90, 32), options)
convert = f"tensor<{tile.queries}x{tile.rows}xf32, #mma> -> "
print(done.metadata.shared, "wgmma.mma_async" in done.asm["ptx"], convert in done.asm["ttgir"])
"""


def alone(*words, **settings):
    """A process of its own: Triton reads its settings when it is imported."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests"))
    environ = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **settings}
    told = subprocess.run([sys.executable, *words], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_what_the_kernels_compute_by_tritons_interpreter():
    pytest.importorskip("triton")
    file = ROOT / "tests" / "retrieval" / "fused_by_interpreter.py"
    assert " passed" in alone(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", file, TRITON_INTERPRET="1", LIKENESS_FUSED="1"
    )


def test_a_hopper_gets_its_own_products_and_the_shared_memory_that_was_reckoned(tmp_path):
    """And the products stay in registers: they are not laid out anew for the maxima."""
    pytest.importorskip("triton")
    assert alone("-c", COMPILED, TRITON_CACHE_DIR=str(tmp_path)) == "147456 True False\n"


def test_the_kernel_is_off_unless_asked_for_and_for_no_cpu(monkeypatch):
    monkeypatch.delenv("LIKENESS_FUSED", raising=False)
    assert filtering.kernel_for(LOW) is None
    monkeypatch.setenv("LIKENESS_FUSED", "1")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert filtering.kernel_for(LOW) is None


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv("LIKENESS_FUSED", "yes")
    with pytest.raises(LikenessError, match="LIKENESS_FUSED=yes: it is 0 or 1") as refusal:
        filtering.kernel_for(LOW)
    assert refusal.value.exit_code == 78


def test_where_triton_is_missing_torch_is_taken_and_said_to_be(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "likeness.retrieval.fused", raising=False)
    with pytest.warns(UserWarning, match=r"LIKENESS_FUSED=1, and the kernel is no use on cuda:7: ModuleNotFoundError"):
        assert filtering._checked_kernel.__wrapped__(torch.device("cuda", 7)) is None


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "expected"),
    [(20, 0, 0, 10), (4, 10, 8, 3), (139, 0, 0, 32), (0, 1, 1, 0.25)],
)
def test_a_tile_on_a_gpu_is_half_of_what_is_free_and_within_bounds(monkeypatch, free, reserved, allocated, expected):
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * gib, 140 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved * gib)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated * gib)
    assert neighbours.tile_budget(torch.device("cuda")) == expected * gib


def test_a_tile_that_is_asked_for_is_taken_and_a_cpus_is_as_it_was():
    assert neighbours.tile_budget(torch.device("cuda"), 12345) == 12345
    assert neighbours.tile_budget(torch.device("cpu")) == 256 * 2**20


def test_a_larger_tile_has_more_queries_at_once():
    assert neighbours.queries_at_once(1000, 256 * 2**20) == 512
    assert neighbours.queries_at_once(100_000, 256 * 2**20) == 335  # 128 MiB of 4 bytes a pair
    assert neighbours.queries_at_once(1_000_000, 32 * 2**30) == 4294
    assert neighbours.queries_at_once(1000, 32 * 2**30) == 65_536
