"""Training steps: the device alone on drawn samples, then with the real pipeline."""

from __future__ import annotations

import contextlib
import io
import itertools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from uhrjax import (
    checkpoint,
    coarse,
    cost,
    errors,
    feed,
    host_memory,
    methods,
    optimizer,
    report,
    sharding,
    sources,
    update,
)
from uhrjax import config as config_lib
from uhrjax.benchmark import machine, memory, network, peak, synthetic, train_table
from uhrjax.benchmark import steps as steps_lib
from uhrjax.data import dataset
from uhrjax.methods import base

SCENE = 2448  # px, side of drawn scenes where there are no data: DeepGlobe's
WAIT_SHARE = 0.05  # target: of a step, at most
PROFILED = 3  # steps
MOST = 10  # times the steps asked for, to end where scenes are exchanged


def run(
    spec: str | None,
    overrides: list[str],
    *,
    steps: int,
    scene: int | None,
    profile: str | None,
) -> dict[str, Any]:
    """Measures, prints as it goes, and returns all figures as a JSON tree.

    Args:
        spec: of the config.
        overrides: of the config; `stage` says which one, else the last of the method.
        steps: that count, of either part.
        scene: side of drawn scenes, px; None: as large as those of the data.
        profile: folder for a trace of some steps, for TensorBoard or Perfetto.
    """
    host_memory.keep_freed_arrays()
    stage = network.chosen_stage(config_lib.from_command(spec, overrides))
    config = stage.config
    data, why = _open_data(config)
    method = methods.build(config)
    size = (scene, scene) if scene else _scene_size(config, data)
    found = {
        "benchmark": "train", "config": spec, "overrides": overrides,
        **machine.describe(), "method": config.method, "stage": stage.name,
        "dtype": config.dtype, "remat": config.remat, "tile": config.tile,
        "unit": config.data.unit, "batch_size": config.batch_size,
        "accumulate": config.accumulate, "scene": size,
    }  # fmt: skip
    train_table.print_start(found)
    trainer = Trainer(config, method, size)
    found["device_part"] = trainer.measure_device(steps)
    if profile:
        found["profile"] = trainer.profile(pathlib.Path(profile).expanduser())
    found["whole"] = {"missing": why}
    if data is not None:
        try:
            found["whole"] = trainer.measure_whole(data, steps)
        except (errors.InputError, FileNotFoundError) as error:
            found["whole"] = {"missing": str(error)}
    found["host_peak_mb"] = memory.host_peak_mb()
    found["device_peak_mb"] = report.device_peak_mb()
    train_table.print_all(found)
    return found


