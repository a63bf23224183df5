"""The networks that are measured: the least there can be, and a real one alone."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import sharding, trained
from uhrjax.methods import base


class PixelMethod:
    """One 1x1 convolution over all views, in the place of a method's network."""

    reads_labels = collects = False

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
    gflop_per_window: float


def compile_alone(
    method: base.Method, variables: dict[str, Any], *, batch_size: int
) -> Program:
    """Compiles the method from uint8 windows to logits, nothing else.

    GFLOP are counted in the program as written, before the compiler replaces parts of
    it by library calls that it cannot look into.
    """
    mesh = sharding.make_mesh()
    variables = jax.device_put(variables, sharding.replicated(mesh))
    shape = (batch_size, len(method.views), method.tile, method.tile, 3)
    views = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    views = sharding.put_batch({"views": views}, mesh)["views"]

    def forward(variables: dict[str, Any], views: jax.Array) -> jax.Array:
        outputs = method.apply(variables, {"views": views}, train=False)
        return method.logits(outputs)

    lowered = jax.jit(forward).lower(variables, views)
    flop = (lowered.cost_analysis() or {}).get("flops", math.nan)
    started = time.perf_counter()
    compiled = lowered.compile()
    compile_s = time.perf_counter() - started

    def call() -> None:
        compiled(variables, views).block_until_ready()

    return Program(call, compile_s, flop / batch_size / 1e9)
