"""From a scene file to its mask: speed of every stage, of the network, and memory."""

from __future__ import annotations

import math
import pathlib
import statistics
import tempfile
from typing import Any

import jax
import ml_collections

from uhrjax import config as config_lib
from uhrjax import engine as engine_lib
from uhrjax import inference, methods, report
from uhrjax.benchmark import (
    machine,
    memory,
    network,
    peak,
    scene,
    stage,
    table,
    texture,
    timing,
)
from uhrjax.data import raster
from uhrjax.methods import base
from uhrjax.tiling import plan

ROWS, COLUMNS = (4096, 8192), 8192  # px, of scenes that are labelled by windows
ENGINE_SHARE = 0.15  # target: at most, with PFNet-R50 on a CPU
HOST_PEAK_MB = 2000  # target: below, for 20 000 px columns
GROWTH = 0.1  # target: the highest scene's peak above the lowest one's, at most


def run(
    spec: str | None,
    overrides: list[str],
    *,
    rows: list[int],
    columns: int | None,
    repeats: int,
    pass_s: float,
) -> dict[str, Any]:
    """Measures, prints as it goes, and returns all figures as a JSON tree.

    Args:
        spec: of the config.
        overrides: of the config.
        rows: heights of the scenes whose memory is taken; the first one is also the
            scene of the stages. Of methods that label scenes as a whole, of all scenes
            that are timed. Empty: `ROWS`, or `scene.SIDE`.
        columns: width of all scenes; None: `COLUMNS`, or `scene.SIDE`.
        repeats: of each timed run.
        pass_s: about how long one pass of the real network may take.
    """
    config = config_lib.from_command(spec, overrides)
    method = methods.build(config)
    if scene.serves(method):
        found = _describe(spec, overrides, config, method)
        return found | _run_scenes(found, config, method, rows, columns, repeats)
    rows, columns = rows or list(ROWS), columns or COLUMNS
    with tempfile.TemporaryDirectory(prefix="uhrjax-benchmark-") as name:
        folder = pathlib.Path(name)
        peaks = []  # first: a GPU serves one process at a time
        for height in rows:
            print(f"memory       pass over {columns} x {height} px ...", flush=True)
            peaks.append(
                memory.measure(
                    spec, overrides, rows=height, columns=columns, folder=folder
                )
            )
        found = _describe(spec, overrides, config, method)
        table.print_start(found)
        size = (rows[0], columns)
        found["stages"] = _measure_stages(config, method, folder, size, repeats)
        found["network"] = _measure_network(
            config, method, folder, size, repeats, pass_s
        )
    trivial, real = (
        found[part]["speed"]["file to mask"]["megapixels_per_s"]
        for part in ("stages", "network")
    )
    found["network"]["trivial_share"] = real / trivial
    found["memory"] = _judge_memory(peaks)
    table.print_all(found)
    return found


def _run_scenes(
    found: dict[str, Any],
    config: ml_collections.ConfigDict,
    method: base.Method,
    rows: list[int],
    columns: int | None,
    repeats: int,
) -> dict[str, Any]:
    """Measures a method that has no windows to time; returns the figures."""
    table.print_start(found)
    with tempfile.TemporaryDirectory(prefix="uhrjax-benchmark-") as name:
        measured = scene.measure(
            config, method, pathlib.Path(name), rows=rows or [scene.SIDE],
            columns=columns or scene.SIDE, repeats=repeats,
        )  # fmt: skip
    table.print_scenes(found | measured)
    return measured


def _describe(
    spec: str | None,
    overrides: list[str],
    config: ml_collections.ConfigDict,
    method: base.Method,
) -> dict[str, Any]:
    """Returns what the figures hold for."""
    windows: dict[str, Any] = {}
    if not scene.serves(method):
        tiling = engine_lib.make_engine(method, config).tiling
        windows = {
            "tile": tiling.tile, "stride": tiling.stride, "blend": tiling.blend,
            "batch_size": tiling.batch_size, "tta": tiling.tta,
        }  # fmt: skip
    return {
        "benchmark": "predict",
        "config": spec,
        "overrides": overrides,
        **machine.describe(),
        "method": config.method,
        "dtype": config.dtype,
        "num_classes": method.num_classes,
        **windows,
    }


def _measure_stages(
    config: ml_collections.ConfigDict,
    method: base.Method,
    folder: pathlib.Path,
    size: tuple[int, int],
    repeats: int,
) -> dict[str, Any]:
    """Times all stages with the trivial network."""
    trivial = network.PixelMethod(method)
    engine = engine_lib.make_engine(trivial, config)
    path, (rows, columns) = folder / "scene.tif", size
    print(f"scene        {columns} x {rows} px", flush=True)
    texture.write(path, rows=rows, columns=columns)
    run = network.as_run(config, trivial, trivial.init())
    stages = stage.measure(run, engine, path, folder, repeats)
    found = {name: each.summary() for name, each in stages.items()}
    stored = path.stat().st_size / (rows * columns * 3)
    path.unlink()
    return {"rows": rows, "columns": columns, "stored_share": stored, "speed": found}


