import hashlib
import json
import logging
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.bad_server import serving
from features import foreign
from safetensors.torch import save_file
from torch import nn

from likeness.errors import LikenessError
from likeness.features import weights
from likeness.features.backbone import Backbone, own_preprocessing
from likeness.features.weights import (
    Foreign,
    check_fits,
    download,
    fetch_foreign,
    foreign_preprocessing,
    not_fetching,
    read_bundled,
    read_card,
    read_file,
    state_digest,
)


def small() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([0.5, -0.5])}


@pytest.mark.fault("F19")
def test_the_same_weights_from_any_format_have_one_digest(tmp_path):
    save_file(small(), tmp_path / "a.safetensors")
    torch.save(small(), tmp_path / "b.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in small().items()}}, tmp_path / "c.pth")
    states = [read_file(tmp_path / name) for name in ("a.safetensors", "b.pth", "c.pth")]
    assert len({state_digest(state) for state in states}) == 1
    changed = {**small(), "conv.bias": torch.tensor([0.5, -0.4999])}
    assert state_digest(changed) != state_digest(small())


def test_bundled_weights_are_the_published_ones():
    state = read_bundled("shufflenet_v2_x0_5")
    assert state["conv1.0.weight"].shape == (24, 3, 3, 3)
    with pytest.raises(LikenessError, match="no weights of resnet50 are bundled"):
        read_bundled("resnet50")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_with_code_is_not_run(tmp_path):
    torch.save({"weight": Canary(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(LikenessError, match="could not be opened as weights") as refusal:
        read_file(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    assert "mkdir" in refusal.value.cause
    assert "weights_only=False" not in str(refusal.value)


@pytest.mark.fault("F21")
def test_what_a_file_looks_like_is_said(tmp_path):
    cases = {
        "page.safetensors": (b"<html>not found</html>", "HTML"),
        "empty.pth": (b"", "empty"),
        "keras.pth": (b"\x89HDF\r\n", "Keras"),
        "cut.safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "bytes"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LikenessError) as refusal:
            read_file(tmp_path / name)
        assert refusal.value.code == "WEIGHTS-FORMAT"
        assert said in refusal.value.cause, name
    with zipfile.ZipFile(tmp_path / "slip.pth", "w") as archive:
        archive.writestr("../outside.txt", "x")
    with pytest.raises(LikenessError, match="slip"):
        read_file(tmp_path / "slip.pth")
    assert not (tmp_path.parent / "outside.txt").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LikenessError, match=r"no weight file .*gone\.pth"):
        read_file(tmp_path / "gone.pth")


@pytest.mark.fault("F20")
def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_file({**small(), "conv.bias": torch.tensor([float("nan"), 0.0])}, tmp_path / "nan.safetensors")
    with pytest.raises(LikenessError, match="1 of 2 tensors") as refusal:
        read_file(tmp_path / "nan.safetensors")
    assert "conv.bias" in refusal.value.where


@pytest.mark.parametrize(
    ("name", "content", "of"),
    [
        ("net.h5", b"\x89HDF\r\n\x1a\n", "Keras"),
        ("net.pth", b"\x89HDF", "Keras"),
        ("net.caffemodel", b"\n\x03net", "Caffe"),
    ],
)
def test_weights_of_another_framework_are_to_be_converted_first(tmp_path, name, content, of):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LikenessError, match=f"{of}, which must be converted first") as refusal:
        read_file(tmp_path / name)
    assert refusal.value.code == "WEIGHTS-FORMAT"
    assert refusal.value.fix.startswith(f"likeness weights convert {tmp_path / name}")


def save_converted(path: Path, **changed: str) -> Path:
    preprocessing = json.dumps({"size": 224, "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]})
    card = {"schema": "1", "network": "tiny", "digest": state_digest(small()), "preprocessing": preprocessing}
    save_file(small(), path, {key: value for key, value in {**card, **changed}.items() if value})
    return path


def test_a_converted_file_says_what_it_is(tmp_path):
    path = save_converted(tmp_path / "a.safetensors", format="keras-h5", source="a.h5")
    assert read_file(path, "tiny").keys() == small().keys()
    card = read_card(path)
    assert (card.network, card.preprocessing.mean) == ("tiny", (1.0, 2.0, 3.0))
    with pytest.raises(LikenessError, match="holds weights of tiny") as refusal:
        read_file(path, "large")
    assert (refusal.value.code, refusal.value.cause) == ("WEIGHTS-SHAPE", "")


def test_other_metadata_say_nothing(tmp_path):
    save_file(small(), tmp_path / "timm.safetensors", {"format": "pt"})
    torch.save(small(), tmp_path / "a.pth")
    for path in (tmp_path / "timm.safetensors", tmp_path / "a.pth"):
        assert read_card(path) is None
        assert read_file(path, "any").keys() == small().keys()
    assert read_card(tmp_path / "gone.safetensors") is None


@pytest.mark.fault("F18")
@pytest.mark.parametrize(
    ("changed", "code", "cause"),
    [
        ({"digest": state_digest({})}, "WEIGHTS-HASH", "stated e3b0c44298fc1c14…"),
        ({"digest": ""}, "WEIGHTS-FORMAT", "lack 'digest'"),
        ({"schema": "2"}, "WEIGHTS-FORMAT", "schema '2', not '1'"),
        ({"preprocessing": "{"}, "WEIGHTS-FORMAT", "Expecting property name"),
        ({"preprocessing": "[]"}, "WEIGHTS-FORMAT", "must be a mapping"),
        (
            {"preprocessing": '{"size": 0, "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]}'},
            "WEIGHTS-FORMAT",
            "preprocessing",
        ),
    ],
)
def test_a_converted_file_that_contradicts_itself_is_refused(tmp_path, changed, code, cause):
    path = save_converted(tmp_path / "a.safetensors", **changed)
    with pytest.raises(LikenessError) as refusal:
        read_file(path, "tiny")
    assert refusal.value.code == code
    assert cause in refusal.value.cause


@pytest.mark.fault("F19")
def test_weights_of_another_network_name_the_first_that_disagree():
    wanted = nn.Linear(3, 2).state_dict()
    with pytest.raises(LikenessError) as refusal:
        check_fits({"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, wanted, set(wanted), "linear", "file")
    assert "bias: missing" in refusal.value.where
    assert "extra: unknown to linear" in refusal.value.where
    assert "weight: file (2, 4), network (2, 3)" in refusal.value.where


def test_layers_behind_the_cut_may_be_in_the_file():
    wanted = nn.Linear(3, 2).state_dict()
    state = {**{key: value.half() for key, value in wanted.items()}, "fc.weight": torch.zeros(9)}
    fitting = check_fits(state, wanted, {*wanted, "fc.weight"}, "linear", "file")
    assert fitting.keys() == wanted.keys()
    assert all(value.dtype == torch.float32 for value in fitting.values())


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "_TIMEOUT_S", 5.0)
    with serving(os.urandom(3 << 20)) as served:
        yield served


def test_a_download_is_verified_kept_and_not_repeated(server):
    handler, host = server
    url = f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth"
    path = download(url)
    assert path.read_bytes() == handler.content
    assert download(url) == path
    assert len(handler.asked) == 1


@pytest.mark.fault("F17")
def test_a_cut_download_is_continued(server):
    handler, host = server
    handler.cut_at = 1 << 20
    path = download(f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth")
    assert path.read_bytes() == handler.content
    assert handler.asked == [None, f"bytes={1 << 20}-"]


@pytest.mark.fault("F18")
def test_a_tampered_copy_is_fetched_again(server):
    handler, host = server
    url = f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth"
    path = download(url)
    path.write_bytes(b"\0" + handler.content[1:])
    assert download(url).read_bytes() == handler.content


@pytest.mark.fault("F17")
def test_a_wrong_file_is_refused_and_not_kept(server):
    _, host = server
    with pytest.raises(LikenessError, match="3 tries") as refusal:
        download(f"{host}/net-00000000.pth")
    assert refusal.value.code == "WEIGHTS-HASH"
    assert not list(Path(torch.hub.get_dir()).rglob("net-*"))


@pytest.mark.fault("F16")
def test_without_a_network_the_message_says_where_the_file_goes(server):
    _, host = server
    for url in (f"{host}/missing-12345678.pth", "http://127.0.0.1:9/net-12345678.pth"):
        with pytest.raises(LikenessError) as refusal:
            download(url)
        assert refusal.value.exit_code == 69
        assert f"checkpoints/{url.rsplit('/', 1)[1]}" in refusal.value.fix


@pytest.mark.fault("F16")
def test_a_download_that_stalls_is_continued(server, monkeypatch):
    handler, host = server
    handler.cut_at, handler.stalled = 1 << 20, threading.Event()
    monkeypatch.setattr(weights, "_TIMEOUT_S", 0.3)
    path = download(f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth")
    handler.stalled.set()
    assert path.read_bytes() == handler.content
    assert handler.asked == [None, f"bytes={1 << 20}-"]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_the_digest_may_be_given(server, algorithm):
    handler, host = server
    digest = f"{algorithm}:{hashlib.new(algorithm, handler.content).hexdigest()}"
    path = download(f"{host}/net.h5", digest=digest)
    assert download(f"{host}/net.h5", digest=digest) == path
    assert len(handler.asked) == 1
    path.write_bytes(b"another file")
    assert download(f"{host}/net.h5", digest=digest).read_bytes() == handler.content
    with pytest.raises(LikenessError, match="3 tries") as refusal:
        download(f"{host}/other.h5", digest=f"{algorithm}:{'0' * 32}")
    assert f"{digest[:23]}…, expected {algorithm}:000" in refusal.value.cause


def test_a_file_without_a_published_digest_is_told_by_its_own(server, caplog):
    handler, host = server
    caplog.set_level(logging.INFO)
    handler.cut_at = 1 << 20
    path = download(f"{host}/net.caffemodel")
    assert path.read_bytes() == handler.content
    assert handler.asked == [None, f"bytes={1 << 20}-"]
    said = (
        f"no digest of net.caffemodel is published; its SHA-256 is sha256:{hashlib.sha256(handler.content).hexdigest()}"
    )
    assert caplog.messages.count(said) == 1
    download(f"{host}/net.caffemodel")
    assert caplog.messages.count(said) == 1


@pytest.mark.parametrize(("more", "asked"), [(b"", 1), (b"x", 2)])
def test_what_was_fetched_before_is_taken_if_it_is_whole(server, more, asked):
    handler, host = server
    folder = weights.hub_folder()
    folder.mkdir(parents=True)
    (folder / "net.caffemodel.part").write_bytes(handler.content + more)
    assert download(f"{host}/net.caffemodel").read_bytes() == handler.content
    assert len(handler.asked) == asked


def test_two_jobs_fetch_a_file_once(server):
    handler, host = server
    with ThreadPoolExecutor(2) as jobs:
        paths = list(jobs.map(download, [f"{host}/net.caffemodel"] * 2))
    assert paths[0].read_bytes() == handler.content
    assert len(handler.asked) == 1


@pytest.fixture
def places365(server, monkeypatch):
    """The server in place of the publisher."""
    handler, host = server
    source = Foreign(f"{host}/vgg16_places365.caffemodel", "", foreign_preprocessing("vgg16", "places365"))
    monkeypatch.setitem(weights._FOREIGN, ("vgg16", "places365"), source)
    return handler, weights.hub_folder() / "vgg16-places365" / "vgg16_places365.caffemodel"


def test_weights_known_by_name_are_fetched_and_converted_once(places365):
    handler, raw = places365
    shapes = {
        key: value.shape for key, value in Backbone("vgg16", "features", weights="random").network.state_dict().items()
    }
    rng = np.random.default_rng(0)
    state = {key: rng.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}
    handler.content = foreign.caffe_vgg16(state, top=())
    backbone = Backbone("vgg16", "features", "avg", "places365")
    assert backbone.weights_digest == state_digest({key: torch.from_numpy(value) for key, value in state.items()})
    raw.unlink()
    path = fetch_foreign("vgg16", "places365")
    assert path == raw.with_suffix(".safetensors")
    assert handler.asked == [None]
    assert own_preprocessing("vgg16", str(path)).policy() == own_preprocessing("vgg16", "places365").policy()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(LikenessError, match="does not hold the weights that it says it holds"):
        Backbone("vgg16", "features", "avg", "places365")
    path.unlink()


@pytest.mark.fault("F16", "F17")
def test_what_turns_out_to_be_no_weights_is_not_kept(places365):
    handler, raw = places365
    handler.content = b"<html>moved</html>"
    for _ in range(2):
        with pytest.raises(LikenessError, match="what was downloaded as vgg16_places365") as refusal:
            fetch_foreign("vgg16", "places365")
        assert refusal.value.code == "WEIGHTS-FORMAT"
        assert "HTML" in refusal.value.cause
        assert str(raw) in refusal.value.fix
    assert not raw.exists()
    assert len(handler.asked) == 2


def test_a_wrong_file_that_was_put_there_stays(places365):
    handler, raw = places365
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"<html>saved by hand</html>")
    with pytest.raises(LikenessError, match="could not be read as weights of Keras or Caffe"):
        fetch_foreign("vgg16", "places365")
    assert raw.exists()
    assert not handler.asked


def test_without_a_network_the_message_says_which_file_goes_where(places365, monkeypatch):
    _, raw = places365
    source = Foreign("http://127.0.0.1:9/vgg16_places365.caffemodel", "", foreign_preprocessing("vgg16", "places365"))
    monkeypatch.setitem(weights._FOREIGN, ("vgg16", "places365"), source)
    with pytest.raises(LikenessError) as refusal:
        Backbone("vgg16", "features", "avg", "places365")
    assert refusal.value.exit_code == 69
    assert f"Put the file at {raw} " in refusal.value.fix
    assert "backbone.weights=FILE" in refusal.value.fix


def test_where_nothing_may_be_fetched_weights_that_are_not_here_are_refused_without_a_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "hub_folder", lambda: tmp_path / "hub")
    monkeypatch.setattr(weights, "_fetch", lambda *given: pytest.fail("something was fetched"))
    for fetch in (lambda: download("https://x/w.pth"), lambda: fetch_foreign("vgg16", "places365")):
        with not_fetching(), pytest.raises(LikenessError, match="is not here yet") as refused:
            fetch()
        assert refused.value.code == "NET"
    assert not list(tmp_path.iterdir())
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "w.pth").write_bytes(b"here")
    with not_fetching():
        assert download("https://x/w.pth").read_bytes() == b"here"
