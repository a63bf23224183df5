"""Reduces or enlarges pixels so that any window equals that part of the whole."""

import math
from collections.abc import Callable

import numpy as np

from uhrjax.tiling import window as windows

BAND_PIXELS = 2**24  # of the source, read at once


def resize(
    read: Callable[[windows.Window], np.ndarray],
    window: windows.Window,
    *,
    source_size: tuple[int, int],
    target_size: tuple[int, int],
) -> np.ndarray:
    """Returns a window of an image as if it had been resized whole.

    Reducing averages the area of a pixel exactly, enlarging is bilinear, both with
    half-pixel centres.

    Args:
        read: returns uint8 [h, w, C] of a window inside the source.
        window: inside the target, not empty.
        source_size: (height, width) px of what `read` reads.
        target_size: (height, width) px of the resized whole.

    Returns:
        [window.height, window.width, C] uint8.
    """
    steps = [s / t for s, t in zip(source_size, target_size, strict=True)]
    columns = _taps(window.left, window.width, steps[1], source_size[1])
    left, right = int(columns[0].min()), int(columns[0].max()) + 1
    rows = max(int(BAND_PIXELS / (steps[0] * (right - left))), 1)
    bands = []
    for first in range(0, window.height, rows):
        count = min(rows, window.height - first)
        lines = _taps(window.top + first, count, steps[0], source_size[0])
        top, bottom = int(lines[0].min()), int(lines[0].max()) + 1
        pixels = read(windows.Window(top, left, bottom - top, right - left))
        tall = _apply(pixels, lines[0] - top, lines[1])
        wide = _apply(tall.swapaxes(0, 1), columns[0] - left, columns[1])
        bands.append(np.rint(wide.swapaxes(0, 1)).clip(0, 255).astype(np.uint8))
    return np.concatenate(bands)


def nearest(start: int, length: int, *, source: int, target: int) -> np.ndarray:
    """Returns the source pixels [length] under the centres of target pixels."""
    centres = (np.arange(start, start + length) + 0.5) * source / target
    return np.minimum(centres.astype(np.int64), source - 1)


def _taps(
    start: int, length: int, step: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source pixels of each target pixel and their weights, [length, T]."""
    place = np.arange(start, start + length, dtype=np.float64)[:, None]
    if step < 1:
        centre = np.clip((place + 0.5) * step - 0.5, 0, size - 1)
        first = np.floor(centre)
        index = first + np.arange(2)
        weight = 1 - np.abs(index - centre)
    else:
        low, high = place * step, np.minimum((place + 1) * step, size)
        index = np.floor(low) + np.arange(math.ceil(step) + 1)
        weight = np.clip(np.minimum(index + 1, high) - np.maximum(index, low), 0, None)
        weight /= weight.sum(axis=1, keepdims=True)
    return np.minimum(index, size - 1).astype(np.int64), weight.astype(np.float32)


def _apply(pixels: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mixes rows: [h, w, C] -> float32 [length, w, C]."""
    mixed = np.zeros((len(index), *pixels.shape[1:]), np.float32)
    for tap in range(index.shape[1]):
        mixed += pixels[index[:, tap]] * weight[:, tap, None, None]
    return mixed
