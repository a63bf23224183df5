"""Scene -> windows -> logits -> canvas -> labels: the only loop over windows there is.

A scene of any size passes through the device in bands, one per row of windows. A band
lies on the device as blocks of one fixed size, image (uint8) and canvas (float32 sums
of weighted class scores) alike, so that few programs serve every scene: one runs the
windows that start in a block, one takes the finished rows off a block, one moves its
image on. Every pixel is sent once and comes back as a label.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from uhrjax import sharding
from uhrjax.data import prepared
from uhrjax.methods import base
from uhrjax.tiling import blend as blend_lib
from uhrjax.tiling import plan
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib

UNSEEN = 255  # label of pixels that no window covered (skipped nodata)


class Scene(Protocol):
    """What the engine needs of a scene; `data.raster` and `PreparedScene` have it."""

    info: prepared.SceneInfo

    def read(self, window: window_lib.Window) -> np.ndarray: ...
    def read_valid(self, window: window_lib.Window) -> np.ndarray | None: ...


class Rows(NamedTuple):
    """Finished rows of a scene."""

    top: int
    labels: np.ndarray  # [h, W] uint8
    probabilities: np.ndarray | None  # [h, W, K] float32
    points: dict[str, np.ndarray]  # name -> [N, 2] float32 (y, x) scene px, of a band


class Engine:
    """Labels scenes of any size with one method; compiles once."""

    def __init__(self, method: base.Method, tiling: plan.Tiling):
        self._method, self.tiling = method, tiling
        tile, block = tiling.tile, tiling.block
        first = window_lib.Window(0, 0, tile, tile)
        self._wide = [view_lib.widen(first, view.scale) for view in method.views]
        self._margin = -min(wide.top for wide in self._wide)  # rows, columns of context
        self._left = -(-self._margin // block)  # blocks a window may reach back ...
        self._right = -(-(tile + self._margin) // block)  # ... and ahead
        self._mesh = sharding.make_mesh()
        self._everywhere = sharding.replicated(self._mesh)
        self._window = blend_lib.window_weights(tiling.blend, tile)
        self.run_windows = jax.jit(self._run_windows, donate_argnums=2)
        self.take_rows = jax.jit(self._take_rows, donate_argnums=0)
        self.move_image = jax.jit(self._move_image, donate_argnums=0)

    def label(
        self,
        variables: Any,
        scene: Scene,
        *,
        first_row: int = 0,
        on_windows: Callable[[int, int], None] = lambda done, skipped: None,
    ) -> Iterator[Rows]:
        """Yields the labels of a scene from top to bottom.

        Args:
            variables: of the method.
            scene: to label.
            first_row: rows above it are done already and are not handed out again.
            on_windows: called with how many windows were just done, and how many of
                them were skipped because they hold nodata only.

        Yields:
            Rows in order, without gaps; the same whatever `first_row`.
        """
        variables = jax.device_put(variables, self._everywhere)  # if not there yet
        size = (scene.info.height, scene.info.width)
        bands = plan.plan_bands(*size, self.tiling, first_row=first_row)
        count = -(-size[1] // self.tiling.block)
        canvases = [self._empty_canvas() for _ in range(count + 1)]
        images: list[jax.Array] = []
        ready: list[Rows] = []  # on their way back from the device
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reading = pool.submit(self._read_band, scene, bands, 0)
            for i, band in enumerate(bands):
                rows, seen, valid = reading.result()
                if i + 1 < len(bands):
                    reading = pool.submit(self._read_band, scene, bands, i + 1)
                images = self._move_down(images, rows, bands, i)
                points = []
                for call, is_seen in zip(band.calls, seen, strict=True):
                    if is_seen:
                        found = self._run_call(variables, call, images, canvases)
                        points.append((call, found))
                    number = int(call.valid.sum())
                    on_windows(number, 0 if is_seen else number)
                taken = self._take_band(band, canvases, count)
                ready.append((band, taken, points, valid))
                if len(ready) > 1:  # the device is at work on the next band
                    yield from self._collect(*ready.pop(0), size, first_row)
            for entry in ready:
                yield from self._collect(*entry, size, first_row)

    def count_windows(self, scene: Scene, *, first_row: int = 0) -> int:
        """Returns how many windows `label` will run or skip."""
        size = (scene.info.height, scene.info.width)
        bands = plan.plan_bands(*size, self.tiling, first_row=first_row)
        return sum(int(call.valid.sum()) for band in bands for call in band.calls)

    def _empty_canvas(self) -> tuple[jax.Array, jax.Array]:
        shape = (self.tiling.tile, self.tiling.block)
        empty = (
            np.zeros((*shape, self._method.num_classes), np.float32),
            np.zeros(shape, np.float32),
        )
        return jax.device_put(empty, self._everywhere)

    def _read_band(
        self, scene: Scene, bands: list[plan.Band], i: int
    ) -> tuple[np.ndarray, list[bool], np.ndarray | None]:
        """Reads what band i has below band i - 1; runs in the background.

        Returns:
            pixels [rows, W, 3]; per call whether any of its pixels is valid; the
            validity of the band's finished rows, None if all are.
        """
        tile, width, band = self.tiling.tile, scene.info.width, bands[i]
        bottom = band.top + tile + self._margin
        top = bottom - tile - 2 * self._margin
        if i:
            top = bands[i - 1].top + tile + self._margin
        rows = scene.read(window_lib.Window(top, 0, bottom - top, width))
        if self.tiling.border == "reflect":
            rows = self._reflect(rows, top, scene.info)
        here = window_lib.Window(band.top, 0, tile, width)
        valid = scene.read_valid(here)
        if valid is None:
            return rows, [True] * len(band.calls), None
        seen = []
        for call in band.calls:
            lefts = call.block * self.tiling.block + call.starts[call.valid]
            seen.append(bool(valid[:, lefts.min() : lefts.max() + tile].any()))
        return rows, seen, valid[: band.finished]

    def _reflect(
        self, rows: np.ndarray, top: int, info: prepared.SceneInfo
    ) -> np.ndarray:
        """Fills what a scene lacks to one window with its mirror image."""
        tile = self.tiling.tile
        if info.height < tile:
            line = plan.mirror(np.arange(tile), info.height) - top
            rows = rows.copy()
            rows[-top : tile - top] = rows[line]
        if info.width < tile:
            rows = rows[:, plan.mirror(np.arange(tile), info.width)]
        return rows

    def _move_down(
        self, images: list[jax.Array], rows: np.ndarray, bands: list[plan.Band], i: int
    ) -> list[jax.Array]:
        """Returns the band's image blocks: the last band's rows moved up, new below."""
        block, tall = self.tiling.block, self.tiling.tile + 2 * self._margin
        count = -(-rows.shape[1] // block)
        padded = np.zeros((tall, count * block, 3), np.uint8)
        padded[: len(rows), : rows.shape[1]] = rows
        pieces = [padded[:, j * block : (j + 1) * block] for j in range(count)]
        if not images:
            return [jax.device_put(piece, self._everywhere) for piece in pieces]
        advance = np.int32(bands[i].top - bands[i - 1].top)
        return [
            self.move_image(image, np.ascontiguousarray(piece), advance)
            for image, piece in zip(images, pieces, strict=True)
        ]

    def _move_image(
        self, image: jax.Array, rows: jax.Array, advance: jax.Array
    ) -> jax.Array:
        """Drops the first `advance` rows and appends as many of `rows`."""
        both = jnp.concatenate([image, rows])
        return jax.lax.dynamic_slice_in_dim(both, advance, len(image))

    def _run_call(
        self,
        variables: Any,
        call: plan.Call,
        images: list[jax.Array],
        canvases: list[tuple[jax.Array, jax.Array]],
    ) -> dict[str, jax.Array]:
        """Runs a call's windows, adds to its canvases, returns the method's points."""
        j = call.block
        around = range(j - self._left, j + self._right + 1)
        # Beyond the scene any block will do as long as none of it is seen: zeros.
        near = [
            images[k] if 0 <= k < len(images) else jnp.zeros_like(images[0])
            for k in around
        ]
        pair, points = self.run_windows(
            variables, near, canvases[j : j + 2], call.starts, call.valid, call.owned
        )
        canvases[j : j + 2] = pair
        return points

    def _run_windows(
        self,
        variables: Any,
        images: list[jax.Array],
        canvases: list[tuple[jax.Array, jax.Array]],
        starts: jax.Array,
        valid: jax.Array,
        owned: jax.Array,
    ) -> tuple[list[tuple[jax.Array, jax.Array]], dict[str, jax.Array]]:
        """Cuts a call's windows, labels them, adds their scores to two canvases."""
        tile, block = self.tiling.tile, self.tiling.block
        region = jnp.concatenate(images, axis=1)  # [tile + 2 margin, blocks, 3]
        views = jax.vmap(lambda start: self._cut_views(region, start))(starts)
        split = NamedSharding(self._mesh, PartitionSpec("data"))
        views = jax.lax.with_sharding_constraint(views, split)
        scores, points = self._score(variables, views)  # [B, tile, tile, K]
        line = jnp.arange(tile)
        top, bottom, left, right = (owned[:, k, None, None] for k in range(4))
        rows, columns = line[None, :, None], line[None, None, :]
        counts = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        counts &= valid[:, None, None]
        weights = jnp.where(counts, self._window, 0.0)  # [B, tile, tile]

        totals = [jnp.concatenate(pair, axis=1) for pair in zip(*canvases, strict=True)]
        for b in range(len(starts)):
            added = (weights[b, ..., None] * scores[b], weights[b])
            for k, value in enumerate(added):
                place = (0, starts[b]) + (0,) * (value.ndim - 2)
                old = jax.lax.dynamic_slice(totals[k], place, value.shape)
                totals[k] = jax.lax.dynamic_update_slice(totals[k], old + value, place)
        halves = [
            tuple(total[:, h * block : (h + 1) * block] for total in totals)
            for h in range(2)
        ]
        return halves, points

    def _score(
        self, variables: Any, views: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the scores of windows, and the method's points in them."""

        def once(views: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            outputs = self._method.apply(variables, {"views": views}, train=False)
            scores = self._method.logits(outputs)
            if self.tiling.score == "probabilities":
                scores = jax.nn.softmax(scores)
            return scores, self._method.points(outputs)

        if not self.tiling.tta:
            return once(views)

        def turned(k: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            scores, points = once(jax.lax.switch(k, _turns(2), views))
            return jax.lax.switch(k, _turns(1, back=True), scores), points

        # A loop, so that the network is compiled once.
        scores, points = jax.lax.map(turned, jnp.arange(8))
        return scores.mean(0), jax.tree.map(lambda leaf: leaf[0], points)

    def _cut_views(self, region: jax.Array, start: jax.Array) -> jax.Array:
        """Cuts all views of one window; `start` counts from the call's block."""
        crops = []
        for view, wide in zip(self._method.views, self._wide, strict=True):
            left = self._left * self.tiling.block + start + wide.left
            place = (self._margin + wide.top, left, 0)
            crop = jax.lax.dynamic_slice(region, place, (wide.height, wide.width, 3))
            crops.append(view_lib.reduce(crop, view))  # the host's own arithmetic
        return jnp.stack(crops)

    def _take_band(
        self, band: plan.Band, canvases: list[tuple[jax.Array, jax.Array]], count: int
    ) -> list[dict[str, jax.Array]]:
        """Takes the finished rows off all canvases and moves them up."""
        taken = []
        for j in range(count):
            rows, canvases[j] = self.take_rows(canvases[j], np.int32(band.finished))
            taken.append(rows)
        return taken

    def _take_rows(
        self, canvas: tuple[jax.Array, jax.Array], finished: jax.Array
    ) -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array]]:
        scores, weights = canvas
        labels = jnp.where(weights > 0, scores.argmax(-1), UNSEEN).astype(jnp.uint8)
        rows = {"labels": labels}
        if self.tiling.probabilities:
            mean = scores / jnp.maximum(weights, 1e-12)[..., None]
            is_logit = self.tiling.score == "logits"
            rows["probabilities"] = jax.nn.softmax(mean) if is_logit else mean
        return rows, tuple(_move_up(part, finished) for part in canvas)

    def _collect(
        self,
        band: plan.Band,
        taken: list[dict[str, jax.Array]],
        points: list[tuple[plan.Call, dict[str, jax.Array]]],
        valid: np.ndarray | None,
        size: tuple[int, int],
        first_row: int,
    ) -> Iterator[Rows]:
        """Waits for a band and yields its finished rows."""
        done = slice(max(first_row - band.top, 0), band.finished)
        if done.start >= done.stop:
            return
        joined = {
            name: np.concatenate([np.asarray(rows[name]) for rows in taken], axis=1)
            for name in taken[0]
        }
        labels = joined["labels"][done, : size[1]].copy()
        if valid is not None:
            labels[~valid[done]] = UNSEEN
        likely = joined.get("probabilities")
        if likely is not None:
            likely = likely[done, : size[1]]
        places = self._scene_points(band, points, size)
        yield Rows(band.top + done.start, labels, likely, places)

    def _scene_points(
        self,
        band: plan.Band,
        points: list[tuple[plan.Call, dict[str, jax.Array]]],
        size: tuple[int, int],
    ) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for call, named in points:
            lefts = call.block * self.tiling.block + call.starts
            corner = np.stack([np.full_like(lefts, band.top), lefts], 1)[:, None]
            for name, local in named.items():
                places = (np.asarray(local) + corner)[call.valid].reshape(-1, 2)
                inside = (places < size).all(1)  # not in the padding
                found.setdefault(name, []).append(places[inside].astype(np.float32))
        return {name: np.concatenate(parts) for name, parts in found.items()}


def _turns(axis: int, *, back: bool = False) -> list[plan.Callable[..., jax.Array]]:
    """Returns the 8 symmetries of the square on axes (axis, axis + 1)."""

    def turn(x: jax.Array, *, flip: bool, quarters: int) -> jax.Array:
        axes = (axis, axis + 1)
        if back:
            x = jnp.rot90(x, -quarters, axes)
            return jnp.flip(x, axis + 1) if flip else x
        return jnp.rot90(jnp.flip(x, axis + 1) if flip else x, quarters, axes)

    return [
        functools.partial(turn, flip=flip, quarters=quarters)
        for flip in (False, True)
        for quarters in range(4)
    ]


def _move_up(canvas: jax.Array, rows: jax.Array) -> jax.Array:
    """Drops the first rows and appends zeros."""
    both = jnp.concatenate([canvas, jnp.zeros_like(canvas)])
    return jax.lax.dynamic_slice_in_dim(both, rows, len(canvas))
