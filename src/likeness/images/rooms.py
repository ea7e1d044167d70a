"""Drawn rooms: pictures of six kinds of room in as many homes as asked, made from nothing but a seed.

A picture is a box with walls, seen through a camera, and furnished from one table (`furniture.PIECES`). Colours belong
to the home, not to the kind, and most pieces are shared between kinds.
"""

import math
from dataclasses import replace

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from likeness.images.drawing import (
    Camera,
    Colour,
    Dice,
    Face,
    Point,
    Real,
    Room,
    Solid,
    Span,
    Spot,
    back_to_front,
    lit,
    paint,
)
from likeness.images.furniture import KINDS, PIECES, Piece

_SLACK = 1e-6  # metres that count as touching
_WHITE, _GREY, _DARK = (255.0, 255.0, 255.0), (215.0, 215.0, 215.0), (150.0, 150.0, 150.0)


def _home_colours(seed: int, home: int) -> dict[str, Colour]:
    """What the pictures of a home share. Independent of the kind of room."""
    dice = Dice(seed, home, len(KINDS))
    brown = (0.05, 0.11)
    wood = dice.colour((0.15, 0.65), (0.25, 0.9), brown)
    return {
        "wall": dice.colour((0, dice.between(0.02, 0.3)), (0.7, 1)),
        "wall2": dice.colour((0, 0.4), (0.5, 0.98)),
        "ceiling": dice.colour((0, 0.05), (0.85, 1)),
        "floor": dice.pick([wood, dice.colour((0.1, 0.6), (0.25, 0.85), brown), dice.colour((0, 0.3), (0.25, 0.9))]),
        "tile": dice.colour((0, 0.25), (0.55, 1)),
        "trim": dice.pick([wood, dice.colour((0, 0.08), (0.7, 1))]),
        "wood": wood,
        "paint": dice.colour((0, 0.4), (0.35, 1)),
        "white": dice.colour((0, 0.1), (0.82, 1)),
        "ceramic": dice.colour((0, 0.3 if dice.chance(0.2) else 0.06), (0.6, 1)),
        "fabric": dice.colour((0, 0.5), (0.25, 0.95)),
        "fabric2": dice.colour((0, 0.7), (0.3, 0.95)),
        "accent": dice.colour((0.3, 0.85), (0.35, 0.95)),
        "metal": dice.colour((0, 0.08), (0.35, 0.85)),
        "dark": dice.colour((0, 0.3), (0.05, 0.22)),
        "leaf": dice.colour((0.3, 0.7), (0.2, 0.6), (0.2, 0.4)),
    }


# Width and depth in metres; then how likely walls and floor are tiled, in percent.
_PLANS: dict[str, tuple[Span, Span, int, int]] = {
    "bath_room": ((1.9, 3.2), (2.4, 3.6), 80, 90),
    "bed_room": ((2.9, 4.2), (3.2, 4.4), 3, 12),
    "dining_room": ((2.9, 4.4), (3.3, 4.8), 3, 20),
    "entre": ((1.5, 2.6), (2.8, 4.8), 5, 45),
    "kitchen": ((2.4, 3.8), (2.8, 4.2), 45, 70),
    "living_room": ((3.2, 4.8), (3.4, 5.0), 3, 15),
}


def _empty_room(kind: str, colours: dict[str, Colour], dice: Dice) -> Room:
    width, depth, _, _ = _PLANS[dice.pick(KINDS) if dice.chance(0.05) else kind]
    size = (dice.between(*width), dice.between(2.35, 2.85), dice.between(*depth))
    lens = 0.5 / math.tan(math.radians(dice.between(58, 82)) / 2)
    place = dice.between(0.22, 0.78)
    yaw = (0.5 - place) * dice.between(0.5, 1.5) + dice.between(-0.12, 0.12)
    eye = (place * size[0], dice.between(1.15, 1.75), dice.between(0.1, 0.5))
    centre = (0.5 + dice.between(-0.06, 0.06), 0.5 + dice.between(-0.06, 0.06))
    camera = Camera(eye, yaw, dice.between(-0.22, -0.02), lens, centre)
    left, right = dice.pick(((0.7, 0.95), (0.95, 0.7), (0.82, 0.86)))
    shades = [(right, left), (0.92, 1.04), (dice.between(0.8, 1), 0.85)]
    return Room(colours, dice, size, camera, shades, day=dice.chance(0.8))


def _wall(room: Room, wall: str) -> Spot:
    x, y, z = room.size
    low = (x, 0.0, 0.0) if wall == "right" else (0.0, 0.0, z if wall == "back" else 0.0)
    return Spot(room, wall, low, (0.0 if wall == "left" else x, y, z))


