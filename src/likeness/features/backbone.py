"""A pretrained network, cut at a named layer and frozen: batches of pictures in, features out."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import Conv2dNormActivation

from likeness.errors import LikenessError
from likeness.features import weights as weight_files
from likeness.images.preprocessing import Preprocessing

Pooling = Literal["avg", "max", "flatten", "none"]
Precision = Literal["fp32", "bf16"]
_TIMM = "timm/"
_OF_CLASSES = 2  # tensors whose shape follows from the number of classes


class Backbone(nn.Module):
    """A frozen network whose output is the feature.

    Args:
        name: A torchvision model (``resnet50``), ``resnet50_caffe`` (the same with its strides where Caffe and Keras
            have them) or, with the timm extra, a timm model (``timm/resnet50.a1_in1k``).
        layer: The node to cut at (``layer4``, ``classifier.1``, ``flatten``); None takes the network's own output.
        pooling: ``avg`` or ``max`` over all positions of a spatial map ``[c, h, w]`` or over tokens ``[t, c]``;
            ``flatten`` to one row; ``none`` leaves the layer's shape.
        weights: ``default`` (the library's own, downloaded), a torchvision name such as ``IMAGENET1K_V1``,
            ``bundled`` (this package's own, where it has some for the network), ``places365`` (of vgg16) or ``keras``
            and ``keras-2.2`` (of resnet50_caffe), downloaded and converted once, ``random`` (seeded: the floor that any
            pretraining must beat), or a file.
        seed: Of ``weights=random``; no other weights depend on it.
        precision: What the network computes in. ``bf16`` is several times quicker where the processor has it, and gives
            other features: they are kept apart from those of ``fp32``. Features are float32 either way.
        state: The weights themselves, as ``state_of`` gives them; nothing is then read or downloaded.

    Raises:
        LikenessError: BACKBONE for an unknown network or layer; WEIGHTS-* and NET from loading.
    """

    def __init__(
        self,
        name: str,
        layer: str | None = None,
        pooling: Pooling = "none",
        weights: str = "default",
        seed: int = 0,
        precision: Precision = "fp32",
        state: weight_files.State | None = None,
    ) -> None:
        super().__init__()
        self.name, self.layer, self.pooling, self.seed, self.precision = name, layer, pooling, seed, precision
        self.network = _loaded(name, layer, weights, seed, state)
        self.eval().requires_grad_(False)
        self.weights_digest = weight_files.state_digest(self.network.state_dict())
        if isinstance(self.network, fx.GraphModule):
            self.network = folded(self.network)
        if precision == "bf16":
            _to_bf16(self.network)

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b ..."]:
        output = self.network(pictures.bfloat16() if self.precision == "bf16" else pictures)
        return pooled((output["feature"] if isinstance(output, dict) else output).float(), self.pooling)

    def policy(self) -> dict[str, Any]:
        """What decides the feature, for the extractor's fingerprint; it says nothing of fp32, nor did it ever."""
        policy = {"network": self.name, "layer": self.layer, "pooling": self.pooling, "weights": self.weights_digest}
        return policy if self.precision == "fp32" else {**policy, "precision": self.precision}

    def feature_shape(self, size: int) -> tuple[int, ...]:
        """The shape of one feature of a ``size`` × ``size`` picture, asked of the network."""
        device = next(self.parameters()).device
        with torch.inference_mode():
            return tuple(self(torch.zeros(1, 3, size, size, device=device)).shape[1:])


def pooled(maps: Float[Tensor, "b ..."], pooling: Pooling) -> Float[Tensor, "b ..."]:
    """One feature a picture from a layer's output; a row that is already flat stays as it is.

    >>> pooled(torch.arange(8.0).reshape(1, 2, 2, 2), "max").tolist()
    [[3.0, 7.0]]
    """
    if pooling == "none" or maps.ndim == 2:
        return maps
    if pooling == "flatten":
        return maps.flatten(1)
    positions = (1,) if maps.ndim == 3 else tuple(range(2, maps.ndim))
    return maps.mean(positions) if pooling == "avg" else maps.amax(positions)


def folded(network: fx.GraphModule) -> fx.GraphModule:
    """The network with each batch norm that alone follows a convolution put into that convolution's weights.

    In float64, so that a feature moves by no more than another order of sums moves it. Subclasses are left alone: they
    may do more than their names say. Made from the network's parts, which it must not be used beside.
    """
    called = [node for node in network.graph.nodes if node.op == "call_module"]
    calls = Counter(node.target for node in called)
    parts = {node: network.get_submodule(node.target) for node in called if calls[node.target] == 1}
    for norm, part in parts.items():
        conv = norm.args[0]
        if type(part) is nn.BatchNorm2d and type(parts.get(conv)) is nn.Conv2d and len(conv.users) == 1:
            network.set_submodule(conv.target, _fused(parts[conv], part))
            norm.replace_all_uses_with(conv)
            network.graph.erase_node(norm)
    for block in network.modules():
        if isinstance(block, Conv2dNormActivation) and isinstance(block[1], nn.BatchNorm2d):  # one node of the graph
            block[0], block[1] = _fused(block[0], block[1]), nn.Identity()
    return fx.GraphModule(network, network.graph)


def _fused(conv: Any, norm: Any) -> nn.Module:
    return fuse_conv_bn_eval(conv.double(), norm.double()).float().requires_grad_(False)


def _to_bf16(network: nn.Module) -> None:
    """Batch norms that stand alone keep float32: what they multiply by would lose five digits, for no time gained."""
    network.bfloat16()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()


def state_of(name: str, layer: str | None = None, weights: str = "default", seed: int = 0) -> weight_files.State:
    """The weights of a network up to the layer that it is cut at: read anew, for folding changes a backbone's own."""
    return dict(_loaded(name, layer, weights, seed).state_dict())


def own_preprocessing(name: str, weights: str = "default", size: int | None = None) -> Preprocessing:
    """What the weights were trained with: as a converted file says, else as the network's library or we record it.

    Args:
        weights: As of ``Backbone``; nothing is downloaded.
        size: Another side of the input than theirs; the part that a crop leaves out stays in proportion.
    """
    own = _published_preprocessing(name, weights)
    if size is None:
        return own
    short_side = None if own.short_side is None else round(own.short_side * size / own.size)
    return replace(own, size=size, short_side=short_side)


def _published_preprocessing(name: str, weights: str) -> Preprocessing:
    if weights in ("bundled", "random"):
        return Preprocessing(size=144, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    if card := weight_files.read_card(Path(weights).expanduser()):
        return card.preprocessing
    if name.startswith(_TIMM):
        return _timm_preprocessing(name.removeprefix(_TIMM))
    known = weight_files.foreign_names(name)
    if weights in known or (known and name in _OWN):
        return weight_files.foreign_preprocessing(name, weights if weights in known else known[0])
    recipe = _torchvision_weights(name, "DEFAULT").transforms()
    return Preprocessing(
        size=recipe.crop_size[0],
        resize="crop",
        short_side=recipe.resize_size[0],
        interpolation=recipe.interpolation.value,
        mean=list(recipe.mean),
        std=list(recipe.std),
    )


def _timm_preprocessing(name: str) -> Preprocessing:
    config = _timm().get_pretrained_cfg(name, allow_unregistered=False)
    size = config.input_size[-1]
    return Preprocessing(
        size=size,
        resize="crop",
        short_side=round(size / config.crop_pct),
        interpolation=config.interpolation if config.interpolation in ("bilinear", "bicubic") else "bicubic",
        mean=list(config.mean),
        std=list(config.std),
    )


def _loaded(
    name: str, layer: str | None, weights: str, seed: int, state: weight_files.State | None = None
) -> nn.Module:
    """The network, cut, with its weights."""
    drawn = weights == "random" and state is None
    network = _build(name, random_seed=seed if drawn else None)
    known = set(network.state_dict())
    network = _cut(network, name, layer)
    if not drawn:
        wanted = network.state_dict()
        fitting = (
            weight_files.check_fits(_read(name, weights), wanted, known, name, weights, partial(_recognised, name))
            if state is None
            else weight_files.check_fits(state, wanted, known, name, "its own weights")
        )
        network.load_state_dict(fitting, assign=True)
    return network


def _build(name: str, random_seed: int | None) -> nn.Module:
    """The uncut network: with seeded random weights, or without any (its tensors on the meta device)."""
    make = _timm_maker(name.removeprefix(_TIMM)) if name.startswith(_TIMM) else _torchvision_maker(name)
    if random_seed is None and not name.startswith(_TIMM):
        with suppress(NotImplementedError), torch.device("meta"):  # a RegNet computes its widths with tensors
            return make().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        return make().eval()


def _recognised(asked: str, state: weight_files.State) -> str | None:
    """The network of torchvision whose names and shapes these are, but for another number of classes."""
    shapes = _shapes(state)
    names = torchvision.models.list_models(module=torchvision.models)
    for name in sorted(names, key=lambda name: _family(name) != _family(asked)):
        with suppress(NotImplementedError), torch.device("meta"):
            own = _shapes(_torchvision_maker(name)().state_dict())
            if own.keys() == shapes.keys() and sum(own[key] != shapes[key] for key in own) <= _OF_CLASSES:
                return name
    return None


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _family(name: str) -> str:
    return name.partition("_")[0].rstrip("0123456789")


def _torchvision_maker(name: str) -> Callable[[], nn.Module]:
    if name in _OWN:
        return _OWN[name]
    models = [*torchvision.models.list_models(module=torchvision.models), *_OWN]
    if name not in models:
        close = get_close_matches(name, models, 3)
        raise LikenessError(
            "BACKBONE",
            f"torchvision has no model {name!r}.",
            where="backbone.name",
            fix=f"Did you mean {' or '.join(close)}?" if close else "See torchvision.models.list_models().",
        )
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return lambda: torchvision.models.get_model(name, weights=None, **options)


def _resnet50_caffe() -> nn.Module:
    """ResNet-50 as Caffe and Keras have it: a stage's stride on its first 1 × 1 convolution, not on the 3 × 3.

    Its first pooling is Keras'; Caffe's own starts one pixel further right and down.
    """
    network = torchvision.models.resnet50(weights=None)
    for stage in (network.layer2, network.layer3, network.layer4):
        block = stage[0]
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return network


_OWN: dict[str, Callable[[], nn.Module]] = {"resnet50_caffe": _resnet50_caffe}  # networks that torchvision has not


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise LikenessError(
            "CONFIG-EXTRA",
            "a timm backbone was asked for, and timm is not installed.",
            where="backbone.name",
            fix='pip install "likeness[timm]"',
        ) from error
    return timm.models


def _timm_maker(name: str) -> Callable[[], nn.Module]:
    models = _timm()
    if not models.is_model(name):
        close = get_close_matches(name, models.list_models(pretrained=True) + models.list_models(), 3)
        raise LikenessError(
            "BACKBONE",
            f"timm has no model {name!r}.",
            where="backbone.name",
            fix=f"Did you mean {' or '.join(_TIMM + match for match in close)}?"
            if close
            else "See timm.list_models().",
        )
    import timm

    return lambda: timm.create_model(name, pretrained=False, num_classes=0)


def _cut(network: nn.Module, name: str, layer: str | None) -> nn.Module:
    if layer is None:
        return network
    try:
        return create_feature_extractor(network, {layer: "feature"})
    except ValueError as error:
        nodes = get_graph_node_names(network)[1]
        if any(node == layer or node.startswith(f"{layer}.") for node in nodes):
            raise
        parts = {".".join(node.split(".")[:depth]) for node in nodes for depth in range(1, node.count(".") + 2)}
        close = get_close_matches(layer, sorted(parts), 3) or nodes[-3:]
        raise LikenessError(
            "BACKBONE",
            f"{name} has no layer {layer!r}.",
            where="backbone.layer",
            fix=f"Did you mean {' or '.join(close)}? Any of its {len(nodes)} nodes can be named.",
        ) from error


def _read(name: str, weights: str) -> weight_files.State:
    if weights == "bundled":
        return weight_files.read_bundled(name)
    if weights in weight_files.FOREIGN_NAMES:
        return weight_files.read_file(weight_files.fetch_foreign(name, weights), name)
    if weights == "default" and name.startswith(_TIMM):
        return _timm_state(name.removeprefix(_TIMM))
    if weights == "default" or re.fullmatch(r"[A-Z][A-Z0-9_]+", weights):
        return weight_files.read_file(weight_files.download(_torchvision_weights(name, weights.upper()).url))
    words = ("default", "bundled", "random", *sorted(weight_files.FOREIGN_NAMES))
    if (close := get_close_matches(weights, words, 1)) and not Path(weights).exists():
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"backbone.weights={weights} is neither a file nor one of {', '.join(words)}.",
            where=str(Path(weights).absolute()),
            fix=f"Did you mean {close[0]}?",
        )
    return weight_files.read_file(Path(weights).expanduser(), name)


def _torchvision_weights(name: str, which: str) -> Any:
    _torchvision_maker(name)
    known = {} if name in _OWN else torchvision.models.get_model_weights(name).__members__
    if which not in known:
        words = [*known, *weight_files.foreign_names(name), "'bundled'", "'random'"]
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"torchvision has no weights {which!r} for {name}.",
            where="backbone.weights",
            fix=f"One of {', '.join(words)}, or a file.",
        )
    return known[which]


def _timm_state(name: str) -> dict[str, Tensor]:
    """timm's own weights, through its own download (Hugging Face's hub, its cache and its digests)."""
    import timm

    weight_files.refuse_fetching(f"{_TIMM}{name}", "backbone.weights")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        raise LikenessError(
            "NET",
            f"the weights of {_TIMM}{name} could not be downloaded.",
            where="backbone.weights",
            cause=str(error).splitlines()[0],
            fix="Fetch them on a machine with a network and give the file with backbone.weights=FILE.",
        ) from error
