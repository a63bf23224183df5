"""Labelling a scene location by location: Foveation's counterpart of `inference`.

The foveation module looks at the scene once. Every location's patch is mixed, labelled
as the area of the smallest patch and added up there; patches overlap many times where
the grid of locations is finer than a patch. Scene and sums lie on the device, so a
scene must fit there; programs are compiled once per size of scenes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from uhrjax import canvas as canvas_lib
from uhrjax import cost as cost_lib
from uhrjax import errors, inference, sharding
from uhrjax.data import band as band_lib
from uhrjax.methods import foveation
from uhrjax.ops import resize
from uhrjax.tiling import location
from uhrjax.tiling import window as window_lib

AGGREGATIONS = ("sum", "max_score")
STRIP = 1024  # rows that are handed out at a time


class Found(NamedTuple):
    """What is known of a scene."""

    scores: np.ndarray  # [H, W, K] float32: sums of probabilities, or the surest ones
    counts: np.ndarray  # [H, W] int32: patches that cover a px
    fov: np.ndarray  # [h, w, D] float32: the distribution over patches, of all places
    locations: int  # that were labelled

    def labels(self) -> np.ndarray:
        """Returns [H, W] uint8; 0 where no patch was."""
        return self.scores.argmax(-1).astype(np.uint8)


class Cost(NamedTuple):
    """What labelling a scene takes."""

    locations: int
    gmac: float  # of both networks' layers


@dataclasses.dataclass(frozen=True)
class Options:
    """How a scene is labelled."""

    rate: int = 0  # px per location; 0: the module's scale
    aggregation: str = "sum"  # of probabilities, or "max_score": the surest patch's
    cover: bool = False  # more locations where rounding leaves a strip empty
    batch_size: int = 8  # locations per program call
    seed: int = 0  # of what is drawn
    probabilities: bool = False  # also hand them out


class FovealEngine:
    """Labels whole scenes as `inference.Engine` does; compiles once per size."""

    tiling = None  # no windows

    def __init__(self, method: foveation.FoveationMethod, options: Options):
        if options.aggregation not in AGGREGATIONS:
            raise ValueError(
                f"aggregation {options.aggregation!r}; use one of "
                f"{', '.join(AGGREGATIONS)}"
            )
        self.method, self.options = method, options
        self.settings: Any = options  # all that labels depend on, beside weights
        self.rate = options.rate or method.module.scale
        self._mesh = sharding.make_local_mesh()
        self.everywhere = sharding.replicated(self._mesh)
        keep = {"out_shardings": self.everywhere}
        self.look = jax.jit(self._distribution, static_argnums=2, **keep)
        self.add = jax.jit(self._add_locations, donate_argnums=0, **keep)
        self.decide = jax.jit(lambda sums: sums.argmax(-1).astype(jnp.uint8), **keep)

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields the labels of a scene, see `inference.Engine.label`.

        All of it is labelled, also the rows above `first_row`. `on_windows` is told of
        locations.
        """
        height, width = scene.info.height, scene.info.width
        image = scene.read(window_lib.Window(0, 0, height, width))
        with _fitting(self.method, height, width):
            sums, counts, _ = self._run(variables, image, on_windows)
            labels = np.asarray(self.decide(sums))
            for top in range(first_row, height, STRIP):
                rows = slice(top, min(top + STRIP, height))
                likely = None
                if self.options.probabilities:
                    likely = self._probabilities(np.asarray(sums[rows]), counts[rows])
                place = window_lib.Window(top, 0, rows.stop - top, width)
                valid = scene.read_valid(place)
                found = labels[rows].copy()
                if valid is not None:
                    found[~valid] = canvas_lib.UNSEEN
                yield inference.Rows(top, found, likely, {})

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many locations `label` will run."""
        return len(self._grid(scene.info.height, scene.info.width).locations())

    def explore(self, variables: Any, image: np.ndarray) -> Found:
        """Labels a scene [H, W, 3] uint8 and returns all that is known of it."""
        sums, counts, fov = self._run(variables, image, lambda done, skipped: None)
        locations = len(self._grid(*counts.shape).locations())
        return Found(np.asarray(sums), counts, np.asarray(fov), locations)

    def distribution(self, variables: Any, image: np.ndarray) -> np.ndarray:
        """Returns [h, w, D] float32, f at all places of a scene; labels nothing."""
        grid = self._grid(*image.shape[:2])
        return np.asarray(self.look(variables, image, (grid.rows, grid.columns))[0])

    def cost(self, height: int, width: int) -> Cost:
        """Returns what labelling a scene takes; nothing is run."""
        method, shapes = self.method, self.method.shapes()
        patch = method.module.bank[0]
        scene = jax.ShapeDtypeStruct((1, height, width, 3), jnp.uint8)
        patches = jax.ShapeDtypeStruct((1, patch, patch, 3), jnp.float32)
        once = cost_lib.multiply_accumulates(
            lambda v, s: method.look(v, s)[0], shapes, scene
        )
        each = cost_lib.multiply_accumulates(method.segment, shapes, patches)
        locations = len(self._grid(height, width).locations())
        return Cost(locations, (once + locations * each) / 1e9)

    def _run(
        self, variables: Any, image: np.ndarray, on_windows: inference.OnWindows
    ) -> tuple[jax.Array, np.ndarray, jax.Array]:
        """Returns the sums and, on the host, the counts of a scene; f at all places.

        Warns with numbers if px remain that no patch covers: their sums are 0.
        """
        height, width = image.shape[:2]
        patch, first = self.method.module.bank[0], self._first
        grid = self._grid(height, width)
        counts = location.counts(height, width, grid, patch=patch, first=first)
        _warn_of_gaps(counts, grid, patch)
        variables = jax.device_put(variables, self.everywhere)
        scene = jax.device_put(image, self.everywhere)
        fov, at_grid = self.look(variables, scene, (grid.rows, grid.columns))
        sums = self._open(grid, height, width)
        root = jax.random.key(self.options.seed)
        shared = NamedSharding(self._mesh, PartitionSpec("data"))
        for places, valid in _batches(grid.locations(), self._batch_size):
            given = jax.device_put((places, valid), shared)
            sums = self.add(sums, variables, scene, at_grid, *given, root)
            on_windows(int(valid.sum()), 0)
        top = max(-first, 0)
        return sums[top : top + height, top : top + width], counts, fov

    @property
    def _first(self) -> int:
        return self.method.module.crops.first(self.rate)

    @property
    def _batch_size(self) -> int:
        """Returns the locations of a call, as many on every device."""
        return -(-self.options.batch_size // self._mesh.size) * self._mesh.size

    def _grid(self, height: int, width: int) -> location.Grid:
        return location.plan_grid(
            height, width, rate=self.rate, patch=self.method.module.bank[0],
            first=self._first, cover=self.options.cover,
        )  # fmt: skip

    def _probabilities(self, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Returns scores [h, W, K] as probabilities; equal ones where no patch was."""
        covered = counts[..., None] > 0
        if self.options.aggregation == "sum":
            scores = scores / np.maximum(counts, 1)[..., None]
        return np.where(covered, scores, np.float32(1 / scores.shape[-1]))

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
        shape = (*sides, self.method.num_classes)
        return jnp.zeros(shape, jnp.float32, device=self.everywhere)

    def _add_locations(
        self,
        sums: jax.Array,
        variables: Any,
        scene: jax.Array,
        at_grid: jax.Array,
        places: jax.Array,
        valid: jax.Array,
        root: jax.Array,
    ) -> jax.Array:
        """Labels the patches at [N, 2] locations, one after the other into the sums."""
        scores = self._score(variables, scene, at_grid, places, root)
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
        root: jax.Array,
    ) -> jax.Array:
        """Returns the probabilities [N, P, P, K] of patches."""
        rows = jnp.minimum(places[:, 0], at_grid.shape[0] - 1)
        columns = jnp.minimum(places[:, 1], at_grid.shape[1] - 1)
        module, tau = self.method.module, self.method.module.temperature()

        def select(log_f: jax.Array, place: jax.Array) -> jax.Array:
            # What is drawn depends on the place, not on how many go at a time.
            key = jax.random.fold_in(jax.random.fold_in(root, place[0]), place[1])
            return module.select(log_f, key, tau)[0]

        shares = jax.vmap(select)(at_grid[rows, columns], places)
        patches = self.method.patches(scene[None], places, shares[None], rate=self.rate)
        outputs = self.method.segment(variables, patches[0])
        return jax.nn.softmax(self.method.logits(outputs), axis=-1)


