"""Boxes: windows as shares of a scene's sides, one plan for every size of the scene."""

import numpy as np

from uhrjax.tiling import window as windows


def plan_boxes(
    height: int,
    width: int,
    *,
    box_height: int,
    box_width: int,
    reach_border: bool = False,
) -> np.ndarray:
    """Plans the fewest boxes that cover a scene, as MagNet's code does.

    Its steps are truncated to whole pixels, so that the last boxes may stop some pixels
    short of the border: up to one for every step.

    Args:
        height: of the scene, px.
        width: of the scene, px.
        box_height: px, at most `height`.
        box_width: px, at most `width`.
        reach_border: rounds every box's place instead of truncating the step, so that
            the last boxes end at the border and no pixel is left out.

    Returns:
        [N, 4] float64 (top, left, bottom, right) as shares of the sides; column by
        column, each from top to bottom.
    """
    tops = plan_starts(height, box_height, reach_border=reach_border)
    lefts = plan_starts(width, box_width, reach_border=reach_border)
    left, top = (grid.ravel() for grid in np.meshgrid(lefts, tops, indexing="ij"))
    corners = np.stack([top, left, top + box_height, left + box_width], axis=1)
    return corners / np.array([height, width, height, width], np.float64)


def plan_starts(length: int, side: int, *, reach_border: bool) -> np.ndarray:
    """Returns where boxes start along one axis, px; see `plan_boxes`."""
    if not 1 <= side <= length:
        raise ValueError(
            f"boxes of {side} px do not fit into a side of {length} px; use 1 to "
            f"{length} px"
        )
    if reach_border:
        return np.array(windows.plan_even_starts(length, tile=side, stride=side))
    count = -(-length // side)
    excess = count * side - length  # what all overlaps of neighbours add up to
    step = int(side - excess / max(count - 1, 1))
    return np.arange(count) * step


def place_boxes(boxes: np.ndarray, *, height: int, width: int) -> list[windows.Window]:
    """Returns boxes as windows of a scene, or of any map of it.

    Args:
        boxes: [N, 4] (top, left, bottom, right) as shares of the sides.
        height: of the scene or map, px.
        width: of the scene or map, px.

    Returns:
        N windows; corners are rounded half to even in float32, as published.
    """
    sides = np.array([height, width, height, width], np.float32)
    corners = np.rint(boxes.astype(np.float32) * sides).astype(int).tolist()
    return [
        windows.Window(top, left, bottom - top, right - left)
        for top, left, bottom, right in corners
    ]
