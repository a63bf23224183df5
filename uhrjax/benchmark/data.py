"""From prepared records to training batches: speed of one core, and of several."""

from __future__ import annotations

import functools
import itertools
import platform
import time
from typing import Any

import cv2
import grain
import ml_collections

from uhrjax import config as config_lib
from uhrjax import errors, host_memory, methods, sources
from uhrjax.benchmark import data_feed, data_pass, data_table, machine, network
from uhrjax.data import augment, dataset, pipeline, scenes
from uhrjax.methods import base

LAYOUTS = ("patches", "scenes")
TARGET = 75.0  # MPix/s that one core delivers of TARGET_TILE px patches, at least
TARGET_TILE = 896  # PFNet's
LEAST = 5  # batches per thread in a repeat: the threads finish theirs in bursts


def run(
    spec: str | None,
    overrides: list[str],
    *,
    threads: list[int],
    repeats: int,
    repeat_s: float,
) -> dict[str, Any]:
    """Measures, prints as it goes, and returns all figures as a JSON tree.

    Both layouts are measured, whichever the config takes; one that is not prepared is
    named with the command that prepares it.

    Args:
        spec: of the config.
        overrides: of the config.
        threads: of the pipeline; empty: 1, 2 and as many as there are cores.
        repeats: of each measurement.
        repeat_s: about how long each of them takes.

    Raises:
        FileNotFoundError: no layout is prepared.
        errors.InputError: the config cannot be used.
    """
    host_memory.keep_freed_arrays()  # as training does
    stage = network.chosen_stage(config_lib.from_command(spec, overrides))
    chosen = stage.config
    cores = machine.cores()
    threads = sorted(set(threads or (1, 2, cores)))
    found: dict[str, Any] = {
        "benchmark": "data", "config": spec, "overrides": overrides,
        "host": {"cpu": _cpu(), "cores": cores, "load": machine.load()},
        "versions": {"python": platform.python_version(), "opencv": cv2.__version__},
        "method": chosen.method, "stage": stage.name, "unit": chosen.data.unit,
        "layouts": {}, "missing": {},
    }  # fmt: skip
    how = {"threads": threads, "repeats": repeats, "repeat_s": repeat_s}
    drawing_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one core is one core
    try:
        if chosen.data.unit == "patches":
            _measure_layouts(found, chosen, **how)
        else:
            _measure_stream(found, chosen, **how)
    finally:
        cv2.setNumThreads(drawing_threads)
    data_table.print_all(found)
    return found


def _measure_layouts(
    found: dict[str, Any], chosen: ml_collections.ConfigDict, **how: Any
) -> None:
    """Puts the figures of all layouts into `found`, and why some have none."""
    problems: dict[str, Exception] = {}
    for layout in LAYOUTS:
        try:
            opened = _open(chosen, layout)
        except (errors.InputError, FileNotFoundError) as error:
            problems[layout], found["missing"][layout] = error, str(error)
            continue
        found |= _describe(*opened)
        print(f"data         {found['data']} as {layout} ...", flush=True)
        found["layouts"][layout] = _measure(*opened, **how)
    if not found["layouts"]:
        raise problems[chosen.data.layout]


def _measure_stream(
    found: dict[str, Any], chosen: ml_collections.ConfigDict, **how: Any
) -> None:
    """Puts the figures of what the run itself streams into `found`."""
    config, method, data = _open(chosen, chosen.data.layout)
    found |= _describe(config, method, data)
    print(f"data         {found['data']} as {config.data.unit} ...", flush=True)
    found["stream"] = data_feed.measure(config, method, data, **how)


Opened = tuple[ml_collections.ConfigDict, base.Method, dataset.Dataset]


def _open(chosen: ml_collections.ConfigDict, layout: str) -> Opened:
    """Opens the data of a config in one layout."""
    config = ml_collections.ConfigDict(chosen.to_dict())
    config.data.layout = layout
    opened = sources.open_data(config)
    return config, methods.build(config), opened


def _describe(
    config: ml_collections.ConfigDict, method: base.Method, data: dataset.Dataset
) -> dict[str, Any]:
    """Returns what the figures hold for."""
    return {
        "data": data.info.name,
        "split": config.data.train_split,
        "tile": config.tile,
        "views": [view.scale for view in method.views],
        "batch_size": config.batch_size,
        "augment": config_lib.to_json(config)["data"]["augment"],
        "source": data.info.source,
    }


