"""Object scenes: 15 kinds of objects of 8-40 px on about 3 % of a busy background.

Zones of ground, then canals, roads and bridges, then objects and their look-alikes,
each on ground that is still free. `inventory` lists what there is; most kinds have an
unlabelled look-alike, so that colour alone decides nothing.

The object scale `unit` is 1 at 2448 px and 0.6 at 512 px: objects of a small scene stay
large enough to be drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_builders.procedural import inventory, paint, shapes

CLASSES = inventory.CLASSES

KINDS_OF_ZONE = tuple(inventory.ZONES)
CANAL_WIDTH, ROAD_WIDTH = (20.0, 34.0), (14.0, 22.0)  # px
STEP = 60.0  # px between two points of a canal or road
CAR_PITCH, TRUCK_SHARE, LANE = (
    34.0,
    0.22,
    0.24,
)  # px, fraction, road widths off the axis
PIERS, PIER_GAP = 3, 13.0  # px


class Plan(NamedTuple):
    """What depends on the size of the scene."""

    unit: float  # object scale
    grid: int  # zones along a side
    block: int  # px, coarse-to-fine fill
    roads: tuple[int, int]  # least, most
    wet_points: int  # points of a road that may lie on a canal
    harbor_tries: int
    every_kind: bool  # one zone of each kind at least


SMALL = Plan(0.6, 3, 4, (2, 3), 2, 900, False)
LARGE = Plan(1.0, 5, 8, (4, 6), 3, 20000, True)


class Road(NamedTuple):
    """A road before it is painted."""

    points: np.ndarray  # float64 [n, 2], STEP apart
    width: float  # px
    is_crossing: bool  # crosses the sea on a bridge instead of ending at the shore


# ---------------------------------------------------------------- tables of ids


def _ids_of_parts() -> dict[str, np.ndarray]:
    ids, first = {}, inventory.FIRST_PART
    for name, part in inventory.PARTS.items():
        ids[name] = np.arange(first, first + len(part.colours), dtype=np.uint8)
        first += len(part.colours)
    return ids


PART_IDS = _ids_of_parts()  # each colour of a part is an id
CANAL, ROAD, BRIDGE = (int(PART_IDS[name][0]) for name in ("canal", "road", "bridge"))


def _label_table() -> np.ndarray:
    names = [name for name, _ in CLASSES]
    table = np.zeros(256, np.uint8)
    for name, part in inventory.PARTS.items():
        table[PART_IDS[name]] = names.index(part.label)
    return table


LABELS = _label_table()


def _look(zones: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns colours int16 [256, 3] and textures int16 [256, 4] of the ids."""
    colours, textures = np.zeros((256, 3), np.int16), np.zeros((256, 4), np.int16)
    jitter = inventory.COLOUR_JITTER
    for i, kind in enumerate(zones.tolist()):
        zone = inventory.ZONES[KINDS_OF_ZONE[kind]]
        colours[i] = zone.colour + rng.integers(-jitter, jitter + 1, size=3)
        textures[i] = zone.texture
    for name, part in inventory.PARTS.items():
        colours[PART_IDS[name]], textures[PART_IDS[name]] = part.colours, part.texture
    return colours, textures


# ---------------------------------------------------------------- the scene


def draw(size: int, rng: np.random.Generator) -> paint.Scene:
    """Returns one object scene; its `thin` map is empty.

    Args:
        size: side in px, a multiple of 8.
        rng: generator of this scene alone.
    """
    plan = LARGE if size > 1000 else SMALL
    zones = _zone_kinds(plan, rng)
    ids = _zone_ids(size, plan, rng)
    ground = _Ground(ids, zones, paint.directions(rng, len(zones)), plan, rng)
    ground.dig_canals()
    roads = ground.build_roads()
    ground.build_roundabouts(roads)
    for road in roads:
        ground.drive(road)
    ground.build_harbors()
    for kind in inventory.STREWN:
        ground.strew(kind)

    colours, textures = _look(zones, rng)
    image = paint.render(
        ids,
        rng,
        colours=colours,
        textures=textures,
        stripes=np.zeros((256, 2), np.int16),
        light_wave=420.0 * size / 2448,
        light=10.0,
    )
    return paint.Scene(image, LABELS[ids], np.zeros_like(ids))


