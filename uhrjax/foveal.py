"""Labelling a scene location by location: Foveation's counterpart of `inference`.

The foveation module looks at the scene once. Every location's patch is mixed, labelled
as the area of the smallest patch and added up there; patches overlap many times where
the grid of locations is finer than a patch.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.methods import foveation
from uhrjax.ops import resize
from uhrjax.tiling import location

AGGREGATIONS = ("sum", "max_score")


class Found(NamedTuple):
    """What is known of a scene."""

    scores: np.ndarray  # [H, W, K] float32: sums of probabilities, or the surest ones
    counts: (
        np.ndarray
    )  # [H, W] int32: patches that cover a px; their mean is a sum / it
    fov: np.ndarray  # [h, w, D] float32: the distribution over patches, of all places
    locations: int  # that were labelled

    def labels(self) -> np.ndarray:
        """Returns [H, W] uint8; 0 where no patch was."""
        return self.scores.argmax(-1).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Options:
    """How a scene is labelled."""

    rate: int = 0  # px per location; 0: the module's scale
    aggregation: str = "sum"  # of probabilities, or "max_score": the surest patch's
    cover: bool = False  # more locations where rounding leaves a strip empty
    batch_size: int = 8  # locations per program call
    seed: int = 0  # of what is drawn


class FovealEngine:
    """Labels whole scenes that fit on the device; compiles once per size."""

    def __init__(self, method: foveation.FoveationMethod, options: Options):
        if options.aggregation not in AGGREGATIONS:
            raise ValueError(
                f"aggregation {options.aggregation!r}; use one of "
                f"{', '.join(AGGREGATIONS)}"
            )
        self.method, self.options = method, options
        self.rate = options.rate or method.module.scale
        self._look = jax.jit(self._distribution, static_argnums=2)
        self._add = jax.jit(self._add_locations, donate_argnums=0)

    def label(self, variables: Any, scene: np.ndarray) -> Found:
        """Labels a scene [H, W, 3] uint8.

        Warns with numbers if px remain that no patch covers: their scores are 0.
        """
        height, width = scene.shape[:2]
        patch, first = self.method.module.bank[0], self._first
        grid = location.plan_grid(
            height, width, rate=self.rate, patch=patch, first=first,
            cover=self.options.cover,
        )  # fmt: skip
        counts = location.counts(height, width, grid, patch=patch, first=first)
        _warn_of_gaps(counts, grid, patch)
        scene = jnp.asarray(scene)
        fov, at_grid = self._look(variables, scene, (grid.rows, grid.columns))
        sums = self._open(grid, height, width)
        root = jax.random.key(self.options.seed)
        for index, (places, valid) in enumerate(
            _batches(grid.locations(), self.options.batch_size)
        ):
            key = jax.random.fold_in(root, index)
            sums = self._add(sums, variables, scene, at_grid, places, valid, key)
        top = max(-first, 0)
        scores = np.asarray(sums[top : top + height, top : top + width])
        return Found(scores, counts, np.asarray(fov), len(grid.locations()))

    @property
    def _first(self) -> int:
        return self.method.module.crops.first(self.rate)

    def _distribution(
        self, variables: Any, scene: jax.Array, size: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns f at all places, and its logarithm at those of a grid [*size, D].

        The grid's is a resized f; of Gumbel-softmax the logarithm is resized, as the
        code does.
        """
        logits, _ = self.method.look(variables, scene[None])
        log_f = jax.nn.log_softmax(logits)
        shrink = functools.partial(resize.bilinear, size=size, align_corners=False)
        if self.method.module.selection == "gsm":
            at_grid = shrink(log_f)
        else:
            at_grid = jnp.log(shrink(jnp.exp(log_f)))
        return jnp.exp(log_f[0]), at_grid[0]

    def _open(self, grid: location.Grid, height: int, width: int) -> jax.Array:
        """Returns zeros that hold all patches, also what reaches beyond the scene."""
        patch, sides = self.method.module.bank[0], []
        before = max(-self._first, 0)
        for axis, side in enumerate((height, width)):
            last = (grid[axis] + grid.extra[axis] - 1) * self.rate + self._first
            sides.append(before + max(side, last + patch))
        return jnp.zeros((*sides, self.method.num_classes), jnp.float32)

    def _add_locations(
        self,
        sums: jax.Array,
        variables: Any,
        scene: jax.Array,
        at_grid: jax.Array,
        places: jax.Array,
        valid: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Labels the patches at [N, 2] locations, one after the other into the sums."""
        scores = self._score(variables, scene, at_grid, places, key)
        scores = jnp.where(valid[:, None, None, None], scores, 0.0)
        start = self._first + max(-self._first, 0)
        corners = places * self.rate + start

        def add(sums: jax.Array, given: Any) -> tuple[jax.Array, None]:
            corner, score = given
            at = (corner[0], corner[1], 0)
            before = jax.lax.dynamic_slice(sums, at, score.shape)
            if self.options.aggregation == "sum":
                after = before + score
            else:  # the earlier location wins ties
                surer = score.max(-1, keepdims=True) > before.max(-1, keepdims=True)
                after = jnp.where(surer, score, before)
            return jax.lax.dynamic_update_slice(sums, after, at), None

        return jax.lax.scan(add, sums, (corners, scores))[0]

    def _score(
        self,
        variables: Any,
        scene: jax.Array,
        at_grid: jax.Array,
        places: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Returns the probabilities [N, P, P, K] of patches."""
        rows = jnp.minimum(places[:, 0], at_grid.shape[0] - 1)
        columns = jnp.minimum(places[:, 1], at_grid.shape[1] - 1)
        module = self.method.module
        shares, _ = module.select(at_grid[rows, columns], key, module.temperature())
        patches = self.method.patches(scene[None], places, shares[None], rate=self.rate)
        outputs = self.method.segment(variables, patches[0])
        return jax.nn.softmax(self.method.logits(outputs), axis=-1)


def _batches(places: np.ndarray, size: int):
    """Yields [size, 2] locations and which of them are no padding."""
    for first in range(0, len(places), size):
        chosen = places[first : first + size]
        valid = np.arange(size) < len(chosen)
        yield np.resize(chosen, (size, 2)), valid


def _warn_of_gaps(counts: np.ndarray, grid: location.Grid, patch: int) -> None:
    left = int((counts == 0).sum())
    if not left:
        return
    height, width = counts.shape
    what = f"use a rate of {patch} px or less"
    if grid.rate <= patch:
        what = "cover=True adds a last row or column of locations"
    warnings.warn(
        f"{left} of {height} x {width} px ({left / counts.size:.1%}) lie in no patch "
        f"of {patch} px: one starts every {grid.rate} px, {grid.rows} x {grid.columns} "
        f"in all. They are labelled as class 0; {what}",
        stacklevel=3,
    )
