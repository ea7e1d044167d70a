"""Pretrained weights: from a name, a file or a URL to a verified state dict."""

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from likeness.archive import HoldsCode, Unreadable, read_archive
from likeness.console import progress, waiting
from likeness.errors import LikenessError, listed
from likeness.features.foreign import looks_like
from likeness.images.preprocessing import Preprocessing

log = logging.getLogger(__name__)

State = dict[str, Tensor]
_BUNDLED = {  # network: file, digest
    "shufflenet_v2_x0_5": (
        "shufflenet_rooms.safetensors",
        "sha256:aa88945d916d5096ff8784589cc1444f0252075d60b8efda84a7668d289f8e74",
    )
}
_SCHEMA = "1"  # of what a converted file says of itself
_TRIES = 3
_TIMEOUT_S = 60.0
_CHUNK = 1 << 20
_SECONDS_BETWEEN_WAITING_LINES = 10.0
_MAY_FETCH = ContextVar("may_fetch", default=True)


def in_caffe(mean: tuple[float, float, float]) -> Preprocessing:
    """What networks trained in Caffe want: BGR from 0 to 255, less ``mean``, not scaled."""
    return Preprocessing(size=224, channels="bgr", scale=1.0, mean=mean, std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Foreign:
    """Weights that are published for another framework.

    Args:
        digest: As the publisher states it, ``md5:…``; empty where none is stated.
    """

    url: str
    digest: str
    preprocessing: Preprocessing


_IMAGENET = in_caffe((103.939, 116.779, 123.68))
_RESNET50 = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_FOREIGN = {  # by network and name
    ("vgg16", "places365"): Foreign(
        "http://places2.csail.mit.edu/models_places365/vgg16_places365.caffemodel",
        "",
        in_caffe((104.006, 116.669, 122.679)),
    ),
    ("resnet50_caffe", "keras"): Foreign(
        f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{_RESNET50}",
        "md5:4d473c1dd8becc155b73f8504c6f6626",
        _IMAGENET,
    ),
    ("resnet50_caffe", "keras-2.2"): Foreign(  # the file of keras-applications up to 1.0.6, which Keras 2.2.4 used
        f"https://github.com/fchollet/deep-learning-models/releases/download/v0.2/{_RESNET50}",
        "md5:a268eb855778b3df3c7506639542a6af",
        _IMAGENET,
    ),
}
FOREIGN_NAMES = {name for _, name in _FOREIGN}


@dataclass(frozen=True)
class Card:
    """What a converted file says of itself: the network that it is of, its state's digest, its preprocessing."""

    network: str
    digest: str
    preprocessing: Preprocessing


def read_bundled(network: str) -> State:
    """The weights of a network that ship with the package.

    Raises:
        LikenessError: WEIGHTS-MISSING for a network without any, WEIGHTS-HASH for a damaged installation.
    """
    if network not in _BUNDLED:
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"no weights of {network} are bundled.",
            where="backbone.weights",
            fix=f"weights=bundled goes with {', '.join(_BUNDLED)}; else give a file, 'default' or 'random'.",
        )
    file, expected = _BUNDLED[network]
    with as_file(files("likeness.features") / "bundled" / file) as path:
        if not _has(path, expected):
            raise LikenessError(
                "WEIGHTS-HASH",
                f"{file} is not the file that the package was published with.",
                where=str(path),
                cause=f"{_digest(path)[:23]}…, expected {expected[:23]}…",
                kept="Nothing from the file was used.",
                fix="Install the package again.",
            )
        return read_file(path)


def read_file(path: Path, network: str | None = None) -> State:
    """A state dict from ``.safetensors`` or ``.pth``/``.pt``, opened as data: nothing in it is run.

    A state dict nested under ``state_dict`` or ``model`` and the ``module.`` prefix of DataParallel are unwrapped.

    Args:
        network: What it is to fit; a file that says of which network it is must say this one.

    Raises:
        LikenessError: WEIGHTS-MISSING, WEIGHTS-FORMAT (not weights, cut, with code in it, or not converted yet),
            WEIGHTS-SHAPE, WEIGHTS-HASH (not the state that the file says it holds), WEIGHTS-NAN.
    """
    if not path.is_file():
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"there is no weight file {path}.",
            where=str(path.absolute()),
            fix="Correct backbone.weights=, or use 'default', 'bundled' or 'random'.",
        )
    _refuse_unconverted(path)
    card = read_card(path)
    if card and network not in (None, card.network):
        raise _other_network(path, card.network, str(network))
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if card and (got := state_digest(state)) != card.digest:
        raise _changed(path, got, card.digest)
    _refuse_non_finite(state, path)
    return state


