"""MagNet on whole scenes that fit on the device: patches are cut there.

One program is compiled per size of the scenes. Memory holds the scene as bytes, the
probabilities of its last two scales and what a few patches take.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from uhrjax import progressive, sharding
from uhrjax.errors import InputError
from uhrjax.methods import magnet
from uhrjax.tiling import bilinear, pyramid

LONGEST = 2**15 - 1  # px, so that places of patches fit into 32 bits


class Found(NamedTuple):
    """What is known of a scene."""

    labels: jax.Array  # [H, W] uint8
    probabilities: jax.Array | None  # [H, W, K] float32, on request
    records: list[progressive.Record]  # per scale but the first


class ScenePass:
    """Labels scenes; compiles once per size of them."""

    def __init__(
        self,
        method: magnet.MagNetMethod,
        options: progressive.Options,
        *,
        probabilities: bool = False,
    ):
        """Compiles nothing yet.

        Args:
            method: the networks.
            options: of the pass; patches at once are rounded up to a multiple of the
                number of devices, which share them.
            probabilities: hand them out, too.
        """
        self.method, self._probabilities = method, probabilities
        self._mesh = sharding.make_local_mesh()
        devices = self._mesh.size
        at_once = math.ceil(options.patches_at_once / devices) * devices
        self.options = dataclasses.replace(options, patches_at_once=at_once)
        self._run = jax.jit(self._label, out_shardings=sharding.replicated(self._mesh))

    def label(
        self, variables: Any, scene: np.ndarray, first: np.ndarray | None = None
    ) -> Found:
        """Labels a scene.

        Args:
            variables: of the method.
            scene: [H, W, 3] uint8.
            first: [h, w, K] float32, probabilities of the whole scene to begin with,
                of any size; None: the network's, of the scene made small.
        """
        everywhere = sharding.replicated(self._mesh)
        given = jax.device_put((variables, scene, first), everywhere)
        return self._run(*given)

    def scales(self, height: int, width: int) -> tuple[pyramid.Scale, ...]:
        """Plans a scene of that size; raises InputError."""
        if max(height, width) > LONGEST:
            raise InputError(
                f"a scene of {height} x {width} px cannot be refined as a whole: its "
                f"sides may have {LONGEST} px; cut it"
            )
        module = self.method.module
        return pyramid.plan_scales(
            height, width, scales=module.scales, crop=module.crop
        )

    def _label(self, variables: Any, scene: jax.Array, first: jax.Array | None):
        method, scales = self.method, self.scales(*scene.shape[:2])
        if first is None:
            small = self._overview(scene, scales[0])
            first = method.label_patches(variables, small[None])[0]
        last, records = progressive.run(
            progressive.networks_of(method, variables),
            first,
            lambda index, which: self._cut(scene, scales[index], which),
            scales,
            self.options,
            spread=self.spread,
        )
        labels = last.argmax(-1).astype(jnp.uint8)
        return Found(labels, last if self._probabilities else None, records)

    def _overview(self, scene: jax.Array, scale: pyramid.Scale) -> jax.Array:
        """Returns the whole scene made small, [h, w, 3] uint8."""
        if self.method.module.coarse_resize == "two_steps":
            scene = bilinear.resample(scene, height=scale.height, width=scale.width)
        height, width = self.method.module.input_size
        return bilinear.resample(scene, height=height, width=width)

    def _cut(
        self, scene: jax.Array, scale: pyramid.Scale, which: jax.Array
    ) -> jax.Array:
        """Returns one patch of the scene resized, [h, w, 3] uint8.

        Only the patch is computed; no resized scene is ever made.
        """
        return pyramid.cut(
            scene,
            scale,
            jnp.asarray(scale.corners())[which],
            size=self.method.module.input_size,
            scene=scene.shape[:2],
        )

    def spread(self, images: jax.Array) -> jax.Array:
        """Splits images [N, h, w, 3] over the devices where they can share them."""
        if len(images) % self._mesh.size:
            return images
        split = NamedSharding(self._mesh, PartitionSpec("data"))
        return jax.lax.with_sharding_constraint(images, split)
