"""Weights of Keras and Caffe as a verified ``.safetensors`` of the torchvision network that computes the same."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from likeness.errors import LikenessError, listed
from likeness.features import caffe_file, keras_file
from likeness.features.foreign import Layer, format_error, looks_like
from likeness.features.weights import State, state_digest
from likeness.files import explained, write_atomic

log = logging.getLogger(__name__)

_SCHEMA = "1"
_SUFFIX = ".safetensors"
_KERAS, _CAFFE = "keras-h5", "caffemodel"
_OPENED: dict[str, Callable[[Path], AbstractContextManager[list[Layer]]]] = {
    _KERAS: keras_file.opened,
    _CAFFE: caffe_file.opened,
}
_TORCH_EPSILON = 1e-5  # of torchvision's batch norms
_MEANS = {"places365": [104.006, 116.669, 122.679], "imagenet": [103.939, 116.779, 123.68]}  # blue, green, red
_DATASETS = {365: "places365", 1000: "imagenet"}  # by the number of classes
_LAST_MAP = (7, 7, 512)  # of VGG16, as Keras flattens it

Held = Mapping[str, Layer]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Naming:
    """What files of one kind call the layers of a torchvision network.

    Args:
        network: ``vgg16``, or ``resnet50_caffe``: resnet50 with a stage's stride on its first 1 × 1 convolution.
        plain: torchvision's module of weight and bias, and the layer's names, of which a file has one.
        normed: torchvision's convolution and batch norm, and the layers: convolution, norm and, in Caffe, scale.
        top: The modules behind the maps, first to last; a file may end before any of them.
        epsilon: Of the batch norms, where the file does not state it.
    """

    network: str
    format: str
    plain: Mapping[str, tuple[str, ...]]
    normed: Mapping[tuple[str, str], tuple[str, ...]]
    top: tuple[str, ...]
    epsilon: float = _TORCH_EPSILON

    def names(self) -> set[str]:
        return {name for names in (*self.plain.values(), *self.normed.values()) for name in names}


def convert(source: Path, target: Path | None = None) -> Path:
    """Write ``source``, a Keras ``.h5`` or Caffe ``.caffemodel`` of VGG16 or ResNet50, in torchvision's layout.

    The metadata of the file say what it was made from and which preprocessing its network was trained with.

    Args:
        target: A ``.safetensors``; beside ``source`` and called like it when left out. One that is there and holds
            exactly this is left alone; with any other content it is never overwritten.

    Raises:
        LikenessError: WEIGHTS-MISSING, WEIGHTS-FORMAT, WEIGHTS-SHAPE and WEIGHTS-NAN for what is wrong with
            ``source``, CONFIG-EXTRA without h5py, CONFIG and WEIGHTS-HASH for ``target``, DISK and STORE-PERM.
            Nothing is written then.
    """
    target = source.with_suffix(_SUFFIX) if target is None else target
    if target.suffix != _SUFFIX:
        raise LikenessError(
            "CONFIG", f"--out {target} does not end in {_SUFFIX}.", where="--out", fix=f"End it in {_SUFFIX}."
        )
    kind = _format(source)
    with _OPENED[kind](source) as layers:
        held = {layer.name: layer for layer in layers}
        naming = _naming(held, kind, source)
        chosen = _chosen(naming, held)
        _refuse_misfits(naming, chosen, held, source)
        dataset = _dataset(naming, chosen, held, source)
        state = _state(naming, chosen, held)
    _refuse_non_finite(state, source)
    metadata = _metadata(naming, dataset, state, source)
    if _holds_already(target, metadata):
        log.info("%s holds exactly this already; nothing was written", target)
    else:
        _write(target, state, metadata)
    return target


def _format(source: Path) -> str:
    try:
        if not source.is_file():  # a pipe would be waited for
            raise FileNotFoundError(f"there is no file {source}")
        with open(source, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"{source.name} cannot be opened.",
            where=str(source.absolute()),
            cause=str(error),
            fix="Correct the path, or ask for the right to read it.",
        ) from error
    if not start:
        raise format_error(source, "there is nothing in it")
    return _KERAS if start.startswith(b"\x89HDF") else _CAFFE


@cache
def _namings() -> tuple[Naming, ...]:
    return (
        _vgg16(_KERAS, "block{}_conv{}", (("fc1",), ("fc2",), ("predictions",))),
        _vgg16(_CAFFE, "conv{}_{}", (("fc6",), ("fc7",), ("fc8", "fc8a"))),
        _resnet50(_KERAS, ("conv1_conv", "conv1_bn"), _keras_block, ("predictions", "probs"), 1.001e-5),
        # Keras up to 2.2 had no epsilon of its own in this network: the layer's default was in force.
        _resnet50(_KERAS, ("conv1", "bn_conv1"), _branch, ("fc1000", "fc365"), 1e-3),
        _resnet50(_CAFFE, ("conv1", "bn_conv1", "scale_conv1"), _scaled_branch, ("fc1000", "fc365"), 1e-5),
    )


def _vgg16(kind: str, convolution: str, top: tuple[tuple[str, ...], ...]) -> Naming:
    sizes = enumerate((2, 2, 3, 3, 3), 1)
    names = [(convolution.format(block, place),) for block, size in sizes for place in range(1, size + 1)]
    modules = [key.removesuffix(".weight") for key in _shapes("vgg16") if key.endswith(".weight")]
    return Naming("vgg16", kind, dict(zip(modules, (*names, *top), strict=True)), {}, tuple(modules[-3:]))


def _resnet50(
    kind: str,
    stem: tuple[str, ...],
    names: Callable[[int, int, int], tuple[str, ...]],
    top: tuple[str, ...],
    epsilon: float,
) -> Naming:
    """``names`` of a convolution's layers by stage (2 to 5), block (from 0) and place (0: the shortcut, 1 to 3)."""
    normed = {("conv1", "bn1"): stem}
    for stage, size in enumerate((3, 4, 6, 3), 1):
        normed[f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1"] = names(stage + 1, 0, 0)
        for block in range(size):
            prefix = f"layer{stage}.{block}"
            for place in (1, 2, 3):
                normed[f"{prefix}.conv{place}", f"{prefix}.bn{place}"] = names(stage + 1, block, place)
    return Naming("resnet50_caffe", kind, {"fc": top}, normed, ("fc",), epsilon)


def _keras_block(stage: int, block: int, place: int) -> tuple[str, ...]:
    prefix = f"conv{stage}_block{block + 1}_{place}"
    return f"{prefix}_conv", f"{prefix}_bn"


def _branch(stage: int, block: int, place: int) -> tuple[str, ...]:
    return _scaled_branch(stage, block, place)[:2]


def _scaled_branch(stage: int, block: int, place: int) -> tuple[str, ...]:
    """
    >>> _scaled_branch(2, 0, 1)
    ('res2a_branch2a', 'bn2a_branch2a', 'scale2a_branch2a')
    """
    branch = f"{stage}{'abcdef'[block]}_branch{('1', '2a', '2b', '2c')[place]}"
    return f"res{branch}", f"bn{branch}", f"scale{branch}"


@cache
def _shapes(network: str) -> dict[str, Shape]:
    """The shape of every tensor of a network, in the network's order; moving a stride changes none."""
    with torch.device("meta"):
        state = torchvision.models.get_model(network.removesuffix("_caffe"), weights=None).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def _naming(held: Held, kind: str, source: Path) -> Naming:
    """The naming that most of the file's layers follow."""
    if not held:
        raise format_error(source, "there is no layer with weights in it")
    best = max(
        (naming for naming in _namings() if naming.format == kind), key=lambda naming: len(naming.names() & set(held))
    )
    if not best.names() & set(held):
        raise _misfit(
            "none of its layers is one of VGG16's or ResNet50's", [*held], source, "Give one of these two networks."
        )
    return best


def _chosen(naming: Naming, held: Held) -> dict[str, str]:
    """The layer of each module of weight and bias, without those of the top that the file ends before."""
    names = {module: next((name for name in names if name in held), names[0]) for module, names in naming.plain.items()}
    for module in reversed(naming.top):
        if names[module] in held:
            break
        del names[module]
    return names


def _refuse_misfits(naming: Naming, chosen: Mapping[str, str], held: Held, source: Path) -> None:
    wanted = _wanted(naming, chosen, held)
    faults = [f"{name}: missing" for name in wanted if name not in held]
    faults += [f"{name}: unknown to {naming.network}" for name in held if name not in wanted]
    found = {name: [array.shape for array in layer.arrays] for name, layer in held.items()}
    faults += [
        f"{name}: file {_words(found[name])}, network {_words(shapes)}"
        for name, shapes in wanted.items()
        if name in held and found[name] != shapes
    ]
    if faults:
        raise _misfit(
            f"the file does not fit {naming.network}: {len(faults)} of its layers disagree (axes as PyTorch has them)",
            faults,
            source,
            "Give VGG16 or ResNet50 as Keras or Caffe publish them.",
        )


def _wanted(naming: Naming, chosen: Mapping[str, str], held: Held) -> dict[str, list[Shape]]:
    """The shapes of every layer's arrays. A convolution before a norm may have a bias; the last layer any width."""
    shapes = _shapes(naming.network)
    wanted = {name: [shapes[f"{module}.weight"], shapes[f"{module}.bias"]] for module, name in chosen.items()}
    if (last := chosen.get(naming.top[-1])) is not None:
        width = _width(held[last])
        wanted[last] = [(width, *wanted[last][0][1:]), (width,)]
    for (convolution, norm), (name, *rest) in naming.normed.items():
        channels = shapes[f"{norm}.weight"]
        both = [shapes[f"{convolution}.weight"], channels]
        wanted[name] = both[: max(1, len(held[name].arrays))] if name in held else both
        counts = [[channels] * 4] if len(rest) == 1 else [[channels, channels, (1,)], [channels, channels]]
        wanted |= dict(zip(rest, counts, strict=True))
    return wanted


def _width(layer: Layer) -> int:
    return (*layer.arrays[0].shape, 0)[0]


def _words(shapes: list[Shape]) -> str:
    return " and ".join("×".join(str(size) for size in shape) or "a number" for shape in shapes)


def _misfit(what: str, faults: list[str], source: Path, fix: str) -> LikenessError:
    return LikenessError(
        "WEIGHTS-SHAPE",
        f"{what}.",
        where=f"{source.absolute()}\n{listed(faults, 5)}",
        cause=looks_like(source),
        kept="Nothing was written.",
        fix=fix,
    )


def _dataset(naming: Naming, chosen: Mapping[str, str], held: Held, source: Path) -> str:
    """Whose pictures the network was trained on: the number of classes tells, and without them the file's name."""
    if (last := chosen.get(naming.top[-1])) is None:
        dataset = "places365" if "places" in source.name.lower() else "imagenet"
        log.info("%s has no classes; by its name it was trained on %s, whose means are written", source.name, dataset)
        return dataset
    if (classes := _width(held[last])) not in _DATASETS:
        known = " or ".join(f"{count} ({dataset})" for count, dataset in _DATASETS.items())
        raise _misfit(
            f"{last} tells {classes:,} classes apart, and the preprocessing is known for {known}",
            [f"{last}: {_words([array.shape for array in held[last].arrays])}"],
            source,
            f"Save the network without {last}: the preprocessing is then taken from the file's name.",
        )
    return _DATASETS[classes]


def _state(naming: Naming, chosen: Mapping[str, str], held: Held) -> State:
    state = {}
    for module, name in chosen.items():
        weight, bias = (array.read() for array in held[name].arrays)
        flattened = naming.format == _KERAS and module == "classifier.0"
        state[f"{module}.weight"] = _from_channels_last(weight) if flattened else _tensor(weight)
        state[f"{module}.bias"] = _tensor(bias)
    for (convolution, norm), names in naming.normed.items():
        weight, tensors = _folded([held[name] for name in names], naming.epsilon)
        state[f"{convolution}.weight"] = _tensor(weight)
        state |= {f"{norm}.{key}": _tensor(value) for key, value in tensors.items()}
        state[f"{norm}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return state


def _from_channels_last(weight: np.ndarray) -> Tensor:
    """Keras flattens a map row by row with its channels innermost, torchvision channel by channel."""
    return _tensor(weight.reshape(-1, *_LAST_MAP).transpose(0, 3, 1, 2)).flatten(1)


def _folded(layers: list[Layer], epsilon: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The kernel, and a batch norm that has the convolution's bias and the foreign epsilon in its statistics.

    (x + bias − mean) / √(variance + epsilon) = (x − (mean − bias)) / √((variance + epsilon − 1e-5) + 1e-5)
    """
    convolution, norm, *scale = layers
    weight, *bias = (array.read() for array in convolution.arrays)
    arrays = [array.read().astype(np.float64) for layer in (norm, *scale) for array in layer.arrays]
    if scale:
        mean, variance, factor, gamma, beta = arrays
        share = 1 / factor if factor.any() else factor  # as Caffe does: sums of nothing are zeros
        mean, variance = mean * share, variance * share
    else:
        gamma, beta, mean, variance = arrays
    own = epsilon if norm.epsilon is None else norm.epsilon
    mean = mean - bias[0].astype(np.float64) if bias else mean
    statistics = {"running_mean": mean, "running_var": variance + (own - _TORCH_EPSILON)}
    return weight, {"weight": gamma, "bias": beta, **statistics}


def _tensor(values: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused with all that is not finite
        return torch.from_numpy(np.array(values, dtype=np.float32, order="C"))


def _refuse_non_finite(state: State, source: Path) -> None:
    bad = [key for key, value in state.items() if not value.isfinite().all()]
    if bad:
        raise LikenessError(
            "WEIGHTS-NAN",
            f"{len(bad)} of {len(state)} tensors are not finite in float32.",
            where=f"{source.absolute()}\n{listed(bad, 3)}",
            cause=looks_like(source),
            kept="Nothing was written.",
            fix="Get the file again, or take another one.",
        )


def _metadata(naming: Naming, dataset: str, state: State, source: Path) -> dict[str, str]:
    preprocessing = {
        "size": 224,
        "resize": "squash",
        "interpolation": "bilinear",
        "channels": "bgr",
        "scale": 1.0,
        "mean": _MEANS[dataset],
        "std": [1.0, 1.0, 1.0],
    }
    with open(source, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "schema": _SCHEMA,
        "network": naming.network,
        "format": naming.format,
        "source": source.name,
        "source_sha256": sha256,
        "digest": state_digest(state),
        "preprocessing": json.dumps(preprocessing),
    }


def _holds_already(target: Path, metadata: Mapping[str, str]) -> bool:
    """Whether ``target`` is there and is this conversion; refuses when it is there and is not."""
    if not target.exists():
        return False
    try:
        same = _read_back(target) == metadata
    except (SafetensorError, OSError):
        same = False
    if not same:
        raise LikenessError(
            "WEIGHTS-HASH",
            f"{target.name} is there already, with another content.",
            where=str(target.absolute()),
            kept="The file is as it was; nothing was written.",
            fix="Give another name with --out, or remove the file if nothing needs it.",
        )
    return True


def _read_back(path: Path) -> dict[str, str]:
    """A file's metadata with the digest of the tensors that it holds in truth."""
    with safe_open(path, framework="pt") as file:
        stated = file.metadata() or {}
    return {**stated, "digest": state_digest(load_file(path))}


def _write(target: Path, state: State, metadata: dict[str, str]) -> None:
    """Under its name the file appears only after it was read back and found to be what it should be."""
    unverified = target.with_name(f"{target.name}.{os.getpid()}.part")
    write_atomic(unverified, save(state, metadata))
    try:
        if _read_back(unverified) != metadata:
            raise LikenessError(
                "DISK",
                f"{target.name} was not on the disk as it was written.",
                where=str(target.absolute()),
                kept="The source is as it was; the damaged file was removed.",
                fix="Check the disk, or choose another folder with --out.",
            )
        with explained(target):
            os.replace(unverified, target)
    finally:
        unverified.unlink(missing_ok=True)