def read_card(path: Path) -> Card | None:
    """What a converted file says of itself; None for one that says nothing, and for what is no ``.safetensors``.

    Raises:
        LikenessError: WEIGHTS-FORMAT.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        if not {"schema", "network"} <= said.keys():
            return None
        if said["schema"] != _SCHEMA:
            raise ValueError(f"it was converted by another version: schema {said['schema']!r}, not {_SCHEMA!r}")
        return Card(said["network"], said["digest"], Preprocessing(**json.loads(said["preprocessing"])))
    except KeyError as error:
        raise _format_error(path, f"its metadata lack {error}") from error
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _format_error(path, error.what if isinstance(error, LikenessError) else str(error)) from error


def _refuse_unconverted(path: Path) -> None:
    with open(path, "rb") as file:
        keras = file.read(4) == b"\x89HDF"
    if keras or path.suffix == ".caffemodel":
        raise LikenessError(
            "WEIGHTS-FORMAT",
            f"{path.name} holds weights of {'Keras' if keras else 'Caffe'}, which must be converted first.",
            where=str(path.absolute()),
            cause=looks_like(path),
            kept="Nothing from the file was used.",
            fix=f"likeness weights convert {path}, then backbone.weights={path.with_suffix('.safetensors')}",
        )


def _other_network(path: Path, theirs: str, ours: str) -> LikenessError:
    silent = {theirs, ours} == {"resnet50", "resnet50_caffe"}
    return LikenessError(
        "WEIGHTS-SHAPE",
        f"{path.name} holds weights of {theirs}, and backbone.name is {ours}.",
        where=str(path.absolute()),
        cause="They would fit key by key and give wrong features: a stage's stride is on another convolution."
        if silent
        else "",
        kept="Nothing from the file was used; no feature was computed.",
        fix=f"Set backbone.name={theirs}, or give weights of {ours}.",
    )


def _changed(path: Path, got: str, stated: str) -> LikenessError:
    return LikenessError(
        "WEIGHTS-HASH",
        f"{path.name} does not hold the weights that it says it holds.",
        where=str(path.absolute()),
        cause=f"digest {got[:16]}…, stated {stated[:16]}…",
        kept="Nothing from the file was used.",
        fix="The file was changed or damaged: remove it, and fetch or convert it again.",
    )


def _read_safetensors(path: Path) -> State:
    try:
        return _unwrapped(load_file(path))
    except (SafetensorError, OSError) as error:
        raise _format_error(path, str(error)) from error


def _read_torch(path: Path) -> State:
    try:
        content = read_archive(path, legacy=True)
    except HoldsCode as error:
        raise _format_error(path, f"it holds code ({error})") from error
    except (Unreadable, OSError) as error:
        raise _format_error(path, str(error)) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise _format_error(path, f"it holds a {type(content).__name__}, not a state dict of tensors")
    return _unwrapped(content)


def _unwrapped(state: Mapping[str, Tensor]) -> State:
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _format_error(path: Path, cause: str) -> LikenessError:
    return LikenessError(
        "WEIGHTS-FORMAT",
        f"{path.name} could not be opened as weights.",
        where=str(path.absolute()),
        cause=f"{cause}  [{looks_like(path)}]",
        kept="Nothing from the file was used.",
        fix="Give a .safetensors or a .pth state dict; archives are not unpacked, so give the file inside.",
    )


def _refuse_non_finite(state: State, path: Path) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise LikenessError(
            "WEIGHTS-NAN",
            f"{len(bad)} of {len(state)} tensors are not finite.",
            where=f"{path.absolute()}\n{listed(bad, 3)}",
            cause="The file is damaged, or its training had diverged when it was saved.",
            kept="Nothing from the file was used; no feature was computed.",
            fix="Get the file again, or take another one.",
        )


def check_fits(
    state: State,
    wanted: Mapping[str, Tensor],
    known: set[str],
    network: str,
    source: str,
    recognised: Callable[[State], str | None] = lambda _: None,
) -> State:
    """The part of ``state`` that the cut network needs, as float32 where floating.

    Args:
        state: What the file holds.
        wanted: The cut network's own state dict (shapes; may be on the meta device).
        known: Every key of the uncut network: layers behind the cut may be in the file.
        recognised: The network that a state is of, where that is known; asked of one that does not fit.

    Raises:
        LikenessError: WEIGHTS-SHAPE, with the first tensors that are missing, unknown or of another shape.
    """
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    faults = [f"{key}: missing" for key in wanted if key not in state and key not in optional]
    faults += [f"{key}: unknown to {network}" for key in state if key not in known]
    faults += [
        f"{key}: file {tuple(state[key].shape)}, network {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults:
        raise LikenessError(
            "WEIGHTS-SHAPE",
            f"the weights do not fit {network}: {len(faults)} of {len(wanted)} tensors disagree.",
            where=f"{source}\n{listed(faults, 5)}",
            cause=_why(state, known, recognised),
            kept="Nothing from the file was used; no feature was computed.",
            fix="Give the weights of this network, or set backbone.name to the network that the file is of.",
        )
    chosen = {key: state[key] if key in state else torch.zeros((), dtype=torch.int64) for key in wanted}
    return {key: value.float() if value.is_floating_point() else value for key, value in chosen.items()}


def _why(state: State, known: set[str], recognised: Callable[[State], str | None]) -> str:
    first = next(iter(state), "")
    for at in (place + 1 for place, letter in enumerate(first) if letter == "."):
        if all(key.startswith(first[:at]) for key in state) and any(key[at:] in known for key in state):
            return f"Every name in the file begins with {first[:at]!r}: without that, they are names of the network."
    found = recognised(state)
    return (
        f"The file looks like {found}." if found else "Its names and shapes are those of no network that is known here."
    )


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over names, shapes, types and bytes: the same weights have it in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def foreign_names(network: str) -> list[str]:
    """The names of weights of other frameworks that are known for a network."""
    return [name for known, name in _FOREIGN if known == network]


def foreign_preprocessing(network: str, name: str) -> Preprocessing:
    """What weights that are known by name were trained with; nothing is fetched."""
    return _FOREIGN[network, name].preprocessing


def fetch_foreign(network: str, name: str) -> Path:
    """The converted file of weights that are known by name: found in torch's hub folder, or fetched and converted.

    Raises:
        LikenessError: WEIGHTS-MISSING for a network without them, NET and WEIGHTS-HASH as ``download``, WEIGHTS-FORMAT,
            WEIGHTS-SHAPE and WEIGHTS-NAN for what was fetched, CONFIG-EXTRA without what reads it.
    """
    if (network, name) not in _FOREIGN:
        names = foreign_names(network)
        others = ", ".join(sorted(known for known, one in _FOREIGN if one == name))
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"no weights {name!r} are known for {network}.",
            where="backbone.weights",
            fix=f"weights={name} goes with {others}; else give {', '.join([*names, 'a file'])}, 'default' or 'random'.",
        )
    source = _FOREIGN[network, name]
    folder = hub_folder() / f"{network}-{name}"
    raw = folder / source.url.rsplit("/", 1)[-1]
    converted = raw.with_suffix(".safetensors")
    if converted.is_file():
        return converted
    refuse_fetching(converted.name, source.url)
    with _alone(converted):
        if not converted.is_file():
            was_there = raw.is_file()
            _convert(download(source.url, digest=source.digest, folder=folder), converted, source.url, was_there)
    return converted


def _convert(raw: Path, converted: Path, url: str, was_there: bool) -> None:
    """Convert what was fetched. What turns out to be no such weights is not kept, or no later call would mend it."""
    from likeness.features.convert import convert  # it is built on this module

    try:
        convert(raw, converted)
    except LikenessError as error:
        if was_there or error.code not in ("WEIGHTS-FORMAT", "WEIGHTS-SHAPE", "WEIGHTS-NAN"):
            raise
        raw.unlink()
        raise LikenessError(
            error.code,
            f"what was downloaded as {raw.name} is not what it should be: {error.what}",
            where=url,
            cause=error.cause,
            kept="The wrong file was deleted.",
            fix=f"Put the right file at {raw} by other means, or give converted weights with backbone.weights=FILE.",
        ) from error


def hub_folder() -> Path:
    """Where torchvision keeps what it downloads, and so do we."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def download(url: str, *, digest: str = "", folder: Path | None = None) -> Path:
    """The local copy of ``url``, fetched if it is not there; verified at every call.

    Args:
        digest: What the publisher states, ``md5:`` or ``sha256:`` and hex digits. Left out, it is the first digits of
            the SHA-256 in the file's name (``resnet50-11ad3fa6.pth``). A file with neither is taken as it comes, and
            a log line says so.
        folder: torch's hub folder when left out.

    Raises:
        LikenessError: NET when it cannot be fetched, WEIGHTS-HASH when three downloads have the wrong digest, DISK and
            STORE-PERM when it cannot be kept.
    """
    path = (folder or hub_folder()) / url.rsplit("/", 1)[-1]
    named = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    expected = digest or (f"sha256:{named[1]}" if named else "")
    if _is_whole(path, expected):
        return path
    refuse_fetching(path.name, url)
    with _alone(path):
        if not _is_whole(path, expected):
            os.replace(_fetched(url, path, expected), path)
            if not expected:
                log.info("no digest of %s is published; its SHA-256 is %s", path.name, _digest(path))
    return path


