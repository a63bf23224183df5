"""Outlines of the objects, in their own coordinates.

s runs from -1 (stern) to 1 (bow) along an object, t from -1 to 1 across it. A shape
returns masks that are painted in turn: the outline first, then what lies upon it.
"""

from __future__ import annotations

import numpy as np

Masks = list[np.ndarray]


def box(s: np.ndarray, t: np.ndarray) -> Masks:
    """Court-like, container-like: the plain rectangle that many classes resemble."""
    return [_within(s, t)]


def disc(s: np.ndarray, t: np.ndarray) -> Masks:
    """A tree, a rock, a round roof."""
    return [s * s + t * t < 1]


def rimmed_disc(s: np.ndarray, t: np.ndarray) -> Masks:
    """A tank: the dark rim tells it from other round roofs."""
    square = s * s + t * t
    return [square < 1, square < 0.60]


def ring_road(s: np.ndarray, t: np.ndarray) -> Masks:
    """A roundabout: asphalt around an island."""
    square = s * s + t * t
    return [square < 1, square < 0.25]


def ship(s: np.ndarray, t: np.ndarray) -> Masks:
    """A hull with a pointed bow, and its bridge astern."""
    bow = np.maximum((s - 0.3) / 0.7, 0)
    hull = (np.abs(t) < 1 - bow * bow) & (np.abs(s) < 1)
    return [hull, _within((s + 0.4) / 0.28, t / 0.6)]


def barge(s: np.ndarray, t: np.ndarray) -> Masks:
    """As a ship, but both ends are blunt."""
    return [_within(s, t), _within((s + 0.4) / 0.28, t / 0.6)]


def truck(s: np.ndarray, t: np.ndarray) -> Masks:
    """A load and, in front, the cab."""
    return [_within(s, t), _within((s - 0.74) / 0.26, t)]


def car(s: np.ndarray, t: np.ndarray) -> Masks:
    """A body with a dark windscreen."""
    return [_within(s, t), _within((s - 0.30) / 0.22, t / 0.8)]


def plane(s: np.ndarray, t: np.ndarray) -> Masks:
    """Fuselage, swept wings, tail."""
    side = np.abs(t)
    fuselage = side < 0.13
    wings = np.abs(s - 0.22 + 0.5 * side) < 0.16
    tail = (np.abs(s + 0.78 + 0.3 * side) < 0.11) & (side < 0.4)
    return [(fuselage | wings | tail) & _within(s, t)]


def cross(s: np.ndarray, t: np.ndarray) -> Masks:
    """Two bars of equal length: no plane."""
    return [((np.abs(t) < 0.16) | (np.abs(s) < 0.16)) & _within(s, t)]


def helicopter(s: np.ndarray, t: np.ndarray) -> Masks:
    """Cabin, tail boom, tail bar."""
    nose = (s - 0.45) / 0.55
    cabin = nose * nose + t * t < 1
    boom = _within((s + 0.5) / 0.5, t / 0.42)
    bar = _within((s + 0.88) / 0.12, t / 0.9)
    return [cabin | boom | bar]


def tennis_court(s: np.ndarray, t: np.ndarray) -> Masks:
    """White frame, net across the middle."""
    return [_within(s, t), _frame(s, t, 0.78, 0.62) | _within(s / 0.09, t / 0.62)]


def basketball_court(s: np.ndarray, t: np.ndarray) -> Masks:
    """White frame, a zone before each basket."""
    zones = _within((np.abs(s) - 0.68) / 0.20, t / 0.30)
    return [_within(s, t), _frame(s, t, 0.88, 0.80) | zones]


def soccer_field(s: np.ndarray, t: np.ndarray) -> Masks:
    """White frame and middle line on grass."""
    return [_within(s, t), _frame(s, t, 0.92, 0.88) | _within(s / 0.07, t / 0.88)]


def diamond(s: np.ndarray, t: np.ndarray) -> Masks:
    """A quarter disc about a corner, its infield near the corner."""
    a, b = (s + 1) / 2, (t + 1) / 2  # 0..1 from the corner
    square, corner = a * a + b * b, (a > 0) & (b > 0)
    infield = (square < 0.36) & corner & ~_within((a - 0.2) / 0.13, (b - 0.2) / 0.13)
    return [(square < 1) & corner, infield]


def track(s: np.ndarray, t: np.ndarray) -> Masks:
    """A stadium ring around grass (label: the ring with what it encloses)."""
    return [_stadium(s, t, 1.0), _stadium(s, t, 0.70)]


def pool(s: np.ndarray, t: np.ndarray) -> Masks:
    """A rectangle with round corners."""
    s, t = s * s, t * t
    return [s * s + t * t < 1]


def house(s: np.ndarray, t: np.ndarray) -> Masks:
    """A roof and two boxes on it, as large as cars."""
    first = _within((s - 0.42) / 0.26, (t - 0.30) / 0.22)
    return [_within(s, t), first | _within((s + 0.40) / 0.26, (t + 0.35) / 0.22)]


def _within(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    return (np.abs(s) < 1) & (np.abs(t) < 1)


def _frame(s: np.ndarray, t: np.ndarray, length: float, width: float) -> np.ndarray:
    inner = _within(s / (length - 0.12), t / (width - 0.17))
    return _within(s / length, t / width) & ~inner


def _stadium(s: np.ndarray, t: np.ndarray, width: float) -> np.ndarray:
    """Returns a rectangle with half discs at its ends; half as wide as long."""
    end = np.maximum(np.abs(s) * 2 - 1, 0)  # in half widths
    return end * end + t * t < width * width
