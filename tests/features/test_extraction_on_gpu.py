"""A GPU gives the features that a CPU gives, in the order of the table. Not yet run on a GPU."""

import pytest
import torch
from features.mean_colour import SIMPLE

from likeness.features.backbone import Backbone
from likeness.features.extraction import Extractor, extract
from likeness.images.decoding import Decoder
from likeness.images.folder import ImageFolder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("bf16", 0.998)])
def test_features_of_a_gpu_are_those_of_a_cpu(photos, tmp_path, precision, least):
    """By batches that do not divide the pictures; in fp32 TF32 stays off, which alone would cost more than this."""
    table, rows = ImageFolder(str(photos)).table(), {}
    for device in ("cpu", "cuda"):
        network = Backbone("shufflenet_v2_x0_5", "conv5", "avg", "bundled", precision=precision)
        network.to(device, memory_format=torch.channels_last)
        extractor = Extractor(Decoder(), SIMPLE, network, device)
        rows[device] = extract(extractor, table, tmp_path / device, batch_size=7).rows
    assert rows["cuda"].dtype == torch.float32
    assert torch.cosine_similarity(rows["cpu"], rows["cuda"]).min() > least
