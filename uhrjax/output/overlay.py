"""A small picture of a scene's classes over the input, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from uhrjax.output import legend as legend_lib

LINE = 22  # px: height of one line of the legend
PAPER, INK = 24, (235, 235, 235)
FONT, SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def reduced_shape(height: int, width: int, *, side: int) -> tuple[int, int]:
    """Returns the shape of a picture whose longest side is at most `side`."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def reduce_picture(picture: np.ndarray, *, side: int) -> np.ndarray:
    """Returns [h, w, 3] uint8 with a longest side of at most `side`."""
    shape = reduced_shape(*picture.shape[:2], side=side)
    if shape == picture.shape[:2]:
        return picture
    return cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)


def nearest(length: int, *, reduced: int) -> np.ndarray:
    """Returns the `reduced` indices into [0, length) whose centres are nearest."""
    return (2 * np.arange(reduced) + 1) * length // (2 * reduced)


def draw(
    labels: np.ndarray,
    overview: np.ndarray | None,
    legend: legend_lib.Legend,
    shares: Sequence[float],
) -> np.ndarray:
    """Draws the picture.

    Args:
        labels: [h, w] uint8, the reduced label map.
        overview: [h, w, 3] uint8 RGB, the reduced input; without it, colours alone.
        legend: names and colours.
        shares: by class id, parts of the labelled pixels.

    Returns:
        [max(h, legend), w + legend, 3] uint8 RGB; the scene is in its top left corner.
    """
    blend = legend.table()[labels]
    if overview is not None:
        is_class = (labels < len(legend.classes))[..., None]
        mean = (blend.astype(np.uint16) + overview + 1) // 2
        blend = np.where(is_class, mean, overview).astype(np.uint8)
    beside = _draw_legend(legend, shares)
    height = max(len(blend), len(beside))
    return np.concatenate([_extend(blend, height), _extend(beside, height)], axis=1)


def _draw_legend(legend: legend_lib.Legend, shares: Sequence[float]) -> np.ndarray:
    named = zip(legend.classes, shares, strict=True)
    lines = [f"{name}  {100 * share:.2f} %" for name, share in named]
    widths = [cv2.getTextSize(line, FONT, SIZE, 1)[0][0] for line in lines]
    picture = np.full((LINE * len(lines) + 8, max(widths) + 44, 3), PAPER, np.uint8)
    for i, (line, colour) in enumerate(zip(lines, legend.colours, strict=True)):
        top = 4 + i * LINE
        picture[top + 4 : top + LINE - 4, 8:28] = colour
        at = (36, top + LINE - 7)
        cv2.putText(picture, line, at, FONT, SIZE, INK, 1, cv2.LINE_AA)
    return picture


def _extend(picture: np.ndarray, height: int) -> np.ndarray:
    below = ((0, height - len(picture)), (0, 0), (0, 0))
    return np.pad(picture, below, constant_values=PAPER)
