"""A dataset for a machine without any: drawn rooms, six pictures a home."""

import io
import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from likeness.console import progress
from likeness.errors import LikenessError
from likeness.files import sweep_temporary, write_json
from likeness.images.drawing import Dice
from likeness.images.folder import EXTENSIONS, ImageFolder
from likeness.images.furniture import KINDS
from likeness.images.options import readable, refuse_faults
from likeness.images.rooms import draw_room
from likeness.images.table import ImageTable

_RECIPE, _VERSION = ".recipe.json", 1
_DRAWN = re.compile(r"seed-?\d+-size\d+-homes\d+")


@dataclass(frozen=True)
class DrawnRooms:
    """Rooms drawn into ``root`` the first time, then read like any folder; whole homes on one side of the split.

    Args:
        root: The folder that they are drawn into.
        homes: Each has one picture of each of six kinds of room.
        seed: Decides every picture, and the split.
        size: Side of a picture in pixels.
    """

    root: str
    homes: int = 200
    seed: int = 0
    size: int = 160
    on_bad_image: Literal["raise", "quarantine"] = "raise"
    mostly_white: float | None = None

    def __post_init__(self) -> None:
        few = f"homes: 10 or more, so that every split has some, not {self.homes}" if self.homes < 10 else None
        small = f"size: 32 or more pixels, not {self.size}" if self.size < 32 else None
        refuse_faults("the drawn rooms", [few, small])

    @property
    def folder(self) -> Path:
        """Of the pictures of this recipe."""
        return Path(self.root) / f"seed{self.seed}-size{self.size}-homes{self.homes}"

    def table(self) -> ImageTable:
        """Draws what is missing, then lists it.

        Raises:
            LikenessError: CONFIG where ``root`` is somebody's folder of pictures: nothing is drawn among them.
        """
        if _has_pictures(Path(self.root)):
            raise LikenessError(
                "CONFIG",
                "the rooms would be drawn among other pictures.",
                where=f"data.root={readable(self.root)}",
                cause="data=demo, the default, draws its rooms into data.root.",
                fix=f"To use these pictures: data=folder data.root={readable(self.root)}",
            )
        write_rooms(self.folder, self.homes, self.seed, self.size)
        return ImageFolder(str(self.folder), home_pattern=r"home\d+", seed=self.seed).table()


def _has_pictures(root: Path) -> bool:
    """Whether there are pictures in ROOT/CLASS or ROOT/SPLIT/CLASS; folders of drawn rooms do not count."""
    others = [place for place in root.glob("*") if place.is_dir() and not _DRAWN.fullmatch(place.name)]
    files = (file for place in others for depth in ("*", "*/*") for file in place.glob(depth))
    return any(file.suffix.lower() in EXTENSIONS for file in files)


def _jpeg(kind: str, home: int, seed: int, size: int) -> bytes:
    data = io.BytesIO()
    quality = Dice(seed, home, KINDS.index(kind), 1).count(60, 95)
    draw_room(kind, home, seed, size).save(data, "JPEG", quality=quality)
    return data.getvalue()


def write_rooms(root: Path, homes: int = 200, seed: int = 0, size: int = 160) -> None:
    """One picture of each kind for each home, as ``root/<kind>/home0000_<kind>.jpg``; those already there are kept.

    More homes only add pictures. A call that was killed is completed by the next.

    Raises:
        LikenessError: DATA-LAYOUT when ``root`` holds rooms of another recipe, or files that are not drawn rooms;
            DISK when a picture cannot be written.
    """
    _check_recipe(root, {"drawn": "rooms", "version": _VERSION, "seed": seed, "size": size})
    paths = {(kind, home): root / kind / f"home{home:04d}_{kind}.jpg" for home in range(homes) for kind in KINDS}
    missing = {key: path for key, path in paths.items() if not (path.exists() and path.stat().st_size)}
    for kind in KINDS:
        (root / kind).mkdir(exist_ok=True)
        sweep_temporary(root / kind)
    with progress("drawing rooms", len(missing)) as advance:
        for (kind, home), path in missing.items():
            _write_whole(path, _jpeg(kind, home, seed, size))
            advance()


def _check_recipe(root: Path, recipe: dict[str, str | int]) -> None:
    file = root / _RECIPE
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        found = None
    others = [path for path in root.glob("*") if path == file or not path.name.startswith(".")]
    if found is None and not others:
        write_json(file, recipe)
    elif found != recipe:
        raise LikenessError(
            "DATA-LAYOUT",
            f"{root} holds {found or 'other files'}, not rooms drawn as {recipe}.",
            where=str(file),
            fix="Choose another folder, or remove this one: drawn rooms can be drawn again.",
        )


def _write_whole(path: Path, data: bytes) -> None:
    """Atomic, but not synced: on a slow disk that takes longer than drawing, and a lost picture is drawn again."""
    temporary = path.with_name(f".tmp-{socket.gethostname()}-{os.getpid()}-{path.name}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LikenessError(
            "DISK",
            f"could not write a picture of {len(data):,} bytes.",
            where=str(path),
            cause=str(error),
            kept="Every picture before this one.",
            fix="Free some space or choose another folder, then run the same command again.",
        ) from error
