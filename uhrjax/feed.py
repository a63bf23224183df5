"""What a run trains on: an endless stream of micro-batches, step by step."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from uhrjax import errors, resident, sharding
from uhrjax.data import augment, dataset, mask, pipeline, scaled, scenes
from uhrjax.methods import base, magnet
from uhrjax.tiling import view as view_lib

Micro = tuple[dict[str, np.ndarray], bool]  # a micro-batch; whether it ends a step


@dataclasses.dataclass(frozen=True)
class Feed:
    """Batches of a run as a pure function of the step."""

    epoch_steps: int
    start: Callable[[int], Iterator[Micro]]  # from a step on

    def steps(self, first: int) -> Iterator[Iterator[dict[str, np.ndarray]]]:
        """Yields, per step from `first` on, its micro-batches."""
        stream = self.start(first)
        while True:
            yield _until_last(stream)


def open_feed(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    mesh: jax.sharding.Mesh,
    maps: pathlib.Path | None = None,
) -> Feed:
    """Opens the training split in the units that `config.data.unit` names.

    - "patches": `batch_size` shuffled patches a step, in `accumulate` micro-batches;
    - "scenes": `batch_size` scenes a step, all patches of each in micro-batches of
      `sub_batch` (0: all of a scene at once);
    - "overviews": `batch_size` whole scenes made small;
    - "scales": `batch_size` crops of scenes at several scales;
    - "resident": `locations.per_step` places in each of `batch_size` scenes, which stay
      on the devices for several steps.

    Raises:
        errors.InputError: a batch that the devices cannot share, or a unit that the
            method does not train on.
    """
    _check_unit(config, method)
    if config.data.unit == "resident":
        scheme = resident.make_scheme(config, data)
        total = total_steps(config, scheme.epoch_steps)
        return Feed(
            scheme.epoch_steps,
            lambda step: resident.batches(
                scheme, config, method, data, mesh, start_step=step, total_steps=total
            ),
        )
    by_scene = config.data.unit == "scenes"
    if not by_scene:  # micro-batches of scenes are filled up
        sharding.check_batch(config.batch_size // config.accumulate, mesh)
    side = config.tile
    if config.data.unit in ("overviews", "scales"):
        side = method.overview
    common = {
        "transform": augment.Augment(tile=side, **config.data.augment.to_dict()),
        "targets": method.targets,
        "threads": config.data.threads,
        "process": (jax.process_index(), jax.process_count()),
    }
    if by_scene:
        if maps is not None:
            shown = data.info.scenes[config.data.train_split]
            masks = mask.MaskReader(maps / config.data.train_split, shown)
            common["coarse"] = mask.CoarseWindows(masks, method.views[-1].scale)
        return _by_scene(
            config, method, data, {**common, "multiple": sharding.shares(mesh)}
        )
    return _by_sample(config, method, data, common)


def total_steps(config: ml_collections.ConfigDict, epoch_steps: int) -> int:
    """Returns the steps of a run."""
    total = config.epochs * epoch_steps
    return min(total, config.max_steps or total)


def count_samples(micro: dict[str, Any]) -> int:
    """Returns the patches of a micro-batch that this process trains on."""
    size = len(micro["label"])
    if "locations" in micro:  # of scenes, those of all processes
        return size * micro["locations"].shape[1] // jax.process_count()
    return int(np.sum(micro.get("valid", np.ones(size))))


def _check_unit(config: ml_collections.ConfigDict, method: base.Method) -> None:
    own = {
        "resident": (method.whole_scenes, "it trains on whole scenes"),
        "scales": (method.progressive, "it trains on crops of several scales"),
    }
    unit = config.data.unit
    wanted = [(name, why) for name, (is_own, why) in own.items() if is_own]
    if wanted and unit != wanted[0][0]:
        name, why = wanted[0]
        allowed = f"{why}, use {name!r}"
    elif unit in own and not wanted:
        allowed = "it trains on patches, use 'patches' or 'scenes'"
    else:
        return
    raise errors.InputError(
        f"config.data.unit={unit!r} does not go with {config.method}: {allowed}"
    )


def _by_sample(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    common: dict[str, Any],
) -> Feed:
    split, unit = config.data.train_split, config.data.unit
    if unit == "overviews":
        source = data.open_overviews(split)
        samples, count = pipeline.patch_dataset(source, config.seed), len(source)
    elif unit == "scales":
        crops = _scaled_crops(config, method, data.open_scenes(split))
        samples = pipeline.window_dataset(crops, config.seed)
        count = len(crops.reader)
    elif config.data.layout == "patches":
        source = data.open_patches(split, views=method.views)
        samples, count = pipeline.patch_dataset(source, config.seed), len(source)
    else:
        windows = data.open_windows(split, views=method.views)
        samples = pipeline.window_dataset(windows, config.seed)
        count = int(windows.counts().sum())

    def start(step: int) -> Iterator[Micro]:
        parts = config.accumulate
        micros = pipeline.train_batches(
            samples, batch_size=config.batch_size // parts, start_step=step * parts,
            **common,
        )  # fmt: skip
        for k, micro in enumerate(micros):
            yield micro, (k + 1) % parts == 0

    return Feed(max(count // config.batch_size, 1), start)


def _scaled_crops(
    config: ml_collections.ConfigDict,
    method: magnet.MagNetMethod,
    reader: scenes.SceneReader,
) -> scaled.ScaledCrops:
    module, settings = method.module, config.data.augment
    refines = module.trained != magnet.SEGMENTER
    changes = [n for n in ("scale", "hflip", "vflip", "rotate90") if settings[n]]
    if refines and changes:
        raise errors.InputError(
            f"config.data.augment.{changes[0]}: a crop that a refinement network "
            "learns by must stay where it is in its scene; leave it off"
        )
    return scaled.ScaledCrops(
        reader, module.scales, module.crop, module.input_size, method.crop_scales,
        with_overview=refines,
    )  # fmt: skip


def _until_last(stream: Iterator[Micro]) -> Iterator[dict[str, np.ndarray]]:
    for micro, is_last in stream:
        yield micro
        if is_last:
            return


def _by_scene(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    common: dict[str, Any],
) -> Feed:
    split = config.data.train_split
    views = (view_lib.View(),) if method.reads_labels else method.views
    grid = data.open_grid(split, views=views)

    def start(step: int) -> Iterator[Micro]:
        return pipeline.scene_batches(
            grid, scenes_per_step=config.batch_size, sub_batch=config.sub_batch,
            seed=config.seed, overviews=data.overviews(split), start_step=step,
            **common,
        )  # fmt: skip

    return Feed(pipeline.scene_steps(len(grid.scenes), config.batch_size), start)
