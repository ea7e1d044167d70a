import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from features import foreign
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from likeness.errors import LikenessError
from likeness.features import caffe_file, convert, weights
from likeness.images.preprocessing import Preprocessing

WITHOUT_KERAS = pytest.mark.skipif(not (find_spec("keras") and find_spec("h5py")), reason="needs keras and h5py")
WITHOUT_H5PY = pytest.mark.skipif(not find_spec("h5py"), reason="needs h5py, the extra 'convert'")
AGREES, DIFFERS = 1e-4, 5e-4  # largest difference, in units of the features' root mean square

State = dict[str, torch.Tensor]


@pytest.fixture
def tmp_path(tmp_path):
    """Weight files are large: none stays behind."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    """What Keras wrote, 0.8 GB, and what it computed; all of it is removed after the last test."""
    folder = tmp_path_factory.mktemp("keras")
    script = str(Path(__file__).with_name("foreign.py"))
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder)}
    ran = subprocess.run([sys.executable, script, str(folder)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def vgg16(keras_files):
    return load_file(convert.convert(keras_files / "vgg16_weights.h5"))


@pytest.fixture(scope="module")
def resnet50(keras_files):
    return load_file(convert.convert(keras_files / "resnet50_notop.h5"))


def shown(keras_files: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(keras_files / "picture.npy")).permute(0, 3, 1, 2).contiguous()


def vgg16_features(state: State, pictures: torch.Tensor) -> dict[str, np.ndarray]:
    with torch.device("meta"):
        network = torchvision.models.vgg16(num_classes=365, init_weights=False).eval()
    network.load_state_dict(state, assign=True)
    with torch.inference_mode():
        flat = network.features(pictures).flatten(1)
        fc1 = network.classifier[:2](flat)
        fc2 = network.classifier[2:5](fc1)
    return {"flatten": flat.numpy(), "fc1": fc1.numpy(), "fc2": fc2.numpy()}


def resnet50_features(state: State, pictures: torch.Tensor, *, stride_first: bool = True) -> dict[str, np.ndarray]:
    """Mean and maximum of the last maps; ``stride_first`` makes torchvision's network Caffe's."""
    with torch.device("meta"):
        network = torchvision.models.resnet50().eval()
    for stage in (network.layer2, network.layer3, network.layer4) if stride_first else ():
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    network.fc = network.avgpool = torch.nn.Identity()
    network.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")}, assign=True)
    with torch.inference_mode():
        maps = network(pictures).reshape(-1, 2048, 49)
    return {"avg": maps.mean(2).numpy(), "max": maps.amax(2).numpy()}


def expected_vgg16(keras_files: Path) -> dict[str, np.ndarray]:
    values = dict(np.load(keras_files / "vgg16.npz"))
    flat = values["flatten"].reshape(7, 7, 512).transpose(2, 0, 1).reshape(1, -1)  # Keras: channels innermost
    return {**values, "flatten": flat}


def expected_resnet50(keras_files: Path, epsilon: str) -> dict[str, np.ndarray]:
    maps = np.load(keras_files / "resnet50.npz")[f"{epsilon}_conv5_block3_out"]
    return {"avg": maps.mean((1, 2)), "max": maps.max((1, 2))}


def difference(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(got[key] - expected[key]).max() / np.sqrt((expected[key] ** 2).mean())) for key in got)


@WITHOUT_KERAS
def test_vgg16_of_keras_computes_the_same_at_every_layer_of_the_thesis(keras_files, vgg16):
    got = vgg16_features(vgg16, shown(keras_files))
    assert set(got) == {"flatten", "fc1", "fc2"}
    assert difference(got, expected_vgg16(keras_files)) < AGREES
    assert {key: tuple(value.shape) for key, value in vgg16.items()} == {
        key: tuple(value.shape) for key, value in meta_state("vgg16", num_classes=365).items()
    }


@WITHOUT_KERAS
@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("features.2.weight", lambda kernel: kernel.transpose(2, 3)),
        ("features.2.weight", lambda kernel: kernel.transpose(0, 1)),
        ("features.0.weight", lambda kernel: kernel.flip(1)),
        ("classifier.0.weight", lambda kernel: kernel.unflatten(1, (512, 7, 7)).permute(0, 2, 3, 1).flatten(1)),
        ("classifier.3.weight", lambda kernel: kernel.T),
    ],
    ids=["height and width", "in and out", "blue and red", "order of flattening", "dense in and out"],
)
def test_vgg16_with_one_layout_wrong_would_be_noticed(keras_files, vgg16, key, wrong):
    got = vgg16_features({**vgg16, key: wrong(vgg16[key]).contiguous()}, shown(keras_files))
    assert difference(got, expected_vgg16(keras_files)) > 100 * AGREES


@WITHOUT_KERAS
def test_vgg16_without_its_top_is_the_same_convolutions(keras_files, vgg16):
    path = convert.convert(keras_files / "vgg16_places_notop.h5", keras_files / "other.safetensors")
    state = load_file(path)
    assert list(state) == sorted(key for key in vgg16 if key.startswith("features."))
    assert all(torch.equal(state[key], vgg16[key]) for key in state)
    assert means(path) == (104.006, 116.669, 122.679)  # its name says places


@WITHOUT_KERAS
@pytest.mark.parametrize(
    ("file", "epsilon", "top"),
    [
        ("resnet50.weights.h5", "own", True),  # Keras 3's own layout; nothing states the epsilon
        ("resnet50_model.h5", "old", True),  # the whole model, which states an epsilon of 1e-3
        ("resnet50_notop.h5", "old", False),  # old names at the root; Keras then had 1e-3
    ],
)
def test_resnet50_of_keras_computes_the_same(keras_files, file, epsilon, top):
    path = convert.convert(keras_files / file, keras_files / f"{file}.safetensors")
    state = load_file(path)
    got = resnet50_features(state, shown(keras_files))
    assert difference(got, expected_resnet50(keras_files, epsilon)) < AGREES
    other = "own" if epsilon == "old" else "old"
    assert difference(got, expected_resnet50(keras_files, other)) > DIFFERS
    assert set(state) == {key for key in meta_state("resnet50") if top or not key.startswith("fc.")}
    assert means(path) == (103.939, 116.779, 123.68)


@WITHOUT_KERAS
def test_resnet50_with_one_step_left_out_would_be_noticed(keras_files, resnet50):
    pictures, expected = shown(keras_files), expected_resnet50(keras_files, "old")
    assert difference(resnet50_features(resnet50, pictures), expected) < AGREES
    epsilon = {key: value - (1e-3 - 1e-5) if key.endswith("running_var") else value for key, value in resnet50.items()}
    bias = {**resnet50, "layer1.0.bn1.running_mean": resnet50["layer1.0.bn1.running_mean"] + bias_of(keras_files)}
    assert difference(resnet50_features(resnet50, pictures, stride_first=False), expected) > DIFFERS
    assert difference(resnet50_features(epsilon, pictures), expected) > DIFFERS
    assert difference(resnet50_features(bias, pictures), expected) > DIFFERS


def bias_of(keras_files: Path) -> torch.Tensor:
    import h5py

    with h5py.File(keras_files / "resnet50_notop.h5") as file:
        return torch.from_numpy(file["res2a_branch2a/res2a_branch2a_b:0"][()])


@WITHOUT_KERAS
def test_bias_and_epsilon_are_folded_exactly(keras_files):
    import h5py

    state = load_file(convert.convert(keras_files / "resnet50.weights.h5", keras_files / "exact.safetensors"))
    with h5py.File(keras_files / "resnet50.weights.h5") as file:
        by_name = {group["vars"].attrs["name"]: group["vars"] for group in file["layers"].values()}
        bias = by_name["conv1_conv"]["1"][()].astype(np.float64)
        gamma, beta, mean, variance = (by_name["conv1_bn"][str(place)][()].astype(np.float64) for place in range(4))
    assert np.array_equal(state["bn1.running_mean"], (mean - bias).astype(np.float32))
    assert np.array_equal(state["bn1.weight"], gamma.astype(np.float32))
    assert np.array_equal(state["bn1.bias"], beta.astype(np.float32))
    assert variance[:4].tolist() == [0, 0, 0, 0]
    assert state["bn1.running_var"][:4].tolist() == pytest.approx([1e-8] * 4, rel=1e-4)  # 1.001e-5 - 1e-5
    assert np.allclose(state["bn1.running_var"], variance + 1e-8, rtol=1e-6, atol=0)


def meta_state(network: str, **options) -> State:
    with torch.device("meta"):
        return torchvision.models.get_model(network, weights=None, **options).state_dict()


def random_state(network: str, part: str = "") -> dict[str, np.ndarray]:
    """Positive everywhere, as variances have to be; no norm's tensors are like another's."""
    rng = np.random.default_rng(3)
    return {
        key: rng.random(tuple(value.shape), dtype=np.float32) + 0.1
        for key, value in meta_state(network).items()
        if key.startswith(part) and not key.endswith("num_batches_tracked")
    }


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def means(path: Path) -> tuple[float, ...]:
    return tuple(Preprocessing(**json.loads(metadata(path)["preprocessing"])).mean)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("how", [{}, {"old": True}, {"doubles": True}], ids=["today", "2014", "doubles"])
def test_vgg16_of_caffe_is_what_it_was_made_from(tmp_path, how):
    state = random_state("vgg16", "features.")
    path = convert.convert(written(tmp_path / "net.caffemodel", foreign.caffe_vgg16(state, **how)))
    got = load_file(path)
    assert path == tmp_path / "net.safetensors"
    assert set(got) == set(state)
    assert all(np.array_equal(got[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("last", "classes", "mean"), [("fc8a", 365, (104.006, 116.669, 122.679)), ("fc8", 1000, (103.939, 116.779, 123.68))]
)
def test_the_number_of_classes_tells_the_preprocessing(tmp_path, monkeypatch, last, classes, mean):
    narrow = {key: tuple(min(size, 8) if "classifier" in key else size for size in value.shape)
              for key, value in meta_state("vgg16").items()}  # fmt: skip
    monkeypatch.setattr(convert, "_shapes", lambda network: narrow)
    rng = np.random.default_rng(0)
    state = {key: rng.random(shape, dtype=np.float32) for key, shape in narrow.items()}
    state |= {"classifier.6.weight": np.ones((classes, 8), "f4"), "classifier.6.bias": np.ones(classes, "f4")}
    content = foreign.caffe_vgg16(state, ("fc6", "fc7", last), old=True)
    path = convert.convert(written(tmp_path / "net.caffemodel", content))
    got = load_file(path)
    assert all(np.array_equal(got[key], state[key]) for key in state)  # Caffe flattens as PyTorch does
    assert Preprocessing(**json.loads(metadata(path)["preprocessing"])) == Preprocessing(
        size=224, resize="squash", channels="bgr", scale=1.0, mean=mean, std=(1.0, 1.0, 1.0), interpolation="bilinear"
    )
    few = {**state, "classifier.6.weight": np.ones((10, 8), "f4"), "classifier.6.bias": np.ones(10, "f4")}
    source = written(tmp_path / "few.caffemodel", foreign.caffe_vgg16(few))
    with pytest.raises(LikenessError, match=r"fc8 tells 10 classes apart.*known for 365 \(places365\) or 1000"):
        convert.convert(source)


@pytest.mark.parametrize("old", [False, True])
def test_resnet50_of_caffe_is_what_its_sums_stand_for(tmp_path, old):
    state = random_state("resnet50")
    content = foreign.caffe_resnet50(state, factor=999.98, old=old)
    path = convert.convert(written(tmp_path / "net.caffemodel", content))
    got = load_file(path)
    assert set(got) == set(meta_state("resnet50"))
    assert all(np.allclose(got[key], state[key], rtol=1e-6, atol=0) for key in state)
    assert metadata(path)["network"] == "resnet50_caffe"
    assert not np.allclose(got["bn1.running_mean"], state["bn1.running_mean"] * 999.98)


def test_caffe_says_its_own_epsilon_and_an_unused_norm_has_zeros(tmp_path):
    state = random_state("resnet50")
    norm = foreign.field(139, foreign.varint(3 << 3 | 5) + struct.pack("<f", 1e-3))
    content = foreign.caffe_resnet50(state, factor=0.0, more=norm)
    got = load_file(convert.convert(written(tmp_path / "net.caffemodel", content)))
    assert got["bn1.running_mean"].tolist() == [0.0] * 64
    assert got["bn1.running_var"].tolist() == pytest.approx([1e-3 - 1e-5] * 64)


def test_a_network_of_one_layer_byte_by_byte():
    shape = b"\x3a\x04\x0a\x02\x02\x01"  # field 7, 4 bytes: field 1, 2 bytes: 2 and 1
    numbers = b"\x2a\x08" + struct.pack("<2f", 0.5, -2.0)  # field 5, 8 bytes
    blob = b"\x3a\x10" + shape + numbers  # field 7, 16 bytes
    layer = b"\x0a\x02fc" + b"\x12\x03Any" + blob  # name, type
    message = b"\x0a\x03net" + b"\x28\x01" + b"\xa2\x06" + bytes([len(layer)]) + layer  # field 100
    (found,) = caffe_file.parsed(memoryview(message), Path(__file__))
    assert (found.name, found.arrays[0].shape, found.epsilon) == ("fc", (2, 1), 1e-5)
    assert found.arrays[0].read().tolist() == [[0.5], [-2.0]]


TINY = foreign.network(
    foreign.layer("conv1", [np.ones((2, 3, 1, 1)), np.ones(2)]), foreign.layer("fc", [np.ones((4, 2))], old=True)
)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.builds(bytes, st.lists(st.sampled_from(b"\x0a\x3a\x2a\xa2\x06\x01\x02\xff\x80"))))
def test_any_bytes_are_parsed_or_refused(content):
    parsed_or_refused(content)


@settings(deadline=None)
@given(st.integers(0, len(TINY) - 1), st.integers(0, 255), st.integers(0, 20))
def test_a_damaged_network_is_parsed_or_refused(place, byte, cut):
    parsed_or_refused(TINY[:place] + bytes([byte]) + TINY[place + 1 + cut :])


def parsed_or_refused(content: bytes) -> None:
    with suppress(LikenessError):
        layers = caffe_file.parsed(memoryview(content), Path(__file__))
        arrays = [array.read() for layer in layers for array in layer.arrays if 0 not in array.shape]
        assert sum(array.nbytes for array in arrays) <= len(content)


def test_a_network_cut_anywhere_within_a_layer_is_refused():
    whole = caffe_file.parsed(memoryview(TINY), Path(__file__))
    assert [layer.name for layer in whole] == ["conv1", "fc"]
    ends = {len(foreign.network()), len(TINY) - len(foreign.layer("fc", [np.ones((4, 2))], old=True)), 0}
    for end in range(len(TINY)):
        if end not in ends:
            with pytest.raises(LikenessError, match="could not be read as weights"):
                caffe_file.parsed(memoryview(TINY[:end]), Path(__file__))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"\xa2\x06" + foreign.varint(2**60) + b"abc", "a field of 1,152,921,504,606,846,976 bytes with 3 left"),
        (b"\xa2\x06\xff\xff", "ends within a number"),
        (b"\x0a" + b"\xff" * 11, "more than ten bytes"),
        (b"\xa0\x06\x05", "a number where a message should be"),
        (b"\x00\x00", "a field without a number"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01" * 100_001, "more than 100,000 fields"),
        (foreign.field(100, foreign.field(7, foreign.field(7, foreign.field(1, b"\x01" * 40)))), "more than 32 axes"),
        (foreign.field(100, foreign.field(7, foreign.field(5, b"12345678") * 2)), "in several pieces"),
        (
            foreign.field(100, foreign.field(7, foreign.field(7, foreign.field(1, foreign.varint(2**62)))
                                             + foreign.field(5, b"1234"))),
            r"shape \(4611686018427387904,\) with 1 numbers",
        ),
        (foreign.layer("a", [np.ones(1)]) * 2, "two layers with weights have the same name"),
        (foreign.network(foreign.layer("data", [])), "no layer with weights"),
        (b"PK\x03\x04 and so on", "a zip archive"),
        (b"<!DOCTYPE html><p>404", "HTML or XML: a failed download"),
        (b"", "empty file"),
        (b"\x89HDF\r\n\x1a\n and then nothing", "an HDF5 file"),
    ],
)  # fmt: skip
def test_what_is_no_weight_file_is_refused_by_what_it_looks_like(tmp_path, content, cause):
    if content.startswith(b"\x89HDF"):
        pytest.importorskip("h5py")
    source = written(tmp_path / "net.caffemodel", content)
    with pytest.raises(LikenessError, match="could not be read as weights of Keras or Caffe") as refused:
        convert.convert(source)
    assert refused.value.code == "WEIGHTS-FORMAT"
    assert re.search(cause, str(refused.value))
    assert os.listdir(tmp_path) == ["net.caffemodel"]


def keras_vgg16(**changes: list[tuple[int, ...]] | None) -> dict[str, list[tuple[int, ...]]]:
    """The shapes that Keras's VGG16 has without its top; a change to None takes a layer away."""
    convolutions = [value.shape for key, value in meta_state("vgg16").items() if value.ndim == 4]
    names = [f"block{block}_conv{place}" for block in range(1, 6) for place in range(1, 3 if block < 3 else 4)]
    shapes = {name: [(*kernel[2:], kernel[1], kernel[0]), (kernel[0],)]
              for name, kernel in zip(names, map(tuple, convolutions), strict=True)}  # fmt: skip
    return {name: arrays for name, arrays in {**shapes, **changes}.items() if arrays is not None}


