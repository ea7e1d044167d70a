"""The layers of a Keras HDF5 file: weights alone or a whole model, as Keras 1, 2 and 3 write them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from likeness.errors import LikenessError
from likeness.features.foreign import Array, Layer, format_error

_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # height, width, in, out and in, out become PyTorch's order
_UNREADABLE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


@contextmanager
def opened(path: Path) -> Iterator[list[Layer]]:
    """The layers with weights; their arrays can be read as long as the file is open.

    Raises:
        LikenessError: CONFIG-EXTRA without h5py, WEIGHTS-FORMAT for what Keras did not write, or is damaged.
    """
    h5py = _h5py()
    with _explained(path):
        file = h5py.File(path, "r")
    with file:
        with _explained(path):
            layers = _layers(file, path)
        yield layers


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise LikenessError(
            "CONFIG-EXTRA",
            "a Keras file is to be converted, and h5py is not installed.",
            fix='pip install "likeness[convert]"',
        ) from error
    return h5py


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except LikenessError:
        raise
    except _UNREADABLE as error:
        raise format_error(path, f"{type(error).__name__}: {error}") from error


def _layers(file: Any, path: Path) -> list[Layer]:
    group = _linked(file, "model_weights") if "model_weights" in file else file
    if names := _names(group, "layer_names"):
        epsilons = _epsilons(file)
        layers = [_layer(name, _linked(group, name), epsilons, path) for name in names]
    elif "layers" in file:
        kept = (_linked(file, f"layers/{child}/vars") for child in _linked(file, "layers"))
        layers = [_numbered_layer(variables, path) for variables in kept if len(variables)]
    else:
        raise format_error(path, "an HDF5 file without layers of Keras's")
    return [layer for layer in layers if layer.arrays]


def _layer(name: str, group: Any, epsilons: dict[str, float], path: Path) -> Layer:
    """A layer of ``model.save("x.h5")`` and of all older files: its arrays' names, in order, are an attribute."""
    arrays = [_array(_linked(group, array), path) for array in _names(group, "weight_names")]
    return Layer(name, tuple(arrays), epsilons.get(name))


def _numbered_layer(variables: Any, path: Path) -> Layer:
    """A layer of Keras 3's ``x.weights.h5``: arrays called 0, 1, …, the layer's name an attribute."""
    if "name" not in variables.attrs:
        raise format_error(path, "its layers have no names; save the model with model.save('x.h5') instead")
    arrays = [_array(_linked(variables, str(place)), path) for place in range(len(variables))]
    return Layer(_text(variables.attrs["name"]), tuple(arrays))


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names, which Keras cuts into numbered attributes when it is long."""
    if attribute in group.attrs:
        return [_text(name) for name in np.ravel(group.attrs[attribute])]
    names: list[str] = []
    while (part := f"{attribute}{len(names)}") in group.attrs:
        names.append(part)
    return [_text(name) for part in names for name in np.ravel(group.attrs[part])]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _epsilons(file: Any) -> dict[str, float]:
    """Of each batch norm, where the file holds the whole model and not only its weights."""
    if "model_config" not in file.attrs:
        return {}
    configs = [layer["config"] for layer in json.loads(file.attrs["model_config"])["config"]["layers"]]
    return {config["name"]: float(config["epsilon"]) for config in configs if "epsilon" in config}


def _linked(group: Any, path: str) -> Any:
    """What lies under ``path``, reached by plain links only: others could point into any file."""
    for part in path.split("/"):
        if type(group.get(part, getlink=True)).__name__ != "HardLink":
            raise KeyError(f"{part!r} is not in {group.name}")
        group = group[part]
    return group


def _array(dataset: Any, path: Path) -> Array:
    if dataset.dtype.kind != "f" or dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} is not an array of floats within the file")
    axes = _AXES.get(dataset.ndim, tuple(range(dataset.ndim)))

    def read() -> np.ndarray:
        with _explained(path):
            return np.transpose(dataset[()], axes)

    return Array(tuple(dataset.shape[axis] for axis in axes), read)
