"""Samples -> batches, as a pure function of the step."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np

from uhrjax import errors
from uhrjax.data import grid as grid_lib
from uhrjax.data import overview as overview_lib
from uhrjax.data import prepared, scaled
from uhrjax.data import scenes as scenes_lib
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib


class Source(Protocol):
    """Random access to samples, as `scenes.open_patches` returns it."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, Any]: ...


AHEAD = 2  # batches per thread that are made before they are asked for
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
Targets = Callable[[np.ndarray, np.random.Generator], dict[str, np.ndarray]]
# (scene, window of a patch) -> [m P, m P] uint8 labels of a window m times as wide
Coarse = Callable[[int, window_lib.Window], np.ndarray]
Micro = tuple[dict[str, np.ndarray], bool]  # a micro-batch; whether it ends a step


@dataclasses.dataclass(frozen=True)
class RandomWindows:
    """A transform that cuts one random window of a scene.

    An epoch has as many samples as windows of that side cover the scenes once, so that
    large scenes are seen more often than small ones.
    """

    reader: scenes_lib.SceneReader
    tile: prepared.Side  # px
    views: tuple[view_lib.View, ...]
    overviews: overview_lib.OverviewReader | None = None  # adds `overview`

    def counts(self) -> np.ndarray:
        """Returns how often each scene is drawn in an epoch, int64 [scenes]."""
        area = math.prod(window_lib.sides(self.tile))
        drawn = [max(1, round(s.height * s.width / area)) for s in self.reader.scenes]
        return np.array(drawn, np.int64)

    def __call__(self, scene: int, rng: np.random.Generator) -> dict[str, Any]:
        """Returns a sample of the patch schema at a uniform place of scene `scene`."""
        info = self.reader.scenes[scene]
        height, width = window_lib.sides(self.tile)
        top = int(rng.integers(max(info.height - height, 0) + 1))
        left = int(rng.integers(max(info.width - width, 0) + 1))
        window = window_lib.Window(top, left, height, width)
        sample = grid_lib.read_sample(self.reader, scene, window, self.views)
        if self.overviews is not None:
            sample["overview"] = self.overviews.read(info.id)
        return sample


def patch_dataset(source: Source, seed: int) -> grain.MapDataset:
    """Precomputed patches, reshuffled every epoch, without end."""
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)


def window_dataset(
    windows: RandomWindows | scaled.ScaledCrops, seed: int
) -> grain.MapDataset:
    """Random windows of whole scenes, without end."""
    order = np.repeat(np.arange(len(windows.reader)), windows.counts()).tolist()
    data = grain.MapDataset.source(order).seed(seed).shuffle().repeat(None)
    return data.random_map(windows)


