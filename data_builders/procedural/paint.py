"""Building blocks of procedural scenes: noise, fills, strokes, stamps, texture.

A scene is painted as ONE map of uint8 ids; tables then turn ids into classes, colours
and textures. Only integers and + - * / sqrt, rounding and comparison touch a pixel:
IEEE arithmetic defines each exactly, so that two machines draw the same bytes. Hence no
sin, no sums over floats, and of the generator only `random`, `integers`, `bytes`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

IGNORE = 255  # label of pixels that count neither in loss nor in score
BAND = 64  # rows rendered at once: the working set stays in the cache

Box = tuple[slice, slice]


class Scene(NamedTuple):
    """One procedural scene of side S."""

    image: np.ndarray  # uint8 [S, S, 3] RGB
    label: np.ndarray  # uint8 [S, S] class, 255 = ignore
    thin: np.ndarray  # uint8 [S, S] 0 none, 1 water, 2 road, 3 tree row


class Texture(NamedTuple):
    """How strongly each grain shows on an id, in 1/128 of its amplitude."""

    canopy: int = 0  # +-256, vanishes when averaged
    mottle: int = 0  # +-127, patches of 9 px
    white: int = 0  # +-128, independent pixels
    rows: int = 0  # +-64, stripes of 7-11 px


# ---------------------------------------------------------------- random choices


def _unit_vectors() -> np.ndarray:
    """Returns the directions to draw from: integer vectors over their length."""
    side = np.arange(-64, 65)
    y, x = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    square = y * y + x * x
    keep = (square > 256) & (square <= 4096)
    vectors = np.stack([y, x], axis=1)[keep]
    return vectors / np.sqrt(square[keep].astype(np.float64))[:, None]


DIRECTIONS = _unit_vectors()


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns `count` random unit vectors (y, x), float64 [count, 2]."""
    return DIRECTIONS[rng.integers(len(DIRECTIONS), size=count)]


