"""Files of weights that are wrong in every way: all are refused before a feature is computed, nothing is unpacked."""

import io
import zipfile

import pytest
import torch
from safetensors.torch import save
from torchvision.models import get_model

from likeness.errors import LikenessError
from likeness.features.backbone import Backbone

NETWORK = "shufflenet_v2_x0_5"


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def wrong(state) -> dict[str, bytes]:
    """By file name, each of another fault than the others."""
    first = next(name for name, value in state.items() if value.ndim == 4)
    nan, infinite = state[first].clone(), state[first].clone()
    nan[0, 0, 0, 0], infinite[0, 0, 0, 0] = float("nan"), float("inf")
    whole, tensors = saved(state), save(state)
    return {
        "cut in half.pth": whole[: len(whole) // 2],
        "without its end.pth": whole[:-50],
        "cut in half.safetensors": tensors[: len(tensors) // 2],
        "empty.pth": b"",
        "a page.pth": b"<!DOCTYPE html><title>404",
        "a page.safetensors": b"<!DOCTYPE html><title>404",
        "nan.pth": saved({**state, first: nan}),
        "infinite.safetensors": save({**state, first: infinite}),
        "of another network.pth": saved({"layer1.weight": torch.zeros(3)}),
        "of another shape.pth": saved({**state, first: torch.zeros(1, 1, 1, 1)}),
        "one is missing.pth": saved({name: value for name, value in state.items() if name != first}),
        "renamed.pth": saved({f"net.{name}": value for name, value in state.items()}),
        "a list.pth": saved([1, 2]),
        "slips out.zip": zipped("../../slipped", b"x"),
        "an archive.tar.gz": b"\x1f\x8b" + bytes(100),
    }


@pytest.mark.fault("F17", "F18", "F19", "F20", "F21")
def test_wrong_files_of_weights_are_refused(tmp_path, figure):
    torch.manual_seed(0)
    state = get_model(NETWORK).state_dict()
    made = wrong(state)
    refused = {}
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
        try:
            Backbone(NETWORK, weights=str(tmp_path / name))
        except LikenessError as error:
            refused[name] = error
    figure("G14", "wrong files of weights that are refused when they are loaded", len(made), len(refused))
    for name, error in refused.items():
        assert error.code.startswith("WEIGHTS-"), name
        assert str(tmp_path / name) in error.where
        assert all([error.what, error.kept, error.fix])
    assert not list(tmp_path.parent.rglob("slipped"))
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for good in (half, {"state_dict": {f"module.{name}": value for name, value in half.items()}}):
        (tmp_path / "good.pth").write_bytes(saved(good))
        Backbone(NETWORK, weights=str(tmp_path / "good.pth"))
