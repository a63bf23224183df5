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
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax import canvas as canvas_lib
from uhrjax import program, sharding
from uhrjax.data import band as band_lib
from uhrjax.data import overview as overview_lib
from uhrjax.methods import base
from uhrjax.tiling import plan

IN_MEMORY_PIXELS = 1 << 26  # a larger label map lives in a temporary file
OnWindows = Callable[[int, int], None]  # how many were done, how many of them skipped


class Rows(NamedTuple):
    """Finished rows of a scene."""

    top: int
    labels: np.ndarray  # [h, W] uint8
    probabilities: np.ndarray | None  # [h, W, K] float32
    points: dict[str, np.ndarray]  # name -> [N, 2] float32 (y, x) scene px, of a band


@dataclasses.dataclass
class Labelled:
    """A band on the device, and what came out of it."""

    band: plan.Band
    images: list[jax.Array]  # per block
    skipped: int  # windows of nodata only
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

    def calls_of(self, block: int) -> Iterator[plan.Call]:
        """Yields the calls of one block."""
        return (call for call in self.band.calls if call.block == block)


class Engine:
    """Labels scenes of any size with one method; compiles once."""

    def __init__(self, method: base.Method, tiling: plan.Tiling, space: int = 1):
        """Compiles nothing yet; `space` devices share the rows of a window."""
        self.method, self.tiling = method, tiling
        self.settings: Any = tiling  # all that labels depend on, beside weights
        self.beyond = canvas_lib.UNSEEN if method.reads_labels else 0  # the border
        self._beyond: dict[tuple[int, ...], jax.Array] = {}
        self._mesh = mesh = sharding.make_local_mesh(space)
        sharding.check_rows(tiling.tile, mesh)
        self.everywhere = sharding.replicated(mesh)
        self._overlap = tiling.tile - plan.shortest_step(tiling)  # rows of a carry
        programs = program.WindowPrograms(method, tiling, mesh)
        self.margin, self._turns = programs.margin, programs.turns
        self._left, self._right = programs.left, programs.right
        self.run_windows, self.find_context = programs.run, programs.find_context
        self.collect_windows = programs.collect
        self._by_rows = sharding.by_rows(mesh)
        self.open_block = jax.jit(
            functools.partial(canvas_lib.open_block, tiling=tiling),
            out_shardings=self._by_rows,
        )
        self.close_block = jax.jit(
            functools.partial(canvas_lib.close_block, tiling=tiling),
            static_argnames="kept",
            out_shardings=(self.everywhere, self.everywhere, self._by_rows),
        )
        self.move_image = jax.jit(functools.partial(_move_image))

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: OnWindows = lambda done, skipped: None,
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
        groups = self.run(variables, scene, first_row=first_row, on_windows=on_windows)
        yield from self.hand_out(groups, first_row)

    def run(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: OnWindows = lambda done, skipped: None,
    ) -> Iterator[list[Labelled]]:
        """Yields the bands of a scene, labelled but still on the device."""
        variables = jax.device_put(variables, self.everywhere)  # if not there yet
        size = (scene.info.height, scene.info.width)
        bands = plan.plan_bands(*size, self.tiling, first_row=first_row)
        context = self._context(variables, scene)
        loaded = self._load(scene, bands)
        yield from self.run_bands(variables, context, bands, loaded, on_windows)

    def run_bands(
        self,
        variables: Any,
        context: dict[str, Any],
        bands: list[plan.Band],
        loaded: Iterator[Labelled],
        on_windows: OnWindows,
    ) -> Iterator[list[Labelled]]:
        """Yields the bands, labelled, in the groups that are run together."""
        empty = self._empty(self._overlap, self.tiling.block, self.everywhere)
        carries = [empty] * bands[0].blocks
        for indices in _groups(len(bands)):
            group = [next(loaded) for _ in indices]
            self._run_group(variables, context, group, carries, on_windows)
            yield group

    def hand_out(
        self, groups: Iterator[list[Labelled]], first_row: int
    ) -> Iterator[Rows]:
        """Yields the finished rows of bands while the device works on the next ones."""
        ready: list[Labelled] = []
        for group in groups:
            ready += group
            while len(ready) > len(group):
                yield from self._collect(ready.pop(0), first_row)
        for labelled in ready:
            yield from self._collect(labelled, first_row)

    def _load(
        self, scene: band_lib.Scene, bands: list[plan.Band]
    ) -> Iterator[Labelled]:
        """Yields bands with their pixels on the device; reads one ahead."""
        size = (scene.info.height, scene.info.width)
        read = functools.partial(
            band_lib.read_band, scene, bands, tiling=self.tiling, margin=self.margin
        )
        images: list[jax.Array] = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, 0)
            for i in range(len(bands)):
                rows, kept, skipped, valid = reading.result()
                if i + 1 < len(bands):
                    reading = pool.submit(read, i + 1)
                images = self._move_down(images, rows, bands, i)
                yield Labelled(kept, images, skipped, valid, size)

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many windows `label` will run or skip."""
        size = (scene.info.height, scene.info.width)
        bands = plan.plan_bands(*size, self.tiling, first_row=first_row)
        return sum(int(call.valid.sum()) for band in bands for call in band.calls)

    def _context(self, variables: Any, scene: band_lib.Scene) -> dict[str, Any]:
        """Returns what all windows of a scene share: entries of the batch.

        Each has a leading axis over the turns of test-time augmentation.
        """
        if self.method.overview is None:
            return {}
        height, width = self.method.overview
        small = overview_lib.make(scene.read, scene.info, height=height, width=width)
        overview = jax.device_put(small[None], self.everywhere)
        found = self.find_context(variables, overview, None)
        if not self.method.collects:
            return found
        collected = self._collect_scene(variables, scene, found)
        return self.find_context(variables, overview, collected)

    def _collect_scene(
        self, variables: Any, scene: band_lib.Scene, shared: dict[str, Any]
    ) -> Any:
        """Passes over all windows of a scene for what its context is made of."""
        size = (scene.info.height, scene.info.width)
        empty = self.method.empty_collection(size)
        collected = jax.device_put(
            jax.tree.map(lambda a: np.stack([a] * self._turns), empty), self.everywhere
        )
        for labelled in self._load(scene, plan.plan_bands(*size, self.tiling)):
            for j in range(labelled.band.blocks):
                for call in labelled.calls_of(j):
                    near, place = (
                        self._near(labelled.images, j),
                        self._place(labelled, call),
                    )
                    with sharding.rows_shared(self._mesh):
                        collected = self.collect_windows(
                            variables, near, collected, call.starts, {**shared, **place}
                        )
        return collected

    def _empty(
        self, rows: int, columns: int, where: jax.sharding.Sharding
    ) -> tuple[jax.Array, jax.Array]:
        """Returns a canvas of nothing: scores and weights."""
        empty = (
            np.zeros((rows, columns, self.method.num_classes), np.float32),
            np.zeros((rows, columns), np.float32),
        )
        return jax.device_put(empty, where)

    def _run_group(
        self,
        variables: Any,
        context: dict[str, Any],
        group: list[Labelled],
        carries: list[canvas_lib.Canvas],
        on_windows: OnWindows,
    ) -> None:
        """Runs a band, or the last two of them block by block.

        The last band may lie less than a stride below the one above it. Their overlap
        is too tall for a carry, so each block goes through both at once.
        """
        tile = self.tiling.tile
        aprons = [self._empty(tile, tile, self._by_rows) for _ in group]
        for labelled in group:
            on_windows(labelled.skipped, labelled.skipped)
        for j in range(len(carries)):
            rows = carries[j]
            for k, labelled in enumerate(group):
                canvas = self.open_block(rows, aprons[k])
                for call in labelled.calls_of(j):
                    near = self._near(labelled.images, j)
                    given = {**context, **self._place(labelled, call)}
                    with sharding.rows_shared(self._mesh):
                        canvas, points = self.run_windows(
                            variables, near, canvas, call.starts, call.owned, given
                        )
                    labelled.points.append((call, points))
                    on_windows(int(call.valid.sum()), 0)
                is_last = k == len(group) - 1
                taken, rows, aprons[k] = self.close_block(
                    canvas,
                    np.int32(labelled.band.finished),
                    kept=self._overlap if is_last else tile,
                )
                labelled.taken.append(taken)
            carries[j] = rows

    def _place(self, labelled: Labelled, call: plan.Call) -> dict[str, np.ndarray]:
        """Returns the entries of a call's batch that say where its windows lie."""
        place = labelled.place_of(call, self.tiling.block)
        return {**place, "valid": call.valid}

    def _near(self, images: list[jax.Array], j: int) -> list[jax.Array]:
        """Returns the image blocks that windows starting in block j can see."""
        around = range(j - self._left, j + self._right + 1)
        return [
            images[k] if 0 <= k < len(images) else self._outside(images[0].shape)
            for k in around
        ]

    def _outside(self, shape: tuple[int, ...]) -> jax.Array:
        """Returns a block of what lies beyond the scene; made once per shape."""
        if shape not in self._beyond:
            block = np.full(shape, self.beyond, np.uint8)
            self._beyond[shape] = jax.device_put(block, self.everywhere)
        return self._beyond[shape]

    def _move_down(
        self, images: list[jax.Array], rows: np.ndarray, bands: list[plan.Band], i: int
    ) -> list[jax.Array]:
        """Returns the band's image blocks: the last band's rows moved up, new below."""
        block, tall = self.tiling.block, self.tiling.tile + 2 * self.margin
        count = -(-rows.shape[1] // block)
        room = self.tiling.stride if images else tall
        shape = (room, count * block, rows.shape[2])
        padded = np.full(shape, self.beyond, np.uint8)
        padded[: len(rows), : rows.shape[1]] = rows
        pieces = [padded[:, j * block : (j + 1) * block] for j in range(count)]
        if not images:
            return [jax.device_put(piece, self.everywhere) for piece in pieces]
        advance = np.int32(bands[i].top - bands[i - 1].top)
        return [
            self.move_image(image, np.ascontiguousarray(piece), advance)
            for image, piece in zip(images, pieces, strict=True)
        ]

    def _collect(self, labelled: Labelled, first_row: int) -> Iterator[Rows]:
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
            labels[~valid[done]] = canvas_lib.UNSEEN
        likely = joined.get("probabilities")
        if likely is not None:
            likely = likely[done, : labelled.size[1]]
        places = self._scene_points(labelled)
        yield Rows(band.top + done.start, labels, likely, places)

    def _scene_points(self, labelled: Labelled) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for call, named in labelled.points:
            corner = labelled.place_of(call, self.tiling.block)["position"][:, None]
            for name, local in named.items():
                places = (np.asarray(local) + corner)[call.valid].reshape(-1, 2)
                inside = (places < labelled.size).all(1)  # not in the padding
                found.setdefault(name, []).append(places[inside].astype(np.float32))
        return {name: np.concatenate(parts) for name, parts in found.items()}


def _move_image(image: jax.Array, rows: jax.Array, advance: jax.Array) -> jax.Array:
    """Drops the first `advance` rows and appends as many of `rows`."""
    both = jnp.concatenate([image, rows])
    return jax.lax.dynamic_slice_in_dim(both, advance, len(image))


def _groups(bands: int) -> list[range]:
    """Returns the bands one by one, the last two together."""
    if bands == 1:
        return [range(1)]
    return [*(range(i, i + 1) for i in range(bands - 2)), range(bands - 2, bands)]


def label_array(height: int, width: int) -> np.ndarray:
    """Returns [height, width] uint8 zeros, on the disk when large."""
    if height * width <= IN_MEMORY_PIXELS:
        return np.zeros((height, width), np.uint8)
    with tempfile.TemporaryFile() as file:  # gone with the map's last reference
        return np.memmap(file, np.uint8, "w+", shape=(height, width))
