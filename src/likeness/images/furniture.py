"""What stands in drawn rooms: a small function a piece, and the table that says what stands where how often."""

from collections.abc import Callable
from typing import NamedTuple

from likeness.images.drawing import Colour, Point, Real, Spot, lit, mixed

KINDS = ("bath_room", "bed_room", "dining_room", "entre", "kitchen", "living_room")


def _doors(at: Spot, columns: int, rows: int, colour: Colour, bottom: Real = 0.0, top: Real = 1.0) -> None:
    """Doors or drawers on the front of the solid before, with handles."""
    handle, knobs = at.colour("metal", "dark", "wood"), at.dice.chance(0.4)
    height = (top - bottom) / rows
    for column in range(columns):
        for row in range(rows):
            u, y = (column + 0.06) / columns, bottom + (row + 0.05) * height
            across, up = 0.88 / columns, 0.9 * height
            at.patch((u, u + across), (y, y + up), colour)
            if knobs:
                at.disc(u + across * (0.85 if column % 2 == 0 else 0.15), y + up / 2, 0.02, handle)
            else:
                at.patch((u + 0.3 * across, u + 0.7 * across), (y + 0.82 * up, y + 0.86 * up), handle)


def cabinet(at: Spot) -> None:
    width, height, _ = at.size
    body, slab = at.colour("wood", "paint", "white"), at.colour("wood", "metal", "white", "dark")
    at.box((0, 1), (0, 0.95), (0, 1), lit(body, 0.85))
    columns, rows = max(1, round(width / at.dice.between(0.4, 0.6))), at.dice.count(1, 1 + round(2 * min(height, 1)))
    _doors(at, columns, 1 if height > 1.4 else rows, body, at.dice.between(0.02, 0.1), 0.94)
    at.box((-0.01, 1.01), (0.95, 1), (0, 1.02), slab)


def counter(at: Spot) -> None:
    cabinet(at)
    if at.dice.chance(0.6):
        middle = at.dice.between(0.25, 0.75)
        at.patch((middle - 0.16, middle + 0.16), (1, 1), lit(at.colour("metal", "ceramic"), 0.8), (0.2, 0.8))
        _tap(at, middle, 1)


def _tap(at: Spot, u: Real, y: Real) -> None:
    rise = 0.25 / at.size[1]
    metal = at.colour("metal")
    at.tube(u, 0.1, (y, y + rise), (0.015, 0.012), metal)
    at.box((u - 0.015, u + 0.015), (y + rise * 0.9, y + rise), (0.1, 0.4), metal)


def stove(at: Spot) -> None:
    body = at.colour("white", "metal", "dark")
    at.box((0, 1), (0, 1), (0, 1), body)
    at.patch((0.1, 0.9), (0.2, 0.68), at.colour("dark"))
    at.patch((0.1, 0.9), (0.71, 0.75), at.colour("metal"))
    for knob in range(4):
        at.disc(0.2 + 0.2 * knob, 0.88, 0.02, lit(body, 0.5))
    at.patch((0.04, 0.96), (1, 1), at.colour("dark"), (0.04, 0.96))
    for u, d in ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)):
        at.ring(u, d, 1, 0.08, at.colour("metal"))


def hood(at: Spot) -> None:
    metal = at.colour("metal", "white", "dark")
    at.box((0.32, 0.68), (0.3, 1), (0, 0.5), metal)
    at.box((0, 1), (0, 0.3), (0, 1), lit(metal, 0.92))


def fridge(at: Spot) -> None:
    body = at.colour("white", "metal", "paint")
    at.box((0, 1), (0, 1), (0, 1), body)
    split = at.dice.pick((0.3, 0.4, 0.65))
    at.patch((0, 1), (split, split + 0.012), lit(body, 0.5))
    for low in (split + 0.05, split - 0.2):
        at.patch((0.08, 0.13), (low, low + 0.15), lit(at.colour("metal"), 0.7))


