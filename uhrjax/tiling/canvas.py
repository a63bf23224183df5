"""Overlapping windows -> one label map, in memory that does not grow with height."""

from __future__ import annotations

import numpy as np

from uhrjax.tiling import window as window_lib


class StripCanvas:
    """Sums class scores of overlapping windows; finished rows leave as labels.

    Windows come in row-major order (`window.plan_windows`). Rows above the current
    window's top can get no more scores, so only one window height of scores is kept.
    The sum has the same argmax as the average.

    Args:
        out: [H, W] uint8, receives the labels; may be a memory map.
        tile: window height, px.
        num_classes: K <= 255.
    """

    def __init__(self, out: np.ndarray, *, tile: int, num_classes: int):
        self._out = out
        self._top = 0  # scene row of the first row of the strip
        rows = min(tile, out.shape[0])
        self._strip = np.zeros((rows, out.shape[1], num_classes), np.float32)

    def add(self, window: window_lib.Window, scores: np.ndarray) -> None:
        """Adds a window's scores.

        Args:
            window: where; what lies beyond the scene is dropped.
            scores: [window.height, window.width, K] float32.
        """
        if window.top > self._top:
            self._flush(window.top)
        height, width = self._out.shape
        rows = min(window.top + window.height, height) - window.top
        cols = min(window.left + window.width, width) - window.left
        first = window.top - self._top
        self._strip[first : first + rows, window.left : window.left + cols] += scores[
            :rows, :cols
        ]

    def finish(self) -> None:
        """Writes the rows that are left."""
        self._flush(self._out.shape[0])

    def _flush(self, until: int) -> None:
        done = until - self._top
        ready = self._strip[:done]
        self._out[self._top : self._top + len(ready)] = ready.argmax(-1)
        kept = self._strip[done:].copy()
        self._strip[: len(kept)] = kept
        self._strip[len(kept) :] = 0
        self._top = until
