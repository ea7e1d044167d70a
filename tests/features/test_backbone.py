import copy
import importlib.util
import json

import pytest
import torch
from helpers import ROOT
from omegaconf import OmegaConf
from safetensors.torch import save_file

from likeness.assembly.building import build
from likeness.errors import LikenessError
from likeness.features import backbone as backbones
from likeness.features.backbone import Backbone, own_preprocessing, pooled
from likeness.features.weights import state_digest

CUTS = [
    ("shufflenet_v2_x0_5", "conv5", "avg", (1024,)),
    ("squeezenet1_1", "features", "avg", (512,)),
    ("squeezenet1_1", "features", "none", (512, 3, 3)),
    ("resnet18", "layer4", "max", (512,)),
    ("resnet18", "layer2.1.add", "avg", (128,)),
    ("resnet18", None, "none", (1000,)),
]


@pytest.mark.parametrize(("name", "layer", "pooling", "shape"), CUTS)
def test_the_width_is_asked_of_the_network(name, layer, pooling, shape):
    assert Backbone(name, layer, pooling, weights="random").feature_shape(64) == shape


def test_pooling_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert pooled(maps, "avg").tolist() == [[3.0, 1.0]]
    assert pooled(maps, "max").tolist() == [[6.0, 4.0]]
    assert pooled(maps, "flatten").tolist() == [[1, 2, 3, 6, 0, 0, 0, 4]]
    assert pooled(maps, "none") is maps
    tokens = torch.tensor([[[1.0, 5.0], [3.0, 1.0]]])
    assert pooled(tokens, "avg").tolist() == [[2.0, 3.0]]
    assert pooled(tokens[:, 0], "avg").tolist() == [[1.0, 5.0]]


def test_the_cut_gives_what_the_whole_network_computes_there():
    """The bundled network against its own uncut forward pass with an identity in place of ``fc``."""
    import torchvision

    from likeness.features.weights import read_bundled

    whole = torchvision.models.shufflenet_v2_x0_5()
    whole.fc = torch.nn.Identity()
    whole.load_state_dict({key: value.float() for key, value in read_bundled("shufflenet_v2_x0_5").items()})
    pictures = torch.randn(2, 3, 144, 144, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = whole.eval()(pictures)
        got = Backbone("shufflenet_v2_x0_5", "conv5", "avg", "bundled")(pictures)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert float(expected.std()) > 0.1


FOLDED = [  # batch norms in all, and how many stand alone after
    ("shufflenet_v2_x0_5", "conv5", 56, 0),
    ("resnet18", "layer4", 20, 0),
    ("resnet18", "layer1.0.conv1", 1, 0),
    ("densenet121", "features.denseblock1", 13, 6),
    ("mobilenet_v3_small", "features", 34, 0),
]


@pytest.mark.parametrize(("name", "layer", "before", "after"), FOLDED)
def test_folding_moves_a_feature_no_more_than_another_order_of_sums(name, layer, before, after, monkeypatch):
    """Against the same cut network before folding, in float64; batch norms are drawn, for a fresh one does nothing."""
    cut = backbones._cut

    def with_drawn_norms(*given):
        network, generator = cut(*given), torch.Generator().manual_seed(0)
        for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            for values, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -1, 1), (norm.running_mean, -1, 1)):
                values.data.uniform_(low, high, generator=generator)
            norm.running_var.uniform_(0.2, 2, generator=generator)
        kept.append(copy.deepcopy(network).eval())
        return network

    kept: list[torch.nn.Module] = []
    monkeypatch.setattr(backbones, "_cut", with_drawn_norms)
    folded = Backbone(name, layer, "avg", "random")
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = pooled(kept[0](pictures)["feature"], "avg")
        exact = pooled(kept[0].double()(pictures.double())["feature"], "avg")
        got = folded(pictures)
    scale = exact.square().mean().sqrt()
    assert [norms(kept[0]), norms(folded)] == [before, after]
    assert (got - exact).abs().max() < 1e-5 * scale
    assert (got - plain).abs().max() < 1e-5 * scale
    assert folded.weights_digest == state_digest(kept[0].float().state_dict())


def norms(network: torch.nn.Module) -> int:
    return sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


class _Branching(torch.nn.Module):
    """Batch norms that no convolution can take in: its output is used twice, it is called twice, they are others'."""

    def __init__(self) -> None:
        super().__init__()
        self.twice_used, self.twice_called, self.own = (torch.nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(3) for _ in range(3))
        self.other = _Clipping(3)

    def forward(self, pictures):
        used = self.twice_used(pictures)
        called = self.norms[1](self.twice_called(self.twice_called(pictures)))
        return self.norms[0](used) + used + called + self.norms[2](pictures) + self.other(self.own(pictures))