def washer(at: Spot) -> None:
    body = at.colour("white", "ceramic", "metal")
    at.box((0, 1), (0, 1), (0, 1), body)
    at.patch((0.05, 0.95), (0.83, 0.97), lit(body, 0.85))
    at.disc(0.5, 0.45, 0.2, at.colour("metal"))
    at.disc(0.5, 0.45, 0.15, at.colour("dark"))


def tub(at: Spot) -> None:
    shell = at.colour("ceramic", "ceramic", "tile")
    at.box((0, 1), (0, 1), (0, 1), shell)
    inside = at.colour("ceramic")
    at.patch((0.05, 0.95), (1, 1), lit(inside, 0.66), (0.1, 0.9))
    at.patch((0.1, 0.92), (1, 1), lit(inside, 0.82), (0.16, 0.7))
    _tap(at, at.dice.pick((0.1, 0.5)), 1)


def shower(at: Spot) -> None:
    metal, pane = at.colour("metal", "dark"), mixed(at.colour("wall", "tile"), (215, 230, 235), 0.5)
    at.box((0, 1), (0, 0.06), (0, 1), at.colour("ceramic"))
    at.box((0.02, 0.98), (0.06, 0.98), (0.94, 0.97), pane)
    for u in (0.05, 0.5, 0.92):
        at.patch((u, u + 0.03), (0.06, 1), metal)
    at.patch((0.2, 0.3), (0.2, 0.9), mixed(pane, (255, 255, 255), 0.4))
    at.patch((0.54, 0.57), (0.45, 0.6), metal)


def toilet(at: Spot) -> None:
    ceramic = at.colour("ceramic", "ceramic", "white")
    at.box((0.02, 0.98), (0.48, 1), (0, 0.28), ceramic)
    at.tube(0.5, 0.62, (0, 0.48), (0.12, 0.19), ceramic)
    at.tube(0.5, 0.62, (0.48, 0.53), (0.2, 0.2), at.colour("ceramic", "wood"))
    at.ring(0.5, 0.64, 0.53, 0.12, lit(ceramic, 0.7))


def basin(at: Spot) -> None:
    ceramic = at.colour("ceramic")
    if at.dice.chance(0.5):
        at.box((0.03, 0.97), (0, 0.84), (0, 0.9), at.colour("wood", "white", "paint"))
        _doors(at, 2, 1, at.colour("wood", "white", "paint"), 0.05, 0.8)
    else:
        at.tube(0.5, 0.4, (0, 0.84), (0.1, 0.07), ceramic)
    at.box((0, 1), (0.84, 1), (0, 1), ceramic)
    at.patch((0.12, 0.88), (1, 1), lit(ceramic, 0.75), (0.3, 0.9))
    _tap(at, 0.5, 1)


def bed(at: Spot) -> None:
    head, sheet, cover = (
        at.colour("wood", "paint", "fabric"),
        at.colour("white", "fabric"),
        at.colour("fabric", "fabric2"),
    )
    at.box((0, 1), (0, at.dice.between(0.6, 1)), (0, 0.04), head)
    at.box((0, 1), (0, 0.3), (0.04, 1), lit(head, 0.8))
    at.box((0.02, 0.98), (0.3, 0.52), (0.04, 0.99), sheet)
    at.box((0, 1), (0.25, 0.56), (at.dice.between(0.32, 0.6), 1), cover)
    at.patch((0, 1), (0.56, 0.56), at.colour("fabric2", "accent", "white"), (0.75, at.dice.between(0.75, 0.95)))
    pillows = 2 if at.size[0] > 1.2 else 1
    for pillow in range(pillows):
        u = (pillow + 0.12) / pillows
        at.box((u, u + 0.76 / pillows), (0.53, 0.68), (0.06, 0.22), at.colour("white", "fabric", "fabric2"))