def direction(rng: np.random.Generator) -> tuple[float, float]:
    """Returns one random unit vector (y, x)."""
    y, x = directions(rng, 1)[0].tolist()
    return y, x


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Returns a float in [low, high), rounded alike everywhere."""
    return low + (high - low) * rng.random()


def between(
    rng: np.random.Generator, low: float, high: float, count: int
) -> np.ndarray:
    """Returns `count` floats in [low, high), float64 [count]."""
    return low + (high - low) * rng.random(count)


def choose(rng: np.random.Generator, shares: Sequence[float], count: int) -> np.ndarray:
    """Returns `count` indices, index i with the probability shares[i]."""
    edges = np.array([sum(shares[: i + 1]) for i in range(len(shares) - 1)])
    return np.sum(rng.random(count)[:, None] >= edges, axis=1)


def jittered_grid(
    rng: np.random.Generator, size: int, *, pitch: float, jitter: float, rim: int = 0
) -> np.ndarray:
    """Returns one point per cell of a square grid, float64 [n, 2], row-major.

    Args:
        size: side of the scene in px.
        pitch: side of a cell in px.
        jitter: largest move off the cell's centre, as a fraction of the pitch.
        rim: cells added beyond each border of the scene.
    """
    cells = np.arange(-rim, math.ceil(size / pitch - 1e-6) + rim) + 0.5
    centres = np.stack(np.meshgrid(cells, cells, indexing="ij"), axis=-1)
    move = jitter * (2 * rng.random(centres.shape) - 1)
    return ((centres + move) * pitch).reshape(-1, 2)


# ---------------------------------------------------------------- noise


class Noise:
    """Value noise: a grid of values in [-1, 1], smoothly interpolated."""

    def __init__(self, rng: np.random.Generator, size: int, wave: float):
        """Draws the grid.

        Args:
            size: side of the scene in px.
            wave: spacing of the grid in px.
        """
        count = int(size / wave) + 3
        self.wave = wave
        self.grid = 2 * rng.random((count, count), dtype=np.float32) - 1

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Returns the noise at points (y, x) in [0, size], in their shape."""
        (i, f), (j, g) = self._cell(y), self._cell(x)
        flat, width = self.grid.ravel(), self.grid.shape[1]
        corner = i * width + j
        above = _mix(flat[corner], flat[corner + 1], g)
        below = _mix(flat[corner + width], flat[corner + width + 1], g)
        return _mix(above, below, f)

    def frame(self, size: int, amplitude: float) -> np.ndarray:
        """Returns amplitude * noise at every pixel centre, int8 [size, size]."""
        cell, weight = self._cell(np.arange(size, dtype=np.float32) + 0.5)
        grid = self.grid * np.float32(amplitude)
        rows = _mix(grid[:, cell], grid[:, cell + 1], weight)  # columns once, [n, size]
        steps = rows[1:] - rows[:-1]
        starts = np.searchsorted(cell, np.arange(cell[-1] + 2))  # first px of each cell
        frame = np.empty((size, size), np.int8)
        for i, (top, bottom) in enumerate(itertools.pairwise(starts)):
            frame[top:bottom] = np.rint(rows[i] + weight[top:bottom, None] * steps[i])
        return frame

    def _cell(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scaled = position / self.wave
        cell = scaled.astype(np.int32)
        fraction = scaled - cell.astype(scaled.dtype)
        return cell, fraction * fraction * (3 - 2 * fraction)


def _mix(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return low + weight * (high - low)


class Warp:
    """Moves points by two noise fields, so that straight borders turn natural."""

    def __init__(
        self, rng: np.random.Generator, size: int, *, wave: float, amplitude: float
    ):
        self.fields = Noise(rng, size, wave), Noise(rng, size, wave)
        self.amplitude = amplitude

    def __call__(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the moved points."""
        down, right = (self.amplitude * field.at(y, x) for field in self.fields)
        return y + down, x + right


# ---------------------------------------------------------------- areas


def fill(
    size: int, block: int, id_at: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Evaluates a map of ids coarse to fine.

    Blocks whose four corners agree are filled whole, the others pixel by pixel. This is
    fast for any formula; specks smaller than a block may be lost.

    Args:
        size: side of the scene in px, a multiple of `block`.
        block: side of a block in px.
        id_at: ids uint8 at points (y, x), float32 arrays of one shape.

    Returns:
        ids, uint8 [size, size].
    """
    count = size // block
    edge = np.arange(count + 1, dtype=np.float32) * block
    corner = id_at(*(axis.ravel() for axis in np.meshgrid(edge, edge, indexing="ij")))
    corner = corner.reshape(count + 1, count + 1)
    first = corner[:-1, :-1]
    mixed = (first != corner[1:, :-1]) | (first != corner[:-1, 1:])
    mixed |= first != corner[1:, 1:]
    ids = np.repeat(np.repeat(first, block, axis=0), block, axis=1)

    row, column = np.nonzero(mixed)
    inner = np.arange(block, dtype=np.float32) + 0.5
    y = (row * block).astype(np.float32)[:, None, None] + inner[:, None]
    x = (column * block).astype(np.float32)[:, None, None] + inner
    y, x = np.broadcast_arrays(y, x)  # [n, block, block]
    fine = id_at(y.ravel(), x.ravel()).reshape(-1, block, block)
    ids.reshape(count, block, count, block)[row, :, column, :] = fine
    return ids


def nearest_site(y: np.ndarray, x: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Returns the index of the nearest of few sites [n, 2] (Voronoi), uint8."""
    best = np.full(y.shape, np.inf, np.float32)
    index = np.zeros(y.shape, np.uint8)
    for i, (site_y, site_x) in enumerate(sites.tolist()):
        down, right = y - site_y, x - site_x
        square = down * down + right * right
        closer = square < best
        index[closer] = i
        np.minimum(best, square, out=best)
    return index


def nearest_blob(
    y: np.ndarray, x: np.ndarray, sites: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Returns the disc (site, radius) a point lies deepest in, -1 outside all."""
    best = np.zeros(y.shape, np.float32)
    index = np.full(y.shape, -1, np.int16)
    rows = zip(sites.tolist(), radii.tolist(), strict=True)
    for i, ((site_y, site_x), radius) in enumerate(rows):
        down, right = y - site_y, x - site_x
        depth = np.sqrt(down * down + right * right) - radius
        closer = depth < best
        index[closer] = i
        np.minimum(best, depth, out=best)
    return index


# ---------------------------------------------------------------- lines


def walk(
    rng: np.random.Generator, size: int, *, step: float, bend: float
) -> np.ndarray:
    """Returns a polyline that crosses the scene, float64 [n, 2]; its ends lie outside.

    Args:
        size: side of the scene in px.
        step: distance of two points along the walk, in px.
        bend: how strongly it winds; 0 is straight.
    """
    dy, dx = direction(rng)
    centre = between(rng, 0.2 * size, 0.8 * size, 2)
    count = int(2.4 * size / step)
    offsets, offset, speed = [], 0.0, 0.0
    for noise in rng.random(count).tolist():
        offset = 0.985 * (offset + speed)
        speed = 0.85 * speed + bend * (noise - 0.5) * step
        offsets.append(offset)
    sideways = np.array(offsets) - offsets[count // 2]
    along = (np.arange(count) - count // 2) * step
    points = along[:, None] * (dy, dx) + sideways[:, None] * (-dx, dy)
    return centre + points


def stroke(
    size: int, points: np.ndarray, width: float
) -> Iterator[tuple[Box, np.ndarray]]:
    """Yields a box and the pixels in it that each segment of a polyline covers.

    Args:
        size: side of the scene in px.
        points: [n, 2] (y, x); `width` in px too.
    """
    reach = width / 2
    for (ay, ax), (by, bx) in itertools.pairwise(points.tolist()):
        top, bottom = _span(ay, by, reach, size)
        left, right = _span(ax, bx, reach, size)
        if top >= bottom or left >= right:
            continue
        y = (np.arange(top, bottom) + (0.5 - ay))[:, None]
        x = np.arange(left, right) + (0.5 - ax)
        dy, dx = by - ay, bx - ax
        at = np.clip((y * dy + x * dx) / max(dy * dy + dx * dx, 1e-9), 0.0, 1.0)
        off_y, off_x = y - at * dy, x - at * dx
        near = off_y * off_y + off_x * off_x < reach * reach
        yield (slice(top, bottom), slice(left, right)), near


def _span(a: float, b: float, reach: float, size: int) -> tuple[int, int]:
    low, high = min(a, b) - reach, max(a, b) + reach
    return max(math.floor(low), 0), min(math.ceil(high) + 1, size)


# ---------------------------------------------------------------- objects


def stamp(
    ids: np.ndarray,
    *,
    centres: np.ndarray,
    along: np.ndarray,
    half: np.ndarray,
    shape: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]],
    parts: Sequence[np.ndarray],
) -> None:
    """Paints all objects of one kind at once, in place; what lies outside is cut off.

    Args:
        ids: uint8 [S, S].
        centres: [n, 2] (y, x) in px.
        along: [n, 2] unit vector from stern to bow.
        half: [n, 2] half length and half width in px.
        shape: (s, t) -> masks, painted in turn; s = along / half length in -1..1 and
            t = across / half width, both [n, k, k].
        parts: for each mask the id that each object paints, uint8 [n].
    """
    if not len(centres):
        return
    longest = np.max(np.sqrt(half[:, 0] * half[:, 0] + half[:, 1] * half[:, 1]))
    reach = math.ceil(float(longest)) + 1
    offset = np.arange(-reach, reach + 1)
    y = np.floor(centres[:, 0]).astype(np.int64)[:, None, None] + offset[:, None]
    x = np.floor(centres[:, 1]).astype(np.int64)[:, None, None] + offset
    down = y + 0.5 - centres[:, 0, None, None]
    right = x + 0.5 - centres[:, 1, None, None]
    dy, dx = along[:, 0, None, None], along[:, 1, None, None]
    s = (down * dy + right * dx) / half[:, 0, None, None]
    t = (right * dy - down * dx) / half[:, 1, None, None]
    inside = (y >= 0) & (y < len(ids)) & (x >= 0) & (x < len(ids))
    flat = ids.reshape(-1)
    pixel = y * len(ids) + x  # [n, k, k]
    for mask, part in zip(shape(s, t), parts, strict=True):
        mask = mask & inside
        flat[pixel[mask]] = np.broadcast_to(part[:, None, None], mask.shape)[mask]


# ---------------------------------------------------------------- image


def render(
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    colours: np.ndarray,
    textures: np.ndarray,
    stripes: np.ndarray,
    light_wave: float,
    light: float,
) -> np.ndarray:
    """Turns ids into an image: softened colours + texture + light, clipped to 1..255.

    Args:
        ids: uint8 [S, S].
        colours: int16 [256, 3], RGB of each id.
        textures: int16 [256, 4], a `Texture` for each id.
        stripes: int16 [256, 2], phase of the rows per px in y and x, in 1/256 turns.
        light_wave: spacing of the light in px.
        light: largest gain or loss of light in grey levels.

    Returns:
        uint8 [S, S, 3]; 0 is kept for pixels that are unknown.
    """
    size = len(ids)
    white = np.frombuffer(rng.bytes((size + 1) * (size + 1)), np.int8)
    white = white.reshape(size + 1, size + 1)
    mottle = Noise(rng, size, 9.0).frame(size, 127.0)
    shade = Noise(rng, size, light_wave).frame(size, light)
    padded = np.pad(ids, 1, mode="edge")
    image = np.empty((size, size, 3), np.uint8)
    for top in range(0, size, BAND):
        rows = slice(top, min(top + BAND, size))
        grain = _grain(
            ids[rows], white[top : rows.stop + 1], mottle[rows], top, textures, stripes
        )
        grain += shade[rows]
        for channel in range(3):
            plane = colours[:, channel].take(padded[top : rows.stop + 2])
            plane = _soften(plane) + grain
            image[rows, :, channel] = np.clip(plane, 1, 255)
    return image


def _soften(plane: np.ndarray) -> np.ndarray:
    """Returns [1 2 1] / 4 in y and x, int16; one px is lost on each side."""
    plane = plane[:-2] + 2 * plane[1:-1] + plane[2:]
    plane = plane[:, :-2] + 2 * plane[:, 1:-1] + plane[:, 2:]
    return (plane + 8) >> 4


def _grain(ids, white, mottle, top, textures, stripes) -> np.ndarray:
    """Returns the texture of a band of rows that begins at row `top`, int16."""
    # Differences of neighbours: their sum over a box telescopes, so averaging by k
    # leaves 1 / k**2 of it. That is why forest turns into water in a reduced view.
    half = (white >> 1).astype(np.int16)
    canopy = half[:-1, :-1] - half[:-1, 1:] - half[1:, :-1] + half[1:, 1:]
    grain = canopy * textures[:, 0].take(ids)
    grain += mottle * textures[:, 1].take(ids)
    grain += white[:-1, :-1] * textures[:, 2].take(ids)
    if textures[:, 3].any():
        y = np.arange(top, top + len(ids), dtype=np.int16)[:, None]
        x = np.arange(ids.shape[1], dtype=np.int16)
        phase = stripes[:, 0].take(ids) * y + stripes[:, 1].take(ids) * x  # wraps
        grain += (np.abs((phase & 255) - 128) - 64) * textures[:, 3].take(ids)
    return grain >> 7
