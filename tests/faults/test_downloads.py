"""Weights on their way here, at rest and given by hand: what is not what it should be is refused, and why is said."""

import hashlib
import io
import json
import logging
import os
import resource
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults.bad_server import serving
from safetensors.torch import load_file, save_file

from likeness import console
from likeness.errors import LikenessError
from likeness.features import weights
from likeness.features.backbone import Backbone
from likeness.features.weights import download, state_digest

NAME = "squeezenet1_1"
TRIES = 3
PAGE = b"<html><body>Please log in to the network</body></html>"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch) -> Path:
    """An empty hub folder; nobody is waited for longer than 0.3 s."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "_TIMEOUT_S", 0.3)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def served():
    with serving(os.urandom(3 << 20)) as (answers, host):
        yield answers, f"{host}/net-{hashlib.sha256(answers.content).hexdigest()[:8]}.pth"


def refusal(work: Callable[[], object]) -> LikenessError:
    with pytest.raises(LikenessError) as raised:
        work()
    return raised.value


def assert_said(error: LikenessError, code: str, exit_code: int, **parts: str) -> None:
    """The code, and in each of the five parts the words given for it."""
    assert (error.code, error.exit_code) == (code, exit_code)
    assert parts.keys() == {"what", "where", "cause", "kept", "fix"}
    for part, words in parts.items():
        assert words in getattr(error, part), (part, str(error))


DAYS = {  # what is wrong with the server, and the code, the exit code and the cause that are told
    "not there": ({"status": 404}, "NET", 69, "404"),
    "broken": ({"status": 500}, "NET", 69, "500"),
    "busy": ({"status": 503}, "NET", 69, "503"),
    "a proxy's page": ({"page": PAGE}, "WEIGHTS-HASH", 65, "starts with HTML or XML: a failed download?"),
    "silent": ({"silent": True}, "NET", 69, "timed out"),
    "cut each time": (
        {"cut_at": 100, "resumes": False},
        "NET",
        69,
        "the connection closed after 100 of 3,145,728 bytes",
    ),
    "another file": ({"content": bytes(1000)}, "WEIGHTS-HASH", 65, "got 1,000 bytes"),
    "a longer file": ({"content": b"more", "more": True}, "WEIGHTS-HASH", 65, "got 3,145,732 bytes"),
}


@pytest.mark.fault("F16", "F17")
def test_a_bad_day_of_the_network_is_told_and_the_next_good_day_mends_it(served, hub, figure):
    answers, url = served
    right, healed, path = answers.content, 0, hub / url.rsplit("/", 1)[1]
    other = hub / "good-00000000.pth"
    hub.mkdir(parents=True)
    other.write_bytes(b"of another network")
    for day, (faults, code, exit_code, cause) in DAYS.items():
        answers.asked.clear()
        with _on_a_bad_day(answers, faults, right):
            error = refusal(lambda: download(url))
        kept = "the next try continues it" if code == "NET" else "The wrong file was deleted."
        fix = f"Put the file at {path} by other means, or give its place with backbone.weights=FILE."
        assert_said(error, code, exit_code, what=f"{path.name} in 3 tries", where=url, cause=cause, kept=kept, fix=fix)
        assert len(answers.asked) == TRIES, day
        assert not path.exists()
        healed += download(url).read_bytes() == right
        path.unlink()
    assert [file.name for file in hub.iterdir() if not file.name.startswith(".")] == [other.name]
    assert other.read_bytes() == b"of another network"
    figure(
        "G14",
        "bad days of the network: downloads that heal by themselves",
        f"{len(DAYS)} of {len(DAYS)}",
        f"{healed} of {len(DAYS)}",
    )


@contextmanager
def _on_a_bad_day(answers, faults: dict, right: bytes) -> Iterator[None]:
    faults = dict(faults)
    if faults.get("silent"):
        faults["silent"] = threading.Event()
    if faults.pop("more", False):
        faults["content"] = right + faults["content"]
    before = {name: getattr(answers, name) for name in faults}
    for name, value in faults.items():
        setattr(answers, name, value)
    try:
        yield
    finally:
        if faults.get("silent"):
            faults["silent"].set()
        for name, value in before.items():
            setattr(answers, name, value)


@pytest.mark.fault("F16")
def test_no_wait_is_longer_than_a_minute_without_a_word(served, monkeypatch, caplog, figure):
    """A silent server, one that stops in the middle, and one that drips: lines are due every 10 s, here 50 ms."""
    answers, url = served
    assert console._SECONDS_BETWEEN_LINES <= 10
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.05)
    silences = 0
    answers.silent = threading.Event()
    refusal(lambda: download(url))
    answers.silent.set()
    silences += _is_silent(caplog, f"waiting for an answer of {url.split('/')[2]}, ", 4 * TRIES)
    answers.silent, answers.piece, answers.content = None, 20_000, answers.content[: 1 << 20]
    wrong = f"{url.rsplit('-', 1)[0]}-{hashlib.sha256(answers.content).hexdigest()[:8]}.pth"
    download(wrong)
    silences += _is_silent(caplog, f"{wrong.rsplit('/', 1)[1]}: ", 5)
    assert "of 1024, " in caplog.text
    assert "KiB/s" in caplog.text
    figure("G14", "waits without a word, of a silent and of a slow server", 0, silences)


def _is_silent(caplog, beginning: str, least: int) -> bool:
    """Whether fewer lines than ``least`` were said of a wait."""
    return sum(message.startswith(beginning) for message in caplog.messages) < least


@pytest.mark.fault("F18")
def test_a_kept_file_that_was_changed_or_cut_is_never_taken(served, figure):
    """Each time it is asked for: refused while there is no network, fetched again when there is."""
    answers, url = served
    path, whole = download(url), answers.content
    damages = [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        *(
            lambda data, at=at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            for at in range(0, len(whole), 300_000)
        ),
    ]
    taken = healed = 0
    for damage in damages:
        path.write_bytes(damage(whole))
        answers.status = 503
        taken += refusal(lambda: download(url)).code != "NET"
        answers.status = 200
        healed += download(url).read_bytes() == whole
    figure("G14", "changed files in the cache that were taken", 0, taken)
    figure("G14", "changed files in the cache that were mended", len(damages), healed)


def state() -> dict[str, torch.Tensor]:
    return dict(Backbone(NAME, weights="random").network.state_dict())


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def packed(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"out of the archive")
    return file.getvalue()


def tarred(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return file.getvalue()


def bad_files(folder: Path) -> Iterator[tuple[str, bytes, str, str]]:
    """Name, bytes, code and a word of the message."""
    own = state()
    save_file(own, folder / "whole.safetensors")
    whole, torched = (folder / "whole.safetensors").read_bytes(), saved(own)
    for kept in (0, 4, 30, len(whole) // 2, len(whole) - 1):
        yield f"cut{kept}.safetensors", whole[:kept], "WEIGHTS-FORMAT", "bytes" if kept else "empty file"
    for kept in (0, 30, len(torched) // 2, len(torched) - 1):
        yield f"cut{kept}.pth", torched[:kept], "WEIGHTS-FORMAT", "bytes" if kept else "empty file"
    yield from _changed(folder, own)
    yield "page.pth", PAGE, "WEIGHTS-FORMAT", "HTML"
    yield "page.safetensors", PAGE, "WEIGHTS-FORMAT", "HTML"
    yield "pointer.pth", b"version https://git-lfs.github.com/spec/v1\n", "WEIGHTS-FORMAT", "Git LFS pointer"
    yield "slip.pth", packed("../../slipped.txt"), "WEIGHTS-FORMAT", "archives are not unpacked"
    yield "slip.safetensors", packed("../../slipped.txt"), "WEIGHTS-FORMAT", "a zip archive"
    yield "absolute.pth", packed(f"{folder}/slipped.txt"), "WEIGHTS-FORMAT", "archives are not unpacked"
    yield "slip_tar.pth", tarred("../slipped.txt"), "WEIGHTS-FORMAT", "a gzip archive"
    yield "list.pth", saved([1, 2]), "WEIGHTS-FORMAT", "a list, not a state dict"
    other = dict(Backbone("squeezenet1_0", weights="random").network.state_dict())
    yield "other.pth", saved(other), "WEIGHTS-SHAPE", "The file looks like squeezenet1_0."
    fewer = {key: value[:7] if key.startswith("classifier") else value for key, value in other.items()}
    yield "other_classes.pth", saved(fewer), "WEIGHTS-SHAPE", "The file looks like squeezenet1_0."
    yield (
        "prefix.pth",
        saved({f"encoder.net.{key}": value for key, value in own.items()}),
        "WEIGHTS-SHAPE",
        "'encoder.net.'",
    )
    renamed = {key.replace("squeeze", "press"): value for key, value in own.items()}
    yield "renamed.pth", saved(renamed), "WEIGHTS-SHAPE", "features.3.squeeze.weight: missing"
    for word, value in {"NaN": float("nan"), "inf": float("inf"), "half": 70_000.0}.items():
        spoilt = {key: one.clone().half() if word == "half" else one.clone() for key, one in own.items()}
        spoilt["features.0.bias"][3] = value
        yield f"{word}.pth", saved(spoilt), "WEIGHTS-NAN", "features.0.bias"


def _changed(folder: Path, own: dict[str, torch.Tensor]) -> Iterator[tuple[str, bytes, str, str]]:
    """Of converted files, which say what they hold."""
    told = {"size": 224, "mean": [0.0] * 3, "std": [1.0] * 3}
    card = {"schema": "1", "network": NAME, "digest": state_digest(own), "preprocessing": json.dumps(told)}
    data = _tensors(folder, own, card)
    for place in (4, 3, 2, 1):
        at = len(data) - len(data) // 6 * place
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        yield f"flipped{place}.safetensors", flipped, "WEIGHTS-HASH", "does not hold the weights that it says"
    swapped = {**own, "features.0.bias": own["features.0.bias"] + 1}
    yield "swapped.safetensors", _tensors(folder, swapped, card), "WEIGHTS-HASH", "stated"
    theirs = _tensors(folder, own, {**card, "network": "squeezenet1_0"})
    yield "their.safetensors", theirs, "WEIGHTS-SHAPE", "holds weights of squeezenet1_0"


def _tensors(folder: Path, own: dict[str, torch.Tensor], card: dict[str, str] | None = None) -> bytes:
    save_file(own, folder / "some.safetensors", card)
    return (folder / "some.safetensors").read_bytes()


def _fault_of(path: Path) -> LikenessError | None:
    try:
        Backbone(NAME, weights=str(path))
    except LikenessError as error:
        return error
    return None


@pytest.mark.fault("F18", "F19", "F20", "F21")
def test_each_bad_file_is_refused_before_a_picture_is_looked_at(tmp_path, figure):
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    taken, files = [], list(bad_files(deep))
    for name, data, code, words in files:
        path = deep / name
        path.write_bytes(data)
        error = _fault_of(path)
        if error is None:
            taken.append(name)
            continue
        assert (error.code, error.exit_code) == (code, 65), name
        assert words in str(error), str(error)
        assert str(path) in error.where
        assert error.kept.startswith("Nothing from the file was used")
        assert error.fix
    figure("G14", f"of {len(files)} bad files given by hand, taken", [], taken)
    assert not list(tmp_path.rglob("slipped*"))
    assert not list(tmp_path.parent.glob("slipped*"))


@pytest.mark.fault("F19")
def test_weights_of_data_parallel_and_half_precision_are_taken_for_what_they_are(tmp_path):
    own = state()
    wrapped = {f"module.{key}": value for key, value in own.items()}
    halves = {key: value.half() for key, value in own.items()}
    save_file(own, tmp_path / "plain.safetensors")
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    torch.save(wrapped, tmp_path / "wrapped.pth")
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "nested.pth")
    files = ("plain.safetensors", "wrapped.safetensors", "wrapped.pth", "nested.pth")
    assert len({Backbone(NAME, weights=str(tmp_path / name)).weights_digest for name in files}) == 1
    torch.save(halves, tmp_path / "half.pth")
    network = Backbone(NAME, weights=str(tmp_path / "half.pth")).network
    assert torch.equal(network.state_dict()["features.0.weight"], halves["features.0.weight"].float())
    assert load_file(tmp_path / "plain.safetensors").keys() == own.keys()


@pytest.fixture
def room(monkeypatch):
    """``room(bytes)``: no file of this process may grow beyond so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def said_of_the_disk(error: LikenessError, part: Path, free: int | None = None) -> None:
    assert_said(
        error,
        "DISK",
        74,
        what="bytes more are needed, and " + ("" if free is None else f"{free:,} are free."),
        where=str(part),
        cause="too large" if free is None else "No space left on device",
        kept="What was fetched so far, which the next run continues, and every other file.",
        fix="choose another folder with TORCH_HOME=",
    )


