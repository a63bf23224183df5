"""MagNet's pass over a scene: from its smallest scale to its own, patch by patch.

`run` is one pure function of a scene's overview and of what cuts its patches. It keeps
the running map of probabilities of one scale, the patches' refined ones of the next
and, while it writes, that next map. Everything else is done in blocks of rows or on
maps of the networks' input size: the score of a pixel is known cell by cell only, and
the map before is never enlarged as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.methods import magnet
from uhrjax.ops import mosaic, points, resize, roi, smooth
from uhrjax.tiling import pyramid

SCORES = ("product", "uncertainty")
PATCH_ORDERS = ("most", "least")
SMOOTHINGS = ("median", "gaussian")
MARGIN = 10  # px, the frame of a patch that does not count as covered
BLOCK = 128  # rows that are enlarged at a time


@dataclasses.dataclass(frozen=True)
class Options:
    """How the pass works; the defaults are DeepGlobe's, with the rules as intended."""

    n_points: float = 0.75  # px replaced at a scale, or (up to 1) their share
    n_patches: int = -1  # looked at per scale, the most uncertain; -1: all, 0: none
    kernel: int = 11  # side of the window that smooths the score, odd
    smoothing: str = "median"  # or "gaussian", which the code has, unused
    score: str = "product"  # certainty of the new times uncertainty of the old, or the
    # "uncertainty" alone
    overlap: str = "mean"  # of patches, or "released", see `mosaic`
    patch_order: str = "most"  # uncertain first, or "least", as the code has it
    stages: int = -1  # scales after the first that are passed over; -1: all
    patches_at_once: int = 1  # that pass through the networks together

    def __post_init__(self) -> None:
        for name, known in (
            ("smoothing", SMOOTHINGS),
            ("score", SCORES),
            ("overlap", mosaic.RULES),
            ("patch_order", PATCH_ORDERS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; use one of "
                    f"{', '.join(known)}"
                )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(
                f"kernel {self.kernel} has no centre; use an odd number of px, e.g. "
                f"{max(self.kernel, 0) + 1}"
            )
        if self.n_points <= 0 or self.n_patches < -1 or self.patches_at_once < 1:
            raise ValueError(
                f"n_points {self.n_points}, n_patches {self.n_patches}, "
                f"patches_at_once {self.patches_at_once}: use points above 0 (up to 1: "
                "a share), patches -1 (all) or more, 1 or more at once"
            )
        if self.stages < -1:
            raise ValueError(f"stages {self.stages}: use -1 (all), 0 (none) or more")

    def passes(self, index: int) -> bool:
        """Returns whether a scale, counted from 0, is passed over."""
        return self.n_patches != 0 and (self.stages < 0 or index <= self.stages)

    def patches(self, scale: pyramid.Scale) -> int:
        """Returns how many patches of a scale are looked at."""
        return scale.count if self.n_patches < 0 else min(self.n_patches, scale.count)

    def points(self, scale: pyramid.Scale) -> int:
        """Returns how many pixels of a scale are replaced; at least one."""
        pixels, share = scale.height * scale.width, self.patches(scale) / scale.count
        if self.n_points <= 1:
            return max(1, int(pixels * self.n_points * share))
        return max(1, int(min(self.n_points, pixels * share)))


class Networks(NamedTuple):
    """What labels and refines patches of one size."""

    size: tuple[int, int]  # (height, width) of a patch, px
    label: Callable[[jax.Array], jax.Array]  # images [N, h, w, 3] -> [N, h, w, K]
    # Index of the scale, the patches' own probabilities, those of the scale before.
    refine: Callable[[int, jax.Array, jax.Array], jax.Array]
    roi_aligned: bool = False


class Record(NamedTuple):
    """What happened at a scale; maps [h, w] are of the networks' input size."""

    selected: jax.Array  # [n] int32, the patches, in the order they were written
    patch_uncertainty: jax.Array  # [N] float32, their mean one; zeros if not needed
    uncertainty: jax.Array  # [h, w] float32, of the enlarged old map
    score: jax.Array  # [h, w] float32, smoothed
    chosen: jax.Array  # [h, w] bool, whether the cell's pixel was replaced
    before: jax.Array  # [h, w] uint8, labels of the enlarged old map
    after: jax.Array  # [h, w] uint8, of the new one
    # Of the scale's size, kept on request only:
    points: jax.Array | None  # [H, W] bool, the most promising
    mask: jax.Array | None  # [H, W] bool, those that patches cover; None: all
    probabilities: jax.Array | None  # [H, W, K] float32


def networks_of(method: magnet.MagNetMethod, variables: Any) -> Networks:
    """Returns the networks of a method with their weights."""
    return Networks(
        method.module.input_size,
        lambda images: method.label_patches(variables, images),
        lambda stage, fine, coarse: method.refine(variables, stage, fine, coarse),
        method.module.roi_aligned,
    )


Cut = Callable[[int, jax.Array], jax.Array]  # scale, patch -> image [h, w, 3]


def run(
    networks: Networks,
    first: jax.Array,
    cut: Cut,
    scales: tuple[pyramid.Scale, ...],
    options: Options,
    *,
    spread: Callable[[jax.Array], jax.Array] = lambda images: images,
    keep: bool = False,
) -> tuple[jax.Array, list[Record]]:
    """Passes over all scales but the first.

    Args:
        networks: label and refine patches.
        first: [h, w, K] float32, probabilities of the whole scene, of any size.
        cut: returns one patch; its arguments are the index of the scale and which one.
        scales: of the scene, ascending.
        options: how.
        spread: puts images [N, h, w, 3] where they should be worked on.
        keep: whole maps in the records, too.

    Returns:
        The probabilities [H, W, K] float32 at the last scale, and a record per scale.
    """
    running, records = first, []
    for index, scale in enumerate(scales[1:], start=1):
        if not options.passes(index):
            continue
        stage = Stage(index, scale, networks, options)
        running, record = stage.advance(running, cut, spread, keep)
        records.append(record)
    size = scales[-1].size
    if running.shape[:2] != size:
        running = resize.bilinear(running[None], size, align_corners=False)[0]
    return running, records


@dataclasses.dataclass(frozen=True)
class Stage:
    """One scale of the pass; its methods are pure functions of arrays."""

    index: int
    scale: pyramid.Scale
    networks: Networks
    options: Options

    @property
    def is_selective(self) -> bool:
        """Whether some patches are left out, so that some pixels are not covered."""
        return self.options.n_patches > 0

    def advance(
        self, old: jax.Array, cut: Cut, spread: Callable, keep: bool
    ) -> tuple[jax.Array, Record]:
        """Returns the map at this scale."""
        selected, uncertain = self.select(old)
        patches = self.refine_patches(old, selected, cut, spread)
        canvas = self.assemble(patches, selected)
        cells = self.cells()
        enlarged = resize.bilinear_at(old, self.scale.size, *cells)
        fresh, mask = mosaic.read(canvas, *cells)
        uncertainty = 1 - points.certainty(enlarged)
        score = self.smooth(self.score(fresh, mask, uncertainty))
        choice = points.choose(score, self.scale.size, self.options.points(self.scale))
        new = self.write(old, canvas, choice)
        size = self.scale.size
        lines = tuple(map(jnp.arange, size))
        record = Record(
            selected,
            uncertain,
            uncertainty,
            score,
            self.replaced(choice, mask, *cells),
            enlarged.argmax(-1).astype(jnp.uint8),
            new[cells[0]][:, cells[1]].argmax(-1).astype(jnp.uint8),
            points.chosen(choice, *lines, size) if keep else None,
            canvas.inner > 0 if keep and canvas.inner is not None else None,
            new if keep else None,
        )
        return new, record

    def cells(self) -> tuple[jax.Array, jax.Array]:
        """Returns the rows and columns of this scale whose score is looked at."""
        return tuple(
            jnp.asarray(points.sources(length, count))
            for length, count in zip(self.scale.size, self.networks.size, strict=True)
        )

    @property
    def takes_any_order(self) -> bool:
        """Whether all patches are looked at and the order of writing is irrelevant."""
        return not self.is_selective and self.options.overlap == "mean"

    def select(self, old: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the patches to look at, in the order of writing, and how uncertain
        the old map is in each."""
        if self.takes_any_order:
            zeros = jnp.zeros(self.scale.count, jnp.float32)
            return jnp.arange(self.scale.count), zeros
        uncertain = self.patch_uncertainty(old)
        return self.order(uncertain), uncertain

    def order(self, uncertain: jax.Array) -> jax.Array:
        """Returns the patches to look at by uncertainty [N], ties by lower index."""
        sign = -1 if self.is_selective and self.options.patch_order == "most" else 1
        count = self.options.patches(self.scale)
        return jnp.argsort(sign * uncertain, stable=True)[:count]

    def patch_uncertainty(self, old: jax.Array) -> jax.Array:
        """Returns the mean uncertainty of all patches [N], RoI-aligned."""
        scale, columns = self.scale, jnp.arange(self.scale.width)

        def add(total: jax.Array, rows: jax.Array) -> jax.Array:
            part = self.sum_across(resize.bilinear_at(old, scale.size, rows, columns))
            return jax.lax.dynamic_update_slice(total, part, (rows[0], 0))

        start = jnp.zeros((scale.height, len(scale.lefts)), jnp.float32)
        return self.mean_of(over_rows(add, start, scale.height))

    def sum_across(self, rows: jax.Array) -> jax.Array:
        """Returns per row, column of patches: the mean uncertainty [h, lefts]."""
        # Highest precision: it decides an order.
        return jnp.matmul(
            1 - points.certainty(rows), self.means(1).T,
            precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip

    def mean_of(self, sums: jax.Array) -> jax.Array:
        """Returns the mean uncertainty of all patches [N], of `sum_across` [H, n]."""
        highest = jax.lax.Precision.HIGHEST
        return jnp.matmul(self.means(0), sums, precision=highest).T.reshape(-1)

    def means(self, axis: int) -> np.ndarray:
        """Returns what takes the mean over each patch along an axis [n, length]."""
        scale = self.scale
        return roi.mean_matrix(
            np.array((scale.tops, scale.lefts)[axis]), scale.box[axis],
            length=scale.size[axis], out=self.networks.size[axis],
            aligned=self.networks.roi_aligned,
        )  # fmt: skip

    def bands(self, before: tuple[int, ...]) -> tuple[roi.Band, roi.Band]:
        """Returns what cuts patches out of an old map of (height, width) `before`."""
        scale = self.scale
        return tuple(
            roi.bands(
                np.array(starts), side, length=length, out=out, before=old,
                aligned=self.networks.roi_aligned,
            )
            for starts, side, length, out, old in zip(
                (scale.tops, scale.lefts), scale.box, scale.size, self.networks.size,
                before, strict=True,
            )
        )  # fmt: skip

    def refine_patches(
        self, old: jax.Array, selected: jax.Array, cut: Cut, spread: Callable
    ) -> jax.Array:
        """Returns the refined probabilities [n, h, w, K] of some patches."""
        networks, bands = self.networks, self.bands(old.shape[:2])
        places = jnp.asarray(self.scale.places())

        def refine(which: jax.Array) -> jax.Array:
            images = jax.vmap(functools.partial(cut, self.index))(which)
            fine = networks.label(spread(images))
            coarse = jax.vmap(functools.partial(roi.cut, old, *bands))(places[which])
            return networks.refine(self.index, fine, coarse)

        return in_chunks(refine, selected, self.options.patches_at_once)

    def assemble(self, patches: jax.Array, selected: jax.Array) -> mosaic.Canvas:
        """Puts refined patches onto a map of this scale."""
        return mosaic.assemble(
            patches,
            jnp.asarray(self.scale.corners())[selected],
            box=self.scale.box,
            size=self.scale.size,
            rule=self.options.overlap,
            margin=MARGIN if self.is_selective else None,
        )

    def score(
        self, fresh: jax.Array, mask: jax.Array | None, uncertainty: jax.Array
    ) -> jax.Array:
        """Returns how much is to be gained at every cell [h, w]."""
        score = uncertainty
        if self.options.score == "product":
            score = points.certainty(fresh) * uncertainty
        return jnp.where(mask, score, 0.0) if self.is_selective else score

    def smooth(self, score: jax.Array) -> jax.Array:
        """Returns a smoothed score [h, w]."""
        side = self.options.kernel
        if self.options.smoothing == "median":
            return smooth.median(score[None], side)[0]
        sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8  # OpenCV's rule
        return smooth.gaussian(score[None], (side, side), (sigma, sigma))[0]

    def write(
        self, old: jax.Array, canvas: mosaic.Canvas, choice: points.Choice
    ) -> jax.Array:
        """Returns the old map, enlarged, with the chosen pixels replaced."""
        columns = jnp.arange(self.scale.width)

        def one(total: jax.Array, rows: jax.Array) -> jax.Array:
            fresh, mask = mosaic.read_rows(
                canvas._replace(total=total), rows[0], len(rows)
            )
            enlarged = resize.bilinear_at(old, self.scale.size, rows, columns)
            taken = self.replaced(choice, mask, rows, columns)
            merged = jnp.where(taken[..., None], fresh, enlarged)
            return jax.lax.dynamic_update_slice(total, merged, (rows[0], 0, 0))

        return over_rows(one, canvas.total, self.scale.height)

    def replaced(
        self,
        choice: points.Choice,
        mask: jax.Array | None,
        rows: jax.Array,
        columns: jax.Array,
    ) -> jax.Array:
        """Returns which pixels of some rows and columns [h, w] are replaced."""
        taken = points.chosen(choice, rows, columns, self.scale.size)
        return taken & mask if self.is_selective else taken


def over_rows(
    step: Callable[[Any, jax.Array], Any], state: Any, height: int, block: int = BLOCK
) -> Any:
    """Applies `step(state, rows)` to all rows of a map, some at a time, each once."""
    block = min(block, height)

    def one(i: jax.Array, state: Any) -> Any:
        return step(state, i * block + jnp.arange(block))

    state = jax.lax.fori_loop(0, height // block, one, state)
    rest = np.arange(height // block * block, height)
    return step(state, jnp.asarray(rest)) if len(rest) else state


def in_chunks(
    function: Callable[[jax.Array], jax.Array], index: jax.Array, most: int
) -> jax.Array:
    """Returns function(index), computed for at most `most` entries at a time.

    Chunks are of one size; the first entry fills the last one up.
    """
    count = len(index)
    chunks = -(-count // most)
    size = -(-count // chunks)
    padded = jnp.concatenate([index, jnp.repeat(index[:1], chunks * size - count)])
    found = jax.lax.map(function, padded.reshape(chunks, size))
    return found.reshape(-1, *found.shape[2:])[:count]
