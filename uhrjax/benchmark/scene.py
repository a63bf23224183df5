"""Whole scenes, or label maps to refine, by methods that have no windows to time."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from uhrjax import engine as engine_lib
from uhrjax import repair, report, trained
from uhrjax.benchmark import memory, network, peak, stage, texture, timing
from uhrjax.methods import base

SIDE = 2448  # px, of DeepGlobe's scenes


def serves(method: base.Method) -> bool:
    """Whether a method labels scenes as a whole, or refines label maps."""
    return (
        method.whole_scenes
        or method.progressive
        or method.refines
        or method.reads_labels
    )


def measure(
    config: ml_collections.ConfigDict,
    method: base.Method,
    folder: pathlib.Path,
    *,
    rows: list[int],
    columns: int,
    repeats: int,
) -> dict[str, Any]:
    """Times scenes of several heights; each of them compiles its own programs.

    Args:
        config: of the method.
        method: built from it; gets random weights.
        folder: for files of scenes and masks.
        rows: heights of the scenes, px.
        columns: their width, px.
        repeats: of each timed run.

    Returns:
        "scenes", a list of figures, and the peaks of this process.
    """
    run = network.as_run(config, method, method.init(jax.random.key(config.seed)))
    refines = method.refines or method.reads_labels
    measure_one = _measure_maps if refines else _measure_scenes
    found = []
    for height in rows:
        print(f"network      {config.method}, {columns} x {height} px ...", flush=True)
        size = (height, columns)
        found.append(
            {"rows": height, "columns": columns}
            | measure_one(run, folder, size, repeats)
        )
    return {
        "scenes": found,
        "host_peak_mb": memory.host_peak_mb(),
        "device_peak_mb": report.device_peak_mb(),
    }


def _measure_scenes(
    run: trained.Trained, folder: pathlib.Path, size: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Times a scene that lies in memory, then from its file to its mask."""
    engine, (rows, columns) = engine_lib.make_engine(run.method, run.config), size
    scene, path = texture.MemoryScene(rows, columns), folder / "scene.tif"
    label = _labelling(engine, run.variables, scene)
    first_s = timing.seconds_of(label)
    texture.write(path, rows=rows, columns=columns)
    alone_s, file_s = timing.in_turn(
        label,
        lambda: stage.file_to_mask(run, engine, path, folder),
        repeats=repeats,
    )
    path.unlink()
    cost = engine.cost(rows, columns)
    return {
        "first_s": first_s,
        "patches": engine.count_windows(scene),
        "speed": {
            "scene in memory": timing.Timing(alone_s, rows * columns).summary(),
            "file to mask": timing.Timing(file_s, rows * columns).summary(),
        },
        "scenes_per_s": 1 / statistics.median(alone_s),
        **_rates(cost.gmac, statistics.median(alone_s), run.config.dtype),
    }


def _measure_maps(
    run: trained.Trained, folder: pathlib.Path, size: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Times the refinement of a label map that lies in memory."""
    engine, (rows, columns) = repair.make_engine(run), size
    scene = texture.MemoryMask(rows, columns, classes=run.method.num_classes)
    label = _labelling(engine, run.variables, scene)
    first_s = timing.seconds_of(label)
    seconds = [timing.seconds_of(label) for _ in range(repeats)]
    return {
        "first_s": first_s,
        "patches": None,
        "speed": {
            "label map in memory": timing.Timing(seconds, rows * columns).summary()
        },
        "scenes_per_s": 1 / statistics.median(seconds),
    }


def _labelling(engine: Any, variables: Any, scene: Any) -> Callable[[], None]:
    """Returns work that labels a scene."""

    def label() -> None:
        for _ in engine.label(variables, scene):
            pass

    return label


def _rates(gmac: float, scene_s: float, dtype: str) -> dict[str, float | None]:
    """Returns how much arithmetic a scene takes, and how fast it is done."""
    devices = jax.devices()
    possible = peak.tflops(devices[0].device_kind, dtype, len(devices))
    reached = 2 * gmac / scene_s / 1e3
    return {
        "gmac_per_scene": gmac,
        "tflop_per_s": reached,
        "peak_tflop_per_s": possible,
        "peak_share": None if possible is None else reached / possible,
    }