def _zone_kinds(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Returns the kind of each zone, an index into KINDS_OF_ZONE."""
    count = plan.grid * plan.grid
    kinds = paint.choose(rng, [zone.share for zone in inventory.ZONES.values()], count)
    if plan.every_kind:
        order = np.argsort(rng.random(count), kind="stable")
        kinds[order[: len(KINDS_OF_ZONE)]] = np.arange(len(KINDS_OF_ZONE))
    return kinds


def _zone_ids(size: int, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Returns the zone of each pixel, uint8 [size, size]."""
    pitch = size / plan.grid
    sites = paint.jittered_grid(rng, size, pitch=pitch, jitter=0.38)
    wide = paint.Warp(rng, size, wave=0.6 * pitch, amplitude=0.16 * pitch)
    fine = paint.Warp(rng, size, wave=36.0 * plan.unit, amplitude=7.0 * plan.unit)

    def zone_at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        (wide_y, wide_x), (fine_y, fine_x) = wide(y, x), fine(y, x)
        return paint.nearest_site(wide_y + fine_y - y, wide_x + fine_x - x, sites)

    return paint.fill(size, plan.block, zone_at)


class _Ground:
    """The map of ids while it is painted on."""

    def __init__(self, ids, zones, zone_directions, plan: Plan, rng):
        self.ids, self.plan, self.rng = ids, plan, rng
        self.size, self.unit = len(ids), plan.unit
        self.zone_directions = zone_directions
        self.zone_is = {  # kind of zone -> bool [256] over ids
            name: np.isin(np.arange(256), np.flatnonzero(zones == i))
            for i, name in enumerate(KINDS_OF_ZONE)
        }

    # ------------------------------------------------ canals and roads

    def dig_canals(self) -> None:
        sea = self.zone_is["sea"]
        for _ in range(self.rng.integers(1, 3)):
            points = self._walk(bend=0.25)
            width = paint.uniform(self.rng, *CANAL_WIDTH) * self.unit
            for box, near in paint.stroke(self.size, points, width):
                ids = self.ids[box]
                ids[near & ~sea[ids]] = CANAL

    def build_roads(self) -> list[Road]:
        least, most = self.plan.roads
        has_crossing = self.rng.random() < 0.4
        roads = []
        for i in range(self.rng.integers(least, most + 1)):
            points = self._dry_walk()
            width = paint.uniform(self.rng, *ROAD_WIDTH) * self.unit
            roads.append(Road(points, width, is_crossing=has_crossing and i == 0))
        for road in roads:
            self._pave(road)
        return roads

    def _walk(self, bend: float) -> np.ndarray:
        return paint.walk(self.rng, self.size, step=STEP * self.unit, bend=bend)

    def _dry_walk(self) -> np.ndarray:
        """Returns a polyline that crosses canals, but follows none."""
        for _ in range(50):
            points = self._walk(bend=0.10)
            if np.sum(self._at(self._inside(points)) == CANAL) <= self.plan.wet_points:
                break
        return points

    def _pave(self, road: Road) -> None:
        sea = self.zone_is["sea"]
        for box, near in paint.stroke(self.size, road.points, road.width):
            ids = self.ids[box]
            is_sea, is_bridge = sea[ids], (ids == CANAL) | (ids == BRIDGE)
            if road.is_crossing:
                is_bridge |= is_sea
            ids[near & is_bridge] = BRIDGE
            ids[near & ~is_bridge & ~is_sea] = ROAD

    def build_roundabouts(self, roads: list[Road]) -> None:
        """Builds them where roads cross and at a few other points of the roads."""
        places = [
            road.points[self.rng.random(len(road.points)) < 0.05] for road in roads
        ]
        for i, road in enumerate(roads):
            places += [_crossings(road.points, other.points) for other in roads[:i]]
        centres = self._inside(np.concatenate(places))
        centres = _apart(centres[self._at(centres) == ROAD], 60.0 * self.unit)
        half = paint.between(self.rng, 12.0, 20.0, len(centres)) * self.unit
        half = np.stack([half, half], axis=1)
        along = paint.directions(self.rng, len(centres))
        dry = ~self.zone_is["sea"]
        dry[[CANAL, BRIDGE]] = False
        free = self._is_free(centres, along, half, dry)
        self._stamp(
            centres[free],
            along[free],
            half[free],
            shapes.ring_road,
            ("asphalt", "island"),
        )

    def drive(self, road: Road) -> None:
        """Puts trucks and cars on the lanes of one road; trucks keep off bridges."""
        rng, spacing = self.rng, CAR_PITCH / STEP
        count = int((len(road.points) - 2) / spacing)
        at = (np.arange(count) + 0.3 + 0.6 * rng.random(count)) * spacing
        segment = at.astype(np.int64)
        step = road.points[segment + 1] - road.points[segment]
        points = road.points[segment] + step * (at - segment)[:, None]
        along = step / np.sqrt(step[:, :1] * step[:, :1] + step[:, 1:] * step[:, 1:])
        along = along * np.where(rng.random(count) < 0.5, 1.0, -1.0)[:, None]
        right = np.stack([along[:, 1], -along[:, 0]], axis=1)
        points = points + right * (LANE * road.width)
        is_truck = rng.random(count) < TRUCK_SHARE
        for kind, mine, on in (
            (inventory.TRUCK, is_truck, (ROAD,)),
            (inventory.CAR, ~is_truck, (ROAD, BRIDGE)),
        ):
            self._place(kind, points[mine], along[mine], np.isin(np.arange(256), on))

    # ------------------------------------------------ objects

    def build_harbors(self) -> None:
        """Builds groups of piers from the shore into the sea, at random places."""
        rng, unit, count = self.rng, self.unit, self.plan.harbor_tries
        centres = paint.between(rng, 0.0, self.size - 1.0, 2 * count).reshape(-1, 2)
        along = paint.directions(rng, count)
        half = np.stack(
            [
                paint.between(rng, 13.0, 20.0, count),
                paint.between(rng, 2.2, 3.4, count),
            ],
            1,
        )
        half = half * unit
        across = np.stack([along[:, 1], -along[:, 0]], axis=1) * (PIER_GAP * unit)
        sea = self.zone_is["sea"]
        land = ~sea & (np.arange(256) < inventory.FIRST_PART)
        fits = land[self._at(centres - along * half[:, :1])]
        for pier in (-1, 0, 1):
            for s in (0.2, 1.1):
                point = centres + along * (s * half[:, :1]) + across * pier
                fits &= self._contains(point) & sea[self._at(point)]
        fits = np.flatnonzero(fits)
        fits = fits[_apart_index(centres[fits], 44.0 * unit)]
        for pier in (-1, 0, 1):
            self._stamp(
                centres[fits] + across[fits] * pier,
                along[fits],
                half[fits],
                shapes.box,
                ("pier",),
            )

    def strew(self, kind: inventory.Kind) -> None:
        """Strews objects of one kind in crowds, where ground of its zones is free."""
        pitch, rng = kind.pitch * self.unit, self.rng
        centres = paint.jittered_grid(rng, self.size, pitch=pitch, jitter=0.25)
        crowd = paint.Noise(rng, self.size, 0.55 * self.size / self.plan.grid)
        luck = rng.random(len(centres))
        luck, centres = luck[self._contains(centres)], self._inside(centres)
        density = np.clip(0.5 + 1.6 * crowd.at(centres[:, 0], centres[:, 1]), 0.0, 1.0)
        centres = centres[luck < kind.keep * density]
        allowed = np.zeros(256, bool)
        for zone in kind.zones.split():
            allowed |= self.zone_is[zone]
        centres = centres[allowed[self._at(centres)]]
        if kind.is_aligned:
            along = self.zone_directions[self._at(centres)]
        else:
            along = paint.directions(rng, len(centres))
        self._place(kind, centres, along, allowed)

    def _place(self, kind: inventory.Kind, centres, along, allowed) -> None:
        """Paints those objects whose whole footprint is on allowed ids."""
        count = len(centres)
        length = paint.between(self.rng, *kind.half, count) * self.unit
        aspect = paint.between(self.rng, *kind.aspect, count)
        half = np.stack([length, length * aspect], axis=1)
        free = self._is_free(centres, along, half, allowed)
        centres, along, half = centres[free], along[free], half[free]
        if kind.has_shadow:
            shift = 0.22 * half[:, 1:] + 1.5 * self.unit
            self._stamp(centres + shift, along, half, kind.shape, ("shadow",))
        self._stamp(centres, along, half, kind.shape, kind.parts)

    def _stamp(self, centres, along, half, shape, parts: tuple[str, ...]) -> None:
        count = len(centres)
        ids = [PART_IDS[name] for name in parts]
        paint.stamp(
            self.ids,
            centres=centres,
            along=along,
            half=half,
            shape=lambda s, t: shape(s, t)[: len(parts)],
            parts=[
                choice[self.rng.integers(len(choice), size=count)] for choice in ids
            ],
        )

    # ------------------------------------------------ looking at the map

    def _at(self, points: np.ndarray) -> np.ndarray:
        """Returns the ids at points [..., 2]; those outside count as at the border."""
        pixel = np.clip(np.floor(points), 0, self.size - 1).astype(np.int64)
        return self.ids[pixel[..., 0], pixel[..., 1]]

    def _contains(self, points: np.ndarray) -> np.ndarray:
        inside = (points >= 0) & (points < self.size)
        return inside[..., 0] & inside[..., 1]

    def _inside(self, points: np.ndarray) -> np.ndarray:
        return points[self._contains(points)]

    def _is_free(self, centres, along, half, allowed: np.ndarray) -> np.ndarray:
        """Returns whether 5 x 5 points of each footprint are on allowed ids, bool."""
        probe = np.arange(-2, 3) * (1.1 / 2)
        s, t = probe[:, None, None] * half[:, 0], probe[:, None] * half[:, 1]
        y = centres[:, 0] + s * along[:, 0] - t * along[:, 1]  # [5, 5, n]
        x = centres[:, 1] + s * along[:, 1] + t * along[:, 0]
        return np.all(allowed[self._at(np.stack([y, x], axis=-1))], axis=(0, 1))


def _crossings(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns where two polylines [n, 2] and [m, 2] cross, float64 [k, 2]."""
    a, b = first[:-1, None], second[None, :-1]
    along_a, along_b = first[1:, None] - a, second[None, 1:] - b
    turn = _cross(along_a, along_b)
    turn = np.where(
        turn == 0, np.inf, turn
    )  # parallel: no crossing but at 0, the start
    at_a, at_b = _cross(b - a, along_b) / turn, _cross(b - a, along_a) / turn
    hit = (at_a > 0) & (at_a < 1) & (at_b > 0) & (at_b < 1)
    return (a + at_a[..., None] * along_a)[hit]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _apart(points: np.ndarray, distance: float) -> np.ndarray:
    return points[_apart_index(points, distance)]


def _apart_index(points: np.ndarray, distance: float) -> list[int]:
    """Returns the points that keep their distance from all taken before."""
    taken: list[int] = []
    for i, point in enumerate(points):
        off = points[taken] - point
        if not np.any(
            off[:, 0] * off[:, 0] + off[:, 1] * off[:, 1] < distance * distance
        ):
            taken.append(i)
    return taken
