"""CascadePSP over whole scenes: a coarse mask in, a fine one out.

The global step sees the whole scene, its longer side made `side` px long, in three
passes. Its answer, made large again, is what the local step starts from: overlapping
crops of `side` px at full resolution, two passes each. Crops of one size go through one
compiled program; a scene with a side below `side` px has crops, and a program, of its
own. The global step compiles once per shape of the small scene, that is per aspect:
padding all scenes to one shape would change the pyramid pooling and with it the result.

Memory: a scene is read in bands and crops, never held. Per mask the host keeps a band
of `side` rows (6 bytes per px: sum, count, start; 4 more for the half that is handed
out) and two small masks of at most `side` x `side` float32. For label maps this counts
once per class that occurs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.errors import InputError
from uhrjax.methods import base, cascadepsp
from uhrjax.ops import pool, resize
from uhrjax.tiling import window as window_lib

Read = Callable[[window_lib.Window], np.ndarray]
SIDE = 900  # px, of crops and of the small scene
BORDER = 16  # px that crops lose where they do not end at the scene's border
SKIP_SHARE = 0.1  # crops with less inside or outside of the mask are left as they are
BAND_PIXELS = 2**20  # of a scene, made small at a time
UNSEEN = 255


class Rows(NamedTuple):
    """Finished rows of a scene."""

    top: int
    values: np.ndarray  # [h, W]: float32 probabilities, or uint8 labels


class _Answer(NamedTuple):
    """What the global step says, at the size of the small scene; float32."""

    final: np.ndarray  # [h, w] probability
    quarter: np.ndarray  # [h, w] probability, known at stride 4


def refine_mask(
    method: cascadepsp.CascadePSPMethod,
    variables: base.Variables,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    side: int = SIDE,
    local: bool = True,
    batch_size: int = 1,
) -> np.ndarray:
    """Refines one mask of an image.

    Args:
        method: CascadePSP.
        variables: of it.
        image: [H, W, 3] uint8, or float, normalised; may be a memory map.
        mask: [H, W], probability of the foreground: 0 to 1, or bool; likewise.
        side: px, see above.
        local: take the local step, too.
        batch_size: crops that go through the network at once.

    Returns:
        [H, W] float32, the refined probability.
    """
    read_image = functools.partial(window_lib.cut, image, fill=0)
    refiner = Refiner(
        method, variables, read_image, mask.shape, side=side, batch_size=batch_size
    )
    read_mask = functools.partial(window_lib.cut, mask, fill=0)
    refined = np.empty(mask.shape, np.float32)
    for top, rows in refiner.refine(read_mask, local=local):
        refined[top : top + len(rows)] = rows
    return refined


def refine_labels(
    method: cascadepsp.CascadePSPMethod,
    variables: base.Variables,
    read_image: Read,
    labels: np.ndarray,
    *,
    probabilities: np.ndarray | None = None,
    side: int = SIDE,
    batch_size: int = 1,
) -> np.ndarray:
    """Refines a label map; all of it at once, see `refine_label_rows`."""
    refined = np.empty(labels.shape, np.uint8)
    for top, rows in refine_label_rows(
        method, variables, read_image, labels, probabilities=probabilities, side=side,
        batch_size=batch_size,
    ):  # fmt: skip
        refined[top : top + len(rows)] = rows
    return refined


def refine_label_rows(
    method: cascadepsp.CascadePSPMethod,
    variables: base.Variables,
    read_image: Read,
    labels: np.ndarray,
    *,
    probabilities: np.ndarray | None = None,
    side: int = SIDE,
    batch_size: int = 1,
) -> Iterator[Rows]:
    """Refines a label map class by class.

    A pixel takes the class whose refined mask is surest of it, if that is above 1/2,
    else it keeps its class.

    Args:
        method: CascadePSP.
        variables: of it.
        read_image: window -> [h, w, 3] uint8; asked for windows within the scene only.
        labels: [H, W] uint8, may be a memory map; 255 (not labelled) stays.
        probabilities: [H, W, K], of the classes; the coarse masks, instead of those
            that are 1 where a class is and 0 elsewhere.
        side: px, see above.
        batch_size: crops that go through the network at once.

    Yields:
        Rows of uint8 labels from top to bottom.
    """
    refiner = Refiner(
        method, variables, read_image, labels.shape, side=side, batch_size=batch_size
    )
    counts = sum(
        np.bincount(labels[top : top + side].ravel(), minlength=UNSEEN + 1)
        for top in range(0, len(labels), side)
    )
    present = [int(k) for k in np.flatnonzero(counts) if k != UNSEEN]

    def read_mask(window: window_lib.Window, k: int) -> np.ndarray:
        if probabilities is not None:
            return window_lib.cut(probabilities, window, fill=0)[..., k]
        return window_lib.cut(labels, window, fill=UNSEEN) == k

    streams = [refiner.refine(functools.partial(read_mask, k=k)) for k in present]
    if not streams:
        yield Rows(0, np.array(labels))
        return
    for parts in zip(*streams, strict=True):
        top, height = parts[0].top, len(parts[0].values)
        best = np.full(parts[0].values.shape, 0.5, np.float32)
        chosen = np.array(labels[top : top + height])
        seen = chosen != UNSEEN
        for k, part in zip(present, parts, strict=True):
            surer = seen & (part.values > best)
            chosen[surer] = k
            best[surer] = part.values[surer]
        yield Rows(top, chosen)


class Refiner:
    """Refines masks of one scene."""

    def __init__(
        self,
        method: cascadepsp.CascadePSPMethod,
        variables: base.Variables,
        read_image: Read,
        size: tuple[int, int],
        *,
        side: int = SIDE,
        batch_size: int = 1,
    ):
        """Makes the scene small.

        Args:
            method: CascadePSP.
            variables: of it.
            read_image: window -> [h, w, 3] uint8, or float, normalised.
            size: (height, width) of the scene, px.
            side: px, see above.
            batch_size: crops that go through the network at once.
        """
        if side <= 4 * BORDER:
            raise InputError(
                f"crops of {side} px lose all they add to their neighbours; use more "
                f"than {4 * BORDER} px"
            )
        if min(size) < 1:
            raise InputError(f"a scene of {size[0]} x {size[1]} px has nothing in it")
        self._method, self._variables = method, variables
        self._read, self._size, self._side = read_image, size, side
        self._batch_size = batch_size
        longest = max(size)
        self._small = tuple(max(1, n * side // longest) for n in size)
        small = self._shrink(read_image, cubic=True)
        if read_image(window_lib.Window(0, 0, 1, 1)).dtype == np.uint8:
            small = (small / 255 - np.float32(method.mean)) / np.float32(method.std)
        self._image = small

    def refine(self, read_mask: Read, *, local: bool = True) -> Iterator[Rows]:
        """Yields the refined probability of a mask from top to bottom.

        Args:
            read_mask: window -> [h, w], probability of the foreground.
            local: take the local step, too.
        """
        mask = self._shrink(
            lambda w: 2 * np.asarray(read_mask(w), np.float32)[..., None] - 1
        )
        final, quarter = _see_whole(
            self._method.module, self._variables, self._image[None], mask[None]
        )
        answer = _Answer(np.asarray(final)[0], np.asarray(quarter)[0])
        return self._refine_locally(answer) if local else self._enlarge(answer.final)

    def _enlarge(self, final: np.ndarray) -> Iterator[Rows]:
        """Yields the answer of the global step alone."""
        height, width = self._size
        for top in range(0, height, self._side):
            window = window_lib.Window(top, 0, min(self._side, height - top), width)
            yield Rows(top, _sample(final, window, self._size, align_corners=True))

    def _refine_locally(self, answer: _Answer) -> Iterator[Rows]:
        """Yields what the local step makes of the answer of the global one."""
        height, width = self._size
        tall, wide = min(self._side, height), min(self._side, width)
        tops, lefts = self._starts(height), self._starts(width)
        total = np.zeros((tall, width), np.float32)
        count = np.zeros((tall, width), np.uint8)
        inside = np.zeros((tall, width), bool)
        for top, below in zip(tops, [*tops[1:], height], strict=True):
            windows = [window_lib.Window(top, left, tall, wide) for left in lefts]
            for window in windows:
                columns = slice(window.left, window.left + wide)
                inside[:, columns] = _sample(answer.final, window, self._size) > 0.5
            for window, refined in self._run(windows, inside, answer):
                rows, columns = self._owned(window)
                shifted = slice(columns.start + window.left, columns.stop + window.left)
                total[rows, shifted] += refined[rows, columns]
                count[rows, shifted] += 1
            done = below - top
            mean = total[:done] / np.maximum(count[:done], 1)
            yield Rows(top, np.where(count[:done] > 0, mean, inside[:done]))
            for kept in (total, count):  # what the next band shares moves up
                kept[: tall - done] = kept[done:]
                kept[max(tall - done, 0) :] = 0

    def _run(
        self,
        windows: list[window_lib.Window],
        inside: np.ndarray,
        answer: _Answer,
    ) -> Iterator[tuple[window_lib.Window, np.ndarray]]:
        """Yields the windows of a band that are worth it, with their new masks."""
        chosen = []
        for window in windows:
            share = inside[:, window.left : window.left + window.width].mean()
            if SKIP_SHARE <= share <= 1 - SKIP_SHARE:
                chosen.append(window)
        for start in range(0, len(chosen), self._batch_size):
            some = chosen[start : start + self._batch_size]
            padded = some + some[-1:] * (self._batch_size - len(some))
            images = np.stack([self._read(window) for window in padded])
            masks = np.stack([inside[:, w.left : w.left + w.width] for w in padded])
            quarters = np.stack(
                [_sample(answer.quarter, w, self._size) for w in padded]
            )
            refined = _see_crops(
                self._method.module,
                self._variables,
                self._normalised(images),
                2 * masks[..., None].astype(np.float32) - 1,
                2 * quarters[..., None] - 1,
            )
            yield from zip(some, np.asarray(refined), strict=False)

    def _starts(self, length: int) -> list[int]:
        """Returns where crops begin along an axis."""
        step, last = self._side // 2 - 2 * BORDER, max(length - self._side, 0)
        return sorted({min(k * step, last) for k in range(length // step + 1)})

    def _owned(self, window: window_lib.Window) -> tuple[slice, slice]:
        """Returns the rows and columns of a crop that count."""
        slices = []
        for start, length, size in zip(window[:2], window[2:], self._size, strict=True):
            first = 0 if start == 0 else BORDER
            last = length if start + length == size else length - BORDER
            slices.append(slice(first, last))
        return tuple(slices)

    def _normalised(self, images: np.ndarray) -> jax.Array:
        method = self._method
        return base.normalise(jnp.asarray(images), mean=method.mean, std=method.std)

    def _shrink(self, read: Read, *, cubic: bool = False) -> np.ndarray:
        """Returns the scene [h, w, C] float32, its longer side made `side` px long."""
        if max(self._size) > self._side:
            return _average(read, self._size, self._small)
        whole = np.float32(read(window_lib.Window(0, 0, *self._size)))
        if self._size == self._small:
            return whole
        how = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
        large = cv2.resize(whole, self._small[::-1], interpolation=how)
        return large.reshape(*self._small, -1)


@functools.partial(jax.jit, static_argnames="module")
def _see_whole(
    module: nn.Module, variables: base.Variables, images: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Three passes; returns final and stride-4 probability, [B, H, W]."""
    outputs = _apply(module, variables, images, mask)
    return outputs["logits"], outputs["stride_4"][-1]