def train_batches(
    data: grain.MapDataset,
    *,
    transform: Transform,
    targets: Targets,
    batch_size: int,
    start_step: int = 0,
    threads: int = 2,
    process: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's part of every batch from step `start_step` on.

    Args:
        data: endless samples, from `patch_dataset` or `window_dataset`.
        transform: the augmentation.
        targets: extra training targets of a method, of the augmented label and a
            generator.
        batch_size: global, a multiple of the number of processes.
        start_step: how many batches to pass over; batch k is the same whether reached
            by running or by resuming.
        threads: that read, decode and augment (the decoders release the GIL).
        process: (index, count).

    Yields:
        Batches of the schema in `methods/base.py`, plus the method's targets.
    """

    def finish(
        sample: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        sample = transform(sample, rng)
        return {**sample, **targets(sample["label"], rng)}

    index, count = process
    data = data.random_map(finish)
    # Shared out last: the same samples in the same order for any process count.
    data = data.batch(batch_size // count, drop_remainder=True)
    if count > 1:
        data = data.slice(slice(index, None, count))
    data = data.slice(slice(start_step, None))
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=AHEAD * threads
    )
    yield from data.to_iter_dataset(options)


def scene_steps(scenes: int, scenes_per_step: int) -> int:
    """Returns the steps of an epoch; an incomplete last one counts."""
    return -(-scenes // scenes_per_step)


def scene_batches(
    grid: grid_lib.Grid,
    *,
    transform: Transform,
    targets: Targets,
    scenes_per_step: int,
    sub_batch: int,
    seed: int,
    overviews: overview_lib.OverviewReader | None = None,
    coarse: Coarse | None = None,
    start_step: int = 0,
    threads: int = 2,
    process: tuple[int, int] = (0, 1),
    multiple: int = 1,
) -> Iterator[Micro]:
    """Yields all patches of whole scenes, `scenes_per_step` scenes a step, without end.

    Every epoch has the scenes in another order. A scene is turned as a whole, so all of
    its patches get the same draw; its grid is turned with it (cutting the turned scene
    could start some patches one pixel beside, where starts were rounded). It comes in
    micro-batches that share no scene; what the last one lacks is filled up with its own
    patches over again, labels 255.

    Args:
        grid: the patches, from `Dataset.open_grid`.
        transform: the augmentation; what it draws must not depend on the sample.
        targets: extra training targets of a method, as in `train_batches`.
        scenes_per_step: an epoch's last step takes what is left.
        sub_batch: patches of a micro-batch, over all processes; 0: all of a scene.
        seed: step k is a function of it and k.
        overviews: adds `overview` [1, h, w, 3] to every micro-batch.
        coarse: adds `coarse` [S, m P, m P] uint8: other labels around each patch.
        start_step: how many steps to pass over.
        threads: that make micro-batches ahead.
        process: (index, count); micro-batches are shared out.
        multiple: micro-batches are filled up to a multiple of it (of devices).

    Yields:
        (batch as in `train_batches` with `valid` [S] bool, whether it ends its step).
    """
    if getattr(transform, "scale", ()):
        raise errors.InputError(
            "data.augment.scale has no meaning where all patches of a scene train "
            "together (data.unit=scenes); set it to ()"
        )
    make = _MicroMaker(grid, transform, targets, seed, overviews, coarse)
    count = math.lcm(multiple, process[1])
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    waiting: collections.deque[concurrent.futures.Future[Micro]] = collections.deque()
    try:
        for place in _plan_micros(grid, scenes_per_step, sub_batch, seed, start_step):
            size = -(-(sub_batch or place.last - place.first) // count) * count
            own = size // process[1]
            share = range(process[0] * own, (process[0] + 1) * own)
            waiting.append(pool.submit(make, place, share))
            if len(waiting) > threads:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Place(NamedTuple):
    """What a micro-batch shows: patches [first, last) of a scene."""

    epoch: int
    scene: int
    first: int
    last: int
    is_last: bool  # of its step


def _plan_micros(
    grid: grid_lib.Grid, scenes_per_step: int, sub_batch: int, seed: int, start: int
) -> Iterator[_Place]:
    per_epoch = scene_steps(len(grid.scenes), scenes_per_step)
    for epoch in itertools.count(start // per_epoch):
        order = np.random.default_rng([seed, epoch]).permutation(len(grid.scenes))
        first_step = start % per_epoch if epoch == start // per_epoch else 0
        for step in range(first_step, per_epoch):
            chosen = order[step * scenes_per_step : (step + 1) * scenes_per_step]
            for scene in chosen.tolist():
                count = grid.count(scene)
                for first in range(0, count, sub_batch or count):
                    last = min(first + (sub_batch or count), count)
                    is_last = scene == chosen[-1] and last == count
                    yield _Place(epoch, scene, first, last, is_last)


@dataclasses.dataclass(frozen=True)
class _MicroMaker:
    """Reads and turns the patches of a micro-batch."""

    grid: grid_lib.Grid
    transform: Transform
    targets: Targets
    seed: int
    overviews: overview_lib.OverviewReader | None
    coarse: Coarse | None

    def __call__(self, place: _Place, share: range) -> Micro:
        """Returns the samples of `share`; those beyond the scene's patches are padding.

        Args:
            place: the patches.
            share: indices into the whole micro-batch.
        """
        count = place.last - place.first
        samples = [
            self._sample(
                place,
                place.first + i % count,
                is_padding=i >= count,
                with_overview=i == share[0],
            )
            for i in share
        ]
        overview = samples[0].pop("overview", None)
        batch = {key: np.stack([s[key] for s in samples]) for key in samples[0]}
        batch["valid"] = np.array([i < count for i in share])
        if overview is not None:
            batch["overview"] = overview[None]
        return batch, place.is_last

    def _sample(
        self, place: _Place, patch: int, *, is_padding: bool, with_overview: bool
    ) -> dict[str, np.ndarray]:
        sample = self.grid.read(place.scene, patch)
        if with_overview and self.overviews is not None:
            sample["overview"] = self.overviews.read(sample["scene_id"])
        if self.coarse is not None:
            window = window_lib.Window(
                *sample["position"].tolist(), *sample["label"].shape
            )
            sample["coarse"] = self.coarse(place.scene, window)
        # One generator for all patches of a scene; a seed's last 0 does not count.
        scene_seed = [self.seed, place.epoch, place.scene]
        sample = self.transform(sample, np.random.default_rng(scene_seed))
        if is_padding:
            sample["label"] = np.full_like(sample["label"], prepared.IGNORE_LABEL)
        own = np.random.default_rng([*scene_seed, patch + 1])
        return {**sample, **self.targets(sample["label"], own)}


def padded_batches(
    samples: Iterator[dict[str, Any]], batch_size: int
) -> Iterator[dict[str, Any]]:
    """Groups samples into batches of one fixed size; none is dropped.

    The last batch repeats its first sample where samples are missing.

    Yields:
        Stacked samples with `valid` [B] bool beside them.
    """
    group: list[dict[str, Any]] = []
    for sample in samples:
        group.append(sample)
        if len(group) == batch_size:
            yield _stack(group, batch_size)
            group = []
    if group:
        yield _stack(group, batch_size)


def _stack(group: list[dict[str, Any]], batch_size: int) -> dict[str, Any]:
    padded = group + [group[0]] * (batch_size - len(group))
    batch = {key: np.stack([sample[key] for sample in padded]) for key in group[0]}
    return {**batch, "valid": np.arange(batch_size) < len(group)}
