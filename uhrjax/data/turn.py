"""The eight symmetries of the square, for pixels and for places in a scene."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Turn(NamedTuple):
    """Flips left-right, then up-down, then turns by 90 degrees counterclockwise."""

    across: bool = False  # flip left-right
    down: bool = False  # flip up-down
    turns: int = 0  # by 90 degrees

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Returns [H, W, ...] uint8 pixels turned, [W, H, ...] if `turns` is odd.

        All of it is at most one transposition and one flip; OpenCV does these several
        times as fast as a numpy view is copied.
        """
        across, down, target = self.across, self.down, None
        if self.turns % 2:
            pixels = target = cv2.transpose(pixels)
            across, down = down, across
        across ^= self.turns >= 2
        down ^= self.turns in (1, 2)
        if across or down:
            code = -1 if across and down else int(across)
            return cv2.flip(pixels, code, dst=target)
        return np.ascontiguousarray(pixels)

    def place(
        self, position: np.ndarray, *, size: tuple[int, int], scene_size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns where a window of a scene lies after the whole scene was turned.

        Args:
            position: [2] top, left of the window, px.
            size: (height, width) of the window, px.
            scene_size: [2] height, width of the scene, px.

        Returns:
            position [2] and scene_size [2] in the turned scene, int32.
        """
        (top, left), (rows, columns) = position.tolist(), scene_size.tolist()
        height, width = size
        if self.across:
            left = columns - left - width
        if self.down:
            top = rows - top - height
        for _ in range(self.turns % 4):  # what was right is on top
            top, left = columns - left - width, top
            rows, columns, height, width = columns, rows, width, height
        return np.array([top, left], np.int32), np.array([rows, columns], np.int32)
