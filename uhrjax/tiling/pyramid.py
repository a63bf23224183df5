"""Scenes at several scales, each covered by boxes of one size: MagNet's geometry."""

import dataclasses
import itertools

import numpy as np

from uhrjax.tiling import bilinear, box
from uhrjax.tiling import window as windows


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scene resized, and where boxes lie in it."""

    height: int  # px
    width: int  # px
    box_height: int  # px
    box_width: int  # px
    tops: tuple[int, ...]  # px
    lefts: tuple[int, ...]  # px

    @property
    def size(self) -> tuple[int, int]:
        """Returns (height, width)."""
        return self.height, self.width

    @property
    def box(self) -> tuple[int, int]:
        """Returns (height, width) of a box."""
        return self.box_height, self.box_width

    @property
    def count(self) -> int:
        """Returns how many boxes there are."""
        return len(self.tops) * len(self.lefts)

    def places(self) -> np.ndarray:
        """Returns [N, 2] int32, which top and which left each box has.

        Column by column, each from top to bottom, as MagNet's code counts them.
        """
        left, top = np.meshgrid(
            np.arange(len(self.lefts)), np.arange(len(self.tops)), indexing="ij"
        )
        return np.stack([top.ravel(), left.ravel()], axis=1).astype(np.int32)

    def corners(self) -> np.ndarray:
        """Returns [N, 2] int32, (top, left) of each box."""
        rows, columns = self.places().T
        corners = np.array(self.tops)[rows], np.array(self.lefts)[columns]
        return np.stack(corners, axis=1).astype(np.int32)


def plan_scale(height: int, width: int, *, crop: tuple[int, int]) -> Scale:
    """Covers a resized scene with the fewest boxes, the last ones at the border.

    Args:
        height: of the resized scene, px.
        width: of the resized scene, px.
        crop: (height, width) of a box, px; smaller where the scene is.
    """
    sides = min(crop[0], height), min(crop[1], width)
    starts = [
        tuple(box.plan_starts(length, side, reach_border=True).tolist())
        for length, side in zip((height, width), sides, strict=True)
    ]
    return Scale(height, width, *sides, *starts)


def plan_scales(
    height: int, width: int, *, scales: tuple[float, ...], crop: tuple[int, int]
) -> tuple[Scale, ...]:
    """Plans a scene at several scales.

    Args:
        height: of the scene, px.
        width: of the scene, px.
        scales: shares of its sides, ascending, the last one 1.
        crop: see `plan_scale`.
    """
    check_scales(scales)
    sizes = [
        tuple(max(1, round(side * share)) for side in (height, width))
        for share in scales
    ]
    return tuple(plan_scale(*size, crop=crop) for size in sizes)


def check_scales(scales: tuple[float, ...]) -> None:
    """Raises ValueError unless scales ascend to the scene itself."""
    ascends = all(a < b for a, b in itertools.pairwise(scales))
    if not scales or scales[0] <= 0 or not ascends or scales[-1] != 1:
        raise ValueError(
            f"scales {scales}: use shares of the scene's sides that ascend and end "
            "with 1, e.g. (0.25, 0.5, 1.0)"
        )


@dataclasses.dataclass(frozen=True)
class Crop:
    """A training sample: one box of one scale."""

    scale: int  # which one
    top: int  # px of the resized scene
    left: int  # px of the resized scene
    box: np.ndarray  # [4] float32 (top, left, bottom, right), shares of the sides


def draw_crop(
    scales: tuple[Scale, ...],
    rng: np.random.Generator,
    *,
    among: tuple[int, ...] = (),
) -> Crop:
    """Draws a scale, then a place in it, as MagNet's code does.

    A box never touches the lower or right border, unless it fills the scale.

    Args:
        scales: of a scene.
        rng: draws.
        among: indices of the scales; (): all but the first.
    """
    among = among or tuple(range(min(1, len(scales) - 1), len(scales)))
    index = among[int(rng.integers(len(among)))]
    scale = scales[index]
    top, left = (
        int(rng.integers(0, max(length - side, 1)))
        for length, side in zip(scale.size, scale.box, strict=True)
    )
    corners = np.array([top, left, top + scale.box_height, left + scale.box_width])
    return Crop(index, top, left, (corners / (scale.size * 2)).astype(np.float32))


def window_of(
    scale: Scale, corner: tuple[int, int], *, height: int, width: int
) -> windows.Window:
    """Returns the part of a scene [height, width] that a box of a scale is made of."""
    spans = []
    for first, side, before, after in zip(
        corner, scale.box, (height, width), scale.size, strict=True
    ):
        place, _ = bilinear.taps_at(np.array([first, first + side - 1]), before, after)
        start = min(max(int(place[0]), 0), first * before // after)  # or the label's
        spans.append((start, min(int(place[1]) + 2, before)))
    (top, bottom), (left, right) = spans
    return windows.Window(top, left, bottom - top, right - left)


def cut(
    pixels: np.ndarray,
    scale: Scale,
    corner: tuple[int, int],
    *,
    size: tuple[int, int],
    scene: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Returns a box of the resized scene, itself resized; no scene is ever resized.

    Both times bilinearly, to whole grey levels. Runs on the host and within `jax.jit`,
    where `corner` may be traced.

    Args:
        pixels: [h, w, 3] uint8, the scene, or at least `window_of` the box.
        scale: of the scene.
        corner: (top, left) of the box, px of the scale.
        size: (height, width) of the result, px.
        scene: (height, width), px.
        origin: (top, left) of `pixels` in the scene.

    Returns:
        [*size, 3] uint8, of the same kind of array.
    """
    axes = []
    for axis in (0, 1):
        index = corner[axis] + np.arange(scale.box[axis])
        place, weight = bilinear.taps_at(index, scene[axis], scale.size[axis])
        axes.append((place - origin[axis], weight))
    patch = bilinear.mix(pixels, *axes)
    return bilinear.resample(patch, height=size[0], width=size[1])


def cut_label(
    label: np.ndarray,
    scale: Scale,
    corner: tuple[int, int],
    *,
    size: tuple[int, int],
    scene: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Returns the labels [*size] of `cut`, both times the nearest."""
    index = []
    for axis in (0, 1):
        within = np.arange(size[axis]) * scale.box[axis] // size[axis]
        place = (corner[axis] + within) * scene[axis] // scale.size[axis]
        index.append(place - origin[axis])
    return label[index[0][:, None], index[1][None, :]]