def hollow(path: Path, layers: dict[str, list[tuple[int, ...]]], kind: str = "f4") -> Path:
    """A Keras file of zeros, which take no room; the long list of names is cut in two."""
    import h5py

    names = [name.encode() for name in layers]
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:4], names[4:]
        for name, shapes in layers.items():
            group.create_group(name).attrs["weight_names"] = [f"{name}/{place}" for place in range(len(shapes))]
            for place, shape in enumerate(shapes):
                group[name].create_dataset(f"{name}/{place}", shape, kind)
    return path


@WITHOUT_H5PY
@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"block2_conv1": None}, ["block2_conv1: missing"]),
        ({"block3_conv4": [(3, 3, 256, 256), (256,)]}, ["block3_conv4: unknown to vgg16"]),
        (
            {"block2_conv1": [(128, 64, 3, 3), (128,)]},
            ["block2_conv1: file 3×3×128×64 and 128, network 128×64×3×3 and"],
        ),
        ({"block2_conv1": [(3, 3, 64, 128)]}, ["file 128×64×3×3, network 128×64×3×3 and 128"]),
        ({"block5_conv3": [()]}, ["block5_conv3: file a number, network 512×512×3×3 and 512"]),
        ({"fc2": [(4096, 4096), (4096,)]}, ["fc1: missing"]),
        ({"predictions": [(4096, 365), (365,)]}, ["fc1: missing", "fc2: missing"]),
        ({"fc1": [(512, 4096), (4096,)]}, ["fc1: file 4096×512 and 4096, network 4096×25088 and 4096"]),
    ],
)
def test_a_file_of_another_network_is_refused_by_its_first_faults(tmp_path, changes, faults):
    source = hollow(tmp_path / "net.h5", keras_vgg16(**changes))
    with pytest.raises(LikenessError, match=f"does not fit vgg16: {len(faults)} of its layers disagree") as refused:
        convert.convert(source)
    assert refused.value.code == "WEIGHTS-SHAPE"
    assert all(fault in refused.value.where for fault in faults)
    assert "bytes, an HDF5 file" in refused.value.cause
    assert os.listdir(tmp_path) == ["net.h5"]


