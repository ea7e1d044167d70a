"""A model as one file: the same codes without its run, data and never code, and the same codes again as ONNX."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from faults.messages import assert_message
from helpers import ROOT, called, draw_striped
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from small_model import SIZE, SmallNetwork, modelled
from test_app import trained

import likeness
from likeness import export, onnx_file
from likeness.assembly import extracting, restoring
from likeness.config.schema import Extraction
from likeness.errors import LikenessError
from likeness.features.backbone import Backbone, state_of
from likeness.heads.conv import Conv
from likeness.heads.dense import Dense
from likeness.heads.linear import PCA, Identity, NeighbourAverage, RandomProjection
from likeness.model import Model
from likeness.runs.checkpoint import open_checkpoint
from likeness.runs.exported import read_exported, write_exported

NETWORK, LAYER = "shufflenet_v2_x0_5", "stage2"
CUT = ("backbone.layer=stage2", "backbone.pooling=avg")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Pictures, and a weights file of its own that a run was trained with."""
    place = tmp_path_factory.mktemp("place")
    for period, name in ((4, "fine"), (25, "coarse")):
        for i, split in enumerate(["train"] * 10 + ["val"] * 4 + ["test"] * 4):
            draw_striped(place / "photos" / split / name / f"{i}.png", period, i)
    save_file(state_of(NETWORK, LAYER, "random", 3), place / "own.safetensors")
    return place


@pytest.fixture(scope="module")
def run(place) -> Path:
    return trained(place, *CUT, f"backbone.weights={place / 'own.safetensors'}")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "model.safetensors"
    done = called("export", f"run={run}", f"out={path}")
    assert done.code == 0, done.err
    assert str(path) in done.out
    return path


@pytest.fixture
def pictures(place) -> list[Path]:
    return sorted(place.glob("photos/*/*/*.png"))


def changed(exported: Path, place: Path, **card) -> Path:
    """The same file with other words in its card, its digest made anew."""
    content = read_exported(exported)
    path = place / "changed.safetensors"
    write_exported({**content["likeness"], **card}, content["state_dict"], content["backbone"], path)
    return path


def test_an_exported_model_is_its_run_without_the_run_and_its_weights(run, exported, pictures, place, monkeypatch):
    """Same identity, same codes to the last bit; so an index that is bound to the run takes the file."""
    original = likeness.load(run)
    codes = original.encode(pictures)
    monkeypatch.setattr(extracting, "_last_extractor", None)  # nothing of the run may be of use
    with pytest.MonkeyPatch.context() as gone:
        gone.chdir(exported.parent)
        hidden = [(path, path.with_name(f"gone-{path.name}")) for path in (run, place / "own.safetensors")]
        try:
            for path, elsewhere in hidden:
                path.rename(elsewhere)
            loaded = likeness.load(exported)
            assert loaded.identity == original.identity
            assert loaded.fingerprint == original.fingerprint
            assert (loaded.encode(pictures) == codes).all()
            assert (loaded.frozen().encode(pictures) == original.frozen().encode(pictures)).all()
        finally:
            for path, elsewhere in hidden:
                elsewhere.rename(path)


