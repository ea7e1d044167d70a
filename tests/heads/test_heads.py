import pytest
import torch

from likeness.errors import LikenessError
from likeness.heads.conv import Conv
from likeness.heads.dense import Dense
from likeness.heads.loss import CosineLoss


def test_layers_mirror_the_widths():
    """The thesis' "4096, 512" on 4096 numbers: 4096 -> 4096 -> 512 -> 4096 -> 4096, scaled down."""
    head = Dense((40,), widths=[40, 5])
    shapes = [tuple(layer.weight.shape) for layer in (*head.encoder, *head.decoder)]
    assert shapes == [(40, 40), (5, 40), (40, 5), (40, 40)]
    assert sum(parameter.numel() for parameter in head.parameters()) == 2 * 40 * 40 + 2 * 5 * 40 + 40 + 5 + 40 + 40


def test_one_layer_by_hand():
    head = Dense((2,), widths=[1], code_activation="relu", output_activation="sigmoid")
    with torch.no_grad():
        head.encoder[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
        head.encoder[0].bias.fill_(0.5)
        head.decoder[0].weight.copy_(torch.tensor([[2.0], [0.0]]))
        head.decoder[0].bias.copy_(torch.tensor([0.0, 1.0]))
    code = head.encode(torch.tensor([[3.0, 1.0], [0.0, 4.0]]))
    assert code.tolist() == [[1.5], [0.0]]
    expected = torch.sigmoid(torch.tensor([[3.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(head.decode(code), expected)


def test_tied_weights_are_shared_and_trained():
    head = Dense((6,), widths=[4, 3], tied=True, activation="identity", code_activation="identity")
    assert sum(parameter.numel() for parameter in head.parameters()) == 6 * 4 + 4 * 3 + 4 + 3 + 4 + 6
    code = torch.tensor([[1.0, 0.0, 0.0]])
    with torch.no_grad():
        for layer in (*head.encoder, *head.decoder):
            layer.bias.zero_()
    torch.testing.assert_close(head.decode(code), (head.encoder[1].weight @ head.encoder[0].weight)[:1])
    head.decode(code).sum().backward()
    assert head.encoder[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_a_reconstruction_has_the_features_shape(shape):
    rows = torch.randn(5, *shape)
    head = Dense(shape, widths=[6, 3])
    assert head.encode(rows).shape == (5, 3)
    assert head.decode(head.encode(rows)).shape == rows.shape


@pytest.mark.parametrize(("side", "stride", "code"), [(7, 2, 8 * 2 * 2), (5, 1, 8 * 5 * 5), (4, 2, 8), (1, 2, 8)])
def test_convolutional_heads_restore_any_map_size(side, stride, code):
    maps = torch.randn(3, 16, side, side)
    head = Conv((16, side, side), channels=[12, 8], stride=stride)
    assert head.encode(maps).shape == (3, code)
    assert head.decode(head.encode(maps)).shape == maps.shape


def test_heads_that_cannot_be_are_refused():
    with pytest.raises(LikenessError, match=r"architecture\.widths"):
        Dense((4,), widths=[])
    with pytest.raises(LikenessError, match="spatial features") as refusal:
        Conv((512,))
    assert "backbone.pooling=none" in refusal.value.fix


def test_cosine_loss_by_hand():
    rebuilt, clean = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [0.0, 3.0]])
    assert float(CosineLoss()(rebuilt, clean)) == pytest.approx((0 + 1 - 0.5**0.5) / 2)
