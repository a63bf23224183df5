"""How overlapping windows share a pixel: weights within a window, and who owns what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLENDS = ("average", "hann", "gaussian", "montage")


def window_weights(blend: str, tile: int) -> np.ndarray:
    """Returns the weight of every pixel of a window.

    Args:
        blend: `average` (all equal), `hann` (squared sine), `gaussian` (sigma tile /
            8), or `montage` (all equal within what `owned_spans` gives the window).
        tile: window side, px.

    Returns:
        [tile, tile] float32, all above 0, so that every pixel gets some.
    """
    if blend not in BLENDS:
        raise ValueError(f"unknown blend {blend!r}; use one of {', '.join(BLENDS)}")
    place = (np.arange(tile) + 0.5) / tile
    if blend == "hann":
        line = np.sin(np.pi * place) ** 2
    elif blend == "gaussian":
        line = np.exp(-0.5 * ((place - 0.5) * 8) ** 2)
    else:
        line = np.ones(tile)
    return np.maximum(np.outer(line, line), 1e-4).astype(np.float32)


def owned_spans(
    starts: Sequence[int], *, tile: int, length: int, blend: str
) -> np.ndarray:
    """Returns which part of an axis counts from each window, in window px.

    Args:
        starts: rising, from `window.plan_starts` and its like.
        tile: window side, px.
        length: of the scene's axis, px.
        blend: with `montage` seams lie in the middle of overlaps and every pixel has
            one owner; otherwise a window owns all of itself that lies in the scene.

    Returns:
        [windows, 2] int32, half-open [first, last) within [0, tile].
    """
    first = np.array(starts, np.int64)
    last = np.minimum(first + tile, length)
    if blend == "montage":
        seams = (first[1:] + np.minimum(first[:-1] + tile, length)) // 2
        last = np.append(seams, last[-1])
        spans = np.stack([np.append(first[0], seams), last], 1)
    else:
        spans = np.stack([first, last], 1)
    return (spans - first[:, None]).astype(np.int32)
