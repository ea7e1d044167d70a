"""``likeness export``: a trained model as one file that needs neither its run nor the weights that it came from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from likeness import __version__, onnx_file
from likeness.errors import LikenessError
from likeness.features.backbone import Backbone, state_of
from likeness.features.weights import state_digest
from likeness.model import Model, load
from likeness.reports.summary import flat_summary
from likeness.reports.words import percent
from likeness.runs.exported import SUFFIX, write_exported

FORMATS = {"safetensors": SUFFIX, "onnx": ".onnx"}
_OF_THIS_MACHINE = ("root", "manifest")


def export(run: Path, out: Path, formats: Sequence[str], weights: str | None = None) -> Iterator[str]:
    """Write the model of a run's folder, a checkpoint or an exported file, and say what is where.

    Args:
        out: Where to, without the suffix, which is the format's.
        weights: As of ``load``.

    Raises:
        LikenessError: CONFIG-EXTRA without the packages for ONNX, CONFIG for a copy of an exported file, RUN-MISSING
            and CKPT-* from loading, BACKBONE for what cannot be written in this format; DISK, STORE-PERM.
    """
    if "onnx" in formats:
        onnx_file.need()
    paths = {name: out.with_name(out.name + FORMATS[name]) for name in formats}
    _refuse_copy(run, formats)
    model = load(run, weights=weights, device="cpu")
    card = _card(model, run)
    yield from _described(card, model)
    if path := paths.get("safetensors"):
        _write(model, card, path, weights)
        yield f"{path}  {path.stat().st_size:,} bytes"
        yield f"  import likeness; likeness.load({str(path)!r}).encode(['photo.jpg'])"
    if path := paths.get("onnx"):
        difference, cosine = onnx_file.write(model, card, path)
        yield f"{path}  {path.stat().st_size:,} bytes"
        yield f"  against torch: off by {difference:.1e} of the largest number at most, cosine {cosine:.7f} or more"


def _refuse_copy(run: Path, formats: Sequence[str]) -> None:
    if run.suffix == SUFFIX and "safetensors" in formats:
        raise LikenessError(
            "CONFIG",
            f"{run.name} is exported already.",
            where="format=safetensors",
            fix="Copy the file, or give format=onnx.",
        )


def _card(model: Model, run: Path) -> dict[str, Any]:
    """What the file says of itself: the checkpoint's card and results, without the places of this machine."""
    weights = str(model.card["backbone"]["weights"])
    return {
        **model.card,
        "backbone": {**model.card["backbone"], "weights": Path(weights).name},
        "data": {name: value for name, value in model.card["data"].items() if name not in _OF_THIS_MACHINE},
        "store": "",
        "results": model.card.get("results") or _results(run / "metrics.json"),
        "version": __version__,
    }


def _results(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    values = flat_summary(json.loads(path.read_text()))
    return {name: value for name, value in values.items() if not name.startswith("seconds/")}


def _write(model: Model, card: Mapping[str, Any], path: Path, weights: str | None) -> None:
    """Written, and opened again as any reader will: it must be the same model."""
    backbone = model.extractor.backbone
    assert model.head is not None
    if not isinstance(backbone, Backbone):
        raise LikenessError(
            "BACKBONE",
            f"a model with a {type(backbone).__name__} cannot be exported.",
            where="backbone",
            cause="Its file could not say how to build it again: it is neither torchvision's nor timm's.",
            fix="Give a run whose backbone is a likeness.features.backbone.Backbone.",
        )
    state = state_of(backbone.name, backbone.layer, weights or model.card["backbone"]["weights"], backbone.seed)
    if state_digest(state) != backbone.weights_digest:
        raise LikenessError(
            "WEIGHTS-HASH",
            "the weights changed while they were exported.",
            where=str(weights or model.card["backbone"]["weights"]),
            fix="Export again when nothing writes to them any more.",
        )
    write_exported(card, model.head.state_dict(), state, path)
    assert load(path, device="cpu").identity == model.identity, f"{path} is not the model that was written"


def _described(card: Mapping[str, Any], model: Model) -> Iterator[str]:
    backbone, size = card["backbone"], model.extractor.preprocessing.size
    layer = backbone["layer"] or "its output"
    yield f"  pictures  {size} × {size}, {model.extractor.preprocessing.resize}"
    yield f"  backbone  {backbone['name']} up to {layer}, weights {backbone['weights']}"
    yield f"  head      {card['architecture']['class']}, a code of {model.width} numbers"
    yield f"  identity  {model.fingerprint[:16]}"
    for name, value in sorted(card["results"].items()):
        if name.endswith("/hit@1") and name.count("/") == 1:
            low, high = (percent(card["results"].get(f"{name}_{bound}")) for bound in ("low", "high"))
            yield f"  {name:<9} {percent(value)} ({low} to {high})"