class _Clipping(torch.nn.BatchNorm2d):
    def forward(self, maps):
        return super().forward(maps).clamp(min=0)


def test_a_batch_norm_that_is_not_one_convolutions_alone_is_left(monkeypatch):
    network = _Branching().eval()
    for norm in [*network.norms, network.other]:
        norm.running_mean.fill_(0.5)
    tracer = torch.fx.Tracer()
    monkeypatch.setattr(tracer, "is_leaf_module", lambda module, name: not list(module.children()))
    cut = torch.fx.GraphModule(network, tracer.trace(network))
    pictures = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = network(pictures)
    folded = backbones.folded(cut)
    assert norms(folded) == 4
    torch.testing.assert_close(folded(pictures), expected)


def test_bf16_is_near_fp32_and_its_features_are_float32():
    """Of the bundled network on noise; batch norms that stand alone keep their float32."""
    pictures = torch.randn(4, 3, 144, 144, generator=torch.Generator().manual_seed(0))
    both = [Backbone("shufflenet_v2_x0_5", "conv5", "avg", "bundled", precision=name) for name in ("fp32", "bf16")]
    with torch.inference_mode():
        exact, rounded = (backbone(pictures) for backbone in both)
    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact, rounded).min() > 0.99
    assert not torch.equal(exact, rounded)
    assert "precision" not in both[0].policy()
    assert both[1].policy() == {**both[0].policy(), "precision": "bf16"}
    dense = Backbone("densenet121", "features.denseblock1", "avg", "random", precision="bf16")
    kinds = {(type(module).__name__, value.dtype) for module in dense.modules() for value in module.parameters(False)}
    assert kinds == {("Conv2d", torch.bfloat16), ("BatchNorm2d", torch.float32)}
    assert dense.feature_shape(64) == (256,)


def test_random_weights_follow_from_their_seed_alone():
    before = torch.random.get_rng_state()
    digests = [Backbone("resnet18", "layer1", "avg", "random", seed=seed).weights_digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_stage_of_caffes_resnet50_begins_with_every_second_pixel():
    """Its stride is on a 1 × 1 convolution, which sees no other pixel; torchvision's 3 × 3 sees them all."""
    maps = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = maps.clone()
    changed[:, :, 1::2] += 1
    changed[:, :, :, 1::2] -= 1
    for name, alike in (("resnet50_caffe", True), ("resnet50", False)):
        stage = Backbone(name, weights="random").network.layer2
        with torch.inference_mode():
            outputs = [stage(given) for given in (maps, changed)]
        assert outputs[0].shape == (1, 512, 4, 4)
        assert torch.equal(*outputs) is alike, name


def test_caffes_resnet50_computes_another_feature_from_the_same_weights():
    caffe, other = (Backbone(name, "layer4", "avg", "random") for name in ("resnet50_caffe", "resnet50"))
    assert caffe.weights_digest == other.weights_digest
    assert caffe.policy() != other.policy()
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert not torch.allclose(caffe(picture), other(picture), rtol=0.05)


def test_nothing_can_be_trained_or_switched():
    backbone = Backbone("resnet18", "layer1", "avg", "random")
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"name": "resnet5O"}, "BACKBONE", "resnet50"),
        ({"name": "resnet18", "layer": "layer9", "weights": "random"}, "BACKBONE", "layer"),
        ({"name": "resnet18", "weights": "bundled"}, "WEIGHTS-MISSING", "shufflenet_v2_x0_5"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V7"}, "WEIGHTS-MISSING", "IMAGENET1K_V1"),
        ({"name": "resnet18", "weights": "nowhere.pth"}, "WEIGHTS-MISSING", "backbone.weights"),
        ({"name": "resnet50_cafe"}, "BACKBONE", "resnet50_caffe"),
        ({"name": "resnet50_caffe"}, "WEIGHTS-MISSING", "One of keras, keras-2.2, 'bundled'"),
        ({"name": "resnet50_caffe", "weights": "IMAGENET1K_V1"}, "WEIGHTS-MISSING", "keras"),
        ({"name": "resnet50", "weights": "keras"}, "WEIGHTS-MISSING", "weights=keras goes with resnet50_caffe"),
        ({"name": "resnet50_caffe", "weights": "places365"}, "WEIGHTS-MISSING", "goes with vgg16; else give keras,"),
        ({"name": "vgg16", "weights": "places356"}, "WEIGHTS-MISSING", "Did you mean places365?"),
    ],
)
def test_what_cannot_be_built_says_what_can(options, code, said):
    with pytest.raises(LikenessError) as refusal:
        Backbone(**options)
    assert refusal.value.code == code
    assert said in refusal.value.fix


