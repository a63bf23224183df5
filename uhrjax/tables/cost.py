"""Weights and multiply-accumulates of a config's network, from shapes; nothing runs."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from uhrjax import config as config_lib
from uhrjax import cost as cost_lib
from uhrjax import methods
from uhrjax.tables import recipe as recipe_lib

SIDE = 512  # px, of the papers' counts


def of_recipe(recipe: recipe_lib.Recipe) -> dict[str, float]:
    """Returns metric -> figure of a row's network, {} if the row has none."""
    if recipe.training is None:
        return {}
    return _of_json(json.dumps(config_lib.to_json(recipe.training.config())))


@functools.cache
def _of_json(config: str) -> dict[str, float]:
    return of_config(config_lib.from_json(json.loads(config)))


def of_config(
    config: ml_collections.ConfigDict, *, side: int = SIDE
) -> dict[str, float]:
    """Counts the network that labels a patch; of a wrapper, the one that it wraps.

    Args:
        config: of a method.
        side: of the image, px.

    Returns:
        "params_m", millions of weights; "gflops_512", 10^9 multiply-accumulates.
    """
    config = methods.find(config.method).inner(config) or config
    config = ml_collections.ConfigDict(config.to_dict())
    config.tile = side
    method = methods.build(config)
    shapes = method.shapes()
    batch: dict[str, Any] = {
        "views": jax.ShapeDtypeStruct((1, len(method.views), side, side, 3), jnp.uint8)
    }
    if method.overview is not None:
        size = (1, *method.overview, 3)
        batch["overview"] = jax.ShapeDtypeStruct(size, jnp.uint8)

    def label(variables: Any, batch: Any) -> jax.Array:
        return method.logits(method.apply(variables, batch, train=False))

    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    found = cost_lib.multiply_accumulates(label, shapes, batch)
    return {"params_m": weights / 1e6, "gflops_512": found / 1e9}