@WITHOUT_H5PY
def test_a_network_that_is_neither_is_named_by_its_layers(tmp_path):
    source = hollow(tmp_path / "net.h5", {f"dense_{place}": [(2, 2), (2,)] for place in range(7)})
    with pytest.raises(LikenessError, match="none of its layers is one of VGG16's or ResNet50's") as refused:
        convert.convert(source)
    assert "dense_4\n… and 2 more" in refused.value.where


@WITHOUT_H5PY
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, value):
    import h5py

    source = hollow(tmp_path / "net.h5", keras_vgg16(), "f8")
    with h5py.File(source, "a") as file:
        file["model_weights/block1_conv2/block1_conv2/1"][3] = value
    with pytest.raises(LikenessError, match="1 of 26 tensors are not finite in float32") as refused:
        convert.convert(source)
    assert refused.value.code == "WEIGHTS-NAN"
    assert "features.2.bias" in refused.value.where
    assert os.listdir(tmp_path) == ["net.h5"]


@pytest.mark.parametrize("name", ["", "nest.h5"])
def test_a_source_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(LikenessError, match="cannot be opened") as refused:
        convert.convert(tmp_path / name)
    assert refused.value.code == "WEIGHTS-MISSING"
    assert "there is no file" in refused.value.cause


def outside(place: str) -> object:
    import h5py

    return {
        "another file": lambda: h5py.ExternalLink("secret.h5", "x"),
        "a soft link": lambda: h5py.SoftLink("/model_weights/block1_conv1/block1_conv1/1"),
        "whole numbers": lambda: np.zeros(64, "i4"),
    }[place]()