@pytest.mark.fault("F17", "F37")
def test_a_disk_that_fills_up_keeps_the_part_and_the_next_run_goes_on_from_there(served, hub, room, figure):
    answers, url = served
    path = hub / url.rsplit("/", 1)[1]
    part = path.with_name(path.name + ".part")
    hub.mkdir(parents=True)
    (hub / "good-00000000.pth").write_bytes(b"of another network")
    room(1_000_000)
    error = refusal(lambda: download(url))
    room(resource.RLIM_INFINITY)
    said_of_the_disk(error, part)
    lost = int(part.read_bytes() != answers.content[:1_000_000])
    lost += (hub / "good-00000000.pth").read_bytes() != b"of another network"
    assert len(answers.asked) == 1, "no try mends a full disk"
    assert download(url).read_bytes() == answers.content
    assert answers.asked[1] == "bytes=1000000-"
    figure("G16", "disk full while weights are downloaded: files or parts lost", 0, lost)


@pytest.mark.fault("F37")
def test_a_disk_that_is_too_small_is_told_before_a_byte_is_fetched(served, hub, monkeypatch):
    _, url = served
    path = hub / url.rsplit("/", 1)[1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    error = refusal(lambda: download(url))
    said_of_the_disk(error, path.with_name(path.name + ".part"), free=3_000_000)
    assert "3,145,728 bytes more are needed" in error.what
    monkeypatch.undo()


@pytest.mark.fault("F37")
def test_a_tampered_file_is_not_lost_before_its_successor_is_whole(served, hub, room):
    """What cannot be replaced stays: it is refused at each call, and by hand it may still be of use."""
    answers, url = served
    path = download(url)
    path.write_bytes(answers.content + b"\0")
    room(1_000_000)
    refusal(lambda: download(url))
    room(resource.RLIM_INFINITY)
    assert path.read_bytes() == answers.content + b"\0"
    assert download(url).read_bytes() == answers.content


@pytest.mark.fault("F17")
def test_a_hub_folder_that_cannot_be_written_is_told_as_such(served, hub, monkeypatch):
    _, url = served
    hub.parent.mkdir(parents=True)
    hub.write_text("a file where the folder should be")
    error = refusal(lambda: download(url))
    assert (error.code, error.exit_code) == ("DISK", 74)
    assert "exists" in error.cause.lower()
    hub.unlink()
    hub.mkdir()
    opened = open

    def denied(path, *given, **options):
        if str(path).endswith(".part"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given, **options)

    monkeypatch.setattr(weights, "open", denied, raising=False)
    assert_said(
        refusal(lambda: download(url)),
        "STORE-PERM",
        73,
        what=f"{hub} cannot be written by uid {os.getuid()}",
        where=".part",
        cause="Permission denied",
        kept="every other file",
        fix="ask for write access",
    )
