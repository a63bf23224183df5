"""Training steps by the clock."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from uhrjax import checkpoint, update


class Steps(NamedTuple):
    """What a row of steps took."""

    seconds: list[float]  # of each, from the end of the one before
    waited_s: float  # that the host spent on waiting for samples, in all of them

    @property
    def total_s(self) -> float:
        return sum(self.seconds)


def run(
    take_step: update.Update,
    state: checkpoint.TrainState,
    steps: Iterator[Iterator[Any]],
    *,
    count: int,
) -> tuple[checkpoint.TrainState, Steps]:
    """Takes `count` + 1 steps, of which the first one does not count.

    One step stays in flight while the samples of the next one are fetched, as in
    training, where the host never waits for the device but to log.

    Args:
        take_step: compiled already, or it compiles within the first step.
        state: gone afterwards.
        steps: micro-batches by step.
        count: how many steps count.

    Returns:
        The new state, and the times.
    """
    ends, waits, before = [], [], None
    for micros in itertools.islice(steps, count + 1):
        clock = _Waits()
        state, losses = take_step(state, clock.through(micros))
        waits.append(clock.seconds)
        if before is not None:
            jax.block_until_ready(before)
            ends.append(time.perf_counter())
        before = losses
    jax.block_until_ready(before)
    ends.append(time.perf_counter())
    seconds = [end - begin for begin, end in itertools.pairwise(ends)]
    return state, Steps(seconds, sum(waits[1:]))


class _Waits:
    """How long micro-batches were waited for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def through(self, micros: Iterator[Any]) -> Iterator[Any]:
        """Hands micro-batches through."""
        asked = time.perf_counter()
        for micro in micros:
            self.seconds += time.perf_counter() - asked
            yield micro
            asked = time.perf_counter()
