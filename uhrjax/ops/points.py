"""The k most promising pixels of a map whose score is known cell by cell.

A score at low resolution, enlarged by nearest neighbours, makes blocks of equal values.
Their sizes are known, so the k-th largest of millions of pixels is found among the
cells. Of equal pixels those that come first, row by row, are taken.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.ops import select


class Choice(NamedTuple):
    """Which pixels are chosen; see `chosen`."""

    keys: jax.Array  # [h, w] uint32, the cells' scores, sortable
    key: jax.Array  # the k-th largest; all above it are chosen
    row: jax.Array  # of the last one chosen of those equal to it ...
    column: jax.Array  # ... in reading order


def certainty(probabilities: jax.Array) -> jax.Array:
    """Returns the largest minus the second largest along the last axis, [..., K].

    Unrolled over the classes: sorting takes hundreds of times as long on a CPU.
    """
    first = jnp.maximum(probabilities[..., 0], probabilities[..., 1])
    second = jnp.minimum(probabilities[..., 0], probabilities[..., 1])
    for k in range(2, probabilities.shape[-1]):
        x = probabilities[..., k]
        second = jnp.maximum(second, jnp.minimum(first, x))
        first = jnp.maximum(first, x)
    return first - second


def cells(length: int, count: int) -> np.ndarray:
    """Returns [length] int32, the cell of `count` that each pixel's score is of."""
    return (np.arange(length, dtype=np.int64) * count // length).astype(np.int32)


def sources(length: int, count: int) -> np.ndarray:
    """Returns [count] int32, the pixel of `length` whose score becomes a cell's."""
    return cells(count, length)


def choose(score: jax.Array, size: tuple[int, int], k: int) -> Choice:
    """Finds the k pixels of largest score.

    Args:
        score: [h, w] float32, of the cells.
        size: (height, width) of the map, px; at most 2^31 - 1 of them.
        k: how many pixels, 1 to all.

    Returns:
        What `chosen` needs to say so of any pixel.
    """
    height, width = size
    if not 1 <= k <= height * width < 2**31:
        raise ValueError(f"cannot choose {k} of {height} x {width} px")
    rows, columns = (
        np.bincount(cells(length, count), minlength=count).astype(np.int32)
        for length, count in zip(size, score.shape, strict=True)
    )
    weight = jnp.asarray(rows[:, None] * columns)
    keys = select.sortable_bits(score + 0.0)

    def weigh(cells: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(cells, weight, 0), dtype=jnp.int32)

    def set_bit(step: jax.Array, answer: jax.Array) -> jax.Array:
        candidate = answer | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        return jnp.where(weigh(keys >= candidate) >= k, candidate, answer)

    key = jax.lax.fori_loop(0, 32, set_bit, jnp.uint32(0))
    left = k - weigh(keys > key)  # to be taken of the equal ones, 1 or more
    equal = keys == key
    per_row = jnp.sum(jnp.where(equal, jnp.asarray(columns), 0), axis=1)  # of cells
    found = jnp.cumsum(per_row[cells(height, score.shape[0])])  # [height]
    row = jnp.argmax(found >= left)
    before = jnp.where(row > 0, found[row - 1], 0)
    along = equal[jnp.asarray(cells(height, score.shape[0]))[row]]
    found = jnp.cumsum(along[cells(width, score.shape[1])])  # [width]
    return Choice(keys, key, row, jnp.argmax(found >= left - before))


def chosen(choice: Choice, rows: jax.Array, columns: jax.Array, size: tuple[int, int]):
    """Returns which pixels of a window were chosen.

    Args:
        choice: of `choose`.
        rows: [h] int, of the window, map px.
        columns: [w] int, of the window, map px.
        size: (height, width) of the map, px.

    Returns:
        [h, w] bool.
    """
    tall, wide = choice.keys.shape
    cell_rows = jnp.asarray(cells(size[0], tall))[rows]
    cell_columns = jnp.asarray(cells(size[1], wide))[columns]
    keys = choice.keys[cell_rows][:, cell_columns]
    is_before = (rows < choice.row)[:, None] | (
        (rows == choice.row)[:, None] & (columns <= choice.column)
    )
    return (keys > choice.key) | ((keys == choice.key) & is_before)
