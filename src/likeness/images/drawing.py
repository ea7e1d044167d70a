"""Drawing in perspective with flat faces: chance, camera, boxes and tubes, and the order to paint them in.

World axes in metres: x to the right, y up, z away from the camera; a room spans from (0, 0, 0) to its size.
"""

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

_NEAR = 0.12  # metres before the camera at which faces are cut off
_CIRCLE = [(math.cos(turn * math.pi / 7), math.sin(turn * math.pi / 7)) for turn in range(14)]

Real = int | float  # the type checker of the tests tells them apart
Point = tuple[Real, Real, Real]
Colour = tuple[Real, Real, Real]
Span = tuple[Real, Real]
Face = tuple[list[Point], Colour]
Item = TypeVar("Item")


class Dice:
    """Chance that depends on its key alone."""

    def __init__(self, *key: int) -> None:
        self.generator = np.random.default_rng(key)

    def between(self, low: Real, high: Real) -> float:
        return low + (high - low) * self.generator.random()

    def chance(self, probability: Real) -> bool:
        return self.generator.random() < probability

    def count(self, low: int, high: int) -> int:
        """Between ``low`` and ``high``, both included."""
        return low + int(self.generator.random() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.generator.random() * len(items))]

    def colour(self, saturation: Span, value: Span, hue: Span = (0, 1)) -> Colour:
        """Red, green and blue in 0..255."""
        red, green, blue = colorsys.hsv_to_rgb(self.between(*hue), self.between(*saturation), self.between(*value))
        return 255 * red, 255 * green, 255 * blue


