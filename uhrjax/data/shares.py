"""Class probabilities of a scene, made small from a file of labels or probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from uhrjax.data import prepared
from uhrjax.tiling import window as windows

BAND_VALUES = 1 << 24  # of a file, worked on at a time


def make(
    read: Callable[[windows.Window], np.ndarray],
    scene: prepared.SceneInfo,
    *,
    classes: int,
    height: int,
    width: int,
) -> np.ndarray:
    """Averages over the px of every cell, in bounded memory.

    A cell in which labels meet comes out undecided between them. What has no class
    counts nothing; all classes are alike in a cell without any.

    Args:
        read: returns of a window [h, w, 1] uint8 class ids, 255 = none, or [h, w, K]
            floating point probabilities, NaN = none.
        scene: its size.
        classes: K.
        height: of the result, cells; all of the scene's px belong to some.
        width: of the result, cells.

    Returns:
        [height, width, K] float32.
    """
    rows, columns = (_edges(*pair) for pair in ((scene.height, height),
                                                (scene.width, width)))  # fmt: skip
    step = max(1, BAND_VALUES * height // (scene.height * scene.width * classes))
    parts = []
    for first in range(0, height, step):
        tops, bottoms = (edge[first : first + step] for edge in rows)
        top, bottom = int(tops[0]), int(bottoms[-1])
        band = read(windows.Window(top, 0, bottom - top, scene.width))
        values = _votes(band, classes)
        values = _sums(values, tops - top, bottoms - top, axis=0)
        parts.append(_sums(values, *columns, axis=1))
    total = np.concatenate(parts)
    counted = total.sum(-1, keepdims=True)
    shares = np.where(counted > 0, total / np.maximum(counted, 1e-12), 1 / classes)
    return shares.astype(np.float32)


def _edges(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns first and last px + 1 of every cell; each has one or more."""
    index = np.arange(count)
    return index * length // count, -(-(index + 1) * length // count)


def _votes(band: np.ndarray, classes: int) -> np.ndarray:
    """Returns [h, w, K] float32 that add up to 1, or to 0 where there is no class."""
    if band.shape[2] == 1:
        return (band == np.arange(classes)).astype(np.float32)
    return np.nan_to_num(band.astype(np.float32))


def _sums(
    values: np.ndarray, first: np.ndarray, last: np.ndarray, *, axis: int
) -> np.ndarray:
    """Returns the sum of values[first:last] for every pair, along an axis."""
    shape = [1 if k == axis else n for k, n in enumerate(values.shape)]
    running = np.cumsum(values, axis=axis, dtype=np.float64)
    running = np.concatenate([np.zeros(shape), running], axis=axis)
    return running.take(last, axis=axis) - running.take(first, axis=axis)