def test_real_imagenet_weights_load_in_the_cut_network(squeezenet_weights):
    backbone = Backbone("squeezenet1_1", "features", "avg", str(squeezenet_weights))
    assert len(backbone.weights_digest) == 64
    with pytest.raises(LikenessError, match="do not fit resnet18") as refusal:
        Backbone("resnet18", "layer4", "avg", str(squeezenet_weights))
    assert "conv1.weight: missing" in refusal.value.where


def test_each_network_knows_its_own_preprocessing():
    resnet = own_preprocessing("resnet50")
    assert (resnet.size, resnet.short_side, resnet.resize) == (224, 232, "crop")
    assert own_preprocessing("shufflenet_v2_x0_5", "bundled").size == 144
    smaller = own_preprocessing("resnet50", size=112)
    assert (smaller.size, smaller.short_side, smaller.mean) == (112, 116, resnet.mean)


@pytest.mark.parametrize(
    ("name", "weights", "option"),
    [
        ("vgg16", "places365", "places365"),
        ("resnet50_caffe", "keras", "imagenet"),
        ("resnet50_caffe", "keras-2.2", "imagenet"),
        ("resnet50_caffe", "file-that-says-nothing.pth", "imagenet"),
    ],
)
def test_weights_of_caffe_have_its_preprocessing(name, weights, option):
    written = build(OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "preprocessing" / f"{option}.yaml")))
    assert own_preprocessing(name, weights).policy() == written.policy()
    assert own_preprocessing(name, weights, size=112).size == 112


def test_random_weights_have_the_preprocessing_of_the_bundled_ones():
    for name in ("shufflenet_v2_x0_5", "vgg16", "resnet50_caffe"):
        assert own_preprocessing(name, "random") == own_preprocessing("shufflenet_v2_x0_5", "bundled")


SAID = {"size": 224, "channels": "bgr", "scale": 1.0, "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}


def converted(path, network):
    state = Backbone(network, weights="random").network.state_dict()
    card = {"schema": "1", "network": network, "digest": state_digest(state), "preprocessing": json.dumps(SAID)}
    save_file(state, path, card)
    return str(path)


def test_a_converted_file_brings_its_own_preprocessing(tmp_path):
    file = converted(tmp_path / "a.safetensors", "squeezenet1_1")
    own = own_preprocessing("squeezenet1_1", file, size=64)
    assert (own.size, own.channels, own.scale, own.mean) == (64, "bgr", 1.0, (1.0, 2.0, 3.0))
    assert own_preprocessing("squeezenet1_1").channels == "rgb"
    whole = Backbone("squeezenet1_1", "features", "avg", file).network.state_dict()
    assert state_digest(whole) == Backbone("squeezenet1_1", "features", "avg", "random").weights_digest


def test_weights_that_fit_another_network_as_well_are_refused_by_its_name(tmp_path):
    file = converted(tmp_path / "keras.safetensors", "resnet50_caffe")
    with pytest.raises(LikenessError, match="holds weights of resnet50_caffe") as refusal:
        Backbone("resnet50", "layer4", "avg", file)
    assert refusal.value.code == "WEIGHTS-SHAPE"
    assert "backbone.name=resnet50_caffe" in refusal.value.fix
    assert "key by key" in refusal.value.cause
    Backbone("resnet50_caffe", "layer4", "avg", file)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm, an extra, is not installed")
def test_timm_models_through_the_same_option():
    assert Backbone("timm/test_vit", weights="random").feature_shape(160) == (64,)
    assert Backbone("timm/resnet18", "layer4", "avg", "random").feature_shape(64) == (512,)
    assert own_preprocessing("timm/vit_small_patch14_dinov2.lvd142m").size == 518
    with pytest.raises(LikenessError, match="timm has no model"):
        Backbone("timm/resnt18", weights="random")


def test_a_network_that_cannot_be_built_without_numbers_takes_weights_as_well(tmp_path):
    random = Backbone("regnet_x_400mf", weights="random")
    torch.save(random.network.state_dict(), tmp_path / "regnet.pth")
    assert Backbone("regnet_x_400mf", weights=str(tmp_path / "regnet.pth")).weights_digest == random.weights_digest