def sofa(at: Spot) -> None:
    cloth, arm = at.colour("fabric", "fabric2", "paint"), min(0.12, 0.18 / at.size[0])
    at.box((0, 1), (0.06, 1), (0, 0.24), lit(cloth, 0.92))
    at.box((arm, 1 - arm), (0.06, 0.36), (0.24, 0.98), lit(cloth, 0.8))
    for u in (0, 1 - arm):
        at.box((u, u + arm), (0.06, 0.68), (0.24, 1), lit(cloth, 0.95))
    seats = max(1, round(at.size[0] / 0.8))
    wide = (1 - 2 * arm) / seats
    for seat in range(seats):
        u = arm + seat * wide
        at.box((u + 0.005, u + wide - 0.005), (0.36, 0.52), (0.24, 0.99), cloth)
        if at.dice.chance(0.5):
            at.box(
                (u + 0.2 * wide, u + 0.75 * wide), (0.53, 0.92), (0.26, 0.4), at.colour("accent", "fabric", "fabric2")
            )


def table(at: Spot) -> None:
    wood = at.colour("wood", "wood", "paint", "white", "dark")
    thick = 0.04 / at.size[1]
    if at.dice.chance(0.75):
        legs = lit(at.colour("metal") if at.dice.chance(0.3) else wood, 0.85)
        a, b = 0.06 / at.size[0], 0.06 / at.size[2]
        for u in (0.02, 0.98 - a):
            for d in (0.02, 0.98 - b):
                at.box((u, u + a), (0, 1 - thick), (d, d + b), legs)
    else:
        at.tube(0.5, 0.5, (0, 1 - thick), (0.16, 0.06), lit(wood, 0.8))
    at.box((0, 1), (1 - thick, 1), (0, 1), wood)
    if at.dice.chance(0.25):
        at.patch((0.4, 0.6), (1, 1), at.colour("accent", "fabric", "white"), (0, 1))


def chair(at: Spot) -> None:
    frame, seat = at.colour("wood", "paint", "dark", "white"), at.colour("wood", "fabric", "paint", "accent")
    for u in (0.04, 0.86):
        for d in (0.04, 0.86):
            at.box((u, u + 0.1), (0, 0.47), (d, d + 0.1), lit(frame, 0.85))
    at.box((0, 1), (0.47, 0.52), (0, 1), seat)
    if at.dice.chance(0.5):
        at.box((0.02, 0.98), (0.55, 1), (0, 0.08), seat)
    else:
        for u in (0.02, 0.45, 0.88):
            at.box((u, u + 0.1), (0.52, 0.9), (0, 0.08), frame)
        at.box((0, 1), (0.9, 1), (0, 0.08), frame)


def pendant(at: Spot) -> None:
    shade, drop = at.colour("accent", "metal", "white", "dark", "fabric"), at.dice.between(0.35, 0.6)
    wide = at.size[0] / 2
    at.tube(0.5, 0.5, (0, drop), (wide, wide * at.dice.between(0.2, 1)), shade)
    at.tube(0.5, 0.5, (drop, 1), (0.008, 0.008), at.colour("dark"))
    if at.dice.chance(0.5):
        at.glow(0.35, 0)


def lamp(at: Spot) -> None:
    foot, wide = at.colour("metal", "wood", "ceramic", "dark"), at.size[0] / 2
    at.tube(0.5, 0.5, (0, 0.03), (0.6 * wide, 0.6 * wide), foot)
    at.tube(0.5, 0.5, (0.03, 0.7), (0.02, 0.015), foot)
    at.tube(0.5, 0.5, (0.66, 1), (wide, wide * at.dice.between(0.5, 0.9)), at.colour("white", "fabric", "accent"))
    if at.dice.chance(0.5):
        at.glow(0.4, 0.8)


def tv(at: Spot) -> None:
    at.box((0, 1), (0.04, 1), (0.2, 1), (28, 28, 30))
    top, bottom = at.colour("dark", "metal", "accent"), at.colour("dark")
    for step in range(4):
        at.patch((0.02, 0.98), (0.07 + 0.225 * step, 0.3 + 0.225 * step), lit(mixed(bottom, top, step / 4), 0.6))


