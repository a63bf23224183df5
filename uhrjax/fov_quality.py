"""How well networks of one fixed patch each label every place of a scene.

What Foveation's gold standard is made of (supplement of
https://arxiv.org/abs/2007.15124): the intersections of classes over their unions, in
the smallest patch at each location.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax import engine as engine_lib
from uhrjax import fov_map, trained
from uhrjax.data import scenes
from uhrjax.methods import foveation
from uhrjax.tiling import location
from uhrjax.tiling import window as window_lib


def of_split(
    run: trained.Trained, reader: scenes.SceneReader, split: str
) -> dict[str, np.ndarray]:
    """Returns {scene id: [h, w] float64} of a run, NaN where nothing is labelled.

    They are kept in `quality_<split>.npz` in the run's folder; the file is made again
    when the weights have changed.
    """
    path = run.path.parent.parent / f"quality_{split}.npz"
    names = [scene.id for scene in reader.scenes]
    if path.is_file():
        with np.load(path) as kept:
            found = {name: kept[name] for name in kept.files}
        if str(found.pop("weights", "")) == run.weights_hash and set(found) == set(
            names
        ):
            return found
    size = engine_lib.windows_per_call(run.config)
    count = jax.jit(functools.partial(_count, run.method))
    found = {}
    for index, scene in enumerate(reader.scenes):
        whole = window_lib.Window(0, 0, scene.height, scene.width)
        image = jnp.asarray(reader.read_image(index, whole))
        label = jnp.asarray(reader.read_label(index, whole))
        shape = run.method.map_size(scene.height, scene.width)
        places = location.Grid(*shape, run.method.module.scale).locations()
        counts = [
            np.asarray(count(run.variables, image, label, np.resize(part, (size, 2))))
            for part in np.split(places, range(size, len(places), size))
        ]
        right, known = np.concatenate(counts, axis=1)[:, : len(places)]
        found[scene.id] = fov_map.quality(right, known).reshape(shape)
    np.savez(path, weights=run.weights_hash, **found)
    return found


def _count(
    method: foveation.FoveationMethod,
    variables: Any,
    image: jax.Array,
    label: jax.Array,
    places: jax.Array,
) -> jax.Array:
    """Returns [2, N] int32: px of each smallest patch that are right, and labelled."""
    batch = {"scene": image[None], "locations": places[None]}
    outputs = method.apply(variables, batch)
    ours = method.logits(outputs).argmax(-1)
    rate = method.module.scale
    true = method.module.crops.labels(label[None], places, rate=rate)[0]
    known = true != fov_map.IGNORE_LABEL
    return jnp.stack([((ours == true) & known).sum((1, 2)), known.sum((1, 2))])
