"""Land cover scenes: which class a pixel has shows at one known scale.

- agriculture and rangeland share colours, textures and edges; only the arrangement of
  their parcels differs (parallel strips against cells), over > 1000 px of 2448;
- forest and water share their colour; only the texture of single pixels differs;
- rivers, roads and tree rows are 6-24 px wide, rivers and tree rows alike in colour.

Lengths of the layout are given for a scene of 2448 px and multiplied by
`unit = size / 2448`; textures keep their size in px, so that the same reduction removes
them from scenes of any size.
"""

from __future__ import annotations

import math

import numpy as np

from data_builders.procedural import paint

CLASSES = (  # the order and the colours of DeepGlobe
    ("urban", (0, 255, 255)),
    ("agriculture", (255, 255, 0)),
    ("rangeland", (255, 0, 255)),
    ("forest", (0, 255, 0)),
    ("water", (0, 0, 255)),
    ("barren", (255, 255, 255)),
    ("unknown", (0, 0, 0)),  # never a label: unknown pixels are 255 = ignore
)
URBAN, AGRICULTURE, RANGELAND, FOREST, WATER, BARREN = range(6)
THIN_WATER, THIN_ROAD, THIN_TREES = 1, 2, 3

# parcels: two tones, light and dark, of three colours each
TONES = (
    ((128, 142, 84), (146, 148, 98), (164, 150, 108)),
    ((92, 112, 66), (108, 98, 70), (96, 108, 80)),
)
SHADES = 20  # parcel ids per class and tone
STRIP_WIDTH, STRIP_LENGTH = 220.0, 960.0  # px, agriculture
CELL = 460.0  # px, rangeland: the square root of width x length, so the same area

BLOBS = ((FOREST, 0.30), (WATER, 0.24), (BARREN, 0.18), (URBAN, 0.28))
BLOB_COUNT, BLOB_GRID, BLOB_RADIUS = 15, 4, (130.0, 300.0)
DARK, BRIGHT, LAWN = (40, 62, 50), (172, 156, 124), (94, 106, 78)
ROOFS = (
    (178, 104, 76),
    (214, 206, 196),
    (122, 82, 82),
    (104, 102, 106),
    (170, 138, 104),
    (226, 222, 190),
)
STREET, ROAD = (134, 132, 130), (150, 146, 138)

PARCEL_TEXTURE = paint.Texture(mottle=6, white=10, rows=9)
FOREST_TEXTURE = paint.Texture(canopy=32, white=4)
WATER_TEXTURE = paint.Texture(white=5)
BARREN_TEXTURE = paint.Texture(mottle=30, white=14)
URBAN_TEXTURE = paint.Texture(canopy=6, mottle=12, white=14)
PLAIN_TEXTURE = paint.Texture(white=8)

# the ids of a scene
PARCEL_ID = 0  # + (is rangeland) * 2 * SHADES + tone * SHADES + shade
BLOB_ID = PARCEL_ID + 4 * SHADES
STREET_ID = BLOB_ID + BLOB_COUNT
ROOF_ID = STREET_ID + 1
TREES_ID = ROOF_ID + len(ROOFS)
RIVER_ID = TREES_ID + 1
ROAD_ID = RIVER_ID + 1


def draw(size: int, rng: np.random.Generator) -> paint.Scene:
    """Returns one land cover scene.

    Args:
        size: side in px, a multiple of 8.
        rng: generator of this scene alone.
    """
    unit = size / 2448
    classes = paint.choose(rng, [share for _, share in BLOBS], BLOB_COUNT)
    classes = np.array([name for name, _ in BLOBS])[classes]
    ids = paint.fill(size, 8 if size > 1000 else 4, _areas(rng, size, unit))
    for blob in np.flatnonzero(classes == URBAN):
        _build_streets(ids, BLOB_ID + int(blob), rng, unit)
    _draw_lines(ids, rng, unit)

    label = _class_table(classes)[ids]
    thin_table = np.zeros(256, np.uint8)
    thin_table[[RIVER_ID, ROAD_ID, TREES_ID]] = THIN_WATER, THIN_ROAD, THIN_TREES
    thin = thin_table[ids]

    _draw_lone_houses(ids, rng, unit)  # in the image only: a farm is no town
    image = paint.render(
        ids,
        rng,
        colours=_colour_table(rng, classes),
        textures=_texture_table(classes),
        stripes=_stripe_table(rng),
        light_wave=520.0 * unit,
        light=9.0,
    )
    unknown = _unknown_borders(rng, size, unit)
    image[unknown], label[unknown], thin[unknown] = 0, paint.IGNORE, 0
    return paint.Scene(image, label, thin)