def bookshelf(at: Spot) -> None:
    wood, rows = at.colour("wood", "paint", "white"), max(1, round(at.size[1] / 0.36))
    at.box((0, 1), (0, 1), (0, 1), wood)
    for row in range(rows):
        y, up = (row + 0.08) / rows, 0.84 / rows
        at.patch((0.03, 0.97), (y, y + up), lit(wood, 0.5))
        u, end = 0.04, at.dice.between(0.2, 0.96)
        while u < end:
            wide = at.dice.between(0.03, 0.09) / at.size[0] ** 0.5
            book = at.colour("accent", "fabric", "fabric2", "paint", "white", "dark", "wood")
            at.patch((u, min(u + wide, 0.96)), (y, y + up * at.dice.between(0.6, 0.95)), book)
            u += wide * 1.15


def shelf(at: Spot) -> None:
    at.box((0, 1), (0, 0.1), (0, 1), at.colour("wood", "white", "paint", "metal"))
    for place in range(at.dice.count(1, 4)):
        _thing(at, 0.14 + 0.24 * place, 0.5, 0.1, 0.9)


def _thing(at: Spot, u: Real, d: Real, low: Real, tall: Real) -> None:
    colour, high = at.colour("accent", "ceramic", "metal", "fabric2", "white"), low + tall * at.dice.between(0.3, 1)
    radius = at.dice.between(0.03, 0.07)
    if at.dice.chance(0.6):
        at.tube(u, d, (low, high), (radius * at.dice.between(0.5, 1), radius), colour)
    else:
        half = radius / at.size[0]
        at.box((u - half, u + half), (low, high), (d - 0.2, d + 0.2), colour)


def things(at: Spot) -> None:
    for u in (0.2, 0.5, 0.8)[: at.dice.count(1, 3)]:
        _thing(at, u, at.dice.between(0.3, 0.7), 0, 1)


def door(at: Spot) -> None:
    frame, leaf = at.colour("trim", "white"), at.colour("wood", "paint", "white", "trim")
    at.box((0, 1), (0, 1), (0, 0.6), frame)
    at.patch((0.08, 0.92), (0, 0.96), leaf)
    for low, high in at.dice.pick((((0.08, 0.42), (0.5, 0.9)), ((0.08, 0.9),), ())):
        at.patch((0.2, 0.8), (low, high), lit(leaf, 0.88))
    at.disc(0.84, 0.47, 0.03, at.colour("metal"))


def front_door(at: Spot) -> None:
    door(at)
    pane = at.dice.pick(((0.3, 0.7), (0.62, 0.74), (0.44, 0.56)))
    at.patch(pane, (at.dice.between(0.5, 0.75), 0.9), (215, 228, 240))
    at.patch((0.4, 0.6), (0.44, 0.46), at.colour("metal"))
    at.box((0.05, 0.95), (0, 0.01), (1, 9), at.colour("dark", "fabric"))


def coats(at: Spot) -> None:
    at.box((0, 1), (0.9, 1), (0, 0.2), at.colour("wood", "metal", "white"))
    for hook in range(at.dice.count(2, 5)):
        u = 0.04 + 0.19 * hook
        if at.dice.chance(0.75):
            cloth = at.colour("fabric", "fabric2", "dark", "accent", "paint")
            at.box((u, u + 0.16), (at.dice.between(0, 0.5), 0.88), (0.1, at.dice.between(0.5, 1)), cloth)
            at.patch((u + 0.07, u + 0.085), (0.5, 0.8), lit(cloth, 0.7))


def shoes(at: Spot) -> None:
    for pair in range(at.dice.count(1, 3)):
        leather, u, d = at.colour("dark", "wood", "accent", "white"), 0.05 + 0.33 * pair, at.dice.between(0, 0.25)
        for side in (0, 0.12):
            at.box((u + side, u + side + 0.09), (0, 0.5), (d + 0.1, d + 0.7), leather)
            at.box((u + side, u + side + 0.09), (0.5, 1), (d + 0.1, d + 0.4), lit(leather, 0.8))