def _is_whole(path: Path, expected: str) -> bool:
    if not path.is_file():
        return False
    if not (same := _has(path, expected)):
        log.warning("%s is not the published file (%s…): it is fetched again", path, expected[:23])
    return same


@contextmanager
def not_fetching() -> Iterator[None]:
    """Within it, weights that would have to be downloaded are refused: NET says what is not here."""
    token = _MAY_FETCH.set(False)
    try:
        yield
    finally:
        _MAY_FETCH.reset(token)


def refuse_fetching(name: str, url: str) -> None:
    """Raises NET where nothing may be downloaded now."""
    if not _MAY_FETCH.get():
        raise LikenessError("NET", f"{name} is not here yet: a run would download it.", where=url, fix="Start the run.")


def _fetched(url: str, path: Path, expected: str) -> Path:
    """A verified download beside ``path``."""
    cause: object = ""
    for attempt in range(_TRIES):
        try:
            part = _fetch(url, path)
        except (OSError, http.client.HTTPException) as error:
            cause = error
            log.warning("[NET] try %d of %d: %s: %s", attempt + 1, _TRIES, url, error)
            continue
        if _has(part, expected):
            return part
        got = _digest(part, expected.partition(":")[0])
        cause = f"got {looks_like(part)}; {got[:23]}…, expected {expected[:23]}…"
        part.unlink()
    code = "WEIGHTS-HASH" if isinstance(cause, str) else "NET"
    raise LikenessError(
        code,
        f"could not download {path.name} in {_TRIES} tries.",
        where=url,
        cause=str(cause),
        kept="What was fetched so far: the next try continues it." if code == "NET" else "The wrong file was deleted.",
        fix=f"Put the file at {path} by other means, or give its place with backbone.weights=FILE.",
    ) from (cause if isinstance(cause, BaseException) else None)