def test_the_card_is_a_model_card_without_the_places_of_this_machine(run, exported, place):
    with safe_open(exported, "pt") as file:
        text = file.metadata()["likeness"]
    assert str(place) not in text
    assert str(ROOT) not in text
    card = json.loads(text)["card"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert card["results"]["test/hit@1"] == metrics["splits"]["test"]["head"]["hit@1"]["value"]
    assert card["results"]["test/n"] == 8
    assert card["version"] == likeness.__version__
    assert card["backbone"]["weights"] == "own.safetensors"
    assert card["classes"] == ["coarse", "fine"]


def test_the_same_model_is_the_same_file(run, exported, tmp_path):
    again = tmp_path / "again.safetensors"
    assert called("export", f"run={run}", f"out={again}").code == 0
    assert again.read_bytes() == exported.read_bytes()


def test_an_exported_model_can_be_scored_where_the_pictures_are_named(run, exported, place):
    """A checkpoint is opened by the same function; its pictures are not where the file says, for it says nothing."""
    overrides = {"backbone": {}, "extraction": {"device": "cpu"}}
    _, extractor, card = restoring.restore(exported, overrides)
    given = {"split": None, "metric": {}, "paths": {"store": str(place / "store")}}
    with pytest.raises(LikenessError, match="1 fault in the config") as caught:
        restoring.as_trained({**given, "data": {}}, card)
    assert caught.value.where == "data.root: missing, ImageFolder needs it"
    config = restoring.as_trained({**given, "data": {"root": str(place / "photos")}}, card)
    features = extracting.find_features({**config, "extraction": asdict(Extraction())}, extractor)
    assert features.computed == 0


def test_weights_beside_an_exported_model_are_refused(exported):
    with pytest.raises(LikenessError, match="CONFIG") as caught:
        likeness.load(exported, weights="other.pth")
    assert caught.value.where == "backbone.weights: model.safetensors has its own"


def test_an_exported_file_is_not_exported_again(exported):
    done = called("export", f"run={exported}")
    assert done.code == 78
    assert "is exported already" in done.err


@pytest.mark.fault("F49")
def test_what_an_exported_model_may_not_say_is_refused(exported, tmp_path):
    card = read_exported(exported)["likeness"]
    hostile = {
        "CKPT-SCHEMA": [
            {"schema": 2},
            {"backbone": {**card["backbone"], "class": "system"}},
            {"architecture": {**card["architecture"], "class": "Nobody"}},
            {"architecture": {**card["architecture"], "widths": [10**9]}},
            {"backbone": {**card["backbone"], "name": "resnet18"}},
            {"backbone": {**card["backbone"], "name": "nonesuch"}},
            {"backbone": {**card["backbone"], "layer": "conv5"}},
            {"backbone": {**card["backbone"], "state": {}}},
            {"results": [1]},
            {"version": 1},
            {"fingerprint": "x"},
        ],
        "CKPT-UNTRUSTED": [
            {"scaling": {"class": "Scaling", "_target_": "os.system"}},
            {"decoding": {"class": "Decoder", "min_side": "${oc.env:HOME}"}},
        ],
        "CKPT-EXTRACTOR": [
            {"fingerprint": "0" * 64},
            {"preprocessing": {**card["preprocessing"], "size": 33}},
        ],
    }
    for code, cards in hostile.items():
        for said in cards:
            with pytest.raises(LikenessError) as caught:
                likeness.load(changed(exported, tmp_path, **said))
            assert caught.value.code == code, (said, caught.value)


@pytest.mark.fault("F49")
def test_weights_that_are_not_finite_or_not_those_of_the_card_are_refused(exported, tmp_path):
    content, path = read_exported(exported), tmp_path / "model.safetensors"
    name = next(iter(content["backbone"]))

    def refused(head: dict, backbone: dict) -> LikenessError:
        write_exported(content["likeness"], head, backbone, path)
        with pytest.raises(LikenessError) as caught:
            likeness.load(path)
        return caught.value

    head, backbone = content["state_dict"], content["backbone"]
    assert refused(head, {**backbone, name: backbone[name] / 0}).code == "CKPT-NAN"
    assert refused({**head, "scaling.factor": head["scaling.factor"] * torch.nan}, backbone).code == "CKPT-NAN"
    assert refused(head, {**backbone, name: backbone[name] + 1}).code == "CKPT-EXTRACTOR"
    assert refused(head, {name: value for name, value in backbone.items() if "conv1" in name}).code == "CKPT-SCHEMA"
    assert refused(head, {}).code == "CKPT-SCHEMA"
    assert refused({}, backbone).code == "CKPT-SCHEMA"


@pytest.mark.fault("F49")
def test_a_damaged_export_says_how_to_get_another(exported, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported.read_bytes()[:-1])
    with pytest.raises(LikenessError) as caught:
        likeness.load(path)
    assert_message(
        caught.value, "CKPT", what="could not be read", where=str(path), cause="incomplete", fix="likeness export run="
    )


def test_other_safetensors_are_no_model(place):
    with pytest.raises(LikenessError, match="no checkpoint of likeness"):
        likeness.load(place / "own.safetensors")


def test_options_that_cannot_be_are_told_before_anything_is_opened(tmp_path):
    done = called("export", "format=onnx,tflite", "out=a")
    assert done.code == 78
    assert "format: 'tflite' is not one of safetensors, onnx" in done.err
    assert "run: missing" in done.err
    assert called("export", f"run={tmp_path}").code == 66


def test_a_missing_package_is_named_with_its_extra(run, monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    done = called("export", f"run={run}", "format=onnx")
    assert done.code == 78
    assert "onnxscript is not installed" in done.err
    assert 'pip install "likeness[onnx]"' in done.err


def test_a_network_of_ones_own_cannot_be_exported(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load", lambda *given, **named: modelled(lambda shape: Dense(shape, [4])))
    card = {"backbone": {"weights": "none"}, "data": {}}
    monkeypatch.setattr(export, "_card", lambda model, run: {**model.card, **card, "results": {}})
    monkeypatch.setattr(export, "_described", lambda card, model: iter(()))
    with pytest.raises(LikenessError, match="a model with a SmallNetwork cannot be exported"):
        list(export.export(run, tmp_path / "a", ["safetensors"]))


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """As somebody opens it who has nothing but the file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("pixels", "tensor(uint8)", [SIZE, SIZE, 3])
    return session


def codes_of_both(model: Model, path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The codes by torch and by onnxruntime of one, two and seven squares of noise."""
    session, found = session_of(path), []
    for count in (1, 2, 7):
        squares = np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
        codes = model.codes(model.extractor(torch.from_numpy(squares))).numpy()
        found.append((codes, session.run(["code"], {"pixels": squares})[0]))
    return found


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> SimpleNamespace:
    """The head of most operations, and its graph."""
    model = modelled(lambda shape: NeighbourAverage(shape, 4, k=3), SmallNetwork(), "root")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    difference, cosine = onnx_file.write(model, {"classes": ["a", "b"]}, path)
    return SimpleNamespace(model=model, path=path, difference=difference, cosine=cosine)


def test_a_graph_gives_torchs_codes_for_any_number_of_pictures(graph):
    for codes, others in codes_of_both(graph.model, graph.path):
        assert others == pytest.approx(codes, rel=1e-4, abs=1e-5)
    assert graph.difference < 1e-5
    assert 1.000001 > graph.cosine > 0.999999


def test_an_outsider_finds_in_the_graph_what_to_do_with_a_picture(graph, pictures):
    """Only Pillow, numpy and onnxruntime, by what the metadata say."""
    said = (session := session_of(graph.path)).get_modelmeta().custom_metadata_map
    assert (said["size"], said["resize"], said["interpolation"]) == ("16", "squash", "bilinear")
    assert said["identity"] == graph.model.fingerprint
    assert json.loads(said["card"])["classes"] == ["a", "b"]
    side, kind = int(said["size"]), Image.Resampling[said["interpolation"].upper()]
    squares = np.stack([np.asarray(Image.open(path).resize((side, side), kind)) for path in pictures])
    codes = session.run(["code"], {"pixels": squares})[0]
    assert codes == pytest.approx(graph.model.encode(pictures), rel=1e-3, abs=1e-4)
    assert str(ROOT).encode() not in graph.path.read_bytes()  # torch would note source files


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum")
def test_a_graph_that_was_changed_by_a_bit_is_told_by_its_digest(graph, tmp_path):
    for path in (graph.path, beside := graph.path.with_name("model.onnx.sha256")):
        shutil.copy(path, tmp_path)
    check = ["sha256sum", "--check", "--status", beside.name]
    assert subprocess.run(check, cwd=tmp_path).returncode == 0
    data = bytearray((tmp_path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    assert subprocess.run(check, cwd=tmp_path).returncode == 1


def test_a_graph_with_other_codes_is_not_kept(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_graph", lambda *given: graph.path.read_bytes())
    other = modelled(lambda shape: RandomProjection(shape, 4), SmallNetwork(), "root")
    with pytest.raises(LikenessError) as caught:
        onnx_file.write(other, {}, tmp_path / "a.onnx")
    assert_message(
        caught.value, "BACKBONE", what="as ONNX", where="small, Random", cause="its codes differ", fix="format=onnx"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_both_formats(run, graph, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_graph", lambda *given: graph.path.read_bytes())
    monkeypatch.setattr(onnx_file, "_compared", lambda *given: (2.5e-6, 0.9999998))
    done = called("export", f"run={run}", f"out={tmp_path / 'shoes.v2'}", "format=safetensors,onnx")
    assert done.code == 0, done.err
    written = ["shoes.v2.onnx", "shoes.v2.onnx.sha256", "shoes.v2.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    assert "off by 2.5e-06 of the largest number at most, cosine 0.9999998 or more" in done.out
    done = called("export", f"run={tmp_path / 'shoes.v2.safetensors'}", f"out={tmp_path / 'other.onnx'}")
    assert done.code == 0, done.err
    assert (tmp_path / "other.onnx").is_file()


@pytest.mark.parametrize(
    ("make_head", "spatial", "scaling", "options"),
    [
        (lambda shape: Dense(shape, [8, 4], code_activation="softmax"), False, "standardize", {"channels": "bgr"}),
        (lambda shape: Conv(shape, [6, 4]), True, "max_abs", {"scale": 1.0, "std": [50.0, 60.0, 70.0]}),
        (lambda shape: PCA(shape, 4), True, "l2", {}),
        (lambda shape: RandomProjection(shape, 4), False, "none", {}),
        (Identity, True, "root", {}),
    ],
    ids=["dense", "conv", "pca", "random_projection", "identity"],
)
def test_each_other_head_as_onnx_gives_torchs_codes(make_head, spatial, scaling, options, tmp_path):
    model = modelled(make_head, SmallNetwork(spatial), scaling, **options)
    onnx_file.write(model, {}, path := tmp_path / "model.onnx")
    for codes, others in codes_of_both(model, path):
        assert others == pytest.approx(codes, rel=1e-4, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "layer", "pooling", "size"),
    [
        ("shufflenet_v2_x0_5", "conv5", "avg", 64),
        ("squeezenet1_1", None, "none", 100),
        ("resnet50", "layer4", "avg", 64),
        ("resnet50_caffe", "layer4", "max", 64),
        ("vgg16", "classifier.1", "none", 144),
        ("vgg16", "flatten", "none", 224),
    ],
)
def test_each_backbone_as_onnx_gives_torchs_codes(name, layer, pooling, size, tmp_path):
    backbone = Backbone(name, layer, pooling, "random")
    model = modelled(lambda shape: Dense(shape, [8]), backbone, size=size)
    difference, cosine = onnx_file.write(model, {}, tmp_path / "model.onnx")
    assert difference < 1e-4
    assert cosine > 0.999999


def test_a_timm_backbone_is_exported_as_well(place, tmp_path):
    pytest.importorskip("timm")
    shutil.copytree(place / "photos", tmp_path / "photos")
    run = trained(tmp_path, "backbone.name=timm/resnet10t", "backbone.layer=null", "backbone.weights=random")
    assert called("export", f"run={run}").code == 0
    assert likeness.load(run / "model.safetensors").identity == likeness.load(run).identity


def test_opening_an_exported_file_gives_a_checkpoint_that_brings_its_backbone(exported):
    content = open_checkpoint(exported)
    assert set(content) == {"likeness", "state_dict", "backbone"}
    assert all(name.startswith(("head.", "scaling.")) for name in content["state_dict"])
    whole = state_of(NETWORK, LAYER, "random", 3)
    assert content["backbone"].keys() == whole.keys()
    assert all(torch.equal(content["backbone"][name], whole[name]) for name in whole)