def mirror(at: Spot) -> None:
    glass = mixed(at.colour("wall"), (190, 205, 215), 0.7)
    at.box((0, 1), (0, 1), (0, 1), at.colour("wood", "metal", "white", "dark"))
    for step in range(4):
        at.patch((0.07, 0.93), (0.06 + 0.22 * step, 0.28 + 0.22 * step), lit(glass, 0.85 + 0.07 * step))
    at.patch((0.2, 0.3), (0.1, 0.9), mixed(glass, (255, 255, 255), 0.35))


def picture(at: Spot) -> None:
    at.box((0, 1), (0, 1), (0, 1), at.colour("wood", "metal", "white", "dark"))
    edge = at.dice.pick((0.06, 0.15))
    at.patch((0.05, 0.95), (0.05, 0.95), at.colour("white"))
    at.patch((edge, 1 - edge), (edge, 1 - edge), at.colour("accent", "fabric", "wall2", "leaf"))
    at.patch((edge, 1 - edge), (edge, at.dice.between(0.3, 0.7)), at.colour("paint", "fabric2", "dark", "wood"))
    at.disc(
        at.dice.between(0.3, 0.7), at.dice.between(0.4, 0.7), at.dice.between(0.03, 0.1), at.colour("white", "accent")
    )


def window(at: Spot) -> None:
    at.box((0, 1), (0, 1), (0, 0.5), at.colour("trim", "white"))
    day = at.room.day
    sky = (
        at.dice.colour((0, 0.3), (0.9, 1), (0.5, 0.65)) if day else at.dice.colour((0.4, 0.8), (0.1, 0.3), (0.58, 0.7))
    )
    ground = mixed(sky, at.colour("leaf", "metal"), 0.45)
    panes = at.dice.count(1, 3)
    for pane in range(panes):
        u = (0.05 + 0.9 * pane / panes, 0.03 + 0.9 * (pane + 1) / panes)
        for step in range(4):
            at.patch(u, (0.06 + 0.22 * step, 0.28 + 0.22 * step), mixed(ground, sky, min(1, step / 2)))
    if at.dice.chance(0.5):
        cloth = at.colour("fabric", "fabric2", "white", "wall2")
        for low, high in ((-0.08, 0.14), (0.86, 1.08)):
            for fold in range(4):
                left = low + (high - low) * fold / 4
                at.box((left, left + 0.056), (-0.2, 1.08), (0.6, 1), lit(cloth, (1, 0.85)[fold % 2]))
    at.glow(at.dice.between(0.2, 0.6) if day else 0.05)


def towels(at: Spot) -> None:
    at.box((0, 1), (0.95, 1), (0.3, 0.6), at.colour("metal"))
    for towel in range(at.dice.count(1, 2)):
        cloth, low = at.colour("fabric", "fabric2", "white", "accent"), at.dice.between(0, 0.4)
        u = 0.08 + 0.45 * towel
        at.box((u, u + 0.36), (low, 0.98), (0.3, 0.9), cloth)
        at.patch((u, u + 0.36), (low + 0.06, low + 0.1), lit(cloth, 0.75), (0.9, 0.9))


def plant(at: Spot) -> None:
    at.tube(0.5, 0.5, (0, 0.3), (0.12, 0.16), at.colour("ceramic", "accent", "wood", "dark"))
    x, base, z = at.world(0.5, 0.28, 0.5)
    tall, wide = at.high[1] - base, 0.5 * (at.high[0] - at.low[0])
    for _ in range(at.dice.count(9, 16)):
        aside, deep, up = at.dice.between(-wide, wide), at.dice.between(-wide, wide), tall * at.dice.between(0.4, 1)
        broad = at.dice.between(0.03, 0.09)
        leaf = [
            (x, base, z),
            (x + 0.6 * aside - broad, base + 0.7 * up, z + 0.6 * deep),
            (x + aside, base + up, z + deep),
        ]
        leaf.append((x + 0.7 * aside + broad, base + 0.5 * up, z + 0.7 * deep))
        at.solids[-1].faces.append((leaf, lit(at.colour("leaf"), at.dice.between(0.7, 1.3))))