def _joints(at: Spot, y: Span, step: Span, colour: Colour) -> None:
    """The lines between the tiles of a wall; ``step`` is a tile's width and height in metres."""
    width, height, _ = at.size
    for row in range(int((y[1] - y[0]) * height / step[1]) + 1):
        low = y[0] + row * step[1] / height
        at.patch((0, 1), (low, low + 0.008 / height), colour)
    for column in range(int(width / step[0]) + 1):
        low = column * step[0] / width
        at.patch((low, low + 0.008 / width), y, colour)


def _draw_walls(room: Room, tiled: bool) -> list[Face]:
    dice, faces = room.dice, list[Face]()
    tile, trim = room.colours["tile"], room.colours["trim"]
    style = "tiles" if tiled else dice.pick(("plain",) * 8 + ("panel", "panel", "stripes"))
    high, step = dice.pick((0.45, 0.6, 1.0)), dice.pick(((0.15, 0.15), (0.2, 0.1), (0.3, 0.3), (0.3, 0.6)))
    joint, two = lit(tile, dice.pick((0.82, 0.9, 1.12))), dice.chance(0.3)
    for wall in ("left", "right", "back"):
        at = _wall(room, wall)
        at.box((0, 1), (0, 1), (0, 1), room.colours["wall2" if two and wall == "back" else "wall"])
        if style == "tiles":
            at.patch((0, 1), (0, high), tile)
            _joints(at, (0, high), step, joint)
        elif style == "panel":
            at.patch((0, 1), (0, 0.38), room.colours["wall2"])
            at.patch((0, 1), (0.375, 0.39), trim)
        elif style == "stripes":
            for stripe in range(int(at.size[0] / 0.3)):
                at.patch((stripe * 0.3 / at.size[0], (stripe + 0.5) * 0.3 / at.size[0]), (0, 1), room.colours["wall2"])
        at.patch((0, 1), (0, 0.035), trim)
        faces += at.solids[0].faces
    return faces


def _draw_floor(room: Room, tiled: bool) -> list[Face]:
    dice, (x, y, z) = room.dice, room.size
    roof, at = Spot(room, "front", (0, y, 0), (x, y, z)), Spot(room, "front", (0, 0, 0), (x, 0, z))
    roof.box((0, 1), (0, 0), (0, 1), room.colours["ceiling"])
    colour = room.colours["tile" if tiled and dice.chance(0.6) else "floor"]
    at.box((0, 1), (0, 0), (0, 1), colour)
    if tiled:
        step, other = dice.pick((0.3, 0.45, 0.6)), lit(colour, dice.pick((0.6, 0.85, 0.92, 1.08)))
        for column in range(int(x / step) + 1):
            for row in range(column % 2, int(z / step) + 1, 2):
                across = column * step / x, min(1, (column + 1) * step / x)
                at.patch(across, (0, 0), other, (row * step / z, min(1, (row + 1) * step / z)))
    elif dice.chance(0.75):
        count = round(x / dice.pick((0.12, 0.18, 0.25)))
        for plank in range(count):
            at.patch((plank / count, (plank + 0.96) / count), (0, 0), lit(colour, dice.between(0.86, 1.1)), (0, 1))
    if dice.chance(0.42):
        _rug(at)
    return roof.solids[0].faces + at.solids[0].faces


def _rug(at: Spot) -> None:
    dice, (width, _, depth) = at.dice, at.size
    u, d = dice.between(0.05, 0.4), dice.between(0.2, 0.55)
    if dice.chance(0.25):
        at.ring(u + 0.25, d + 0.15, 0, 0.3 * min(width, depth), at.colour("fabric", "fabric2", "accent"))
        return
    u1, d1 = u + dice.between(0.3, 0.55), d + dice.between(0.2, 0.4)
    first, second = at.colour("fabric", "accent", "fabric2"), at.colour("fabric2", "white", "dark", "wall2")
    at.patch((u, u1), (0, 0), first, (d, d1))
    if dice.chance(0.5):
        at.patch((u + 0.04, u1 - 0.04), (0, 0), second, (d + 0.03, d1 - 0.03))
        at.patch((u + 0.06, u1 - 0.06), (0, 0), first, (d + 0.045, d1 - 0.045))
    elif dice.chance(0.6):
        for stripe in range(5):
            low = d + (d1 - d) * (stripe + 0.25) / 5
            at.patch((u, u1), (0, 0), second, (low, low + (d1 - d) / 10))


