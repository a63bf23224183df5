"""How fast a run's own stream of micro-batches is made, whatever it is made of."""

from __future__ import annotations

import itertools
import time
from typing import Any

import ml_collections

from uhrjax import feed, sharding
from uhrjax.benchmark import timing
from uhrjax.data import dataset, pipeline
from uhrjax.methods import base

LEAST = 5  # micro-batches per thread in a repeat: the threads finish theirs in bursts


def measure(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    *,
    threads: list[int],
    repeats: int,
    repeat_s: float,
) -> dict[str, dict[str, Any]]:
    """Times micro-batches, asked for as fast as they come.

    Args:
        config: of a run; its data.unit says what is streamed.
        method: built from it.
        data: of the config.
        threads: that read; each number is measured.
        repeats: of each measurement.
        repeat_s: about how long each of them takes.

    Returns:
        Number of threads -> speeds. Pixels are those of labels: of resident scenes the
        patches that are cut out of them on the device.
    """
    found = {}
    for count in threads:
        with config.unlocked():
            config.data.threads = count
        found[str(count)] = _measure_one(config, method, data, repeats, repeat_s)
    return found


def _measure_one(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    repeats: int,
    repeat_s: float,
) -> dict[str, Any]:
    source = feed.open_feed(config, method, data, sharding.make_mesh())
    micros, threads, together = source.start(0), config.data.threads, 1
    if config.data.unit == "resident":  # steps between two exchanges of the scenes
        together = config.locations.per_iteration // config.locations.per_step
    ahead = pipeline.AHEAD * threads + threads  # made while nobody asked
    _take(micros, -(-ahead // together) * together)
    began = time.perf_counter()
    _take(micros, threads * together)
    one_s = (time.perf_counter() - began) / threads
    count = max(LEAST * threads, round(repeat_s / one_s)) * together
    walls, cpus, samples = [], [], 0
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        samples = _take(micros, count)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    micros.close()
    return speeds(walls, cpus, samples, _pixels(config, method))


def speeds(
    walls: list[float], cpus: list[float], samples: int, pixels: int
) -> dict[str, Any]:
    """Returns the speeds by the clock, and per second of processor time."""
    by_clock = timing.Timing(tuple(walls), samples * pixels)
    per_core = timing.Timing(tuple(cpus), samples * pixels)
    return {
        "by_clock": by_clock.summary(),
        "per_core": per_core.summary(),
        "patches_per_s": samples / by_clock.median_s,
        "cores_used": sum(cpus) / sum(walls),
    }


def _take(micros: Any, count: int) -> int:
    """Takes micro-batches; returns their samples."""
    return sum(
        feed.count_samples(micro) for micro, _ in itertools.islice(micros, count)
    )


def _pixels(config: ml_collections.ConfigDict, method: base.Method) -> int:
    if config.data.unit in ("overviews", "scales"):
        height, width = method.overview
        return height * width
    return config.tile**2