@functools.partial(jax.jit, static_argnames="module")
def _see_crops(
    module: nn.Module,
    variables: base.Variables,
    images: jax.Array,
    mask: jax.Array,
    mask_8: jax.Array,
) -> jax.Array:
    """The last two passes; returns the final probability [B, H, W]."""
    return _apply(module, variables, images, mask, mask_8)["logits"]


def _apply(
    module: nn.Module, variables: base.Variables, images: jax.Array, *masks: jax.Array
) -> Any:
    """Returns probabilities [B, H, W] of images of any size.

    If a side is no multiple of 8 both grow, at the bottom and the right, one that is a
    multiple by 8 px: so does the published code.
    """
    height, width = images.shape[1:3]
    if height % 8 or width % 8:
        border = ((0, 0), (0, 8 - height % 8), (0, 8 - width % 8), (0, 0))
        images = jnp.pad(images, border)
        masks = tuple(jnp.pad(m, border, constant_values=-1.0) for m in masks)
    outputs = module.apply(variables, images, *masks, train=False)
    return jax.tree.map(lambda x: jax.nn.sigmoid(x[:, :height, :width, 0]), outputs)


def _average(read: Read, size: tuple[int, int], small: tuple[int, int]) -> np.ndarray:
    """Returns the means [h, w, C] float32 over the windows of adaptive pooling."""
    rows = pool.adaptive_windows(size[0], small[0])
    columns = pool.adaptive_windows(size[1], small[1])
    group = max(1, BAND_PIXELS * small[0] // (size[0] * size[1]))
    parts = []
    for first in range(0, small[0], group):
        some = rows[first : first + group]
        top, bottom = some[0][0], some[-1][1]
        band = np.asarray(read(window_lib.Window(top, 0, bottom - top, size[1])))
        band = _window_means(band, columns, axis=1)
        shifted = [(start - top, stop - top) for start, stop in some]
        parts.append(_window_means(band, shifted, axis=0))
    return np.concatenate(parts).astype(np.float32)


def _window_means(
    x: np.ndarray, windows: list[tuple[int, int]], *, axis: int
) -> np.ndarray:
    """Returns the means of x [h, w, C] over windows along an axis."""
    starts, stops = (np.array(side) for side in zip(*windows, strict=True))
    x = np.moveaxis(x, axis, 0)
    wide = np.uint32 if x.dtype == np.uint8 else np.float64  # exact either way
    sums = np.zeros((len(x) + 1, *x.shape[1:]), wide)
    np.cumsum(x, axis=0, out=sums[1:])
    means = (sums[stops] - sums[starts]) / (stops - starts)[:, None, None]
    return np.moveaxis(means, 0, axis)


def _sample(
    small: np.ndarray,
    window: window_lib.Window,
    size: tuple[int, int],
    *,
    align_corners: bool = False,
) -> np.ndarray:
    """Returns a window of a map [h, w] that is bilinearly resized to `size`."""
    for axis in (0, 1):
        low, high, weight = (
            taps[window[axis] : window[axis] + window[2 + axis]]
            for taps in resize.taps(
                small.shape[axis], size[axis], align_corners=align_corners
            )
        )
        weight = np.expand_dims(weight.astype(np.float32), 1 - axis)
        below, above = small.take(low, axis=axis), small.take(high, axis=axis)
        small = below * (1 - weight) + above * weight
    return small
