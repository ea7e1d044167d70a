"""From JPEG files to features: this project, what people write instead, and the forward pass alone, in turns.

    python benchmarks/extraction.py [PHOTOS] [--network resnet50] [--pictures 320] [--repeats 5] [--threads N]

PHOTOS is a folder of JPEG files; left out it is ../shared/data/rooms where that is, else files are drawn. Weights are
random (only sums and products are timed; what bf16 does to real features stands in docs/performance.md). Every figure
is a median over rounds in which all ways take turns, and every ratio a median of ratios within a round. Writes
benchmarks/results/extraction_NETWORK.json and .md.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from measuring import environment, interleaved, peak_memory_of, ratio, report, spread
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.models.feature_extraction import create_feature_extractor

from likeness.features.backbone import Backbone, own_preprocessing
from likeness.features.extraction import Batch, Extractor, extract, looked_at
from likeness.features.store import Shelf, row_bytes
from likeness.images.decoding import Decoder
from likeness.images.folder import digests
from likeness.images.ledger import Ledger
from likeness.images.table import ImageTable, Row, tabulate

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "rooms"
LAYERS = {"resnet50": "layer4", "vgg16": "classifier.4", "shufflenet_v2_x0_5": "conv5", "squeezenet1_1": "features"}
BATCH = 16
HASHED, KEPT_ROWS, WIDTH, SHARD = 5000, 1_000_000, 16, 32 << 20


class Files(Dataset):
    """What a tutorial writes: open, transform, return."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def table_of(files: Sequence[Path]) -> ImageTable:
    rows = [Row(str(file), f"class {number % 2}", "train") for number, file in enumerate(files)]
    return tabulate(Path("/"), rows, 0, (0.6, 0.2, 0.2))


def extractor_of(network: str, precision: Any) -> Extractor:
    backbone = Backbone(network, LAYERS[network], "avg", "random", precision=precision)
    backbone.to(memory_format=torch.channels_last)
    return Extractor(Decoder(), own_preprocessing(network), backbone)


def what_people_write(network: str) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    model = torchvision.models.get_model(network, weights=None).eval()
    cut = create_feature_extractor(model, {LAYERS[network]: "feature"})
    return cut, torchvision.models.get_model_weights(network)["DEFAULT"].transforms()


@torch.inference_mode()
def from_loader(model: Callable[[Tensor], Any], data: Files, workers: int) -> None:
    for pictures in DataLoader(data, batch_size=BATCH, num_workers=workers):
        model(pictures)


@torch.inference_mode()
def forward_alone(model: Callable[[Tensor], Any], pictures: Tensor, batches: int) -> None:
    for _ in range(batches):
        model(pictures)


def looking_alone(extractor: Extractor, pixels: Tensor, batches: int) -> None:
    batch = Batch(np.arange(len(pixels)), pixels, np.zeros(len(pixels), np.float32))
    for _ in looked_at(extractor, [batch] * batches):
        pass


