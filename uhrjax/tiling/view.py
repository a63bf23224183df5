"""Views: crops around one place, of growing field of view, in one number of pixels."""

import dataclasses
import fractions
from collections.abc import Callable, Sequence

import numpy as np

from uhrjax.tiling import triangle
from uhrjax.tiling import window as windows

RESIZES = ("area", "pillow")


@dataclasses.dataclass(frozen=True)
class View:
    """One crop around a place of the scene.

    A "global" context, the whole scene made small, is no crop around a place: it is the
    same for all places of a scene and belongs into `batch["overview"]`.
    """

    scale: int | float = 1  # field of view = scale x the window, in its pixel count
    resize: str = "area"  # mean of scale x scale px, or "pillow": `triangle.reduce`

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ValueError(
                f"view resize {self.resize!r} is unknown; use one of "
                f"{', '.join(RESIZES)}"
            )
        kinds = int if self.resize == "area" else (int, float)
        if not (isinstance(self.scale, kinds) and 1 <= self.scale < float("inf")):
            hint = "; resize='pillow' also takes fractions such as 1.5"
            allowed = "an integer >= 1" + hint if kinds is int else "a number >= 1"
            raise ValueError(f"view scale {self.scale!r}: use {allowed}")


def widen(window: windows.Window, scale: int | float) -> windows.Window:
    """Returns the concentric window of `scale` times the size.

    Where no centre in whole pixels exists (one size is odd, the other even), it lies
    half a pixel up and left of the true one.
    """
    height = _multiply(window.height, scale)
    width = _multiply(window.width, scale)
    top = window.top - (height - window.height + 1) // 2
    left = window.left - (width - window.width + 1) // 2
    return windows.Window(top, left, height, width)


def _multiply(side: int, scale: int | float) -> int:
    wide = side * scale
    if abs(wide - round(wide)) > 1e-6:
        step = fractions.Fraction(scale).limit_denominator(100).denominator
        below = side // step * step
        fitting = f"{below} or {below + step}" if below else step
        raise ValueError(
            f"a view of scale {scale} around a window of {side} px would be {wide:g} "
            f"px wide; use windows of {fitting} px, or another scale"
        )
    return round(wide)


def cut_views(
    read: Callable[[windows.Window], np.ndarray],
    window: windows.Window,
    views: Sequence[View],
) -> np.ndarray:
    """Cuts all views of one place, with one read of the widest.

    Args:
        read: returns the uint8 [h, w, 3] pixels of a window, 0 beyond the border.
        window: [P, P], the place: the field of view of scale 1.
        views: V views; contexts are reduced as each of them says.

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
        cropped.append(reduce(crop, view))
    return np.stack(cropped)


def reduce(pixels: np.ndarray, view: View) -> np.ndarray:
    """Reduces what a view sees to the pixel count of its window.

    Args:
        pixels: [h * scale, w * scale, C] uint8, a numpy or a jax array.
        view: how.

    Returns:
        [h, w, C] uint8, of the same kind of array.
    """
    if view.resize == "area":
        return average(pixels, view.scale)
    height, width = (round(side / view.scale) for side in pixels.shape[:2])
    return triangle.reduce(pixels, height=height, width=width)


def average(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Reduces uint8 pixels by the mean of scale x scale blocks, halves rounded up.

    Args:
        pixels: [h * scale, w * scale, C] uint8, a numpy or a jax array.
        scale: side of a block, px.

    Returns:
        [h, w, C] uint8, of the same kind of array.
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