def _against(room: Room, name: str, wall: str, start: Real, back: Real, low: Real, size: Point) -> Spot:
    """A spot with its back at ``back`` on the axis across ``wall``, from ``start`` along it."""
    width, height, depth = size
    near, far = (back - depth, back) if wall in ("back", "right") else (back, back + depth)
    if wall in ("back", "front"):
        return Spot(room, wall, (start, low, near), (start + width, low + height, far), name)
    return Spot(room, wall, (near, low, start), (far, low + height, start + width), name)


def _anywhere(room: Room, name: str, piece: Piece, size: Point, low: Real) -> Spot:
    dice, (x, _, z) = room.dice, room.size
    wall = dice.pick(("back", "back", "back", "back", "left", "right"))
    along = x if wall == "back" else z
    back = {"back": z, "left": 0.0, "right": x}[wall]
    if piece.free:
        wall = dice.pick(("back", "left", "right", "front"))
        along, across = (x, z) if wall in ("back", "front") else (z, x)
        back = dice.between(size[2], across - size[2])
    return _against(room, name, wall, dice.between(0, along - size[0]), back, low, size)


def _related(room: Room, name: str, how: str, anchor: Spot, size: Point, low: Real) -> Spot:
    dice, axis = room.dice, 0 if anchor.wall in ("back", "front") else 2
    start, stop = anchor.low[axis], anchor.high[axis]
    near, far = anchor.low[2 - axis], anchor.high[2 - axis]
    back = far if anchor.wall in ("back", "right") else near
    if how == "beside":
        start = dice.pick((start - size[0], stop))
    elif how == "over":
        start, low = (start + stop - size[0]) / 2, max(low, anchor.high[1] + 0.05)
    elif how == "above":
        start, back = (start + stop - size[0]) / 2, (near + far + (size[2] if back == far else -size[2])) / 2
    elif how == "on":
        start, low = dice.between(start, max(start, stop - size[0])), anchor.high[1]
        back += (far - near - size[2]) * dice.between(0.1, 0.9) * (-1 if back == far else 1)
    else:
        return _facing(room, name, anchor, size)
    return _against(room, name, anchor.wall, start, back, low, size)


def _facing(room: Room, name: str, anchor: Spot, size: Point) -> Spot:
    wall = room.dice.pick(("back", "left", "right", "front"))
    axis, gap = (0 if wall in ("back", "front") else 2), room.dice.between(0.02, 0.3) + size[2]
    back = anchor.high[2 - axis] + gap if wall in ("back", "right") else anchor.low[2 - axis] - gap
    start = room.dice.between(anchor.low[axis], max(anchor.low[axis], anchor.high[axis] - size[0]))
    return _against(room, name, wall, start, back, 0.0, size)


def _fits(room: Room, spot: Spot, margin: Real) -> bool:
    """Inside the room, clear of the other pieces and of the camera, its middle in the picture by ``margin``."""
    eye = room.camera.eye
    if any(low < -_SLACK or high > end + _SLACK for low, high, end in zip(spot.low, spot.high, room.size, strict=True)):
        return False
    person = Solid((eye[0] - 0.45, 0, 0), (eye[0] + 0.45, 9, eye[2] + 0.75))
    if _overlap(spot, person) or any(_overlap(spot, other) for other in room.pieces):
        return False
    offset = [(low + high) / 2 - at for low, high, at in zip(spot.low, spot.high, eye, strict=True)]
    right, up, forward = (sum(map(float.__mul__, axis, offset)) for axis in room.camera.axes())
    if forward < 0.3:
        return False
    x, y = room.camera.flat(right, up, forward)
    return margin < x < 1 - margin and 0 < y < 1


def _overlap(first: "Spot | Solid", second: "Spot | Solid") -> bool:
    return all(
        min(first.high[axis], second.high[axis]) - max(first.low[axis], second.low[axis]) > _SLACK for axis in range(3)
    )


def _place(room: Room, name: str, piece: Piece) -> None:
    """Tries a few spots and draws the piece into the first that fits; a full room stays without it."""
    dice = room.dice
    width, height, depth = piece.size
    size = (width * dice.between(0.85, 1.15), height * dice.between(0.92, 1.08), depth * dice.between(0.9, 1.1))
    low = piece.lift if piece.lift >= 0 else room.size[1] - size[1]
    how, *names = piece.near
    anchors = [other for other in room.pieces if other.name in names]
    for attempt in range(12):
        if anchors and (attempt < 5 or how == "on"):
            spot = _related(room, name, how, dice.pick(anchors), size, low)
        elif how != "on":
            spot = _anywhere(room, name, piece, size, low)
        else:
            return
        if _fits(room, spot, 0.15 if attempt < 8 else 0.04):
            piece.draw(spot)
            room.pieces.append(spot)
            return