def into_a_new_store(extractor: Extractor, files: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as store:
        extract(extractor, table_of(files), Path(store), batch_size=BATCH, workers=torch.get_num_threads())


def timm_calls(network: str, files: Sequence[Path], workers: int) -> dict[str, Callable[[], object]]:
    """timm's own model and its own transform, where it is installed and knows the network."""
    try:
        import timm
    except ImportError:
        return {}
    if not timm.is_model(network):
        return {}
    model = timm.create_model(network, pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return {
        "from files: timm's model and transform, DataLoader": partial(
            from_loader, model, Files(files, transform), workers
        )
    }


def decoding_calls(extractor: Extractor, files: Sequence[Path], transform: Any) -> dict[str, Callable[[], object]]:
    """Decoding and resizing alone, on all threads."""

    def ours(file: Path) -> None:
        extractor.preprocessing.pixels(extractor.decoder.decode(file.read_bytes()).image)

    def tutorial(file: Path) -> None:
        transform(Image.open(file).convert("RGB"))

    def by_torchvision(file: Path) -> None:
        decode_jpeg(read_file(str(file)), mode=ImageReadMode.RGB)

    def on_threads(prepare: Callable[[Path], None]) -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(prepare, files))

    return {
        "decode and resize: ours": partial(on_threads, ours),
        "decode and resize: PIL and torchvision's transform": partial(on_threads, tutorial),
        "decode without resizing: torchvision.io": partial(on_threads, by_torchvision),
    }


def network_calls(network: str, files: Sequence[Path]) -> dict[str, Callable[[], object]]:
    workers, batches = torch.get_num_threads(), len(files) // BATCH
    eager, transform = what_people_write(network)
    data = Files(files, transform)
    pictures = torch.stack([data[index] for index in range(BATCH)])
    exact, rounded = (extractor_of(network, precision) for precision in ("fp32", "bf16"))
    some = [exact.decoder.decode(file.read_bytes()).image for file in files[:BATCH]]
    pixels = torch.from_numpy(np.stack([exact.preprocessing.pixels(image) for image in some]))
    return {
        "forward alone: eager fp32": partial(forward_alone, eager, pictures, batches),
        "forward alone: ours fp32": partial(looking_alone, exact, pixels, batches),
        "forward alone: ours bf16": partial(looking_alone, rounded, pixels, batches),
        "forward alone: ours bf16, all cores on a batch": partial(forward_alone, rounded, pixels, batches),
        "from files: ours fp32": partial(into_a_new_store, exact, files),
        "from files: ours bf16": partial(into_a_new_store, rounded, files),
        "from files: eager fp32, DataLoader, torchvision": partial(from_loader, eager, data, workers),
        **timm_calls(network, files, workers),
        **decoding_calls(exact, files, transform),
    }


COMPARED = {
    "forward alone: ours fp32": "forward alone: eager fp32",
    "forward alone: ours bf16": "forward alone: eager fp32",
    "forward alone: ours bf16, all cores on a batch": "forward alone: ours bf16",
    "from files: ours fp32": "forward alone: ours fp32",
    "from files: ours bf16": "forward alone: ours bf16",
    "from files: eager fp32, DataLoader, torchvision": "from files: ours bf16",
    "from files: timm's model and transform, DataLoader": "from files: ours bf16",
}


def network_rows(network: str, files: Sequence[Path], repeats: int) -> Iterator[dict[str, Any]]:
    calls = network_calls(network, files)
    seconds = interleaved(calls, repeats)
    for name, taken in seconds.items():
        other = COMPARED.get(name)
        yield {
            "what": name,
            "pictures a second": len(files) / median(taken),
            "times": 1 / ratio(seconds, name, other) if other else None,
            "that of": other,
            "spread": spread(taken),
            "peak MB": (peak_memory_of(calls[name]) or 0) / 1e6,
            "seconds": taken,
        }


@contextmanager
def kept_rows(rows_a_shard: int) -> Iterator[tuple[Path, np.ndarray]]:
    """A store of a million drawn rows, and their keys."""
    keys = np.random.default_rng(0).integers(0, 256, (KEPT_ROWS, 32), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as store:
        shelf = Shelf(Path(store), {"drawn": 0})
        for start in range(0, KEPT_ROWS, rows_a_shard):
            some = keys[start : start + rows_a_shard]
            shelf.add(some, np.zeros((len(some), WIDTH), np.float32), np.zeros(len(some), np.float32))
        yield Path(store), keys


def opened(store: Path, keys: np.ndarray) -> None:
    shelf = Shelf(store, {"drawn": 0})
    shelf.refresh()
    assert not shelf.find(keys).missing.any()


def hashed(folder: Path, files: Sequence[Path], rehash: bool) -> None:
    ledger = Ledger(folder, folder, rehash)
    digests(files, torch.get_num_threads(), ledger)
    ledger.keep()


def reuse_rows(files: Sequence[Path], repeats: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        many = [Path(folder) / f"{number}.jpg" for number in range(HASHED)]
        for number, file in enumerate(many):
            file.write_bytes(files[number % len(files)].read_bytes())
            os.utime(file, (1e9, 1e9))  # what has just changed would be read again
        calls = {
            "hashing 5000 files: first": partial(hashed, Path(folder), many, True),
            "hashing 5000 files: again": partial(hashed, Path(folder), many, False),
        }
        yield from in_seconds(calls, repeats)
    for what, rows in (("32 MB", SHARD // row_bytes((WIDTH,))), ("5 s at 60 a second", 300)):
        with kept_rows(rows) as (store, keys):
            name = f"opening a store of 1 M rows, shards of {what}"
            yield from in_seconds({name: partial(opened, store, keys)}, repeats)


def in_seconds(calls: Mapping[str, Callable[[], object]], repeats: int) -> Iterator[dict[str, Any]]:
    for name, taken in interleaved(calls, repeats).items():
        yield {"what": name, "seconds each": median(taken), "spread": spread(taken), "seconds": taken}


def photos_in(folder: Path | None, count: int, drawn: Path) -> list[Path]:
    """Some of the folder's JPEG files from all over it, as often as it takes; drawn ones where there is no folder."""
    folder = folder or (PHOTOS if PHOTOS.is_dir() else None)
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg")) if folder else []
    if not found:
        found = [drawn / f"{number}.jpg" for number in range(64)]
        for number, file in enumerate(found):
            noise = np.random.default_rng(number).integers(0, 256, (15, 20, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, quality=90)
    if len(found) > count:
        found = [found[at] for at in np.linspace(0, len(found) - 1, count).astype(int)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--network", choices=LAYERS, default="resnet50")
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as drawn:
        files = photos_in(options.photos, options.pictures, Path(drawn))
        facts = {**environment(["torchvision", "timm", "pillow", "numpy"]), "pictures": len(files), "batch": BATCH}
        facts["picture"] = "{} × {}".format(*Image.open(files[0]).size)
        rows = [*network_rows(options.network, files, options.repeats), *reuse_rows(files, options.repeats)]
    facts["load after"] = round(os.getloadavg()[0], 2)
    sys.stdout.write(report(f"extraction_{options.network}", rows, facts))


if __name__ == "__main__":
    main()