class Trainer:
    """A method with random weights, and what it takes to train it."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        method: base.Method,
        scene: tuple[int, int],
    ):
        """Draws weights and samples; `scene` is the (height, width) of scenes, px."""
        self.config, self.method, self._scene = config, method, scene
        self.mesh = sharding.make_mesh(config_lib.space(config))
        if config.data.unit != "scenes":
            sharding.check_batch(config.batch_size // config.accumulate, self.mesh)
        schedule = optimizer.poly_schedule(config, total_steps=10**6, epoch_steps=10**6)
        self._optimize = optimizer.make_optimizer(config, schedule)
        self.take_step = update.Update(method, self._optimize, config, self.mesh)
        self.state = self._fresh_state()
        self.micros = synthetic.draw_step(
            config, method, scene=scene, multiple=sharding.shares(self.mesh)
        )

    def _fresh_state(self) -> checkpoint.TrainState:
        start = self.method.init(jax.random.key(self.config.seed))
        free = update.trainable(self.method, start["params"])
        state = checkpoint.TrainState(
            jnp.int32(0), start["params"], start.get("batch_stats", {}),
            self._optimize.init(free),
        )  # fmt: skip
        return sharding.replicate(state, self.mesh)

    def measure_device(self, count: int) -> dict[str, Any]:
        """Returns the figures of steps whose samples lie on the device already."""
        programs = self._compile()
        print(f"device part  {count} steps on drawn samples ...", flush=True)
        placed = {
            id(micro): sharding.put_batch(micro, self.mesh) for micro in self.micros
        }
        resident = [placed[id(micro)] for micro in self.micros]
        self._resident = itertools.repeat(resident)
        began = time.perf_counter()
        self._take(map(iter, self._resident), 1)
        first_s = time.perf_counter() - began
        taken = self._take(map(iter, self._resident), count)
        images = sum(map(feed.count_samples, self.micros))
        return {
            "images_per_step": images,
            "micro_batches": len(self.micros),
            "first_s": first_s,
            **programs,
            **_speed(taken.seconds, images),
            **self._arithmetic(statistics.median(taken.seconds)),
        }

    def profile(self, folder: pathlib.Path) -> str:
        """Writes a trace of a few steps of the device part; returns its folder."""
        with jax.profiler.trace(str(folder)):
            self._take(map(iter, self._resident), PROFILED)
        return str(folder)

    def measure_whole(self, data: dataset.Dataset, count: int) -> dict[str, Any]:
        """Returns the figures of steps that the real pipeline feeds."""
        config, method = self.config, self.method
        with tempfile.TemporaryDirectory(prefix="uhrjax-benchmark-") as name:
            maps = None
            if method.reads_labels:
                maps = coarse.prepare(config, data, pathlib.Path(name))
            source = feed.open_feed(config, method, data, self.mesh, maps)
            count = _full_rounds(config, count)
            print(f"whole        {count} steps on {data.info.name} ...", flush=True)
            counted = _Counted()
            stream = map(counted.through, source.steps(0))
            self._take(stream, 1)  # of another shape than the drawn ones, perhaps
            alone_s = self._take(map(iter, self._resident), count).total_s
            counted.samples = 0
            taken = self._take(stream, count)
            images = counted.samples / (count + 1)
            drawn = sum(map(feed.count_samples, self.micros))
            if images != drawn or self._scene != _scene_size(config, data):
                alone_s = None  # scenes of other sizes: nothing to compare with
        share = None if alone_s is None else max(1 - alone_s / taken.total_s, 0.0)
        return {
            "data": data.info.name,
            "layout": config.data.layout,
            "threads": config.data.threads,
            "images_per_step": images,
            **_speed(taken.seconds, images),
            "host_wait_share": taken.waited_s / taken.total_s,
            "data_wait_share": share,
            "data_wait_target": WAIT_SHARE,
            "data_wait_ok": None if share is None else share <= WAIT_SHARE,
        }

    def _take(self, stream: Iterator[Iterator[Any]], count: int) -> steps_lib.Steps:
        self.state, taken = steps_lib.run(
            self.take_step, self.state, stream, count=count
        )
        return taken

    def _compile(self) -> dict[str, Any]:
        """Returns what compiling the programs takes, and what memory they want."""
        print("compile      ...", flush=True)
        largest = max(self.micros, key=lambda micro: len(micro["label"]))
        began = time.perf_counter()
        lowered = self.take_step.lower(self.state, largest)
        traced_s = time.perf_counter() - began
        began = time.perf_counter()
        compiled = {name: program.compile() for name, program in lowered.items()}
        compile_s = time.perf_counter() - began
        sizes = [program.memory_analysis() for program in compiled.values()]
        known = [size for size in sizes if size is not None]
        return {
            "trace_s": traced_s,
            "compile_s": compile_s,
            "temporary_mb": max((s.temp_size_in_bytes for s in known), default=0) / 1e6,
            "arguments_mb": max((s.argument_size_in_bytes for s in known), default=0)
            / 1e6,
        }

    def _arithmetic(self, step_s: float) -> dict[str, Any]:
        """Returns how much arithmetic a step is, without what remat does twice."""
        config = ml_collections.ConfigDict(self.config.to_dict())
        config.remat = False
        plain = update.Update(
            methods.build(config), self._optimize, config, self.mesh
        ).gradient
        key, macs, counted = jax.random.key(0), 0, {}
        for micro in self.micros:
            batch = {k: v for k, v in micro.items() if v.dtype.kind not in "USO"}
            if id(micro) not in counted:
                counted[id(micro)] = cost.multiply_accumulates(
                    plain, self.state.params, self.state.batch_stats, batch, key
                )
            macs += counted[id(micro)]
        devices = jax.devices()
        possible = peak.tflops(devices[0].device_kind, config.dtype, len(devices))
        reached = 2 * macs / step_s / 1e12
        return {
            "gmac_per_step": macs / 1e9,
            "tflop_per_s": reached,
            "peak_tflop_per_s": possible,
            "peak_share": None if possible is None else reached / possible,
        }


def _open_data(
    config: ml_collections.ConfigDict,
) -> tuple[dataset.Dataset | None, str]:
    """Opens the data of a config; returns (None, why not) if that is impossible."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return sources.open_data(config), ""
    except (errors.InputError, FileNotFoundError) as error:
        if not config.num_classes:
            raise
        return None, str(error)


def _scene_size(
    config: ml_collections.ConfigDict, data: dataset.Dataset | None
) -> tuple[int, int]:
    if data is None:
        return SCENE, SCENE
    first = data.info.scenes[config.data.train_split][0]
    return first.height, first.width


def _full_rounds(config: ml_collections.ConfigDict, count: int) -> int:
    """Returns as many steps or more: resident scenes are exchanged within them."""
    if config.data.unit != "resident":
        return count
    each = config.locations.per_iteration // config.locations.per_step
    return min(-(-count // each) * each, MOST * count)


def _speed(seconds: list[float], images: float) -> dict[str, Any]:
    """Returns the time of a step and the speed, with their spreads."""
    middle = statistics.median(seconds)
    return {
        "step_ms": {
            "median": 1e3 * middle,
            "lowest": 1e3 * min(seconds),
            "highest": 1e3 * max(seconds),
            "mean": 1e3 * statistics.mean(seconds),
        },
        "images_per_s": images / middle,
        "seconds": seconds,
    }


class _Counted:
    """The samples of micro-batches that pass through."""

    def __init__(self) -> None:
        self.samples = 0

    def through(self, micros: Iterator[Any]) -> Iterator[Any]:
        for micro in micros:
            self.samples += feed.count_samples(micro)
            yield micro
