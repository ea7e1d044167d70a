"""What decides a feature makes it another one, what does not leaves it where it is, and a message says which it was."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from features.mean_colour import MeanColour, extractor_of
from helpers import draw_striped
from PIL import Image

from likeness.features.extraction import Extractor, extract
from likeness.features.store import Shelf
from likeness.images.decoding import Decoder
from likeness.images.folder import ImageFolder
from likeness.images.preprocessing import Preprocessing


class Named(MeanColour):
    """Stands for a backbone whose weights and cut are plain words."""

    def __init__(self, log: Path, **words: object) -> None:
        super().__init__(log)
        self.words = {"network": "a", "layer": "b", "pooling": "avg", "weights": 64 * "1", "precision": "fp32", **words}

    def policy(self):
        return self.words


class OlderDecoder(Decoder):
    """Decodes by the policy of another version: without turning what EXIF says is turned."""

    def policy(self):
        return {**super().policy(), "version": 0}


PLAIN = Preprocessing(size=16, mean=[0.0] * 3, std=[1.0] * 3)


def looks(place: Path, extractor: Extractor, log: Path, root: Path, **pace: object) -> int:
    """How many of the three pictures the network sees."""
    log.unlink(missing_ok=True)
    extract(extractor, ImageFolder(str(root)).table(), place / "store", **pace)
    return len(log.read_text().split()) if log.exists() else 0


@pytest.fixture
def place(tmp_path) -> Path:
    """Three pictures whose features are in the store."""
    for number in range(3):
        draw_striped(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", 4, number, size=32)
    assert looks(tmp_path, built(tmp_path), tmp_path / "seen.txt", tmp_path / "photos") == 3
    return tmp_path


def built(place: Path, decoder: Decoder | None = None, prepared: dict | None = None, **words: object) -> Extractor:
    network = Named(place / "seen.txt", **words)
    return Extractor(decoder or Decoder(), replace(PLAIN, **(prepared or {})), network)


RELEVANT = {
    "EXIF policy": ({"decoder": OlderDecoder()}, "decoding.version"),
    "alpha background": ({"decoder": Decoder(alpha_background=(0, 0, 0))}, "decoding.alpha_background"),
    "resize size": ({"prepared": {"size": 17}}, "preprocessing.size"),
    "interpolation": ({"prepared": {"interpolation": "bicubic"}}, "preprocessing.interpolation"),
    "crop": ({"prepared": {"resize": "crop"}}, "preprocessing.resize"),
    "channels": ({"prepared": {"channels": "bgr"}}, "preprocessing.channels"),
    "mean": ({"prepared": {"mean": [0.5, 0.0, 0.0]}}, "preprocessing.mean"),
    "std": ({"prepared": {"std": [1.0, 1.0, 2.0]}}, "preprocessing.std"),
    "network": ({"network": "c"}, "backbone.network"),
    "layer": ({"layer": "c"}, "backbone.layer"),
    "pooling": ({"pooling": "max"}, "backbone.pooling"),
    "weights": ({"weights": 64 * "2"}, "backbone.weights"),
    "precision": ({"precision": "bf16"}, "backbone.precision"),
}


@pytest.mark.fault("F23")
def test_each_of_fourteen_things_that_decide_a_feature_makes_it_another(place, caplog, figure):
    """Each is told by its name, and the rows that were there stay."""
    caplog.set_level(logging.INFO)
    before = {path: path.read_bytes() for path in (place / "store").rglob("shard-*")}
    missed = []
    for name, (changed, told) in RELEVANT.items():
        caplog.clear()
        shutil.copytree(place / "store", place / "kept")
        if looks(place, built(place, **changed), place / "seen.txt", place / "photos") == 3:
            missed.append(name)
        assert f"[STORE] nothing computed yet with these options: {told}" in caplog.text, name
        shutil.rmtree(place / "store")
        shutil.move(place / "kept", place / "store")
    Image.new("RGB", (32, 32)).save(place / "photos" / "a" / "0.png")
    if looks(place, built(place), place / "seen.txt", place / "photos") == 1:
        missed.append("image bytes")
    figure("G13", "changes that decide a feature: misses of 14", 14, len(missed))
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.fault("F23")
def test_none_of_six_things_that_decide_nothing_costs_a_look(place, figure):
    photos, seen = place / "photos", place / "seen.txt"
    moved = shutil.copytree(photos, place / "elsewhere")
    renamed = shutil.copytree(photos, place / "renamed")
    (renamed / "a" / "0.png").rename(renamed / "a" / "another.png")
    plain = built(place)
    looked = {
        "root": looks(place, plain, seen, moved),
        "file name": looks(place, plain, seen, renamed),
        "workers": looks(place, plain, seen, photos, workers=7),
        "batch size": looks(place, plain, seen, photos, batch_size=1),
        "device": looks(place, replace(plain, device="cpu:0"), seen, photos),
        "memory": looks(place, plain, seen, photos, memory_bytes=1),
    }
    figure("G13", "changes that decide nothing: hits of 6", 6, sum(count == 0 for count in looked.values()))


@pytest.mark.fault("F23")
def test_what_changed_is_told_with_both_values_of_the_most_similar_extractor(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for weights in ("15a7" + 60 * "0", "eeee" + 60 * "0"):
        with Shelf(tmp_path, {"backbone": {"weights": weights, "layer": weights[:2]}, "size": [8, 8]}).filling():
            pass
        shelf = Shelf(tmp_path, {"backbone": {"weights": weights, "layer": weights[:2]}, "size": [8, 8]})
        shelf.add(torch.zeros(1, 32).byte().numpy(), torch.zeros(1, 3).numpy(), torch.zeros(1).numpy())
    caplog.clear()
    other = Shelf(tmp_path, {"backbone": {"weights": "c6d4" + 60 * "1", "layer": "15"}, "size": [8, 8]})
    with other.filling():
        pass
    changed = "backbone.weights changed (15a700000000… -> c6d411111111…)"
    assert caplog.messages == [
        f"[STORE] nothing computed yet with these options: {changed}; those that were there stay"
    ]


@pytest.mark.fault("F23")
def test_one_per_cent_more_pictures_cost_one_per_cent(tmp_path, count, figure):
    pictures = count(200, 400, 2000)
    for number in range(pictures):
        draw_striped(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", 4 + number % 9, number, size=8)
    network = MeanColour(tmp_path / "seen.txt")
    extract(extractor_of(network), ImageFolder(str(tmp_path / "photos")).table(), tmp_path / "store")
    for number in range(pictures // 100):
        draw_striped(tmp_path / "photos" / "a" / f"new{number}.png", 5, pictures + number, size=8)
    features = extract(extractor_of(network), ImageFolder(str(tmp_path / "photos")).table(), tmp_path / "store")
    assert len(features.table) == pictures * 1.01
    figure("G13", f"1 % more than {pictures} pictures: looks", pictures // 100, network.seen() - pictures)