# -------------------------------------------------------------- areas


def _areas(rng: np.random.Generator, size: int, unit: float):
    """Returns the function id(y, x) of everything that covers an area."""
    big = paint.Warp(rng, size, wave=420.0 * unit, amplitude=90.0 * unit)
    small = paint.Warp(rng, size, wave=130.0 * unit, amplitude=16.0 * unit)
    regions = _region_sites(rng, size)
    first_is_range = rng.integers(2)
    strips = [_strips(rng, unit) for _ in regions]
    cells = _cells(rng, size, unit)
    sites = paint.jittered_grid(rng, size, pitch=size / BLOB_GRID, jitter=0.35)
    sites = np.delete(sites, rng.integers(len(sites)), axis=0)[:BLOB_COUNT]
    radii = paint.between(rng, *BLOB_RADIUS, BLOB_COUNT) * unit

    def id_at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        moved_y, moved_x = big(y, x)
        blob = paint.nearest_blob(moved_y, moved_x, sites, radii)
        ids = (BLOB_ID + blob).astype(np.uint8)
        free = np.flatnonzero(blob < 0)
        region = paint.nearest_site(moved_y[free], moved_x[free], regions)
        parcel_y, parcel_x = small(y[free], x[free])
        parcel = np.zeros(len(free), np.uint8)
        for i in range(len(regions)):
            mine = np.flatnonzero(region == i)
            is_range = (i + first_is_range) % 2
            parcel_at = cells if is_range else strips[i]
            parcel[mine] = parcel_at(parcel_y[mine], parcel_x[mine])
            parcel[mine] += np.uint8(PARCEL_ID + is_range * 2 * SHADES)
        ids[free] = parcel
        return ids

    return id_at


