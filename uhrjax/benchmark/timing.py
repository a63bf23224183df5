"""Repeated runs -> median and spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """How long the same work took, again and again."""

    seconds: Sequence[float]
    pixels: float  # of one run

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def speeds(self) -> tuple[float, float, float]:
        """Returns MPix/s: median, lowest, highest."""
        return tuple(
            self.pixels / 1e6 / s
            for s in (self.median_s, max(self.seconds), min(self.seconds))
        )

    def summary(self) -> dict[str, Any]:
        """Returns all of it as JSON values."""
        names = ("megapixels_per_s", "lowest", "highest")
        speeds = dict(zip(names, self.speeds(), strict=True))
        return {**speeds, "pixels": self.pixels, "seconds": list(self.seconds)}


def measure(work: Callable[[], Any], *, pixels: float, repeats: int) -> Timing:
    """Times `work`, after one run that does not count."""
    work()
    return Timing(tuple(seconds_of(work) for _ in range(repeats)), pixels)


def seconds_of(work: Callable[[], Any]) -> float:
    """Returns how long one run takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(
    one: Callable[[], Any], other: Callable[[], Any], *, repeats: int
) -> tuple[list[float], list[float]]:
    """Returns seconds of both: what else the machine does slows both alike."""
    pairs = [(seconds_of(one), seconds_of(other)) for _ in range(repeats)]
    ones, others = zip(*pairs, strict=True)
    return list(ones), list(others)
