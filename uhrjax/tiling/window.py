"""Windows of a scene: how they are planned and how pixels are cut with them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A half-open rectangle in scene pixels; it may reach beyond the scene."""

    top: int
    left: int
    height: int
    width: int


def plan_starts(length: int, *, tile: int, stride: int) -> list[int]:
    """Returns tile starts that cover [0, length); the last tile is shifted inward.

    A length of at most one tile gives [0]: that tile may reach beyond the end.
    """
    if length < 1:
        raise ValueError(f"a side of {length} px cannot be tiled; it must be >= 1")
    if not 0 < stride <= tile:
        raise ValueError(
            f"stride {stride} leaves gaps between tiles of {tile} px; "
            f"use 1 <= stride <= {tile} (stride = tile - overlap)"
        )
    last = max(length - tile, 0)
    return [*range(0, last, stride), last]


def plan_even_starts(length: int, *, tile: int, stride: int) -> list[int]:
    """Returns even starts that cover [0, length) with steps of at most `stride`.

    The rule of FCtL's code (minimum overlap = tile - stride): steps are real numbers,
    starts are rounded half to even.
    """
    if len(plan_starts(length, tile=tile, stride=stride)) == 1:
        return [0]
    count = max(-(-length // tile), 2)
    while (length - tile) / (count - 1) > stride:
        count += 1
    step = (length - tile) / (count - 1)
    return [*(round(i * step) for i in range(count - 1)), length - tile]


GRIDS = {"shifted": plan_starts, "even": plan_even_starts}


Side = int | tuple[int, int]  # of squares, or (height, width), px


def sides(side: Side) -> tuple[int, int]:
    """Returns (height, width)."""
    return (side, side) if isinstance(side, int) else tuple(side)


def plan_windows(
    height: int, width: int, *, tile: Side, stride: Side, spacing: str = "shifted"
) -> list[Window]:
    """Returns the windows of size `tile` that cover a scene, row by row.

    Args:
        height: of the scene, px.
        width: of the scene, px.
        tile: size of a window, px.
        stride: of the grid, px.
        spacing: how a grid fits a scene, of GRIDS.
    """
    plan, (rows, columns), (down, across) = GRIDS[spacing], sides(tile), sides(stride)
    tops = plan(height, tile=rows, stride=down)
    lefts = plan(width, tile=columns, stride=across)
    return [Window(top, left, rows, columns) for top in tops for left in lefts]


def cut(array: np.ndarray, window: Window, *, fill: int | float) -> np.ndarray:
    """Cuts a window out of an array; `fill` stands beyond the border.

    Args:
        array: [H, W, ...], a whole scene.
        window: any window, also one that misses the scene.
        fill: value of the pixels that the scene does not have.

    Returns:
        [window.height, window.width, ...] of the array's dtype: a view of the array
        where the window lies inside, a new array otherwise.
    """
    inside = intersect(window, height=array.shape[0], width=array.shape[1])
    rows = slice(inside.top, inside.top + inside.height)
    columns = slice(inside.left, inside.left + inside.width)
    return paste(array[rows, columns], inside, window, fill=fill)


def intersect(window: Window, *, height: int, width: int) -> Window:
    """Returns the part of a window inside a scene; of size 0 where they do not meet."""
    top, left = min(max(window.top, 0), height), min(max(window.left, 0), width)
    bottom = min(max(window.top + window.height, top), height)
    right = min(max(window.left + window.width, left), width)
    return Window(top, left, bottom - top, right - left)


def hull(windows: Sequence[Window]) -> Window:
    """Returns the smallest window that holds all of some."""
    top, left = min(w.top for w in windows), min(w.left for w in windows)
    bottom = max(w.top + w.height for w in windows)
    right = max(w.left + w.width for w in windows)
    return Window(top, left, bottom - top, right - left)


def paste(
    pixels: np.ndarray, inside: Window, window: Window, *, fill: int | float
) -> np.ndarray:
    """Extends the pixels of `inside` to the whole `window`, with `fill` around them.

    Args:
        pixels: [inside.height, inside.width, ...].
        inside: a part of `window`, in the same coordinates.
        window: the window wanted.
        fill: value of the pixels that are not given.

    Returns:
        [window.height, window.width, ...]; `pixels` itself when nothing is missing.
    """
    if inside == window:
        return pixels
    shape = (window.height, window.width, *pixels.shape[2:])
    full = np.full(shape, fill, dtype=pixels.dtype)
    top, left = inside.top - window.top, inside.left - window.left
    if inside.height and inside.width:
        full[top : top + inside.height, left : left + inside.width] = pixels
    return full
