"""Locations of Foveation: the pixels of a scene made small by a rate, in px.

Location (i, j) of a grid of rate q stands for the q x q px from scene px (q i, q j) on.
A patch there begins at that corner, or `first` px behind it.
"""

from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """The locations at which a scene is labelled, row by row."""

    rows: int
    columns: int
    rate: int  # scene px per location
    extra: tuple[int, int] = (0, 0)  # rows and columns more than the map has

    def locations(self) -> np.ndarray:
        """Returns [N, 2] int32 (row, column)."""
        rows, columns = self.rows + self.extra[0], self.columns + self.extra[1]
        return np.argwhere(np.ones((rows, columns), bool)).astype(np.int32)


def plan_grid(
    height: int,
    width: int,
    *,
    rate: int,
    patch: int,
    first: int = 0,
    cover: bool = False,
) -> Grid:
    """Returns the locations of a scene, of which rounding may leave out a strip.

    Args:
        height: of the scene, px.
        width: of the scene, px.
        rate: of the grid, px.
        patch: side of the smallest patch, px.
        first: where the patch of location 0 begins, px.
        cover: add a last row and column where a strip would stay empty.
    """
    rows, columns = (max(round(side / rate), 1) for side in (height, width))
    extra = [0, 0]
    for axis, (side, count) in enumerate(((height, rows), (width, columns))):
        end = (count - 1) * rate + first + patch
        extra[axis] = int(cover and end < side)
    return Grid(rows, columns, rate, tuple(extra))


def counts(
    height: int, width: int, grid: Grid, *, patch: int, first: int = 0
) -> np.ndarray:
    """Returns how many patches cover each px of a scene, int32 [height, width]."""
    along = []
    for axis, side in enumerate((height, width)):
        covered = np.zeros(side, np.int32)
        for place in range(grid[axis] + grid.extra[axis]):
            start = place * grid.rate + first
            covered[max(start, 0) : max(start + patch, 0)] += 1
        along.append(covered)
    return along[0][:, None] * along[1][None]


def draw(
    rng: np.random.Generator, rows: int, columns: int, *, count: int, together: int
) -> np.ndarray:
    """Draws the locations of an iteration, without replacement.

    Args:
        rng: the source of randomness.
        rows: of the map.
        columns: of the map.
        count: of the iteration; a multiple of `together`.
        together: locations of one step.

    Returns:
        [count / together, together, 2] int32 (row, column).
    """
    if count % together:
        raise ValueError(
            f"{count} locations cannot be divided into steps of {together}; use a "
            f"multiple of {together}"
        )
    if count > rows * columns:
        raise ValueError(
            f"a map of {rows} x {columns} has {rows * columns} locations, fewer than "
            f"the {count} of an iteration; use fewer, or a smaller scale"
        )
    chosen = rng.permutation(rows * columns)[:count]
    places = np.stack([chosen // columns, chosen % columns], axis=1).astype(np.int32)
    return places.reshape(-1, together, 2)


def iterations(images: int, *, together: int, repeats: int = 1) -> int:
    """Returns the iterations of an epoch: groups of images, an incomplete one counts.

    Args:
        images: of the training split.
        together: L, of an iteration.
        repeats: how often an epoch goes through the images.
    """
    return -(-images // together) * repeats


def total_locations(*, epochs: int, iterations: int, per_iteration: int) -> int:
    """Returns T, what the paper calls iterations: the locations visited per image.

    Schedules count in these; the optimizer takes T / B steps for B locations a step.
    """
    return epochs * iterations * per_iteration