def _fetch(url: str, path: Path) -> Path:
    """Download to ``path``.part, continuing a partial file where the server allows it."""
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with waiting(f"an answer of {urlsplit(url).netloc}"):
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is left to send: the part is whole, or not of this file
            return _whole_part(part, error)
        raise
    have = have if answer.status == 206 else 0
    length = int(answer.headers.get("Content-Length") or 0)
    total = have + length
    with answer, _opened(part, bool(have), length) as file, progress(path.name, total >> 10, "KiB") as advance:
        advance(have >> 10)
        while chunk := answer.read1(_CHUNK):  # what is there; read would wait for all of it, in silence
            _append(chunk, file, part, max(total - have, len(chunk)))
            advance((have + len(chunk) >> 10) - (have >> 10))
            have += len(chunk)
    if total and part.stat().st_size < total:
        raise OSError(f"the connection closed after {part.stat().st_size:,} of {total:,} bytes")
    return part


@contextmanager
def _opened(part: Path, continued: bool, needed: int) -> Iterator[BinaryIO]:
    with ExitStack() as held:
        with _explained(part, needed):
            part.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(part, "ab" if continued else "wb", buffering=0))
            if needed > shutil.disk_usage(part.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield file


def _append(chunk: bytes, file: BinaryIO, part: Path, needed: int) -> None:
    while chunk:
        with _explained(part, needed):
            chunk = chunk[file.write(chunk) :]


@contextmanager
def _explained(part: Path, needed: int) -> Iterator[None]:
    """What keeps a download from being kept is no fault of the network, and trying again does not mend it."""
    try:
        yield
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        folder = next(folder for folder in part.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(folder).free
        raise LikenessError(
            "STORE-PERM" if denied else "DISK",
            f"{part.stem} cannot be downloaded: {part.parent} cannot be written by uid {os.getuid()}."
            if denied
            else f"{part.stem} cannot be downloaded: {needed:,} bytes more are needed, and {free:,} are free.",
            where=str(part),
            cause=str(error),
            kept="What was fetched so far, which the next run continues, and every other file.",
            fix="Free some space or ask for write access, choose another folder with TORCH_HOME=, or put the file\n"
            "elsewhere by other means and give its place with backbone.weights=FILE.",
        ) from error


def _whole_part(part: Path, answer: urllib.error.HTTPError) -> Path:
    size = part.stat().st_size
    if answer.headers.get("Content-Range") != f"bytes */{size}":
        part.unlink()
        raise OSError(f"the {size:,} bytes fetched before are no part of this file; they were deleted") from answer
    return part


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two jobs do not write one download at once; where locks do not work, both may."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_SECONDS_BETWEEN_WAITING_LINES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire()
            except Timeout:
                log.info("waiting for %s, which another process fetches", path.name)
    except (OSError, NotImplementedError) as error:
        log.warning("[LOCK] no working lock beside %s (%s)", path, error)
    try:
        yield
    finally:
        lock.release()


def _has(path: Path, expected: str) -> bool:
    """Whether the file has the stated digest; any file has none."""
    return not expected or _digest(path, expected.partition(":")[0]).startswith(expected)


def _digest(path: Path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
