"""Scene -> windows -> logits -> canvas -> labels: the only loop over windows there is.

A scene of any size passes through the device in bands, one per row of windows, and a
band in blocks of one fixed size, from left to right. A block's canvas (float32 sums of
weighted class scores) takes what the band above left in its rows (carry) and what the
block to the left left in its columns (apron), adds its own windows, hands out the rows
that are finished and leaves a carry and an apron behind. So few programs of fixed
shapes serve every scene, only the overlap of bands is kept across the width of a scene,
every pixel is sent once and comes back as a label.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from uhrjax import sharding
from uhrjax.data import band as band_lib
from uhrjax.data import overview as overview_lib
from uhrjax.methods import base
from uhrjax.ops import symmetry
from uhrjax.tiling import blend as blend_lib
from uhrjax.tiling import plan
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib

Canvas = tuple[jax.Array, jax.Array]  # scores [h, w, K], weights [h, w]
UNSEEN = 255  # label of pixels that no window covered (skipped nodata)


class Rows(NamedTuple):
    """Finished rows of a scene."""

    top: int
    labels: np.ndarray  # [h, W] uint8
    probabilities: np.ndarray | None  # [h, W, K] float32
    points: dict[str, np.ndarray]  # name -> [N, 2] float32 (y, x) scene px, of a band


@dataclasses.dataclass
class _Labelled:
    """A band on the device, and what came out of it."""

    band: plan.Band
    images: list[jax.Array]  # per block
    seen: list[bool]  # per call: whether any of its pixels is valid
    valid: np.ndarray | None  # of the finished rows, None: all
    size: tuple[int, int]  # of the scene, px
    taken: list[dict[str, jax.Array]] = dataclasses.field(default_factory=list)
    points: list[tuple[plan.Call, dict[str, jax.Array]]] = dataclasses.field(
        default_factory=list
    )

    def place_of(self, call: plan.Call, block: int) -> dict[str, np.ndarray]:
        """Returns `position` and `scene_size` of a call's windows, as in a batch."""
        lefts = call.block * block + call.starts
        position = np.stack([np.full_like(lefts, self.band.top), lefts], 1)
        size = np.broadcast_to(np.array(self.size, np.int32), position.shape)
        return {"position": position, "scene_size": size}

    def calls_of(self, block: int) -> Iterator[tuple[plan.Call, bool]]:
        """Yields the calls of one block, and whether they are to be run."""
        for call, is_seen in zip(self.band.calls, self.seen, strict=True):
            if call.block == block:
                yield call, is_seen


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
        self._overlap = tile - plan.shortest_step(tiling)  # rows of a carry
        self._window = blend_lib.window_weights(tiling.blend, tile)
        self.open_block = jax.jit(self._open_block)
        self.run_windows = jax.jit(self._run_windows, donate_argnums=2)
        self.close_block = jax.jit(self._close_block, static_argnames="kept")
        self.move_image = jax.jit(self._move_image)

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
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
        carries = [self._empty(self._overlap, self.tiling.block)] * bands[0].blocks
        overview = self._overview(scene)
        images: list[jax.Array] = []
        ready: list[_Labelled] = []  # on their way back from the device
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            read = functools.partial(
                band_lib.read_band,
                scene,
                bands,
                tiling=self.tiling,
                margin=self._margin,
            )
            reading = pool.submit(read, 0)
            for group in _groups(len(bands)):
                loaded = []
                for i in group:
                    rows, seen, valid = reading.result()
                    if i + 1 < len(bands):
                        reading = pool.submit(read, i + 1)
                    images = self._move_down(images, rows, bands, i)
                    loaded.append(_Labelled(bands[i], images, seen, valid, size))
                self._run_group(variables, overview, loaded, carries, on_windows)
                ready += loaded
                while len(ready) > len(group):  # the device is at work on this group
                    yield from self._collect(ready.pop(0), first_row)
            for labelled in ready:
                yield from self._collect(labelled, first_row)

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many windows `label` will run or skip."""
        size = (scene.info.height, scene.info.width)
        bands = plan.plan_bands(*size, self.tiling, first_row=first_row)
        return sum(int(call.valid.sum()) for band in bands for call in band.calls)

    def _overview(self, scene: band_lib.Scene) -> jax.Array | None:
        """Returns the whole scene made small, if the method wants it."""
        if self._method.overview is None:
            return None
        height, width = self._method.overview
        small = overview_lib.make(scene.read, scene.info, height=height, width=width)
        return jax.device_put(small, self._everywhere)

    def _empty(self, rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
        """Returns a canvas of nothing: scores and weights."""
        empty = (
            np.zeros((rows, columns, self._method.num_classes), np.float32),
            np.zeros((rows, columns), np.float32),
        )
        return jax.device_put(empty, self._everywhere)

    def _run_group(
        self,
        variables: Any,
        overview: jax.Array | None,
        group: list[_Labelled],
        carries: list[Canvas],
        on_windows: Callable[[int, int], None],
    ) -> None:
        """Runs a band, or the last two of them block by block.

        The last band may lie less than a stride below the one above it. Their overlap
        is too tall for a carry, so each block goes through both at once.
        """
        tile = self.tiling.tile
        aprons = [self._empty(tile, tile) for _ in group]
        for j in range(len(carries)):
            rows = carries[j]
            for k, labelled in enumerate(group):
                canvas = self.open_block(rows, aprons[k])
                for call, is_seen in labelled.calls_of(j):
                    number = int(call.valid.sum())
                    on_windows(number, 0 if is_seen else number)
                    if is_seen:
                        near = self._near(labelled.images, j)
                        place = labelled.place_of(call, self.tiling.block)
                        canvas, points = self.run_windows(
                            variables, near, canvas, call.starts, call.valid,
                            call.owned, {**place, "overview": overview},
                        )  # fmt: skip
                        labelled.points.append((call, points))
                is_last = k == len(group) - 1
                taken, rows, aprons[k] = self.close_block(
                    canvas,
                    np.int32(labelled.band.finished),
                    kept=self._overlap if is_last else tile,
                )
                labelled.taken.append(taken)
            carries[j] = rows

    def _near(self, images: list[jax.Array], j: int) -> list[jax.Array]:
        """Returns the image blocks that windows starting in block j can see."""
        around = range(j - self._left, j + self._right + 1)
        return [
            images[k] if 0 <= k < len(images) else jnp.zeros_like(images[0])
            for k in around
        ]

    def _move_down(
        self, images: list[jax.Array], rows: np.ndarray, bands: list[plan.Band], i: int
    ) -> list[jax.Array]:
        """Returns the band's image blocks: the last band's rows moved up, new below."""
        block, tall = self.tiling.block, self.tiling.tile + 2 * self._margin
        count = -(-rows.shape[1] // block)
        room = self.tiling.stride if images else tall
        padded = np.zeros((room, count * block, 3), np.uint8)
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

    def _open_block(self, rows: Canvas, apron: Canvas) -> Canvas:
        """Returns a canvas [tile, block + tile] of what lies above and to the left."""
        tile, block = self.tiling.tile, self.tiling.block

        def opened(rows: jax.Array, apron: jax.Array) -> jax.Array:
            canvas = jnp.zeros((tile, block + tile, *rows.shape[2:]), jnp.float32)
            canvas = canvas.at[: rows.shape[0], :block].set(rows)
            return canvas.at[:, :tile].add(apron)

        return opened(rows[0], apron[0]), opened(rows[1], apron[1])

    def _run_windows(
        self,
        variables: Any,
        images: list[jax.Array],
        canvas: Canvas,
        starts: jax.Array,
        valid: jax.Array,
        owned: jax.Array,
        place: dict[str, jax.Array | None],
    ) -> tuple[Canvas, dict[str, jax.Array]]:
        """Cuts a call's windows, labels them, adds their scores to the canvas."""
        tile = self.tiling.tile
        region = jnp.concatenate(images, axis=1)  # [tile + 2 margin, blocks, 3]
        views = jax.vmap(lambda start: self._cut_views(region, start))(starts)
        split = NamedSharding(self._mesh, PartitionSpec("data"))
        views = jax.lax.with_sharding_constraint(views, split)
        if (overview := place.pop("overview")) is not None:
            place["overview"] = jnp.repeat(overview[None], len(starts), axis=0)
        scores, points = self._score(variables, views, place)  # [B, tile, tile, K]
        line = jnp.arange(tile)
        top, bottom, left, right = (owned[:, k, None, None] for k in range(4))
        rows, columns = line[None, :, None], line[None, None, :]
        counts = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        counts &= valid[:, None, None]
        weights = jnp.where(counts, self._window, 0.0)  # [B, tile, tile]

        totals = list(canvas)
        for b in range(len(starts)):
            added = (weights[b, ..., None] * scores[b], weights[b])
            for k, value in enumerate(added):
                place = (0, starts[b]) + (0,) * (value.ndim - 2)
                old = jax.lax.dynamic_slice(totals[k], place, value.shape)
                totals[k] = jax.lax.dynamic_update_slice(totals[k], old + value, place)
        return tuple(totals), points

    def _score(
        self, variables: Any, views: jax.Array, place: dict[str, jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the scores of windows, and the method's points in them."""

        def once(views: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            batch = {"views": views, **place}
            outputs = self._method.apply(variables, batch, train=False)
            scores = self._method.logits(outputs)
            if self.tiling.score == "probabilities":
                scores = jax.nn.softmax(scores)
            return scores, self._method.points(outputs)

        if not self.tiling.tta:
            return once(views)

        def turned(k: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            scores, points = once(jax.lax.switch(k, symmetry.turns(2), views))
            return jax.lax.switch(k, symmetry.turns(1, back=True), scores), points

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

    def _close_block(
        self, canvas: Canvas, finished: jax.Array, *, kept: int
    ) -> tuple[dict[str, jax.Array], Canvas, Canvas]:
        """Returns a block's labels, `kept` rows below the finished ones, the apron."""
        tile, block = self.tiling.tile, self.tiling.block
        scores, weights = (part[:, :block] for part in canvas)
        labels = jnp.where(weights > 0, scores.argmax(-1), UNSEEN).astype(jnp.uint8)
        taken = {"labels": labels}
        if self.tiling.probabilities:
            mean = scores / jnp.maximum(weights, 1e-12)[..., None]
            is_logit = self.tiling.score == "logits"
            taken["probabilities"] = jax.nn.softmax(mean) if is_logit else mean

        def below(part: jax.Array) -> jax.Array:
            room = jnp.zeros((kept, *part.shape[1:]), part.dtype)
            part = jnp.concatenate([part, room])
            return jax.lax.dynamic_slice_in_dim(part, finished, kept)

        apron = tuple(part[:, block : block + tile] for part in canvas)
        return taken, (below(scores), below(weights)), apron

    def _collect(self, labelled: _Labelled, first_row: int) -> Iterator[Rows]:
        """Waits for a band and yields its finished rows."""
        band, valid = labelled.band, labelled.valid
        done = slice(max(first_row - band.top, 0), band.finished)
        if done.start >= done.stop:
            return
        joined = {
            name: np.concatenate([np.asarray(t[name]) for t in labelled.taken], axis=1)
            for name in labelled.taken[0]
        }
        labels = joined["labels"][done, : labelled.size[1]].copy()
        if valid is not None:
            labels[~valid[done]] = UNSEEN
        likely = joined.get("probabilities")
        if likely is not None:
            likely = likely[done, : labelled.size[1]]
        places = self._scene_points(labelled)
        yield Rows(band.top + done.start, labels, likely, places)

    def _scene_points(self, labelled: _Labelled) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for call, named in labelled.points:
            corner = labelled.place_of(call, self.tiling.block)["position"][:, None]
            for name, local in named.items():
                places = (np.asarray(local) + corner)[call.valid].reshape(-1, 2)
                inside = (places < labelled.size).all(1)  # not in the padding
                found.setdefault(name, []).append(places[inside].astype(np.float32))
        return {name: np.concatenate(parts) for name, parts in found.items()}


def _groups(bands: int) -> list[range]:
    """Returns the bands one by one, the last two together."""
    if bands == 1:
        return [range(1)]
    return [*(range(i, i + 1) for i in range(bands - 2)), range(bands - 2, bands)]
