"""Pretrained weights: from a name, a file or a URL to a verified state dict."""

import hashlib
import logging
import os
import pickle
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from likeness.console import progress
from likeness.errors import LikenessError, listed

log = logging.getLogger(__name__)

State = dict[str, Tensor]
_BUNDLED = {  # network: file, SHA-256
    "shufflenet_v2_x0_5": (
        "shufflenet_rooms.safetensors",
        "aa88945d916d5096ff8784589cc1444f0252075d60b8efda84a7668d289f8e74",
    )
}
_TRIES = 3
_TIMEOUT_S = 60.0
_CHUNK = 1 << 20


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
        if (got := _sha256(path)) != expected:
            raise LikenessError(
                "WEIGHTS-HASH",
                f"{file} is not the file that the package was published with.",
                where=str(path),
                cause=f"sha256 {got[:16]}…, expected {expected[:16]}…",
                kept="Nothing from the file was used.",
                fix="Install the package again.",
            )
        return read_file(path)


def read_file(path: Path) -> State:
    """A state dict from ``.safetensors`` or ``.pth``/``.pt``, opened as data: nothing in it is run.

    A state dict nested under ``state_dict`` or ``model`` and the ``module.`` prefix of DataParallel are unwrapped.

    Raises:
        LikenessError: WEIGHTS-MISSING, WEIGHTS-FORMAT (not weights, cut, or with code in it), WEIGHTS-NAN.
    """
    if not path.is_file():
        raise LikenessError(
            "WEIGHTS-MISSING",
            f"there is no weight file {path}.",
            where=str(path.absolute()),
            fix="Correct backbone.weights=, or use 'default', 'bundled' or 'random'.",
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    _refuse_non_finite(state, path)
    return state


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _format_error(path, str(error)) from error


def _read_torch(path: Path) -> State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise _format_error(path, f"it holds code ({named[1]})" if named else "it is not a weight file") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _format_error(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise _format_error(path, f"it holds a {type(content).__name__}, not a state dict of tensors")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _format_error(path: Path, cause: str) -> LikenessError:
    return LikenessError(
        "WEIGHTS-FORMAT",
        f"{path.name} could not be opened as weights.",
        where=str(path.absolute()),
        cause=f"{cause}  [{_looks_like(path)}]",
        kept="Nothing from the file was used.",
        fix="Give a .safetensors or a .pth state dict; archives are not unpacked, so give the file inside.",
    )


def _looks_like(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(64)
    size = f"{path.stat().st_size:,} bytes"
    if not start:
        return "empty file"
    if start.lstrip()[:1] == b"<":
        return f"{size}, starts with HTML or XML: a failed download?"
    if start.startswith(b"\x89HDF"):
        return f"{size}, an HDF5 file (Keras)"
    return f"{size}, starts with {start[:8]!r}"


def _refuse_non_finite(state: State, path: Path) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise LikenessError(
            "WEIGHTS-NAN",
            f"{len(bad)} of {len(state)} tensors are not finite.",
            where=f"{path.absolute()}\n{listed(bad, 3)}",
            kept="Nothing from the file was used; no feature was computed.",
            fix="Get the file again, or take another one.",
        )


def check_fits(state: State, wanted: Mapping[str, Tensor], known: set[str], network: str, source: str) -> State:
    """The part of ``state`` that the cut network needs, as float32 where floating.

    Args:
        state: What the file holds.
        wanted: The cut network's own state dict (shapes; may be on the meta device).
        known: Every key of the uncut network: layers behind the cut may be in the file.

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
            kept="Nothing from the file was used; no feature was computed.",
            fix="Give the weights of this network, or set backbone.name to the network that the file is of.",
        )
    chosen = {key: state[key] if key in state else torch.zeros((), dtype=torch.int64) for key in wanted}
    return {key: value.float() if value.is_floating_point() else value for key, value in chosen.items()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over names, shapes, types and bytes: the same weights have it in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def download(url: str, *, timeout_s: float = _TIMEOUT_S) -> Path:
    """The local copy of ``url`` in torch's hub folder, fetched if it is not there; verified at every call.

    The last part of the name carries the first hex digits of the file's SHA-256 (``resnet50-11ad3fa6.pth``).

    Raises:
        LikenessError: NET when it cannot be fetched, WEIGHTS-HASH when three downloads have the wrong digest.
    """
    name = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    named = re.search(r"-([0-9a-f]{8,64})\.", name)
    expected = named[1] if named else ""
    if path.is_file() and _sha256(path).startswith(expected):
        return path
    cause: object = ""
    for attempt in range(_TRIES):
        try:
            part = _fetch(url, path, timeout_s)
        except (OSError, urllib.error.URLError) as error:
            cause = error
            log.warning("[NET] try %d of %d: %s: %s", attempt + 1, _TRIES, url, error)
            continue
        if _sha256(part).startswith(expected):
            os.replace(part, path)
            return path
        cause = f"got {part.stat().st_size:,} bytes, sha256 {_sha256(part)[:16]}…, expected {expected}…"
        part.unlink()
    code = "WEIGHTS-HASH" if isinstance(cause, str) else "NET"
    raise LikenessError(
        code,
        f"could not download {name} in {_TRIES} tries.",
        where=url,
        cause=str(cause),
        kept="What was fetched so far: the next try continues it." if code == "NET" else "The wrong file was deleted.",
        fix=f"Put the file at {path} by other means, or give its place with backbone.weights=FILE.",
    ) from (cause if isinstance(cause, BaseException) else None)


def _fetch(url: str, path: Path, timeout_s: float) -> Path:
    """Download to ``path``.part, continuing a partial file where the server allows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole, or not of this file
            return part
        raise
    with answer, open(part, "ab" if answer.status == 206 else "wb") as file:
        have = have if answer.status == 206 else 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        with progress(path.name, total >> 20, "MiB") as advance:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk) >> 20)
    if total and part.stat().st_size < total:
        raise OSError(f"the connection closed after {part.stat().st_size:,} of {total:,} bytes")
    return part


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