def basket(at: Spot) -> None:
    wide, weave = at.size[0] / 2, at.colour("wood", "fabric", "metal", "accent")
    at.tube(0.5, 0.5, (0, 1), (wide * at.dice.between(0.7, 1), wide), weave)
    at.ring(0.5, 0.5, 1, 0.85 * wide, lit(at.colour("dark", "white", "fabric2"), 0.9))


def carton(at: Spot) -> None:
    board = at.dice.pick((at.colour("wood"), at.colour("white"), at.colour("fabric")))
    at.box((0, 1), (0, 1), (0, 1), board)
    at.patch((0, 1), (1, 1), lit(board, 0.8), (0.45, 0.55))
    at.patch((0.4, 0.6), (0.7, 0.78), lit(board, 0.6))


class Piece(NamedTuple):
    """``chances`` in percent, one a kind in the order of `KINDS`; ``size`` is width, height, depth in metres.

    ``near`` is a relation and the names of pieces: over one on the wall, above it under the ceiling, beside it,
    around it, or on it. Where none of those stands, the piece stands anywhere, except that "on" needs one.
    ``most`` is how many are tried, each with that chance; ``lift`` is metres above the floor, or below the ceiling
    where negative; a ``free`` piece needs no wall.
    """

    draw: Callable[[Spot], None]
    size: Point
    chances: tuple[int, int, int, int, int, int]
    most: int = 1
    lift: Real = 0.0
    free: bool = False
    near: tuple[str, ...] = ("anywhere",)


_TOPS = ("table", "counter", "coffee table", "sideboard", "chest", "desk", "tub", "washer")


