"""What runs on the device for windows of a scene: cut, turn, apply, add up."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from uhrjax import canvas as canvas_lib
from uhrjax import sharding
from uhrjax.methods import base
from uhrjax.ops import symmetry
from uhrjax.tiling import blend as blend_lib
from uhrjax.tiling import plan
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib


class WindowPrograms:
    """The compiled programs of one method and one tiling.

    A program gets the image blocks around the block in which its windows start: `left`
    before it and `right` behind it, with `margin` rows above and below the band.
    """

    def __init__(self, method: base.Method, tiling: plan.Tiling, mesh: Mesh):
        """Compiles nothing yet."""
        self.method, self.tiling, self._mesh = method, tiling, mesh
        self.turns = 8 if tiling.tta else 1
        self._input = "coarse" if method.reads_labels else "views"
        tile, block = tiling.tile, tiling.block
        # Rows and columns of context around a window.
        self.margin = max(view_lib.reach(view, tile) for view in method.views)
        self.left = -(-self.margin // block)  # blocks a window may reach back ...
        self.right = -(-(tile + self.margin) // block)  # ... and ahead
        self._window = blend_lib.window_weights(tiling.blend, tile)
        self.run = jax.jit(
            self._run_windows,
            donate_argnums=2,
            out_shardings=(sharding.by_rows(mesh), None),
        )
        self.collect = jax.jit(self._collect_windows, donate_argnums=2)
        self.find_context = jax.jit(self._find_context)

    def _find_context(
        self, variables: Any, overview: jax.Array, collected: Any
    ) -> dict[str, Any]:
        def of_turn(given: tuple[jax.Array, Any]) -> dict[str, Any]:
            k, collected = given
            turned = overview
            if self.turns > 1:
                turned = jax.lax.switch(k, symmetry.turns(1), overview)
            extra = {} if collected is None else {"collected": collected}
            context = self.method.context(variables, turned, **extra)
            return {"overview": turned, "context": context}

        if self.turns > 1:
            return jax.lax.map(of_turn, (jnp.arange(self.turns), collected))
        one = jax.tree.map(lambda a: a[0], collected)
        return jax.tree.map(lambda a: a[None], of_turn((jnp.int32(0), one)))

    def _collect_windows(
        self,
        variables: Any,
        images: list[jax.Array],
        collected: Any,
        starts: jax.Array,
        given: dict[str, Any],
    ) -> Any:
        inputs = self._cut_inputs(images, starts, given)

        def of_turn(turn: tuple[jax.Array, Any]) -> Any:
            k, one = turn
            batch = self._batch(inputs, given, k)
            return self.method.collect(variables, batch, one)

        return jax.lax.map(of_turn, (jnp.arange(self.turns), collected))

    def _run_windows(
        self,
        variables: Any,
        images: list[jax.Array],
        canvas: canvas_lib.Canvas,
        starts: jax.Array,
        owned: jax.Array,
        given: dict[str, Any],
    ) -> tuple[canvas_lib.Canvas, dict[str, jax.Array]]:
        """Cuts a call's windows, labels them, adds their scores to the canvas."""
        inputs = self._cut_inputs(images, starts, given)
        scores, points = self._score(variables, inputs, given)  # [B, tile, tile, K]
        canvas = canvas_lib.add_windows(
            canvas, scores, starts, given["valid"], owned, self._window
        )
        return canvas, points

    def _score(
        self, variables: Any, inputs: jax.Array, given: dict[str, Any]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the scores of windows, and the method's points in them."""

        def of_turn(k: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            batch = self._batch(inputs, given, k)
            outputs = self.method.apply(variables, batch, train=False)
            scores = self.method.logits(outputs)
            if self.tiling.score == "probabilities":
                scores = jax.nn.softmax(scores)
            if self.turns > 1:
                scores = jax.lax.switch(k, symmetry.turns(1, back=True), scores)
            return scores, self.method.points(outputs)

        if self.turns == 1:
            return of_turn(jnp.int32(0))
        # A loop, so that the network is compiled once.
        scores, points = jax.lax.map(of_turn, jnp.arange(self.turns))
        return scores.mean(0), jax.tree.map(lambda leaf: leaf[0], points)

    def _batch(
        self, inputs: jax.Array, given: dict[str, Any], k: jax.Array
    ) -> dict[str, Any]:
        """Returns the batch of the scene's k-th turn."""
        place = {name: given[name] for name in ("position", "scene_size", "valid")}
        axis = 2 if self._input == "views" else 1
        if self.turns > 1:
            turns = symmetry.turn_places(self.tiling.tile)
            inputs = jax.lax.switch(k, symmetry.turns(axis), inputs)
            place["position"], place["scene_size"] = jax.lax.switch(
                k, turns, place["position"], place["scene_size"]
            )
        shared = {name: value for name, value in given.items() if name not in place}
        shared = jax.tree.map(lambda leaf: leaf[k], shared)
        return {self._input: inputs, **place, **shared}

    def _cut_inputs(
        self, images: list[jax.Array], starts: jax.Array, given: dict[str, Any]
    ) -> jax.Array:
        """Cuts the inputs of windows that start at `starts` in the call's block.

        Returns:
            [B, V, tile, tile, 3] views or, for a refiner, [B, side, side] label maps
            of its widest view, uint8.
        """
        region = jnp.concatenate(images, axis=1)  # [tile + 2 margin, blocks, C]
        split = NamedSharding(self._mesh, sharding.split(self._input, self._mesh))
        inputs = jax.vmap(functools.partial(self._cut_one, region))(
            starts, given["position"], given["scene_size"]
        )
        return jax.lax.with_sharding_constraint(inputs, split)

    def _cut_one(
        self, region: jax.Array, start: jax.Array, position: jax.Array, size: jax.Array
    ) -> jax.Array:
        """Cuts one window; the region's origin follows from its place."""
        tile = self.tiling.tile
        window = window_lib.Window(position[0], position[1], tile, tile)
        top = position[0] - self.margin
        left = position[1] - start - self.left * self.tiling.block
        crops = []
        for view in self.method.views:
            wide = view_lib.place(window, view, (size[0], size[1]))
            if view.border == "reflect":
                rows = view_lib.mirror(wide.top + jnp.arange(wide.height), size[0])
                columns = view_lib.mirror(wide.left + jnp.arange(wide.width), size[1])
                crop = region[rows - top][:, columns - left]
            else:
                shape = (wide.height, wide.width, region.shape[2])
                place = (wide.top - top, wide.left - left, 0)
                crop = jax.lax.dynamic_slice(region, place, shape)
            crops.append(crop)
        if self._input == "coarse":
            return crops[-1][..., 0]  # the widest comes last
        reduced = map(view_lib.reduce, crops, self.method.views)  # as on the host
        return jnp.stack(list(reduced))
