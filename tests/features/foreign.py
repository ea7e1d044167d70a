"""Weight files as Keras and Caffe write them: the first by Keras itself, as a script; the second byte by byte.

``KERAS_BACKEND=torch python foreign.py OUT`` fills a folder with Keras's files and the features of one picture.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STAGES = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}


def varint(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values: np.ndarray, *, old: bool = False, doubles: bool = False) -> bytes:
    numbers = field(8, values.astype("<f8").tobytes()) if doubles else field(5, values.astype("<f4").tobytes())
    if old:
        sizes = (1,) * (4 - values.ndim) + values.shape
        return b"".join(varint(place << 3) + varint(size) for place, size in enumerate(sizes, 1)) + numbers
    return field(7, field(1, b"".join(varint(size) for size in values.shape))) + numbers


def layer(name: str, arrays: Iterable[np.ndarray], *, old: bool = False, more: bytes = b"", **how: Any) -> bytes:
    """A LayerParameter, or a V1LayerParameter when ``old``, as a field of the network."""
    blobs = b"".join(field(6 if old else 7, blob(array, old=old, **how)) for array in arrays)
    if old:
        return field(
            2, field(2, b"below") + field(3, b"above") + field(4, name.encode()) + varint(5 << 3) + varint(4) + blobs
        )
    return field(100, field(1, name.encode()) + field(2, b"Convolution") + field(3, b"below") + more + blobs)


def network(*layers: bytes) -> bytes:
    return field(1, b"a network") + b"".join(layers)


def caffe_vgg16(state: Mapping[str, np.ndarray], top: tuple[str, ...] = ("fc6", "fc7", "fc8"), **how: Any) -> bytes:
    """``state`` (torchvision's keys) as the file that Caffe would write."""
    names = [f"conv{block}_{place}" for block in range(1, 6) for place in range(1, 3 if block < 3 else 4)]
    kernels = [key for key in state if key.endswith(".weight")]
    pairs = zip([*names, *top], kernels, strict=False)
    return network(*(layer(name, [state[key], state[key[:-6] + "bias"]], **how) for name, key in pairs))


def caffe_resnet50(state: Mapping[str, np.ndarray], factor: float, more: bytes = b"", **how: Any) -> bytes:
    """As above. Caffe keeps sums: ``factor`` times mean and variance, and ``factor`` itself."""

    def part(suffix: str, convolution: str, norm: str) -> Iterable[bytes]:
        yield layer("conv1" if suffix == "_conv1" else f"res{suffix}", [state[f"{convolution}.weight"]], **how)
        sums = [state[f"{norm}.running_mean"] * factor, state[f"{norm}.running_var"] * factor, np.array([factor])]
        yield layer(f"bn{suffix}", sums, more=more, **how)
        yield layer(f"scale{suffix}", [state[f"{norm}.weight"], state[f"{norm}.bias"]], **how)

    layers = [*part("_conv1", "conv1", "bn1")]
    for stage, blocks in STAGES.items():
        for number, letter in enumerate(blocks):
            prefix = f"layer{stage - 1}.{number}"
            if number == 0:
                layers += part(f"{stage}a_branch1", f"{prefix}.downsample.0", f"{prefix}.downsample.1")
            for place, name in enumerate(("2a", "2b", "2c"), 1):
                layers += part(f"{stage}{letter}_branch{name}", f"{prefix}.conv{place}", f"{prefix}.bn{place}")
    return network(*layers, layer("fc1000", [state["fc.weight"], state["fc.bias"]], **how))


def old_name(name: str) -> str:
    """What Keras 2.2 called a layer of today's ResNet50.

    >>> old_name("conv4_block3_2_bn"), old_name("conv2_block1_0_conv"), old_name("conv1_bn")
    ('bn4c_branch2b', 'res2a_branch1', 'bn_conv1')
    """
    if name in (stem := {"conv1_conv": "conv1", "conv1_bn": "bn_conv1", "predictions": "fc1000"}):
        return stem[name]
    stage, block, place, kind = name.split("_")
    branch = ["1", "2a", "2b", "2c"][int(place)]
    return f"{'res' if kind == 'conv' else 'bn'}{stage[4:]}{'abcdef'[int(block[5:]) - 1]}_branch{branch}"


def save_old(path: Path, layers: Mapping[str, list[np.ndarray]]) -> None:
    """The layout of Keras 1 and 2's ``save_weights``: everything at the root, names as attributes."""
    import h5py

    kinds = {2: ["W", "b"], 4: ["gamma", "beta", "running_mean", "running_std"]}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers, "flatten")]
        for name in ("input_1", *layers, "flatten"):
            group, arrays = file.create_group(name), layers.get(name, [])
            names = [f"{name}_{kind}:0" for kind in kinds[len(arrays)]] if arrays else []
            group.attrs["weight_names"] = [array.encode() for array in names]
            for key, array in zip(names, arrays, strict=True):
                group.create_dataset(key, data=array)


def randomise(model: Any, seed: int) -> None:
    """Biases and statistics too: as Keras makes them, 0 and 1, they would hide what is left out."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        count = len(layer.weights)
        if count == 2:
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
        if count == 4:
            gamma, variance = rng.uniform(0.5, 1.5, (2, *layer.gamma.shape))
            if layer.name == "conv1_bn":
                gamma[:4], variance[:4] = 0.003, 0
            layer.set_weights([gamma, *rng.normal(0, 0.1, (2, len(gamma))), variance])


def weights_of(model: Any, rename: Any = str) -> dict[str, list[np.ndarray]]:
    return {rename(layer.name): layer.get_weights() for layer in model.layers if layer.weights}


def outputs(model: Any, names: list[str], picture: np.ndarray) -> dict[str, np.ndarray]:
    import keras

    cut = keras.Model(model.input, [model.get_layer(name).output for name in names])
    values = cut(picture, training=False)
    return {name: value.detach().numpy() for name, value in zip(names, values, strict=True)}


def save_vgg16(out: Path, picture: np.ndarray) -> None:
    import keras

    model = keras.applications.VGG16(weights=None, classes=365)
    randomise(model, 1)
    save_old(out / "vgg16_weights.h5", weights_of(model))
    keras.Model(model.input, model.get_layer("block5_pool").output).save(out / "vgg16_places_notop.h5")
    np.savez(out / "vgg16.npz", **outputs(model, ["flatten", "fc1", "fc2"], picture))


def save_resnet50(out: Path, picture: np.ndarray) -> None:
    import keras

    model = keras.applications.ResNet50(weights=None)
    randomise(model, 2)
    model.save_weights(out / "resnet50.weights.h5")
    features = {"own": outputs(model, ["conv5_block3_out", "avg_pool"], picture)}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-3
    features["old"] = outputs(model, ["conv5_block3_out", "avg_pool"], picture)
    model.save(out / "resnet50_model.h5")
    old = weights_of(model, old_name)
    save_old(out / "resnet50_notop.h5", {name: arrays for name, arrays in old.items() if name != "fc1000"})
    np.savez(
        out / "resnet50.npz",
        **{f"{kind}_{name}": value for kind, own in features.items() for name, value in own.items()},
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shown = np.random.default_rng(0).uniform(-120, 130, (1, 224, 224, 3)).astype(np.float32)
    np.save(folder / "picture.npy", shown)
    save_vgg16(folder, shown)
    save_resnet50(folder, shown)
