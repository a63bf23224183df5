"""MagNet on scenes that do not fit on the device: the pass of `progressive`, in parts.

Scene and maps stay on the host, the maps on its disk where they are large. What goes
through the device is a few patches, or some rows of a map, at a time. Every number is
computed as in `progressive`, by the same functions on the same values.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax import inference, progressive, scene_pass
from uhrjax.data import band as band_lib
from uhrjax.errors import InputError
from uhrjax.ops import mosaic, points, resize, roi
from uhrjax.tiling import bilinear, pyramid
from uhrjax.tiling import window as windows

IN_MEMORY_BYTES = 1 << 28  # a larger map lives in a temporary file


class Lines(NamedTuple):
    """Rows of a map from which rows of a taller one are made."""

    below: np.ndarray  # [n, w, K] float32
    above: np.ndarray  # [n, w, K] float32
    share: np.ndarray  # [n] float32, of `above`


class Mosaic(NamedTuple):
    """What `mosaic.Canvas` is, on the host; its total becomes the new map."""

    total: np.ndarray  # [H, W, K] float32
    divisor: np.ndarray  # [H, W] uint8
    inner: np.ndarray | None  # [H, W] uint8

    def rows(self, rows: np.ndarray, columns: Any = slice(None)) -> mosaic.Canvas:
        """Returns some px."""
        return mosaic.Canvas(
            *(None if x is None else x[rows][:, columns] for x in self)
        )


class WindowPass:
    """Labels scenes; compiles once per size of them."""

    def __init__(self, resident: scene_pass.ScenePass):
        """Compiles nothing yet; networks and options are those of `resident`."""
        self.method, self.options = resident.method, resident.options
        self._spread = resident.spread
        static = {"static_argnames": ("index", "scale")}
        self._label = jax.jit(self.method.label_patches)
        self._refine = jax.jit(self._refine_patches, **static)
        self._weigh = jax.jit(self._uncertainty_of_rows, **static)
        self._look = jax.jit(self._score_of_rows, **static)
        self._choose = jax.jit(self._choose_points, **static)
        self._merge = jax.jit(self._merge_rows, **static)
        self._enlarge = jax.jit(_enlarge, static_argnums=1)

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        first: np.ndarray | None = None,
        *,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> np.ndarray:
        """Returns the probabilities [H, W, K] float32 of a scene.

        Args:
            variables: of the method.
            scene: to label.
            first: see `scene_pass.ScenePass.label`.
            on_windows: called with how many patches were just done, and 0.
        """
        scales = self.scales(scene.info.height, scene.info.width)
        running = first
        if running is None:
            small = self._overview(scene, scales[0])
            running = np.asarray(self._label(variables, small[None])[0])
            on_windows(1, 0)
        for index, scale in enumerate(scales[1:], start=1):
            if self.options.passes(index):
                running = self._advance(
                    variables, scene, index, scale, running, on_windows
                )
        if running.shape[:2] != scales[-1].size:
            running = self._resize(running, scales[-1])
        return running

    def scales(self, height: int, width: int) -> tuple[pyramid.Scale, ...]:
        """Plans a scene of that size; raises InputError."""
        if height * width >= 2**31:
            raise InputError(
                f"a scene of {height} x {width} px is too large to be refined: its px "
                f"are counted in 32 bits, {2**31 - 1} at most; cut it"
            )
        module = self.method.module
        return pyramid.plan_scales(
            height, width, scales=module.scales, crop=module.crop
        )

    def _stage(self, index: int, scale: pyramid.Scale, variables: Any = None):
        """Returns what `progressive` does at a scale."""
        networks = progressive.networks_of(self.method, variables)
        return progressive.Stage(index, scale, networks, self.options)

    def _overview(self, scene: band_lib.Scene, scale: pyramid.Scale) -> np.ndarray:
        """Returns what `ScenePass` makes of a whole scene, [h, w, 3] uint8."""
        module = self.method.module
        height, width = module.input_size
        if module.coarse_resize == "two_steps":
            small = _shrink(scene, scale.size)
            return bilinear.resample(small, height=height, width=width)
        return _shrink(scene, module.input_size)

    def _advance(
        self,
        variables: Any,
        scene: band_lib.Scene,
        index: int,
        scale: pyramid.Scale,
        old: np.ndarray,
        on_windows: inference.OnWindows,
    ) -> np.ndarray:
        """Returns the map at a scale, as `progressive.Stage.advance` does."""
        where = {"index": index, "scale": scale}
        selected = self._select(old, **where)
        canvas = self._open(scale)
        patches = self._refined(variables, scene, old, selected, **where)
        for which, patch in patches:
            self._add(canvas, scale, which, patch)
            on_windows(1, 0)
        rows, columns = (np.asarray(x) for x in self._stage(**where).cells())
        score = np.concatenate(
            [
                self._look(
                    canvas.rows(some, columns), _lines(old, scale, some), **where
                )
                for some in _blocks(rows)
            ]
        )
        choice = self._choose(score, **where)
        for some in _blocks(np.arange(scale.height)):
            lines = _lines(old, scale, some)
            merged = self._merge(canvas.rows(some), lines, choice, some, **where)
            canvas.total[some] = merged
        return canvas.total

    def _select(
        self, old: np.ndarray, *, index: int, scale: pyramid.Scale
    ) -> np.ndarray:
        """Returns the patches to look at, in the order of writing."""
        stage = self._stage(index, scale)
        if stage.takes_any_order:
            return np.arange(scale.count)
        parts = [
            self._weigh(_lines(old, scale, some), index=index, scale=scale)
            for some in _blocks(np.arange(scale.height))
        ]
        return np.asarray(stage.order(stage.mean_of(jnp.concatenate(parts))))

    def _refined(
        self,
        variables: Any,
        scene: band_lib.Scene,
        old: np.ndarray,
        selected: np.ndarray,
        *,
        index: int,
        scale: pyramid.Scale,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields patches and their refined probabilities, of the size of their box."""
        bands = self._stage(index, scale).bands(old.shape[:2])
        waiting: list[tuple[np.ndarray, jax.Array]] = []
        for group in _groups(selected, self.options.patches_at_once):
            images = np.stack([self._cut(scene, scale, which) for which in group])
            given = _sections(old, bands, scale.places()[group])
            found = self._refine(variables, images, *given, index=index, scale=scale)
            waiting.append((group, found))
            if len(waiting) > 1:  # the device works on one while another is added
                yield from zip(*_fetched(waiting.pop(0)), strict=True)
        # A last group is filled up with the first patch, which must not count twice.
        group, found = _fetched(waiting.pop(0))
        rest = (len(selected) - 1) % len(group) + 1
        yield from zip(group[:rest], found[:rest], strict=True)

    def _cut(
        self, scene: band_lib.Scene, scale: pyramid.Scale, which: int
    ) -> np.ndarray:
        """Returns one patch of the scene resized, [h, w, 3] uint8."""
        corner = tuple(scale.corners()[which].tolist())
        size = (scene.info.height, scene.info.width)
        place = pyramid.window_of(scale, corner, height=size[0], width=size[1])
        return pyramid.cut(
            scene.read(place), scale, corner, size=self.method.module.input_size,
            scene=size, origin=(place.top, place.left),
        )  # fmt: skip

    def _open(self, scale: pyramid.Scale) -> Mosaic:
        counts = self.options.n_patches > 0 or self.options.overlap == "released"
        inner = np.zeros(scale.size, np.uint8) if counts else None
        is_released = self.options.overlap == "released"
        divisor = inner if is_released else np.zeros(scale.size, np.uint8)
        total = host_map((*scale.size, self.method.num_classes))
        return Mosaic(total, divisor, inner)

    def _add(
        self, canvas: Mosaic, scale: pyramid.Scale, which: int, patch: np.ndarray
    ) -> None:
        """Puts a patch of the size of its box onto the map, as `mosaic` does."""
        top, left = scale.corners()[which]
        height, width = scale.box
        place = np.s_[top : top + height, left : left + width]
        if self.options.overlap == "released":
            canvas.total[place] = patch
        else:
            canvas.total[place] += patch
            canvas.divisor[place] += 1
        if canvas.inner is not None:
            margin = progressive.MARGIN
            inside = max(height - 2 * margin, 0), max(width - 2 * margin, 0)
            canvas.inner[
                top + margin : top + margin + inside[0],
                left + margin : left + margin + inside[1],
            ] += 1

    def _resize(self, old: np.ndarray, scale: pyramid.Scale) -> np.ndarray:
        """Returns a map enlarged to a scale."""
        new = host_map((*scale.size, self.method.num_classes))
        for some in _blocks(np.arange(scale.height)):
            new[some] = self._enlarge(_lines(old, scale, some), scale.width)
        return new

    # What follows runs on the device.

    def _refine_patches(
        self,
        variables: Any,
        images: jax.Array,
        sections: jax.Array,
        rows: tuple[jax.Array, jax.Array],
        columns: tuple[jax.Array, jax.Array],
        *,
        index: int,
        scale: pyramid.Scale,
    ) -> jax.Array:
        networks = progressive.networks_of(self.method, variables)
        fine = networks.label(self._spread(images))
        coarse = jax.vmap(roi.mix)(sections, rows, columns)
        refined = networks.refine(index, fine, coarse)
        return resize.bilinear(refined, scale.box, align_corners=False)

    def _uncertainty_of_rows(
        self, lines: Lines, *, index: int, scale: pyramid.Scale
    ) -> jax.Array:
        return self._stage(index, scale).sum_across(_enlarge(lines, scale.width))

    def _score_of_rows(
        self, canvas: mosaic.Canvas, lines: Lines, *, index: int, scale: pyramid.Scale
    ) -> jax.Array:
        stage = self._stage(index, scale)
        enlarged = _enlarge(lines, scale.width, stage.cells()[1])
        return stage.score(*mosaic.divided(canvas), 1 - points.certainty(enlarged))

    def _choose_points(
        self, score: jax.Array, *, index: int, scale: pyramid.Scale
    ) -> points.Choice:
        score = self._stage(index, scale).smooth(score)
        return points.choose(score, scale.size, self.options.points(scale))

    def _merge_rows(
        self,
        canvas: mosaic.Canvas,
        lines: Lines,
        choice: points.Choice,
        rows: jax.Array,
        *,
        index: int,
        scale: pyramid.Scale,
    ) -> jax.Array:
        fresh, mask = mosaic.divided(canvas)
        columns = jnp.arange(scale.width)
        taken = self._stage(index, scale).replaced(choice, mask, rows, columns)
        return jnp.where(taken[..., None], fresh, _enlarge(lines, scale.width))