def lit(colour: Colour, factor: Real) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def mixed(first: Colour, second: Colour, share: Real) -> Colour:
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Camera:
    """A pinhole. ``focal`` and ``centre`` are in widths of the picture, angles in radians."""

    eye: Point
    yaw: Real
    pitch: Real
    focal: Real
    centre: Span

    def axes(self) -> tuple[Point, Point, Point]:
        """Right, up and forward of the picture, as world directions."""
        cos, sin, cosp, sinp = math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch), math.sin(self.pitch)
        return (cos, 0.0, -sin), (-sin * sinp, cosp, -cos * sinp), (sin * cosp, sinp, cos * cosp)

    def turned(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """World points as (right, up, forward) of the camera, in metres."""
        return (points - self.eye) @ np.array(self.axes()).T

    def flat(self, right: Real, up: Real, forward: Real) -> Span:
        """Where a point before the camera falls in the picture: 0..1 to the right and down."""
        return self.centre[0] + self.focal * right / forward, self.centre[1] - self.focal * up / forward


@dataclass
class Solid:
    """An upright box in the room and the faces drawn for it, far ones first."""

    low: Point
    high: Point
    faces: list[Face] = field(default_factory=list)


@dataclass
class Room:
    colours: dict[str, Colour]
    dice: Dice
    size: Point
    camera: Camera
    shades: list[Span]  # brightness of faces that look to -x, +x; -y, +y; -z, +z
    day: bool = True
    pieces: list["Spot"] = field(default_factory=list)
    glows: list[tuple[Point, Real]] = field(default_factory=list)


@dataclass
class Spot:
    """A box in the room that faces one way; a piece is drawn into it with fractions of its width, height and depth.

    ``u`` runs along the wall, ``y`` up, ``d`` from the wall (0) to the front (1). ``wall`` is the side of its back.
    """

    room: Room
    wall: str
    low: Point
    high: Point
    name: str = ""
    solids: list[Solid] = field(default_factory=list)

    @property
    def dice(self) -> Dice:
        return self.room.dice

    @property
    def size(self) -> Point:
        """Width along the wall, height and depth, in metres."""
        x, y, z = (high - low for low, high in zip(self.low, self.high, strict=True))
        return (x, y, z) if self.wall in ("back", "front") else (z, y, x)

    def colour(self, *names: str) -> Colour:
        return lit(self.room.colours[self.dice.pick(names)], self.dice.between(0.88, 1.08))

    def world(self, u: Real, y: Real, d: Real) -> Point:
        (x0, y0, z0), (x1, y1, z1) = self.low, self.high
        if self.wall in ("back", "right"):
            d = 1 - d
        across, deep = (u, d) if self.wall in ("back", "front") else (d, u)
        return x0 + across * (x1 - x0), y0 + y * (y1 - y0), z0 + deep * (z1 - z0)

    def _corners(self, u: Span, y: Span, d: Span) -> tuple[Point, Point]:
        (x0, y0, z0), (x1, y1, z1) = self.world(u[0], y[0], d[0]), self.world(u[1], y[1], d[1])
        return (min(x0, x1), y0, min(z0, z1)), (max(x0, x1), y1, max(z0, z1))

    def box(self, u: Span, y: Span, d: Span, colour: Colour) -> None:
        low, high = self._corners(u, y, d)
        self.solids.append(Solid(low, high, list(_visible(self.room, low, high, colour))))

    def patch(self, u: Span, y: Span, colour: Colour, d: Span = (1, 1)) -> None:
        """A flat rectangle on the solid before: on its front, or on its top where ``y`` has no height."""
        self.solids[-1].faces += _visible(self.room, *self._corners(u, y, d), colour)

    def disc(self, u: Real, y: Real, radius: Real, colour: Colour) -> None:
        """A circle, ``radius`` in metres, on the front of the solid before it."""
        width, height, _ = self.size
        points = [self.world(u + radius * a / width, y + radius * b / height, 1) for a, b in _CIRCLE]
        self.solids[-1].faces.append((points, colour))

    def tube(self, u: Real, d: Real, y: Span, radii: Span, colour: Colour) -> None:
        """Upright, from ``y[0]`` to ``y[1]``, with its radii there in metres."""
        x, bottom, z = self.world(u, y[0], d)
        top = self.world(u, y[1], d)[1]
        wide = max(radii)
        faces = list(_round_faces(self.room.camera.eye, (x, bottom, z), top, radii, colour))
        self.solids.append(Solid((x - wide, bottom, z - wide), (x + wide, top, z + wide), faces))

    def ring(self, u: Real, d: Real, y: Real, radius: Real, colour: Colour) -> None:
        """A level circle, ``radius`` in metres, on the solid before it."""
        x, height, z = self.world(u, y, d)
        self.solids[-1].faces.append(([(x + radius * a, height, z + radius * b) for a, b in _CIRCLE], colour))

    def glow(self, strength: Real, y: Real = 0.5) -> None:
        """Light that comes from the front of the spot."""
        self.room.glows.append((self.world(0.5, y, 1), strength))


def _visible(room: Room, low: Point, high: Point, colour: Colour) -> Iterator[Face]:
    """The at most three faces of a box that look at the camera, shaded. A side without area is none."""
    (x, y, z), (x0, y0, z0), (x1, y1, z1) = room.camera.eye, low, high
    if not x0 <= x <= x1 and y0 < y1 and z0 < z1:
        at, shade = (x0, room.shades[0][0]) if x < x0 else (x1, room.shades[0][1])
        yield [(at, y0, z0), (at, y0, z1), (at, y1, z1), (at, y1, z0)], lit(colour, shade)
    if not y0 <= y <= y1 and x0 < x1 and z0 < z1:
        at, shade = (y0, room.shades[1][0]) if y < y0 else (y1, room.shades[1][1])
        yield [(x0, at, z0), (x0, at, z1), (x1, at, z1), (x1, at, z0)], lit(colour, shade)
    if not z0 <= z <= z1 and x0 < x1 and y0 < y1:
        at, shade = (z0, room.shades[2][0]) if z < z0 else (z1, room.shades[2][1])
        yield [(x0, y0, at), (x0, y1, at), (x1, y1, at), (x1, y0, at)], lit(colour, shade)


def _round_faces(eye: Point, foot: Point, top: Real, radii: Span, colour: Colour) -> Iterator[Face]:
    x, bottom, z = foot
    away = math.hypot(x - eye[0], z - eye[2])
    across, along = (z - eye[2]) / away, (eye[0] - x) / away

    def level(y: Real, radius: Real) -> list[Point]:
        return [(x + radius * a, y, z + radius * b) for a, b in _CIRCLE]

    yield level(bottom, radii[0]), lit(colour, 0.7)
    for start, stop, shade in ((-1, -0.5, 0.72), (-0.5, 0.1, 0.98), (0.1, 0.6, 0.86), (0.6, 1, 0.68)):
        sides = [(bottom, start * radii[0]), (bottom, stop * radii[0]), (top, stop * radii[1]), (top, start * radii[1])]
        yield [(x + across * r, y, z + along * r) for y, r in sides], lit(colour, shade)
    if eye[1] > top:
        yield level(top, radii[1]), colour
    elif eye[1] < bottom:
        yield level(bottom, radii[0]), lit(colour, 0.6)


def _may_hide(first: "Spot | Solid", second: "Spot | Solid", eye: Point) -> bool:
    """Whether no plane between the two boxes has the eye on the side of ``second``."""
    for axis in range(3):
        if first.high[axis] <= second.low[axis] + 1e-6 and eye[axis] >= first.high[axis]:
            return False
        if first.low[axis] >= second.high[axis] - 1e-6 and eye[axis] <= first.low[axis]:
            return False
    return True


Box = TypeVar("Box", Spot, Solid)


def back_to_front(boxes: list[Box], eye: Point) -> list[Box]:
    """In the order to paint them. Boxes that overlap, or hide one another in a circle, go by distance."""
    rest = sorted(
        boxes, key=lambda box: -sum(((a + b) / 2 - e) ** 2 for a, b, e in zip(box.low, box.high, eye, strict=True))
    )
    order = []
    while rest:
        for box in rest:
            if not any(
                _may_hide(box, other, eye) and not _may_hide(other, box, eye) for other in rest if other is not box
            ):
                break
        else:
            box = rest[0]
        rest.remove(box)
        order.append(box)
    return order


def paint(canvas: Image.Image, camera: Camera, faces: list[Face]) -> None:
    """Fills the faces, at least one, in their order."""
    draw, side = ImageDraw.Draw(canvas), canvas.width
    seen = camera.turned(np.array([point for corners, _ in faces for point in corners]))
    stops = np.cumsum([len(corners) for corners, _ in faces])
    starts = np.concatenate([[0], stops[:-1]])
    nearest = np.minimum.reduceat(seen[:, 2], starts).tolist()
    beyond = np.maximum(seen[:, 2:], _NEAR)
    flat = (side * (np.array(camera.centre) + camera.focal * seen[:, :2] * (1, -1) / beyond)).ravel().tolist()
    fills = np.clip([colour for _, colour in faces], 0, 255).astype(int).tolist()
    for start, stop, near, fill in zip(starts.tolist(), stops.tolist(), nearest, fills, strict=True):
        outline = flat[2 * start : 2 * stop]
        if near <= _NEAR:
            points = _before_camera(seen[start:stop].tolist())
            outline = [side * part for point in points for part in camera.flat(*point)]
        if len(outline) >= 6:
            draw.polygon(outline, fill=tuple(fill))


def _before_camera(points: list[list[float]]) -> Iterator[list[float]]:
    """The part of a polygon farther than the near plane (Sutherland and Hodgman, 1974)."""
    for here, after in zip(points, points[1:] + points[:1], strict=True):
        if here[2] > _NEAR:
            yield here
        if (here[2] > _NEAR) != (after[2] > _NEAR):
            share = (_NEAR - here[2]) / (after[2] - here[2])
            yield [a + share * (b - a) for a, b in zip(here, after, strict=True)]
