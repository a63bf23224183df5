"""Views: crops around one place, of growing field of view, in one number of pixels."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from uhrjax.tiling import window as windows


@dataclasses.dataclass(frozen=True)
class View:
    """One crop around a place of the scene."""

    scale: int = 1  # field of view = scale x the window, in the window's pixel count

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, int) and self.scale >= 1):
            raise ValueError(f"view scale {self.scale!r}: use an integer >= 1")


def widen(window: windows.Window, scale: int) -> windows.Window:
    """Returns the concentric window of `scale` times the size.

    Where no centre in whole pixels exists (odd size, even scale), it lies half a pixel
    up and left of the true one.
    """
    height, width = window.height * scale, window.width * scale
    top = window.top - (height - window.height + 1) // 2
    left = window.left - (width - window.width + 1) // 2
    return windows.Window(top, left, height, width)


def cut_views(
    read: Callable[[windows.Window], np.ndarray],
    window: windows.Window,
    views: Sequence[View],
) -> np.ndarray:
    """Cuts all views of one place, with one read of the widest.

    Args:
        read: returns the uint8 [h, w, 3] pixels of a window, 0 beyond the border.
        window: [P, P], the place: the field of view of scale 1.
        views: V views; contexts are reduced by exact averaging of scale x scale px.

    Returns:
        [V, P, P, 3] uint8.
    """
    widest = widen(window, max(view.scale for view in views))
    pixels = read(widest)
    cropped = []
    for view in views:
        wanted = widen(window, view.scale)
        top, left = wanted.top - widest.top, wanted.left - widest.left
        crop = pixels[top : top + wanted.height, left : left + wanted.width]
        cropped.append(average(crop, view.scale))
    return np.stack(cropped)


def average(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Reduces uint8 pixels by the mean of scale x scale blocks, halves rounded up.

    Args:
        pixels: [h * scale, w * scale, C] uint8.
        scale: side of a block, px.

    Returns:
        [h, w, C] uint8.
    """
    if scale == 1:
        return pixels
    area = scale * scale
    wide = np.uint16 if area * 256 <= 2**16 else np.uint32  # holds a block's sum
    rows = pixels[::scale].astype(wide)
    for row in range(1, scale):
        rows += pixels[row::scale]
    total = rows[:, ::scale] + wide(area // 2)
    for column in range(1, scale):
        total += rows[:, column::scale]
    return (total // wide(area)).astype(np.uint8)
