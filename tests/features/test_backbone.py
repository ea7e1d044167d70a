import importlib.util

import pytest
import torch

from likeness.errors import LikenessError
from likeness.features.backbone import Backbone, own_preprocessing, pooled

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


def test_random_weights_follow_from_their_seed_alone():
    before = torch.random.get_rng_state()
    digests = [Backbone("resnet18", "layer1", "avg", "random", seed=seed).weights_digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.random.get_rng_state())


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


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm, an extra, is not installed")
def test_timm_models_through_the_same_option():
    assert Backbone("timm/test_vit", weights="random").feature_shape(160) == (64,)
    assert Backbone("timm/resnet18", "layer4", "avg", "random").feature_shape(64) == (512,)
    assert own_preprocessing("timm/vit_small_patch14_dinov2.lvd142m").size == 518
    with pytest.raises(LikenessError, match="timm has no model"):
        Backbone("timm/resnt18", weights="random")