def _measure_network(
    config: ml_collections.ConfigDict,
    method: base.Method,
    folder: pathlib.Path,
    size: tuple[int, int],
    repeats: int,
    pass_s: float,
) -> dict[str, Any]:
    """Times the real network alone, then from file to mask."""
    engine = engine_lib.make_engine(method, config)
    tiling = engine.tiling
    variables = method.init(jax.random.key(config.seed))
    print(f"network      {config.method} alone ...", flush=True)
    batch, turns = tiling.batch_size, 8 if tiling.tta else 1
    program = network.compile_alone(method, variables, batch_size=batch)
    program.call()
    one_s = timing.seconds_of(program.call) * turns / batch
    height, width = _fit(size, tiling, windows=int(pass_s / one_s))
    print(f"network      from file to mask, {width} x {height} px ...", flush=True)
    path = folder / "small.tif"
    texture.write(path, rows=height, columns=width)
    with raster.open_scene(path) as opened:
        windows = engine.count_windows(opened)
    run = network.as_run(config, method, variables)
    _warm_up(engine, variables)
    calls = math.ceil(windows * turns / batch)
    calls_s, passes_s = timing.in_turn(
        lambda: [program.call() for _ in range(calls)],
        lambda: stage.file_to_mask(run, engine, path, folder),
        repeats=repeats,
    )
    alone_s = [s / calls / batch for s in calls_s]
    scene_s = [s * turns * windows for s in alone_s]
    pixels = height * width
    return {
        "rows": height,
        "columns": width,
        "windows": windows,
        "passes_per_window": turns,
        **_rates(program, statistics.median(alone_s), config.dtype),
        "speed": {
            "alone, window px": timing.Timing(alone_s, tiling.tile**2).summary(),
            "alone, scene px": timing.Timing(scene_s, pixels).summary(),
            "file to mask": timing.Timing(passes_s, pixels).summary(),
        },
        **_judge_share(scene_s, passes_s),
        "host_peak_mb": memory.host_peak_mb(),
        "device_peak_mb": report.device_peak_mb(),
    }


def _judge_share(scene_s: list[float], passes_s: list[float]) -> dict[str, Any]:
    """Returns what part of a pass is not the network."""
    shares = [1 - one / whole for one, whole in zip(scene_s, passes_s, strict=True)]
    share = statistics.median(shares)
    return {
        "engine_share": share,
        "engine_shares": shares,
        "engine_share_target": ENGINE_SHARE,
        "engine_share_ok": share <= ENGINE_SHARE,
    }


def _rates(
    program: network.Program, window_s: float, dtype: str
) -> dict[str, float | None]:
    """Returns how much arithmetic the network does, and how fast."""
    devices = jax.devices()
    possible = peak.tflops(devices[0].device_kind, dtype, len(devices))
    reached = 2 * program.gmac_per_window / window_s / 1e3
    return {
        "compile_s": program.compile_s,
        "gmac_per_window": program.gmac_per_window,
        "gmac_per_scene": program.gmac_per_scene,
        "tflop_per_s": reached,
        "peak_tflop_per_s": possible,
        "peak_share": None if possible is None else reached / possible,
    }


def _warm_up(engine: inference.Engine, variables: dict[str, Any]) -> None:
    """Compiles what a scene of any size needs."""
    tile = engine.tiling.tile
    for _ in engine.label(variables, texture.MemoryScene(tile, tile)):
        pass


def _fit(
    size: tuple[int, int], tiling: plan.Tiling, *, windows: int
) -> tuple[int, int]:
    """Returns (height, width) that holds about so many windows, in full calls.

    At least two rows of windows, so that the stages can overlap; at most `size`.
    """
    batch = tiling.batch_size
    across = max(1, round(math.sqrt(windows) / batch)) * batch
    down = max(2, windows // across)
    wanted = (tiling.tile + (n - 1) * tiling.stride for n in (down, across))
    return tuple(min(pair) for pair in zip(size, wanted, strict=True))


def _judge_memory(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the passes with what they say about growth."""
    low, high = (pick(passes, key=lambda p: p["rows"]) for pick in (min, max))
    growth = high["host_peak_mb"] / low["host_peak_mb"] - 1
    highest = max(p["host_peak_mb"] for p in passes)
    return {
        "passes": passes,
        "host_growth": growth,
        "host_growth_target": GROWTH,
        "host_growth_ok": growth <= GROWTH if low["rows"] < high["rows"] else None,
        "host_peak_target_mb": HOST_PEAK_MB,
        "host_peak_ok": highest < HOST_PEAK_MB,
    }
