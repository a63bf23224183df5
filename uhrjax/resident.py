"""Scenes that stay on the devices while a run trains at many places of them.

Foveation's scheme: an iteration fetches L scenes and draws N places, the same in all of
them; every step takes the next B places, so that N / B steps follow on these scenes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from uhrjax import errors, sharding
from uhrjax.data import augment, dataset, scenes
from uhrjax.methods import foveation
from uhrjax.tiling import location
from uhrjax.tiling import window as window_lib


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What a step trains on, as a pure function of its number."""

    scenes: int  # of the split
    together: int  # L, scenes of an iteration
    per_step: int  # B, locations
    per_iteration: int  # N, locations
    repeats: int  # times that an epoch goes through the scenes
    seed: int

    @property
    def iterations(self) -> int:
        """Returns how many there are in an epoch."""
        return location.iterations(
            self.scenes, together=self.together, repeats=self.repeats
        )

    @property
    def iteration_steps(self) -> int:
        """Returns the steps of an iteration."""
        return self.per_iteration // self.per_step

    @property
    def epoch_steps(self) -> int:
        """Returns the steps of an epoch."""
        return self.iterations * self.iteration_steps

    def chosen(self, number: int) -> np.ndarray:
        """Returns the scenes [L] of iteration `number`, counted over all epochs.

        What the last one of a passage lacks comes from the passage's beginning.
        """
        epoch, iteration = divmod(number, self.iterations)
        passage, first = divmod(iteration, self.iterations // self.repeats)
        rng = np.random.default_rng([self.seed, epoch])
        for _ in range(passage + 1):
            order = rng.permutation(self.scenes)
        places = first * self.together + np.arange(self.together)
        return order[places % self.scenes]

    def rng(self, number: int, slot: int = 0) -> np.random.Generator:
        """Returns the randomness of an iteration, or of one of its scenes (1 to L)."""
        epoch, iteration = divmod(number, self.iterations)
        # A seed's last 0 does not count: iterations begin with 1.
        return np.random.default_rng([self.seed, epoch, iteration + 1, slot])

    def places(self, number: int, size: tuple[int, int]) -> np.ndarray:
        """Returns [N / B, B, 2] int32 locations of an iteration, on a map of `size`."""
        return location.draw(
            self.rng(number), *size, count=self.per_iteration, together=self.per_step
        )


def make_scheme(config: ml_collections.ConfigDict, data: dataset.Dataset) -> Scheme:
    """Returns the scheme of a config on its training split."""
    data.check_split(config.data.train_split)
    return Scheme(
        scenes=len(data.info.scenes[config.data.train_split]),
        together=config.batch_size,
        per_step=config.locations.per_step,
        per_iteration=config.locations.per_iteration,
        repeats=config.locations.repeats,
        seed=config.seed,
    )


def batches(
    scheme: Scheme,
    config: ml_collections.ConfigDict,
    method: foveation.FoveationMethod,
    data: dataset.Dataset,
    mesh: jax.sharding.Mesh,
    *,
    start_step: int,
    total_steps: int,
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yields the batches from `start_step` on, without end.

    Returns:
        Pairs of a batch, see the head of `methods/foveation.py`, whose scenes are on
        the devices, and True: every batch is a step.

    Raises:
        errors.InputError: scenes of different size, a map with too few locations, or a
            batch that the devices cannot share.
    """
    sharding.check_batch(scheme.together, mesh)
    reader = data.open_scenes(config.data.train_split)
    size = _common_size(reader)
    map_size = method.map_size(*size)
    if scheme.per_iteration > map_size[0] * map_size[1]:
        raise errors.InputError(
            f"config.locations.per_iteration={scheme.per_iteration}: scenes of "
            f"{size[0]} x {size[1]} px have {map_size[0]} x {map_size[1]} locations at "
            f"model.scale={method.module.scale}; use fewer, or a smaller scale"
        )
    change = augment.Augment(tile=size, **config.data.augment.to_dict())
    read = functools.partial(_read, scheme, reader, change)
    # This process's scenes of every iteration.
    share = scheme.together // jax.process_count()
    slots = range(jax.process_index() * share, (jax.process_index() + 1) * share)
    pool = concurrent.futures.ThreadPoolExecutor(config.data.threads)
    first, within = divmod(start_step, scheme.iteration_steps)
    step = start_step
    try:
        reading = [pool.submit(read, first, slot) for slot in slots]
        for number in itertools.count(first):
            found = [future.result() for future in reading]
            reading = [pool.submit(read, number + 1, slot) for slot in slots]
            images, labels = (np.stack(arrays) for arrays in zip(*found, strict=True))
            resident = sharding.put_batch({"scene": images, "label": labels}, mesh)
            for places in scheme.places(number, map_size)[within:]:
                done = np.array([step / total_steps], np.float32)
                yield {**resident, "locations": places[None], "progress": done}, True
                step += 1
            within = 0
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    scheme: Scheme,
    reader: scenes.SceneReader,
    change: augment.Augment,
    number: int,
    slot: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one scene of an iteration, [H, W, 3] uint8, and its label [H, W]."""
    index = int(scheme.chosen(number)[slot])
    scene = reader.scenes[index]
    whole = window_lib.Window(0, 0, scene.height, scene.width)
    sample = {
        "views": reader.read_image(index, whole)[None],
        "label": reader.read_label(index, whole),
    }
    changed = change(sample, scheme.rng(number, slot + 1))
    return changed["views"][0], changed["label"]


def _common_size(reader: scenes.SceneReader) -> tuple[int, int]:
    first = reader.scenes[0]
    for other in reader.scenes:
        if (other.height, other.width) != (first.height, first.width):
            raise errors.InputError(
                f"scenes that train together must have one size: {first.id} has "
                f"{first.height} x {first.width} px, {other.id} {other.height} x "
                f"{other.width}; cut or resize the images and masks to one size and "
                "prepare them again"
            )
    return first.height, first.width
