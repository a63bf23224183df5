"""Label maps refined on their way out: a second network behind any method.

The second network sees label maps only, in wider windows than the first. Both pass over
the scene band by band, the second a few bands behind; the labels between them stay on
the device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax import canvas, cascade, errors, inference
from uhrjax.data import band as band_lib
from uhrjax.methods import base, cascadepsp
from uhrjax.tiling import plan
from uhrjax.tiling import window as window_lib


class CascadedEngine:
    """An engine and CascadePSP behind it, which sees whole label maps.

    The label map of a scene is finished first (in a file where it is large); refined
    rows come out afterwards, and an interrupted scene is labelled again from its start.
    """

    def __init__(
        self,
        first: Any,
        method: cascadepsp.CascadePSPMethod,
        weights: Any,
        *,
        side: int,
    ):
        """Joins a segmenting engine and a refiner, see `cascade`; `side` in px."""
        self._first, self._refiner, self._weights = first, method, weights
        self._side = side
        self.method, self.tiling = first.method, first.tiling
        self.settings = (first.settings, side)

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many windows of the first network `label` runs or skips."""
        return self._first.count_windows(scene)

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields refined labels, see `inference.Engine.label`."""
        labels = _all_labels(self._first, variables, scene, on_windows)
        refined = cascade.refine_label_rows(
            self._refiner, self._weights, scene.read, labels, side=self._side
        )
        yield from rows_from(refined, first_row)


class TwoPassEngine:
    """An engine that labels a whole scene at once, and a refining one behind it.

    The second begins when the first has finished; an interrupted scene is labelled
    again from its start.
    """

    def __init__(self, first: Any, second: inference.Engine, weights: Any):
        """Joins a segmenting and a refining engine, see `RefinedEngine`."""
        check_classes(first.method, second.method)
        self._first, self._second, self._weights = first, second, weights
        self.method, self.tiling = first.method, second.tiling
        self.settings = (first.settings, second.settings)

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many windows `label` runs or skips."""
        later = self._second.count_windows(scene, first_row=first_row)
        return self._first.count_windows(scene) + later

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields refined labels, see `inference.Engine.label`."""
        labels = _all_labels(self._first, variables, scene, on_windows)
        yield from self._second.label(
            self._weights, _LabelledScene(scene, labels), first_row=first_row,
            on_windows=on_windows,
        )  # fmt: skip


class _LabelledScene:
    """The label map of a scene, as a refining engine reads it."""

    def __init__(self, scene: band_lib.Scene, labels: np.ndarray):
        self.info, self.read_valid, self._labels = scene.info, scene.read_valid, labels

    def read(self, window: window_lib.Window) -> np.ndarray:
        """Returns uint8 [h, w, 1] class ids, 255 beyond the border."""
        return window_lib.cut(self._labels, window, fill=canvas.UNSEEN)[..., None]


class MaskEngine:
    """CascadePSP alone: an engine for label maps that are there already.

    Its scenes have, beside `read`, an `image` to read windows of.
    """

    def __init__(self, method: cascadepsp.CascadePSPMethod, *, side: int):
        """`side` in px, see `cascade`."""
        self.method, self.settings, self._side = method, ("cascade", side), side

    def count_windows(self, scene: Any, *, first_row: int = 0) -> int:
        """Returns how many rows `label` will tell of."""
        return scene.info.height

    def label(
        self,
        variables: Any,
        scene: Any,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields refined labels, see `inference.Engine.label`."""
        height, width = scene.info.height, scene.info.width
        labels = inference.label_array(height, width)
        for top in range(0, height, self._side):
            rows = window_lib.Window(top, 0, min(self._side, height - top), width)
            labels[top : top + rows.height] = scene.read(rows)[..., 0]
        refined = cascade.refine_label_rows(
            self.method, variables, scene.image.read, labels, side=self._side
        )
        for rows in refined:
            on_windows(len(rows.values), 0)
            yield from rows_from([rows], first_row)


def check_classes(first: base.Method, second: base.Method) -> None:
    """Refuses a refining network that knows other classes."""
    ours, theirs = first.num_classes, second.num_classes
    if ours != theirs:
        raise errors.InputError(
            f"the refining network was trained for {theirs} classes, the scenes "
            f"are labelled with {ours}; use one trained on the same data"
        )


def _all_labels(
    first: Any,
    variables: Any,
    scene: band_lib.Scene,
    on_windows: inference.OnWindows,
) -> np.ndarray:
    """Returns the whole label map of a scene, uint8 [H, W], by the first engine."""
    labels = inference.label_array(scene.info.height, scene.info.width)
    for rows in first.label(variables, scene, on_windows=on_windows):
        labels[rows.top : rows.top + len(rows.labels)] = rows.labels
    return labels


def rows_from(rows: Iterable[cascade.Rows], first_row: int) -> Iterator[inference.Rows]:
    """Yields label rows without those above `first_row`."""
    for top, labels in rows:
        new = labels[max(first_row - top, 0) :]
        if len(new):
            yield inference.Rows(top + len(labels) - len(new), new, None, {})