def _enlarge(lines: Lines, width: int, columns: jax.Array | None = None) -> jax.Array:
    """Returns rows [n, width, K], or some columns, of a map that is made larger."""
    share = jnp.asarray(lines.share)[:, None, None]
    rows = lines.below * (1 - share) + lines.above * share
    columns = jnp.arange(width) if columns is None else columns
    count = rows.shape[0]
    return resize.bilinear_at(rows, (count, width), jnp.arange(count), columns)


def _lines(old: np.ndarray, scale: pyramid.Scale, rows: np.ndarray) -> Lines:
    """Returns what some rows of a scale are made of."""
    low, high, share = _taps(old.shape[0], scale.height)
    return Lines(old[low[rows]], old[high[rows]], share[rows])


@functools.lru_cache(maxsize=8)
def _taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high, share = resize.taps(before, after, align_corners=False)
    return low, high, share.astype(np.float32)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Splits rows as `progressive.over_rows` does."""
    step = progressive.BLOCK
    return [rows[first : first + step] for first in range(0, len(rows), step)]


def _groups(selected: np.ndarray, most: int) -> list[np.ndarray]:
    """Splits patches as `progressive.in_chunks` does."""
    chunks = math.ceil(len(selected) / most)
    size = math.ceil(len(selected) / chunks)
    padded = np.resize(selected, chunks * size)
    padded[len(selected) :] = selected[0]
    return list(padded.reshape(chunks, size))


def _fetched(found: tuple[np.ndarray, jax.Array]) -> tuple[list[int], np.ndarray]:
    return found[0].tolist(), np.asarray(found[1])


def _sections(
    old: np.ndarray, bands: tuple[roi.Band, roi.Band], places: np.ndarray
) -> tuple[np.ndarray, tuple, tuple]:
    """Returns of each patch what it is made of: a part of the map, taps, taps."""
    rows, columns = bands
    parts = []
    for at in places:
        top, left = rows.origin[at[0]], columns.origin[at[1]]
        parts.append(old[top : top + rows.reach, left : left + columns.reach])
    taps = [
        (band.index[places[:, axis]], band.weight[places[:, axis]])
        for axis, band in enumerate(bands)
    ]
    return np.stack(parts), *taps


def _shrink(scene: band_lib.Scene, size: tuple[int, int]) -> np.ndarray:
    """Returns `bilinear.resample` of a whole scene, read in bands."""
    before = (scene.info.height, scene.info.width)
    rows, weight = bilinear.taps(before[0], size[0])
    columns = bilinear.taps(before[1], size[1])
    parts, first = [], 0
    while first < size[0]:
        top = max(int(rows[first]), 0)
        last = int(np.searchsorted(rows, rows[first] + progressive.BLOCK))
        bottom = min(int(rows[last - 1]) + 2, before[0])
        pixels = scene.read(windows.Window(top, 0, bottom - top, before[1]))
        some = slice(first, last)
        parts.append(bilinear.mix(pixels, (rows[some] - top, weight[some]), columns))
        first = last
    return np.concatenate(parts)


def host_map(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros, on the disk when large."""
    if 4 * math.prod(shape) <= IN_MEMORY_BYTES:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # gone with the map's last reference
        return np.memmap(file, np.float32, "w+", shape=shape)
