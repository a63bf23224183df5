"""Line charts as pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

SIZE = (540, 860)  # height and width of a chart, px
MARGIN = (40, 60, 70, 190)  # above, below, left, right: the names of lines
COLOURS = (
    (228, 26, 28), (55, 126, 184), (77, 175, 74), (152, 78, 163), (255, 127, 0),
    (166, 86, 40), (247, 129, 191), (60, 60, 60), (0, 160, 160), (180, 180, 0),
)  # fmt: skip
GREY, BLACK = (215, 215, 215), (20, 20, 20)
Line = Sequence[tuple[float, float]]


def draw(
    lines: Mapping[str, Line], *, title: str, across: str, up: str, log: bool = False
) -> np.ndarray:
    """Draws lines through points.

    Args:
        lines: name -> points (x, y); those that are NaN are left out.
        title: above the chart.
        across: what x is.
        up: what y is.
        log: logarithmic x.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    picture = np.full((*SIZE, 3), 255, np.uint8)
    known = {
        name: sorted(p for p in points if np.isfinite(p).all())
        for name, points in lines.items()
    }
    every = np.array([p for points in known.values() for p in points], float)
    every = every.reshape(-1, 2) if len(every) else np.ones((1, 2))
    columns = sorted(set(every[:, 0].tolist()))
    rows = _steps(every[:, 1].min(), every[:, 1].max())
    x_of = _scale(columns, (MARGIN[2], SIZE[1] - MARGIN[3]), log=log)
    y_of = _scale(rows, (SIZE[0] - MARGIN[1], MARGIN[0]))
    _draw_axes(picture, {c: x_of(c) for c in columns}, {r: y_of(r) for r in rows})
    for number, (name, points) in enumerate(known.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x_of(x), y_of(y)) for x, y in points]
        for start, end in itertools.pairwise(places):
            cv2.line(picture, start, end, colour, 2, cv2.LINE_AA)
        for place in places:
            cv2.circle(picture, place, 4, colour, -1, cv2.LINE_AA)
        left, top = SIZE[1] - MARGIN[3] + 20, MARGIN[0] + 20 * number
        cv2.line(picture, (left, top), (left + 20, top), colour, 3, cv2.LINE_AA)
        _write(picture, name, (left + 28, top + 5))
    _write(picture, title, (MARGIN[2], 24), size=0.55)
    _write(picture, across, (MARGIN[2], SIZE[0] - 12))
    _write(picture, up, (8, MARGIN[0] - 12))
    return picture


def _draw_axes(
    picture: np.ndarray, columns: dict[float, int], rows: dict[float, int]
) -> None:
    left, right = MARGIN[2], SIZE[1] - MARGIN[3]
    for value, y in rows.items():
        cv2.line(picture, (left, y), (right, y), GREY, 1)
        _write(picture, f"{value:g}", (14, y + 5))
    last = -100
    for value, x in columns.items():
        cv2.line(picture, (x, MARGIN[0]), (x, SIZE[0] - MARGIN[1]), GREY, 1)
        if x - last > 44:  # a number needs its room
            _write(picture, f"{value:.4g}", (x - 14, SIZE[0] - MARGIN[1] + 20))
            last = x


def _scale(
    values: Sequence[float], ends: tuple[int, int], *, log: bool = False
) -> Callable[[float], int]:
    """Returns what maps values to px."""
    low, high = min(values), max(values)
    if log:
        low, high = np.log(low), np.log(high)

    def place(value: float) -> int:
        value = np.log(value) if log else value
        share = (value - low) / (high - low) if high > low else 0.5
        return round(ends[0] + share * (ends[1] - ends[0]))

    return place


def _steps(low: float, high: float) -> list[float]:
    """Returns round numbers around a range."""
    width = max(high - low, 1e-6)
    unit = 10 ** np.floor(np.log10(width))
    step = next(k * unit for k in (0.1, 0.2, 0.5, 1, 2) if width / (k * unit) <= 8)
    first, last = np.floor(low / step), np.ceil(high / step)
    return [float(round(k * step, 10)) for k in np.arange(first, last + 1)]


def _write(
    picture: np.ndarray, text: str, at: tuple[int, int], *, size: float = 0.42
) -> None:
    cv2.putText(
        picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, BLACK, 1, cv2.LINE_AA
    )
