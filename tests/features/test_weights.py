import hashlib
import http.server
import os
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from likeness.errors import LikenessError
from likeness.features import weights
from likeness.features.weights import check_fits, download, read_bundled, read_file, state_digest


def small() -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([0.5, -0.5])}


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


def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_file({**small(), "conv.bias": torch.tensor([float("nan"), 0.0])}, tmp_path / "nan.safetensors")
    with pytest.raises(LikenessError, match="1 of 2 tensors") as refusal:
        read_file(tmp_path / "nan.safetensors")
    assert "conv.bias" in refusal.value.where


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


class Server(http.server.BaseHTTPRequestHandler):
    content = b""
    cut_at: int | None = None
    asked: list[str | None]

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.asked.append(self.headers.get("Range"))
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : self.cut_at if not start else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "_TIMEOUT_S", 5.0)
    handler = type("Handler", (Server,), {"content": os.urandom(3 << 20), "asked": []})
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()
    thread.join()


def test_a_download_is_verified_kept_and_not_repeated(server):
    handler, host = server
    url = f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth"
    path = download(url)
    assert path.read_bytes() == handler.content
    assert download(url) == path
    assert len(handler.asked) == 1


def test_a_cut_download_is_continued(server):
    handler, host = server
    handler.cut_at = 1 << 20
    path = download(f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth")
    assert path.read_bytes() == handler.content
    assert handler.asked == [None, f"bytes={1 << 20}-"]


def test_a_tampered_copy_is_fetched_again(server):
    handler, host = server
    url = f"{host}/net-{hashlib.sha256(handler.content).hexdigest()[:8]}.pth"
    path = download(url)
    path.write_bytes(b"\0" + handler.content[1:])
    assert download(url).read_bytes() == handler.content


def test_a_wrong_file_is_refused_and_not_kept(server):
    _, host = server
    with pytest.raises(LikenessError, match="3 tries") as refusal:
        download(f"{host}/net-00000000.pth")
    assert refusal.value.code == "WEIGHTS-HASH"
    assert not list(Path(torch.hub.get_dir()).rglob("net-*"))


def test_without_a_network_the_message_says_where_the_file_goes(server):
    _, host = server
    for url in (f"{host}/missing-12345678.pth", "http://127.0.0.1:9/net-12345678.pth"):
        with pytest.raises(LikenessError) as refusal:
            download(url)
        assert refusal.value.exit_code == 69
        assert f"checkpoints/{url.rsplit('/', 1)[1]}" in refusal.value.fix
