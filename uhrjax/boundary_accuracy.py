"""Mean boundary accuracy (mBA), CascadePSP's score as MagNet reports it.

The share of right pixels near the true boundaries, averaged over five widths of "near".
Near a boundary of a class is what a disk reaches of its mask from outside or inside.
All numbers are counts on the host; windows with a margin add up to their scene.
"""

import math

import cv2
import numpy as np

WIDTHS = 5
VOID = (255,)


def radii(height: int, width: int) -> tuple[int, ...]:
    """Returns the five radii for a scene of that size, px: 1 to about its 300th."""
    largest = (height + width) / 300
    return tuple(1 + math.trunc((largest - 1) / WIDTHS * i) for i in range(WIDTHS))


def disk(radius: int) -> np.ndarray:
    """Returns [2 r + 1, 2 r + 1] uint8, 1 in the ellipse that OpenCV 4 draws."""
    offset = np.arange(-radius, radius + 1)
    reach = np.rint(radius * np.sqrt((radius**2 - offset**2) / radius**2))
    return (abs(offset) <= reach[:, None]).astype(np.uint8)


def near_boundary(mask: np.ndarray, radius: int) -> np.ndarray:
    """Returns [H, W] bool: what of both sides of a mask's outline a disk reaches.

    Args:
        mask: [H, W] bool; its border is no outline.
        radius: of the disk, px.
    """
    pixels, shape = mask.astype(np.uint8), disk(radius)
    return cv2.dilate(pixels, shape) != cv2.erode(pixels, shape)


def count(
    label: np.ndarray,
    prediction: np.ndarray,
    radii: tuple[int, ...],
    *,
    void: tuple[int, ...] = VOID,
    core: tuple[slice, slice] = (slice(None), slice(None)),
) -> np.ndarray:
    """Counts pixels near true boundaries, and those of them that are right.

    Counts of windows add up to those of their scene when every window brings, except
    at the scene's border, a margin of at least the largest radius beyond its `core`.

    Args:
        label: [H, W] integer.
        prediction: [H, W] integer.
        radii: px.
        void: labels without boundary, whose pixels do not count.
        core: rows and columns to count.

    Returns:
        [radii, 2] int64: right pixels, all pixels.
    """
    valid = ~np.isin(label, void)
    masks = [label == k for k in np.unique(label[valid])]
    right = (label == prediction) & valid
    counts = np.zeros((len(radii), 2), np.int64)
    for row, radius in zip(counts, radii, strict=True):
        near = np.zeros(label.shape, bool)
        for mask in masks:
            near |= near_boundary(mask, radius)
        near = (near & valid)[core]
        row[:] = np.count_nonzero(near & right[core]), np.count_nonzero(near)
    return counts


def mean_accuracy(counts: np.ndarray) -> float:
    """Returns the mBA of one scene from its counts [radii, 2].

    NaN if it has no boundary: such a scene is in no mean.
    """
    if not counts[:, 1].all():
        return math.nan
    return float((counts[:, 0] / counts[:, 1]).mean())
