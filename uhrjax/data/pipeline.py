"""Samples -> batches, as a pure function of the step (grain)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grain
import numpy as np

from uhrjax.data import scenes as scenes_lib
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib


class Source(Protocol):
    """Random access to samples, as `scenes.open_patches` returns it."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, Any]: ...


AHEAD = 2  # batches per thread that are made before they are asked for
Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class RandomWindows:
    """A transform that cuts one random window of a scene.

    An epoch has as many samples as windows of that side cover the scenes once, so that
    large scenes are seen more often than small ones.
    """

    reader: scenes_lib.SceneReader
    tile: int  # px
    views: tuple[view_lib.View, ...]

    def counts(self) -> np.ndarray:
        """Returns how often each scene is drawn in an epoch, int64 [scenes]."""
        return np.array(
            [
                max(1, round(s.height * s.width / self.tile**2))
                for s in self.reader.scenes
            ],
            np.int64,
        )

    def __call__(self, scene: int, rng: np.random.Generator) -> dict[str, Any]:
        """Returns a sample of the patch schema at a uniform place of scene `scene`."""
        info = self.reader.scenes[scene]
        top = int(rng.integers(max(info.height - self.tile, 0) + 1))
        left = int(rng.integers(max(info.width - self.tile, 0) + 1))
        window = window_lib.Window(top, left, self.tile, self.tile)
        return read_sample(self.reader, scene, window, self.views)


def read_sample(
    reader: scenes_lib.SceneReader,
    scene: int,
    window: window_lib.Window,
    views: tuple[view_lib.View, ...],
) -> dict[str, Any]:
    """Cuts the views and the label of one window of a scene (see `open_patches`)."""
    info = reader.scenes[scene]
    return {
        "views": view_lib.cut_views(
            lambda w: reader.read_image(scene, w), window, views
        ),
        "label": reader.read_label(scene, window),
        "position": np.array([window.top, window.left], np.int32),
        "scene_size": np.array([info.height, info.width], np.int32),
        "scene_id": info.id,
    }


def patch_dataset(source: Source, seed: int) -> grain.MapDataset:
    """Precomputed patches, reshuffled every epoch, without end."""
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)


def window_dataset(windows: RandomWindows, seed: int) -> grain.MapDataset:
    """Random windows of whole scenes, without end."""
    order = np.repeat(np.arange(len(windows.reader)), windows.counts()).tolist()
    data = grain.MapDataset.source(order).seed(seed).shuffle().repeat(None)
    return data.random_map(windows)


def train_batches(
    data: grain.MapDataset,
    *,
    transform: Transform,
    targets: Callable[[np.ndarray], dict[str, np.ndarray]],
    batch_size: int,
    start_step: int = 0,
    threads: int = 2,
    process: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of every batch from step `start_step` on.

    Args:
        data: endless samples, from `patch_dataset` or `window_dataset`.
        transform: the augmentation.
        targets: extra training targets of a method, from the augmented label.
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
        return {**sample, **targets(sample["label"])}

    index, count = process
    data = data.random_map(finish)
    if count > 1:  # after random_map: the same global batch for any process count
        data = data.slice(slice(index, None, count))
    data = data.batch(batch_size // count, drop_remainder=True)
    data = data.slice(slice(start_step, None))
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=AHEAD * threads
    )
    yield from data.to_iter_dataset(options)


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
