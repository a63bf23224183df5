"""The micro-batches of a training step, drawn instead of read."""

from __future__ import annotations

import math

import ml_collections
import numpy as np

from uhrjax.benchmark import texture
from uhrjax.methods import base
from uhrjax.tiling import window

Batch = dict[str, np.ndarray]


def draw_step(
    config: ml_collections.ConfigDict,
    method: base.Method,
    *,
    scene: tuple[int, int],
    multiple: int = 1,
) -> list[Batch]:
    """Returns the micro-batches of one step, of the shapes that `feed` hands out.

    Those of one shape are one and the same, so that a step may be as large as it likes.

    Args:
        config: of a run; its data.unit says what a step is made of.
        method: built from it.
        scene: (height, width) of the scenes, where they matter.
        multiple: micro-batches are filled up to a multiple of it (of devices).
    """
    rng = np.random.default_rng(0)
    unit = config.data.unit
    if unit == "resident":
        return [_resident(config, method, scene, rng)]
    if unit == "scenes":
        return _scenes(config, method, scene, multiple, rng)
    count = config.batch_size // config.accumulate
    if unit == "patches":
        micro = _patches(method, (method.tile, method.tile), scene, count, rng)
        if method.overview is not None:
            micro["overview"] = _pixels(rng, count, *method.overview)
    else:
        micro = _small_scenes(method, unit, count, rng)
    return [micro] * config.accumulate


def _patches(
    method: base.Method,
    size: tuple[int, int],
    scene: tuple[int, int],
    count: int,
    rng: np.random.Generator,
) -> Batch:
    """Returns patches somewhere in scenes, with their labels and targets."""
    views = () if method.reads_labels else method.views
    found = {
        "views": _pixels(rng, count, max(len(views), 1), *size),
        "position": rng.integers(0, 64, (count, 2), np.int32),
        "scene_size": np.full((count, 2), scene, np.int32),
    }
    return found | _labels(method, size, count, rng)


def _labels(
    method: base.Method, size: tuple[int, int], count: int, rng: np.random.Generator
) -> Batch:
    """Returns labels and what the method makes of them."""
    classes, samples = method.num_classes, []
    for seed in range(count):
        label = texture.draw_labels(*size, classes=classes, seed=seed)
        samples.append({"label": label, **method.targets(label, rng)})
    return {name: np.stack([each[name] for each in samples]) for name in samples[0]}


def _scenes(
    config: ml_collections.ConfigDict,
    method: base.Method,
    scene: tuple[int, int],
    multiple: int,
    rng: np.random.Generator,
) -> list[Batch]:
    """Returns all patches of `batch_size` scenes."""
    patches = len(
        window.plan_windows(
            *scene, tile=config.tile, stride=config.stride, spacing=config.grid
        )
    )
    sub_batch = config.sub_batch or patches
    size = -(-sub_batch // multiple) * multiple
    micro = _patches(method, (method.tile, method.tile), scene, size, rng)
    if method.overview is not None:
        micro["overview"] = _pixels(rng, 1, *method.overview)
    if method.reads_labels:
        side = round(method.views[-1].scale * method.tile)
        shape = (size, side, side)
        micro["coarse"] = rng.integers(0, method.num_classes, shape, np.uint8)
    full = {**micro, "valid": np.ones(size, bool)}
    found = [full] * (patches // sub_batch)
    if left := patches % sub_batch:
        part = {**micro, "valid": np.arange(size) < left}
        found.append(part)
    return found * config.batch_size


def _small_scenes(
    method: base.Method, unit: str, count: int, rng: np.random.Generator
) -> Batch:
    """Returns whole scenes made small, or crops of several scales."""
    size = method.overview
    if unit == "overviews":
        return _patches(method, size, size, count, rng)
    found = {"views": _pixels(rng, count, 1, *size)}
    if method.module.trained >= 0:  # a network that compares a crop with its scene
        corner = rng.uniform(0, 0.5, (count, 2))
        found["overview"] = _pixels(rng, count, *size)
        found["box"] = np.concatenate([corner, corner + 0.5], 1).astype(np.float32)
    return found | _labels(method, size, count, rng)


def _resident(
    config: ml_collections.ConfigDict,
    method: base.Method,
    scene: tuple[int, int],
    rng: np.random.Generator,
) -> Batch:
    """Returns whole scenes and some locations in them."""
    count, places = config.batch_size, config.locations.per_step
    labels = [
        texture.draw_labels(*scene, classes=method.num_classes, seed=seed)
        for seed in range(count)
    ]
    at = [rng.integers(0, side, places) for side in method.map_size(*scene)]
    return {
        "scene": _pixels(rng, count, *scene),
        "label": np.stack(labels),
        "locations": np.stack(at, axis=-1)[None].astype(np.int32),
        "progress": np.array([0.5], np.float32),
    }


def _pixels(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Returns [*shape, 3] uint8; one drawn image, turned about for the others."""
    *several, height, width = shape
    one = texture.draw(height, width, seed=int(rng.integers(2**31)))
    count = math.prod(several)
    turned = [np.roll(one, 7 * k, axis=0) for k in range(count)]
    return np.stack(turned).reshape(*shape, 3)