def _batches(places: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields [size, 2] locations and which of them are no padding."""
    for first in range(0, len(places), size):
        chosen = places[first : first + size]
        valid = np.arange(size) < len(chosen)
        yield np.resize(chosen, (size, 2)), valid


@contextlib.contextmanager
def _fitting(
    method: foveation.FoveationMethod, height: int, width: int
) -> Iterator[None]:
    """Tells of a scene for which the device's memory does not suffice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        megabytes = height * width * (3 + 4 * method.num_classes) / 1e6
        raise errors.InputError(
            f"a scene of {height} x {width} px does not fit on the device: it lies "
            f"there as a whole, with float32 scores of {method.num_classes} classes "
            f"{megabytes:.0f} MB, beside {method.tile} px patches of which "
            "config.eval.batch_size says how many at a time; cut the scene, or lower "
            "eval.batch_size"
        ) from error


def _warn_of_gaps(counts: np.ndarray, grid: location.Grid, patch: int) -> None:
    left = int((counts == 0).sum())
    if not left:
        return
    height, width = counts.shape
    what = f"use a rate of {patch} px or less (config.eval.rate)"
    if grid.rate <= patch:
        what = "config.eval.cover=True adds a last row or column of locations"
    warnings.warn(
        f"{left} of {height} x {width} px ({left / counts.size:.1%}) lie in no patch "
        f"of {patch} px: one starts every {grid.rate} px, {grid.rows} x {grid.columns} "
        f"in all. They are labelled as class 0; {what}",
        stacklevel=4,
    )