# fmt: off
#                                        width height depth  bath bed din ent kit liv
PIECES = {
    "tub":          Piece(tub,          (1.60, 0.58, 0.75), (97,  0,  0,  0,  0,  0)),
    "bed":          Piece(bed,          (1.50, 0.95, 1.95), ( 0, 97,  0,  0,  0,  1)),
    "sofa":         Piece(sofa,         (1.95, 0.80, 0.88), ( 0,  3,  3,  2,  0, 97)),
    "counter":      Piece(counter,      (1.80, 0.90, 0.60), ( 2,  0,  2,  0, 97,  2)),
    "table":        Piece(table,        (1.60, 0.75, 0.90), ( 0,  1, 97,  0, 12,  7), free=True),
    "front door":   Piece(front_door,   (0.95, 2.10, 0.06), ( 0,  0,  0, 97,  0,  0)),
    "shower":       Piece(shower,       (0.90, 2.00, 0.85), (16,  0,  0,  0,  0,  0)),
    "toilet":       Piece(toilet,       (0.40, 0.80, 0.65), (97,  0,  0,  0,  0,  0)),
    "basin":        Piece(basin,        (0.70, 0.85, 0.48), (97,  2,  0,  1,  0,  0)),
    "stove":        Piece(stove,        (0.60, 0.90, 0.60), ( 0,  0,  0,  0, 97,  0), near=("beside", "counter")),
    "fridge":       Piece(fridge,       (0.65, 1.85, 0.65), ( 0,  0,  2,  0, 97,  1),
                                  near=("beside", "counter", "stove")),
    "hood":         Piece(hood,         (0.60, 0.70, 0.40), ( 0,  0,  0,  0, 97,  0),
                                  lift=1.55, near=("over", "stove")),
    "cupboard":     Piece(cabinet,      (1.30, 0.65, 0.35), ( 5,  0,  2,  2, 97,  2),
                                  lift=1.45, near=("over", "counter")),
    "tv bench":     Piece(cabinet,      (1.50, 0.45, 0.40), ( 0,  3,  2,  4,  0, 40)),
    "sideboard":    Piece(cabinet,      (1.50, 0.80, 0.45), ( 0,  4, 40,  6,  2,  6)),
    "wardrobe":     Piece(cabinet,      (1.30, 2.05, 0.60), ( 2, 44,  3, 14,  2,  2)),
    "night stand":  Piece(cabinet,      (0.45, 0.50, 0.40), ( 3, 97,  2,  5,  1,  3), most=2, near=("beside", "bed")),
    "chest":        Piece(cabinet,      (0.85, 0.90, 0.45), ( 5, 14,  8, 14,  3,  7)),
    "bookshelf":    Piece(bookshelf,    (0.90, 1.90, 0.32), ( 2, 10, 10,  5,  3, 40)),
    "washer":       Piece(washer,       (0.60, 0.85, 0.60), (12,  0,  0,  3, 10,  0)),
    "coffee table": Piece(table,        (1.00, 0.42, 0.60), ( 0,  1,  1,  0,  0, 97),
                                  free=True, near=("around", "sofa")),
    "armchair":     Piece(sofa,         (0.85, 0.85, 0.85), ( 0,  6,  3,  2,  0, 16), most=2),
    "desk":         Piece(table,        (1.10, 0.75, 0.55), ( 2, 10,  3,  6,  3,  6)),
    "chair":        Piece(chair,        (0.45, 0.92, 0.45), ( 2,  8, 97,  5, 14,  4),
                                  most=5, free=True, near=("around", "table", "desk")),
    "coats":        Piece(coats,        (1.00, 0.90, 0.25), ( 3,  3,  0, 97,  2,  1), lift=1.00),
    "shoes":        Piece(shoes,        (0.80, 0.14, 0.38), ( 0,  3,  0, 97,  0,  1), most=2),
    "bench":        Piece(table,        (1.00, 0.45, 0.35), ( 3,  5,  2, 17,  2,  2)),
    "mirror":       Piece(mirror,       (0.60, 0.80, 0.04), (97, 10,  6, 36,  1,  6),
                                  lift=1.15, near=("over", "basin", "chest", "sideboard")),
    "towels":       Piece(towels,       (0.60, 0.70, 0.08), (44,  1,  0,  2, 10,  0), lift=0.80),
    "tv":           Piece(tv,           (1.10, 0.65, 0.08), ( 0,  5,  2,  0,  2, 97),
                                  lift=0.70, near=("over", "tv bench")),
    "window":       Piece(window,       (1.20, 1.20, 0.10), (36, 97, 97,  8, 97, 97), most=2, lift=0.90),
    "door":         Piece(door,         (0.85, 2.05, 0.06), (12, 12, 10, 36, 10, 10)),
    "pendant":      Piece(pendant,      (0.45, 0.80, 0.45), ( 8, 10, 97, 12, 36, 11),
                                  free=True, lift=-1.0, near=("above", "table")),
    "lamp":         Piece(lamp,         (0.28, 0.45, 0.28), ( 1, 97,  6,  8,  2, 10),
                                  most=2, near=("on", "night stand", "chest", "sideboard", "desk")),
    "floor lamp":   Piece(lamp,         (0.40, 1.50, 0.40), ( 1, 10,  6,  4,  1, 16)),
    "plant":        Piece(plant,        (0.50, 1.00, 0.50), (10, 12, 14, 12,  9, 40)),
    "shelf":        Piece(shelf,        (0.80, 0.28, 0.20), (11, 10,  7,  9, 13, 11), lift=1.35),
    "picture":      Piece(picture,      (0.55, 0.50, 0.03), ( 5, 16, 16, 12,  6, 36), most=3, lift=1.35),
    "basket":       Piece(basket,       (0.34, 0.45, 0.34), (12,  8,  5, 14,  6,  9)),
    "carton":       Piece(carton,       (0.42, 0.35, 0.38), ( 6,  6,  5, 10,  6,  6), free=True),
    "things":       Piece(things,       (0.50, 0.22, 0.20), (16, 12, 97, 16, 97, 40), most=3, near=("on", *_TOPS)),
}
# fmt: on