@WITHOUT_H5PY
@pytest.mark.parametrize("place", ["another file", "a soft link", "whole numbers"])
def test_an_array_that_is_elsewhere_or_something_else_is_refused(tmp_path, place):
    import h5py

    source = hollow(tmp_path / "net.h5", keras_vgg16())
    with h5py.File(source, "a") as file:
        group = file["model_weights/block1_conv2/block1_conv2"]
        del group["1"]
        group["1"] = outside(place)
    with pytest.raises(LikenessError, match="could not be read as weights"):
        convert.convert(source)
    assert os.listdir(tmp_path) == ["net.h5"]


@WITHOUT_H5PY
def test_an_array_of_absurd_size_is_refused_before_it_is_read(tmp_path):
    source = hollow(tmp_path / "net.h5", keras_vgg16(block1_conv1=[(3, 3, 3, 2**50), (64,)]))
    with pytest.raises(LikenessError, match="does not fit vgg16") as refused:
        convert.convert(source)
    assert "1125899906842624×3×3×3" in refused.value.where


@WITHOUT_H5PY
def test_a_cut_hdf5_file_and_one_of_something_else_are_refused(tmp_path):
    import h5py

    whole = hollow(tmp_path / "net.h5", keras_vgg16()).read_bytes()
    for end in (9, 100, len(whole) // 2, len(whole) - 1):
        with pytest.raises(LikenessError, match="could not be read as weights") as refused:
            convert.convert(written(tmp_path / "cut.h5", whole[:end]))
        assert refused.value.code == "WEIGHTS-FORMAT"
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["table"] = np.zeros(3)
    with pytest.raises(LikenessError, match="could not be read as weights") as refused:
        convert.convert(tmp_path / "table.h5")
    assert "without layers of Keras's" in refused.value.cause


def test_without_h5py_the_refusal_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(LikenessError, match="h5py is not installed") as refused:
        convert.convert(written(tmp_path / "net.h5", b"\x89HDF\r\n\x1a\n"))
    assert (refused.value.code, refused.value.fix) == ("CONFIG-EXTRA", 'pip install "likeness[convert]"')


@pytest.fixture
def source(tmp_path):
    state = random_state("vgg16", "features.")
    return written(tmp_path / "vgg16_places.caffemodel", foreign.caffe_vgg16(state))


def test_the_file_says_what_it_is_and_where_it_came_from(source):
    path = convert.convert(source, source.parent / "deep" / "weights.safetensors")
    said = metadata(path)
    assert said.pop("preprocessing").startswith('{"size": 224, ')
    assert said == {
        "schema": "1",
        "network": "vgg16",
        "format": "caffemodel",
        "source": "vgg16_places.caffemodel",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "digest": weights.state_digest(weights.read_file(path)),
    }
    assert os.listdir(path.parent) == ["weights.safetensors"]


def test_a_target_that_is_there_is_kept(source, caplog):
    path = convert.convert(source)
    before = path.stat().st_mtime_ns
    with caplog.at_level("INFO"):
        assert convert.convert(source) == path
    assert "holds exactly this already" in caplog.text
    assert path.stat().st_mtime_ns == before
    state = load_file(path)
    save_file({**state, "features.0.bias": state["features.0.bias"] + 1}, path, metadata(path))
    content = path.read_bytes()
    for other in (content, b"something else"):
        path.write_bytes(other)
        with pytest.raises(LikenessError, match="is there already, with another content"):
            convert.convert(source)
        assert path.read_bytes() == other
    with pytest.raises(LikenessError, match=r"does not end in \.safetensors"):
        convert.convert(source, source.with_suffix(".pth"))


def test_a_file_that_reads_back_differently_never_appears(source, monkeypatch):
    def flip(path: Path, data: bytes) -> None:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(convert, "write_atomic", flip)
    with pytest.raises(LikenessError, match="was not on the disk as it was written") as refused:
        convert.convert(source)
    assert refused.value.code == "DISK"
    assert os.listdir(source.parent) == [source.name]
