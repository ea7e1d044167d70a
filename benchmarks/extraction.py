"""From JPEG files to features: this project, what people write instead, and the forward pass alone, in turns.

    python benchmarks/extraction.py [PHOTOS] [--network resnet50] [--pictures 64] [--repeats 5] [--threads N]

PHOTOS is a folder of JPEG files; without it files of 640 × 480 are drawn. Weights are random (only sums and products
are timed; what bf16 does to real features stands in docs/performance.md). Every figure is a median over rounds in which
all ways take turns, and every ratio a median of ratios within a round. timm's loader is `timm.data.create_loader`.
Writes benchmarks/results/extraction_NETWORK.{json,md}.
"""

import argparse
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from measuring import environment, figures, interleaved, ratio, report
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.models.feature_extraction import create_feature_extractor

from likeness.console import terminal
from likeness.features.backbone import Backbone, own_preprocessing
from likeness.features.extraction import Batch, Extractor, extract, looked_at
from likeness.features.store import Shelf, row_bytes
from likeness.images.decoding import Decoder
from likeness.images.folder import digests
from likeness.images.ledger import Ledger
from likeness.images.table import ImageTable, Row, tabulate

LAYERS = {"resnet50": "layer4", "vgg16": "classifier.4", "shufflenet_v2_x0_5": "conv5", "squeezenet1_1": "features"}
OF_TIMM = ("resnet50", "vgg16")
BATCH = 16
HASHED, KEPT_ROWS, WIDTH, SHARD = 5000, 200_000, 16, 32 << 20


class Files(Dataset):
    """What a tutorial writes: open, transform, return."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Image.Image], Tensor] | None) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        assert self.transform is not None
        return self.transform(Image.open(self.files[index]).convert("RGB"))


class Labelled(Files):
    """As timm's loader wants them: it sets the transform, and a target comes with each picture."""

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(files, None)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return super().__getitem__(index), 0


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


def from_timm(network: str, files: Sequence[Path], workers: int) -> Callable[[], None]:
    """timm's own model, transform and loader; made when it is first called."""

    @cache
    def made() -> tuple[nn.Module, Any]:
        import timm

        model = timm.create_model(network, pretrained=False, num_classes=0).eval()
        said = timm.data.resolve_model_data_config(model)
        size, how = said["input_size"], {name: said[name] for name in ("interpolation", "mean", "std", "crop_pct")}
        loader = timm.data.create_loader(
            Labelled(files), size, BATCH, use_prefetcher=False, num_workers=workers, persistent_workers=False, **how
        )
        return model, loader

    @torch.inference_mode()
    def look() -> None:
        model, loader = made()
        for pictures, _ in loader:
            model(pictures)

    return look


def prepared(extractor: Extractor, file: Path) -> None:
    """A file as the network is shown it."""
    extractor.preprocessing.pixels(extractor.decoder.decode(file.read_bytes()).image)


def on_threads(prepare: Callable[[Path], None], files: Sequence[Path], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(prepare, files))


def decoding_calls(extractor: Extractor, files: Sequence[Path], transform: Any) -> dict[str, Callable[[], object]]:
    """Decoding and resizing alone, on all threads."""

    def tutorial(file: Path) -> None:
        transform(Image.open(file).convert("RGB"))

    def by_torchvision(file: Path) -> None:
        decode_jpeg(read_file(str(file)), mode=ImageReadMode.RGB)

    ways: dict[str, Callable[[Path], None]] = {
        "decode and resize: ours": partial(prepared, extractor),
        "decode and resize: PIL and torchvision's transform": tutorial,
        "decode without resizing: torchvision.io": by_torchvision,
    }
    return {name: partial(on_threads, prepare, files, torch.get_num_threads()) for name, prepare in ways.items()}


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
        **({BY_TIMM: from_timm(network, files, workers)} if network in OF_TIMM else {}),
        **decoding_calls(exact, files, transform),
    }


BY_TIMM = "from files: timm's model, transform and loader"
COMPARED = {
    "forward alone: ours fp32": "forward alone: eager fp32",
    "forward alone: ours bf16": "forward alone: eager fp32",
    "forward alone: ours bf16, all cores on a batch": "forward alone: ours bf16",
    "from files: ours fp32": "forward alone: ours fp32",
    "from files: ours bf16": "forward alone: ours bf16",
    "from files: eager fp32, DataLoader, torchvision": "from files: ours bf16",
    BY_TIMM: "from files: ours bf16",
}


def network_rows(network: str, files: Sequence[Path], repeats: int) -> Iterator[dict[str, Any]]:
    calls = network_calls(network, files)
    seconds = interleaved(calls, repeats, memory=True)
    for name in calls:
        row = {"what": name, **rate(figures(seconds, name), len(files))}
        other = COMPARED.get(name)
        if other is not None and seconds[name].missing is None:
            row |= {"times": 1 / ratio(seconds, name, other), "that of": other}
        yield row


def rate(figure: dict[str, Any], pictures: int) -> dict[str, Any]:
    """The same in pictures a second."""
    if "s" not in figure:
        return figure
    told = {"pictures a second": pictures / figure["s"], "a second of the processor": pictures / figure["processor s"]}
    return {**told, **{name: value for name, value in figure.items() if name not in ("s", "processor s")}}


@contextmanager
def kept_rows(rows_a_shard: int) -> Iterator[tuple[Path, np.ndarray]]:
    """A store of drawn rows, and their keys."""
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
            name = f"opening a store of {KEPT_ROWS:,} rows, shards of {what}"
            yield from in_seconds({name: partial(opened, store, keys)}, repeats)


def in_seconds(calls: Mapping[str, Callable[[], object]], repeats: int) -> Iterator[dict[str, Any]]:
    seconds = interleaved(calls, repeats)
    for name in calls:
        yield {"what": name, **figures(seconds, name)}


def photos_in(folder: Path | None, count: int, drawn: Path) -> list[Path]:
    """``count`` of the folder's JPEG files from all over it, or all; without a folder as many drawn ones."""
    if folder is None:
        return drawn_photos(drawn, count)
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"there is no .jpg in {folder}: give a folder of photos, or none to have some drawn")
    return [found[at] for at in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)]


def whole_batches(files: list[Path], batch: int) -> list[Path]:
    """So that the forward pass alone looks at as many pictures as there are files."""
    if len(files) < batch:
        raise SystemExit(f"there are {len(files)} pictures: a batch is {batch}, and one is the least")
    return files[: len(files) // batch * batch]


def drawn_photos(folder: Path, count: int) -> list[Path]:
    """64 that differ; the rest are these again with a comment of their own, so that none counts as seen before."""
    kinds = []
    for number in range(min(count, 64)):
        noise = np.random.default_rng(number).integers(0, 256, (15, 20, 3), dtype=np.uint8)
        held = io.BytesIO()
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(held, "jpeg", quality=90)
        kinds.append(held.getvalue())
    files = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        start, rest = kinds[number % len(kinds)][:2], kinds[number % len(kinds)][2:]
        file.write_bytes(start + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + rest)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--network", choices=LAYERS, default="resnet50")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as drawn:
        files = whole_batches(photos_in(options.photos, options.pictures, Path(drawn)), BATCH)
        picture = "{} × {}".format(*Image.open(files[0]).size)
        rows = [*network_rows(options.network, files, options.repeats), *reuse_rows(files, options.repeats)]
    facts = {**environment(["torchvision", "timm", "pillow", "numpy"]), "pictures": len(files), "batch": BATCH}
    told = report(f"extraction_{options.network}", rows, {**facts, "picture": picture})
    terminal().print(told, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