def _region_sites(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns 2 or 3 sites in a row along a random direction, float64 [m, 2]."""
    count = 2 if rng.random() < 0.4 else 3
    step = (np.arange(count) - (count - 1) / 2) * (1.1 * size / count)
    jitter = paint.between(rng, -0.15 * size, 0.15 * size, 2 * count).reshape(-1, 2)
    return size / 2 + step[:, None] * paint.direction(rng) + jitter


def _strips(rng: np.random.Generator, unit: float):
    """Returns shade(y, x) of long parallel parcels, light and dark in turn."""
    dy, dx = paint.direction(rng)
    shades = rng.integers(SHADES, size=(64, 64), dtype=np.uint8)
    shifts = rng.random(64, dtype=np.float32)
    width, length = STRIP_WIDTH * unit, STRIP_LENGTH * unit

    def shade_at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        row = np.floor((x * dy - y * dx) / width).astype(np.int32) & 63
        along = (y * dy + x * dx) / length + shifts[row]
        column = np.floor(along).astype(np.int32) & 63
        return shades[row, column] + (row & 1).astype(np.uint8) * np.uint8(SHADES)

    return shade_at


def _cells(rng: np.random.Generator, size: int, unit: float):
    """Returns shade(y, x) of parcels around jittered sites; tone and shade random."""
    pitch, rim = CELL * unit, 2
    sites = paint.jittered_grid(rng, size, pitch=pitch, jitter=0.45, rim=rim)
    side = math.isqrt(len(sites))
    sites = sites.astype(np.float32)
    shades = rng.integers(2 * SHADES, size=len(sites), dtype=np.uint8)

    def shade_at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        row = np.floor(y / pitch).astype(np.int32) + rim
        column = np.floor(x / pitch).astype(np.int32) + rim
        best = np.full(y.shape, np.inf, np.float32)
        nearest = np.zeros(y.shape, np.int32)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                site = (row + down) * side + column + right
                dy, dx = y - sites[site, 0], x - sites[site, 1]
                square = dy * dy + dx * dx
                nearest = np.where(square < best, site, nearest)
                np.minimum(best, square, out=best)
        return shades[nearest]

    return shade_at


# ---------------------------------------------------------------- towns


def _build_streets(
    ids: np.ndarray, town: int, rng: np.random.Generator, unit: float
) -> None:
    """Paints streets and houses on a rotated grid of lots inside one town, in place."""
    dy, dx = paint.direction(rng)
    lot = max(44.0 * unit, 9.0)
    roof = rng.integers(len(ROOFS), size=(64, 64), dtype=np.uint8)
    roof = np.where(rng.random((64, 64)) < 0.84, ROOF_ID + roof, town).astype(np.uint8)
    half = (0.20 + 0.12 * rng.random((2, 64, 64))).astype(np.float32)
    centre = (0.48 + 0.20 * rng.random((2, 64, 64))).astype(np.float32)

    y, x = (axis.astype(np.float32) for axis in np.nonzero(ids == town))
    s, t = (y * dy + x * dx) / lot, (x * dy - y * dx) / lot
    row, column = np.floor(s).astype(np.int32), np.floor(t).astype(np.int32)
    s, t = s - row, t - column  # place inside the lot, 0..1
    row, column = row & 63, column & 63
    house = np.abs(s - centre[0, row, column]) < half[0, row, column]
    house &= np.abs(t - centre[1, row, column]) < half[1, row, column]
    street = ((row & 1) == 0) & (s < 0.24) | ((column & 3) == 0) & (t < 0.24)
    painted = np.where(house, roof[row, column], np.uint8(town))
    ids[ids == town] = np.where(street, np.uint8(STREET_ID), painted)


def _draw_lone_houses(ids: np.ndarray, rng: np.random.Generator, unit: float) -> None:
    size, count = len(ids), int(rng.integers(10, 22))
    centres = paint.between(rng, 0.0, size - 1.0, 2 * count).reshape(-1, 2)
    half = np.maximum(paint.between(rng, 9.0, 15.0, 2 * count) * unit, 1.8)
    roof = (ROOF_ID + rng.integers(len(ROOFS), size=count)).astype(np.uint8)
    along = paint.directions(rng, count)
    y, x = centres.astype(np.int64).T
    in_parcel = ids[y, x] < BLOB_ID
    paint.stamp(
        ids,
        centres=centres[in_parcel],
        along=along[in_parcel],
        half=half.reshape(-1, 2)[in_parcel],
        shape=lambda s, t: [(np.abs(s) < 1) & (np.abs(t) < 1)],
        parts=[roof[in_parcel]],
    )


# ---------------------------------------------------------------- thin structures


def _draw_lines(ids: np.ndarray, rng: np.random.Generator, unit: float) -> None:
    """Paints tree rows, rivers, brooks and roads in this order, in place."""
    size = len(ids)
    for _ in range(rng.integers(9, 15)):
        width = max(paint.uniform(rng, 8.0, 18.0) * unit, 3.5)
        _draw(ids, _tree_row(rng, size, unit), width, TREES_ID)
    for count, widths, floor, bend in (
        (rng.integers(1, 3), (10.0, 24.0), 3.5, 0.55),  # rivers
        (rng.integers(1, 4), (6.0, 12.0), 2.5, 0.75),  # brooks
    ):
        for _ in range(count):
            points = paint.walk(rng, size, step=30.0 * unit, bend=bend)
            _draw(ids, points, max(paint.uniform(rng, *widths) * unit, floor), RIVER_ID)
    for _ in range(rng.integers(2, 5)):
        points = paint.walk(rng, size, step=60.0 * unit, bend=0.10)
        _draw(ids, points, max(paint.uniform(rng, 6.0, 16.0) * unit, 2.0), ROAD_ID)


def _draw(ids: np.ndarray, points: np.ndarray, width: float, part: int) -> None:
    for box, near in paint.stroke(len(ids), points, width):
        ids[box][near] = part


def _tree_row(rng: np.random.Generator, size: int, unit: float) -> np.ndarray:
    """Returns a slightly bent line, float64 [7, 2]."""
    dy, dx = paint.direction(rng)
    length = paint.uniform(rng, 250.0, 700.0) * unit
    at = np.arange(-3, 4) / 3  # -1..1
    sag = paint.uniform(rng, -0.12, 0.12) * length * (1 - at * at)
    centre = paint.between(rng, 0.0, float(size), 2)
    return centre + at[:, None] * length / 2 * (dy, dx) + sag[:, None] * (-dx, dy)


def _unknown_borders(rng: np.random.Generator, size: int, unit: float) -> np.ndarray:
    """Returns where the scene was not imaged: one or two cut borders or none, bool."""
    unknown = np.zeros((size, size), bool)
    if rng.random() >= 0.45:
        return unknown
    first, count = int(rng.integers(4)), int(rng.integers(1, 3))
    for side in range(first, first + count):
        depth, slope = (
            paint.uniform(rng, 40.0, 260.0) * unit,
            paint.uniform(rng, -0.12, 0.12),
        )
        edge = depth + slope * (np.arange(size) + (0.5 - size / 2))
        cut = np.arange(size)[:, None] + 0.5 < edge  # at the upper border
        unknown |= np.rot90(cut, side)
    return unknown


# ---------------------------------------------------------------- tables


def _class_table(blob_classes: np.ndarray) -> np.ndarray:
    """Returns the class of each id, uint8 [256]."""
    table = np.full(256, URBAN, np.uint8)  # streets, roofs, roads
    table[PARCEL_ID : PARCEL_ID + 2 * SHADES] = AGRICULTURE
    table[PARCEL_ID + 2 * SHADES : BLOB_ID] = RANGELAND
    table[BLOB_ID:STREET_ID] = blob_classes
    table[TREES_ID], table[RIVER_ID] = FOREST, WATER
    return table


def _colour_table(rng: np.random.Generator, blob_classes: np.ndarray) -> np.ndarray:
    """Returns the colour of each id, int16 [256, 3]."""
    table = np.zeros((256, 3), np.int16)
    for tone, colours in enumerate(TONES):
        base = np.array(colours)[rng.integers(len(colours), size=SHADES)]
        shades = base + rng.integers(-7, 8, size=(SHADES, 3))
        for first in (PARCEL_ID, PARCEL_ID + 2 * SHADES):  # both classes alike
            table[first + tone * SHADES : first + (tone + 1) * SHADES] = shades
    for blob, kind in enumerate(blob_classes.tolist()):
        base, jitter = {URBAN: (LAWN, 6), BARREN: (BRIGHT, 8)}.get(kind, (DARK, 5))
        table[BLOB_ID + blob] = base + rng.integers(-jitter, jitter + 1, size=3)
    for thin in (TREES_ID, RIVER_ID):
        table[thin] = DARK + rng.integers(-5, 6, size=3)
    table[STREET_ID], table[ROAD_ID] = STREET, ROAD
    table[ROOF_ID:TREES_ID] = ROOFS
    return table


def _texture_table(blob_classes: np.ndarray) -> np.ndarray:
    """Returns the texture of each id, int16 [256, 4]."""
    table = np.full((256, 4), PLAIN_TEXTURE, np.int16)
    table[PARCEL_ID:BLOB_ID] = PARCEL_TEXTURE
    blob_textures = {
        URBAN: URBAN_TEXTURE,
        FOREST: FOREST_TEXTURE,
        WATER: WATER_TEXTURE,
        BARREN: BARREN_TEXTURE,
    }
    for blob, kind in enumerate(blob_classes.tolist()):
        table[BLOB_ID + blob] = blob_textures[kind]
    table[TREES_ID], table[RIVER_ID] = FOREST_TEXTURE, WATER_TEXTURE
    return table


def _stripe_table(rng: np.random.Generator) -> np.ndarray:
    """Returns the phase of the crop rows per px of each parcel id, int16 [256, 2]."""
    table = np.zeros((256, 2), np.int16)
    count = BLOB_ID - PARCEL_ID
    turns = 256.0 / paint.between(rng, 7.0, 11.0, count)
    table[PARCEL_ID:BLOB_ID] = np.rint(paint.directions(rng, count) * turns[:, None])
    return table
