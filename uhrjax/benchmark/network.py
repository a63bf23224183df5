"""The networks that are measured: the least there can be, and a real one alone."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import cost, sharding, stages, trained
from uhrjax.methods import base


def chosen_stage(config: ml_collections.ConfigDict) -> stages.Planned:
    """Returns the stage to measure: `config.stage`, or the method's own last one."""
    planned = stages.plan(config, pathlib.Path("benchmark"))
    own = [stage for stage in planned if stage.config.method == config.method]
    named = [stage for stage in planned if stage.name == config.stage]
    return (named or own)[-1]


class PixelMethod:
    """One 1x1 convolution over all views, in the place of a method's network."""

    reads_labels = collects = whole_scenes = progressive = False

    def __init__(self, method: base.Method):
        self.num_classes, self.views = method.num_classes, method.views
        self.overview = method.overview

    def init(self) -> dict[str, Any]:
        """Returns random weights."""
        shape = (3 * len(self.views), self.num_classes)
        kernel = np.random.default_rng(0).standard_normal(shape, np.float32)
        return {"params": {"kernel": jnp.asarray(kernel)}}

    def apply(
        self, variables: dict[str, Any], batch: base.Batch, *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns {"logits": [B, P, P, K] float32}."""
        views = jnp.moveaxis(batch["views"], 1, 3)  # [B, P, P, V, 3]
        pixels = views.reshape(*views.shape[:3], -1) / np.float32(255) - 0.5
        return {"logits": pixels @ variables["params"]["kernel"]}

    def context(self, variables: dict[str, Any], overview: jax.Array) -> None:
        return None

    def logits(self, outputs: Mapping[str, Any]) -> jax.Array:
        return outputs["logits"]

    def points(self, outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        return {}


def as_run(
    config: ml_collections.ConfigDict,
    method: base.Method | PixelMethod,
    variables: dict[str, Any],
) -> trained.Trained:
    """Returns what prediction wants, without a checkpoint."""
    count = method.num_classes
    return trained.Trained(
        path=pathlib.Path("random weights"), step=0, config=config, method=method,
        variables=variables, classes=tuple(f"class_{k}" for k in range(count)),
        colours=tuple((97 * k % 256, 57 * k % 256, 31 * k % 256) for k in range(count)),
    )  # fmt: skip


class Program(NamedTuple):
    """The network on windows that lie on the device already."""

    call: Callable[[], None]  # runs one batch and waits for it
    compile_s: float
    gmac_per_window: float  # of the layers, as papers count
    gmac_per_scene: float  # of what is computed once per scene


def compile_alone(
    method: base.Method, variables: dict[str, Any], *, batch_size: int
) -> Program:
    """Compiles the method from uint8 windows to logits, nothing else.

    What a method computes once per scene is there already, as in prediction.
    """
    mesh = sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    variables = jax.device_put(variables, everywhere)
    batch = sharding.put_batch(_windows(method, batch_size), mesh)
    per_scene = 0
    if method.overview is not None:
        overview = np.zeros((1, *method.overview, 3), np.uint8)
        extra = {"collected": _collected(method)} if method.collects else {}
        find = functools.partial(method.context, **extra)
        per_scene = cost.multiply_accumulates(find, variables, overview)
        context = jax.device_put(jax.jit(find)(variables, overview), everywhere)
        batch |= {"overview": jnp.asarray(overview), "context": context}

    def forward(variables: dict[str, Any], batch: dict[str, Any]) -> jax.Array:
        return method.logits(method.apply(variables, batch, train=False))

    macs = cost.multiply_accumulates(forward, variables, batch)
    lowered = jax.jit(forward).lower(variables, batch)
    started = time.perf_counter()
    compiled = lowered.compile()
    compile_s = time.perf_counter() - started

    def call() -> None:
        compiled(variables, batch).block_until_ready()

    return Program(call, compile_s, macs / batch_size / 1e9, per_scene / 1e9)


def _windows(method: base.Method, batch_size: int) -> dict[str, np.ndarray]:
    """Returns windows of a scene of 4 x 4 tiles, or label maps for a refiner."""
    rng, tile = np.random.default_rng(2), method.tile
    position = rng.integers(0, 3 * tile, (batch_size, 2), np.int32)
    place = {
        "position": position,
        "scene_size": np.full_like(position, 4 * tile),
        "valid": np.ones(batch_size, bool),
    }
    if method.reads_labels:
        side = round(method.views[-1].scale * tile)
        shape = (batch_size, side, side)
        return place | {"coarse": rng.integers(0, method.num_classes, shape, np.uint8)}
    shape = (batch_size, len(method.views), tile, tile, 3)
    return place | {"views": rng.integers(0, 256, shape, np.uint8)}


def _collected(method: base.Method) -> Any:
    empty = method.empty_collection((4 * method.tile, 4 * method.tile))
    return jax.tree.map(jnp.asarray, empty)