def _shadows(room: Room, side: int) -> Image.Image:
    """What walls and floor lose near corners and behind furniture, as grey levels; white where nothing."""
    room = replace(room, shades=[(1, 1)] * 3)
    walls = [_wall(room, wall) for wall in ("left", "right", "back")]
    floor = Spot(room, "front", (0, 0, 0), (room.size[0], 0, room.size[2]))
    for at in (*walls, floor):
        flat = (1, 1) if at is not floor else (0, 1)
        at.box((0, 1), (0, 1), flat, _WHITE)
        at.patch((0, 0.06), (0, 1), _GREY, flat)
        at.patch((0.94, 1), (0, 1), _GREY, flat)
    for at in walls:
        at.patch((0, 1), (0.93, 1), _GREY)
        at.patch((0, 1), (0, 0.06), _GREY)
    floor.patch((0, 1), (0, 0), _GREY, (0.95, 1))
    for piece in room.pieces:
        _cast(piece, [*walls, floor])
    canvas = Image.new("RGB", (side, side), (255, 255, 255))
    paint(canvas, room.camera, [face for at in (*walls, floor) for face in at.solids[0].faces])
    return canvas.convert("L").filter(ImageFilter.GaussianBlur(side / 40))


def _cast(piece: Spot, shell: list[Spot]) -> None:
    """A dark patch where the piece touches the floor or a wall, a little larger than it."""
    for at in shell:
        inside = [
            (max(0.0, (low - a - 0.07) / (b - a)), min(1.0, (high - a + 0.07) / (b - a))) if b > a else None
            for low, high, a, b in zip(piece.low, piece.high, at.low, at.high, strict=True)
        ]
        flat = inside.index(None)
        if piece.low[flat] - 0.1 < at.low[flat] < piece.high[flat] + 0.1:
            x, y, z = (span or (0.0, 0.0) for span in inside)
            at.patch(x if at.wall in ("back", "front") else z, y, _DARK, z if at.wall == "front" else (1, 1))


def _developed(picture: Image.Image, room: Room) -> Image.Image:
    """Light, lens and sensor: gradients, glows, vignette, white balance, blur and grain."""
    dice, side = room.dice, picture.width
    line = np.linspace(0, 1, side, dtype=np.float32)
    light = 1 + dice.between(-0.3, 0.3) * (line[None, :] - 0.5) + dice.between(-0.3, 0.3) * (line[:, None] - 0.5)
    edge = (line - 0.5) ** 2
    light -= dice.between(0.1, 0.7) * (edge[None, :] + edge[:, None])
    tint = np.array([dice.between(0.94, 1.06), 1, dice.between(0.92, 1.06)], np.float32) * dice.between(0.95, 1.2)
    for point, strength in room.glows[:4]:
        right, up, forward = room.camera.turned(np.array([point]))[0].tolist()
        x, y = room.camera.flat(right, up, max(forward, 0.1))
        down, across = np.exp(-((line - y) ** 2) / 0.06), np.exp(-((line - x) ** 2) / 0.06)
        light += strength * 0.45 * down[:, None] * across
    pixels = np.asarray(picture, np.float32) * light[..., None] * tint
    grain = room.dice.generator.standard_normal((side, side, 1), np.float32) * dice.between(0.5, 2.5)
    seen = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    seen = seen.filter(ImageFilter.GaussianBlur(dice.between(0.3, 0.9))) if dice.chance(0.1) else seen
    return seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if dice.chance(0.5) else seen


def draw_room(kind: str, home: int, seed: int, size: int = 160) -> Image.Image:
    """The picture of one room, ``size`` pixels square: the same for the same arguments, whatever else is drawn.

    Raises:
        ValueError: When ``kind`` is not one of `KINDS`.
    """
    column = KINDS.index(kind)
    dice = Dice(seed, home, column)
    room = _empty_room(kind, _home_colours(seed, home), dice)
    _, _, walls, floor = _PLANS[kind]
    shell = _draw_walls(room, dice.chance(walls / 100)) + _draw_floor(room, dice.chance(floor / 100))
    for name, piece in PIECES.items():
        for _ in range(piece.most):
            if dice.chance(piece.chances[column] / 100):
                _place(room, name, piece)
    canvas = Image.new("RGB", (2 * size, 2 * size))
    paint(canvas, room.camera, shell)
    shadows = _shadows(room, size // 2).resize(canvas.size, Image.Resampling.BILINEAR)
    canvas = ImageChops.multiply(canvas, Image.merge("RGB", [shadows] * 3))
    eye = room.camera.eye
    solids = [solid for piece in back_to_front(room.pieces, eye) for solid in back_to_front(piece.solids, eye)]
    if faces := [face for solid in solids for face in solid.faces]:
        paint(canvas, room.camera, faces)
    return _developed(canvas.reduce(2), room)
