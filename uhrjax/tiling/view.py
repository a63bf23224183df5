"""Views: crops around one place, of growing field of view, in one number of pixels."""

import dataclasses
import fractions
from collections.abc import Callable, Sequence

import numpy as np

from uhrjax.tiling import bilinear, triangle
from uhrjax.tiling import window as windows

RESIZES = ("area", "pillow", "bilinear")
BORDERS = ("zero", "shift", "reflect")


@dataclasses.dataclass(frozen=True)
class View:
    """One crop around a place of the scene.

    A "global" context, the whole scene made small, is no crop around a place: it is the
    same for all places of a scene and belongs into `batch["overview"]`.
    """

    scale: int | float = 1  # field of view = scale x the window, in its pixel count
    resize: str = "area"  # mean of scale x scale px; "pillow": `triangle.reduce`;
    # "bilinear": `bilinear.resample`, without antialiasing
    border: str = "zero"  # black beyond the scene; "shift": moved inside it; "reflect":
    # its mirror image, which does not repeat the border pixel

    def __post_init__(self) -> None:
        for name, known in (("resize", RESIZES), ("border", BORDERS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"view {name} {getattr(self, name)!r} is unknown; use one of "
                    f"{', '.join(known)}"
                )
        kinds = int if self.resize == "area" else (int, float)
        if not (isinstance(self.scale, kinds) and 1 <= self.scale < float("inf")):
            hint = "; resize='pillow' and 'bilinear' take fractions such as 1.5, too"
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


def place(
    window: windows.Window,
    view: View,
    scene_size: tuple[int, int] | None = None,
) -> windows.Window:
    """Returns the window that a view of a place sees.

    Nothing but operators is applied to `top`, `left` and `scene_size`: within `jax.jit`
    they may be traced.

    Args:
        window: the place.
        view: concentric with it, by `widen`; bilinear ones have the centre of
            Foveation, side // 2.
        scene_size: (height, width), px; only border "shift" needs it. A view larger
            than the scene starts with it and is black behind its end.
    """
    top, left, height, width = widen(window, view.scale)
    if view.resize == "bilinear":
        top = window.top + window.height // 2 - height // 2
        left = window.left + window.width // 2 - width // 2
    if view.border == "shift":
        rows, columns = _need(scene_size, view)
        top = _larger(0, _smaller(top, rows - height))
        left = _larger(0, _smaller(left, columns - width))
    return windows.Window(top, left, height, width)


def reach(view: View, side: int) -> int:
    """Returns how far a view may look beyond its window of `side` px, px."""
    wide = place(
        windows.Window(0, 0, side, side), dataclasses.replace(view, border="zero")
    )
    beyond = wide.height - side
    if view.border == "shift":
        return beyond
    return max(-wide.top, beyond + wide.top)


def mirror(index: np.ndarray, length: int) -> np.ndarray:
    """Maps any index into [0, length) by reflection that leaves the border pixel alone.

    Only operators are applied: `index` and `length` may be traced.
    """
    period = 2 * (length - 1)
    return (period - abs(2 * (index % _larger(period, 1)) - period)) // 2


def _larger(a: int, b: int) -> int:
    return (a + b + abs(a - b)) // 2


def _smaller(a: int, b: int) -> int:
    return (a + b - abs(a - b)) // 2


def _need(scene_size: tuple[int, int] | None, view: View) -> tuple[int, int]:
    if scene_size is None:
        raise ValueError(f"views of border {view.border!r} need the size of the scene")
    return scene_size


def cut_views(
    read: Callable[[windows.Window], np.ndarray],
    window: windows.Window,
    views: Sequence[View],
    *,
    scene_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Cuts all views of one place, with one read for all but mirrored ones.

    Args:
        read: returns the uint8 [h, w, 3] pixels of a window, 0 beyond the border.
        window: [h, w], the place: the field of view of scale 1.
        views: V views; contexts are reduced as each of them says.
        scene_size: (height, width), px; needed for other borders than "zero".

    Returns:
        [V, h, w, 3] uint8.
    """
    placed = [place(window, view, scene_size) for view in views]
    plain = [
        where
        for where, view in zip(placed, views, strict=True)
        if view.border != "reflect"
    ]
    around = windows.hull(plain) if plain else None
    pixels = read(around) if plain else None
    cropped = []
    for wanted, view in zip(placed, views, strict=True):
        if view.border == "reflect":
            crop = _read_mirrored(read, wanted, _need(scene_size, view))
        else:
            top, left = wanted.top - around.top, wanted.left - around.left
            crop = pixels[top : top + wanted.height, left : left + wanted.width]
        cropped.append(reduce(crop, view))
    return np.stack(cropped)


def _read_mirrored(
    read: Callable[[windows.Window], np.ndarray],
    wanted: windows.Window,
    scene_size: tuple[int, int],
) -> np.ndarray:
    """Returns the pixels of a window; its mirror image beyond the scene."""
    rows = mirror(np.arange(wanted.top, wanted.top + wanted.height), scene_size[0])
    columns = mirror(np.arange(wanted.left, wanted.left + wanted.width), scene_size[1])
    top, left = int(rows.min()), int(columns.min())
    inside = windows.Window(
        top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1
    )
    return read(inside)[np.ix_(rows - top, columns - left)]


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
    if view.resize == "bilinear":
        return bilinear.resample(pixels, height=height, width=width)
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