class RefinedEngine:
    """Two engines as one; it labels scenes as `inference.Engine` does."""

    def __init__(self, first: inference.Engine, second: inference.Engine, weights: Any):
        """Joins a segmenting and a refining engine.

        Args:
            first: of any method.
            second: of a method that reads labels; of the same tile, stride, grid and
                batch size.
            weights: variables of the second.

        Raises:
            errors.InputError: the refining network knows other classes.
        """
        check_classes(first.method, second.method)
        self._first, self._second, self._weights = first, second, weights
        self.method, self.tiling = first.method, second.tiling
        self.settings = (first.settings, second.settings)
        tile, block = second.tiling.tile, second.tiling.block
        self._tall = tile + 2 * second.margin  # rows that a band of the second sees
        # Bands of the first end up to one tile below, and begin up to one above.
        self._room = self._tall + 3 * tile
        strip = np.full((self._room, block, 1), canvas.UNSEEN, np.uint8)
        self._empty = jax.device_put(strip, first.everywhere)
        # Partials: a function that is compiled twice shares what it compiled.
        self.write = jax.jit(functools.partial(_write), donate_argnums=0)
        self.cut = jax.jit(functools.partial(_cut, rows=self._tall))
        self.drop = jax.jit(functools.partial(_drop), donate_argnums=0)

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many windows of the first network `label` runs or skips."""
        return self._first.count_windows(
            scene, first_row=self._first_row(scene, first_row)
        )

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields refined labels, see `inference.Engine.label`."""
        second = self._second
        bands = self._bands(scene, first_row)
        crude = self._first.run(
            variables, scene, first_row=self._first_row(scene, first_row),
            on_windows=on_windows,
        )  # fmt: skip
        loaded = self._load(scene, bands, crude)
        weights = jax.device_put(self._weights, self._first.everywhere)
        groups = second.run_bands(weights, {}, bands, loaded, lambda *counts: None)
        yield from second.hand_out(groups, first_row)

    def _bands(self, scene: band_lib.Scene, first_row: int) -> list[plan.Band]:
        size = (scene.info.height, scene.info.width)
        return plan.plan_bands(*size, self.tiling, first_row=first_row)

    def _first_row(self, scene: band_lib.Scene, first_row: int) -> int:
        """Returns the first row of labels that the second network looks at."""
        return max(self._bands(scene, first_row)[0].top - self._second.margin, 0)

    def _load(
        self,
        scene: band_lib.Scene,
        bands: list[plan.Band],
        crude: Iterator[list[inference.Labelled]],
    ) -> Iterator[inference.Labelled]:
        """Yields the second network's bands as soon as their labels are there."""
        size = (scene.info.height, scene.info.width)
        margin, tile = self._second.margin, self.tiling.tile
        strips = [self._empty] * bands[0].blocks
        base, filled = None, -1  # row of the strips' top; rows below this are missing
        valid: dict[int, np.ndarray | None] = {}  # by the top of a band
        for band in bands:
            while filled < min(band.top + tile + margin, size[0]):
                for labelled in next(crude):
                    top = labelled.band.top
                    if base is None:
                        base = min(top, band.top - margin)
                    offset = np.int32(top - base)
                    strips = [
                        self.write(
                            strip.copy() if strip is self._empty else strip,
                            taken["labels"], offset, self._inside(labelled, j),
                        )
                        for j, (strip, taken) in enumerate(
                            zip(strips, labelled.taken, strict=True)
                        )
                    ]  # fmt: skip
                    filled = top + labelled.band.finished
                    valid[top] = labelled.valid
            advance = band.top - margin - base
            strips = [self.drop(strip, np.int32(advance)) for strip in strips]
            base += advance
            images = [self.cut(strip) for strip in strips]
            yield inference.Labelled(band, images, 0, valid.pop(band.top), size)

    def _inside(self, labelled: inference.Labelled, j: int) -> np.ndarray:
        """Returns which pixels of a block are of the scene and hold data, [h, w]."""
        tile, block = self.tiling.tile, self.tiling.block
        height, width = labelled.size
        inside = np.zeros((tile, block), bool)
        columns = min(block, width - j * block)
        inside[: height - labelled.band.top, :columns] = True
        if labelled.valid is not None:
            valid = labelled.valid[:, j * block : j * block + columns]
            inside[: len(valid), :columns] &= valid
        return inside


def _write(
    strip: jax.Array, labels: jax.Array, offset: jax.Array, inside: jax.Array
) -> jax.Array:
    """Writes a block of labels; rows it has not finished are overwritten later."""
    labels = jnp.where(inside, labels, canvas.UNSEEN).astype(strip.dtype)
    return jax.lax.dynamic_update_slice(strip, labels[..., None], (offset, 0, 0))


def _cut(strip: jax.Array, *, rows: int) -> jax.Array:
    return strip[:rows]


def _drop(strip: jax.Array, rows: jax.Array) -> jax.Array:
    """Drops rows at the top."""
    room = jnp.full_like(strip, canvas.UNSEEN)
    both = jnp.concatenate([strip, room])
    return jax.lax.dynamic_slice_in_dim(both, rows, len(strip))