def _measure(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    *,
    threads: list[int],
    repeats: int,
    repeat_s: float,
) -> dict[str, Any]:
    """Times one layout: in one thread by stage, warm and cold, then the pipeline."""
    stream = functools.partial(_stream, config, method)
    work = {
        "transform": augment.Augment(
            tile=config.tile, **config.data.augment.to_dict()
        ),
        "targets": method.targets,
        "batch_size": config.batch_size,
    }  # fmt: skip

    def one_pass(batches: int) -> data_pass.Pass:
        reader = _open_reader(config, data)
        return data_pass.run(reader, stream, **work, batches=batches)

    one_pass(1)
    batches = max(1, round(repeat_s / one_pass(1).wall_s))
    warm = [one_pass(batches) for _ in range(repeats)]
    folder = data.patches_dir if config.data.layout == "patches" else data.scenes_dir
    cold = []
    for _ in range(repeats):
        if data_pass.forget(folder):
            cold.append(one_pass(batches))
    views = len(method.views)
    found = {
        "stored_bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "warm": _summarise(warm, config.tile, views),
        "cold": _summarise(cold, config.tile, views) if cold else None,
        "pipeline": {},
    }
    for count in threads:
        samples = stream(_open_reader(config, data))
        found["pipeline"][str(count)] = _time_pipeline(
            samples, work, threads=count, repeats=repeats, repeat_s=repeat_s,
            pixels=config.tile**2,
        )  # fmt: skip
    speed = found["pipeline"][str(threads[0])]["per_core"]["megapixels_per_s"]
    if config.tile == TARGET_TILE and views == 1:
        found |= {"target": TARGET, "target_ok": speed >= TARGET}
    return found


def _open_reader(config: ml_collections.ConfigDict, data: dataset.Dataset) -> Any:
    """Opens the training split anew.

    Decoded tiles are not kept, as none is met again in a data set much larger than the
    cache.
    """
    split = config.data.train_split
    if config.data.layout == "patches":
        return data.open_patches(split)
    return scenes.SceneReader(data.scenes_dir, split, cached_tiles=0)


def _stream(
    config: ml_collections.ConfigDict, method: base.Method, reader: Any
) -> grain.MapDataset:
    """Returns endless shuffled samples, as training draws them."""
    if config.data.layout == "patches":
        return pipeline.patch_dataset(reader, config.seed)
    windows = pipeline.RandomWindows(reader, tile=config.tile, views=method.views)
    return pipeline.window_dataset(windows, config.seed)


def _time_pipeline(
    samples: grain.MapDataset,
    work: dict[str, Any],
    *,
    threads: int,
    repeats: int,
    repeat_s: float,
    pixels: int,
) -> dict[str, Any]:
    """Times the batches of training, asked for as fast as they come."""
    batches = pipeline.train_batches(samples, **work, threads=threads)
    # First what was made ahead while nobody asked.
    ahead = pipeline.AHEAD * threads + threads
    _consume(batches, ahead)
    started = time.perf_counter()
    _consume(batches, threads)
    one_s = (time.perf_counter() - started) / threads
    count = max(LEAST * threads, round(repeat_s / one_s))
    walls, cpus = [], []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        _consume(batches, count)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    batches.close()
    made = count * work["batch_size"]
    return data_feed.speeds(walls, cpus, made, pixels)


def _consume(batches: Any, count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _summarise(passes: list[data_pass.Pass], tile: int, views: int) -> dict[str, Any]:
    """Returns medians and spreads of passes of equal length."""
    samples = passes[0].samples
    middle = sorted(passes, key=lambda p: p.wall_s)[len(passes) // 2]
    total_s = sum(middle.stage_s.values())
    walls, cpus = [p.wall_s for p in passes], [p.cpu_s for p in passes]
    return {
        **data_feed.speeds(walls, cpus, samples, tile**2),
        "samples": samples,
        "stages": {
            stage: {"ms": 1e3 * s / samples, "share": s / total_s}
            for stage, s in middle.stage_s.items()
        },
        "records_per_patch": middle.records / samples,
        "stored_bytes_per_patch": middle.stored_bytes / samples,
        "decoded_bytes_per_patch": tile**2 * (3 * views + 1),
        "disk_bytes": [p.disk_bytes for p in passes],
    }


def _cpu() -> str:
    """Returns the processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line for line in file if line.startswith("model name")]
        return names[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
