"""RoI align: a box of a map, whole px or not, resampled to one size.

The semantics are torchvision's with an adaptive number of samples. An output px is the
mean of g x g samples, g = ceil(box / output) per axis, bilinear between map px. Without
`aligned` the samples lie half a px further to the lower right than their px, so that a
box of the output's own size comes out shifted. Everything is separable: an axis is an
index and a weight [taps, out], and a resize in front of it only changes these.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.ops import resize


class Band(NamedTuple):
    """What the outputs along one axis mix, for several boxes: a few px in a row each.

    `index` counts from `origin`, the first px that a box needs.
    """

    origin: np.ndarray  # [N] int32
    index: np.ndarray  # [N, taps, out] int32
    weight: np.ndarray  # [N, taps, out] float32
    reach: int  # px from `origin` on that the widest box needs


def samples_per_px(side: float, out: int) -> int:
    """Returns how many samples an output px has along an axis of a box."""
    return max(1, int(np.ceil(side / out)))


def align(
    x: jax.Array,
    boxes: jax.Array,
    size: tuple[int, int],
    *,
    samples: tuple[int, int] = (1, 1),
    aligned: bool = False,
) -> jax.Array:
    """Resamples one box of each map; boxes may be traced.

    Args:
        x: [B, H, W, C] floating point.
        boxes: [B, 4] (top, left, bottom, right), px of the map.
        size: (height, width) of the result.
        samples: per output px, down and across, see `samples_per_px`.
        aligned: without the shift by half a px.

    Returns:
        [B, *size, C] float32.
    """

    def one(x: jax.Array, box: jax.Array) -> jax.Array:
        axes = []
        for axis in (0, 1):
            index, weight = taps(
                box[axis], box[axis + 2] - box[axis], length=x.shape[axis],
                out=size[axis], samples=samples[axis], aligned=aligned, xp=jnp,
            )  # fmt: skip
            axes.append((index.T, weight.T))
        return mix(x, *axes)

    return jax.vmap(one)(x, boxes)


def taps(
    start: Any,
    side: Any,
    *,
    length: int,
    out: int,
    samples: int,
    aligned: bool,
    xp: Any = np,
) -> tuple[Any, Any]:
    """Returns what every output mixes along one axis: index and weight [out, taps].

    Args:
        start: of the box, px.
        side: of the box, px.
        length: of the map, px; beyond [-1, length] lies 0, else its border.
        out: px of the result.
        samples: per output px.
        aligned: see `align`.
        xp: numpy (float64), or jax.numpy for boxes that are traced.
    """
    if not aligned:
        side = xp.maximum(side, 1)
    within = (xp.arange(samples) + 0.5) / samples
    place = (xp.arange(out)[:, None] + within) * (side / out)
    place = place + (start - (0.5 if aligned else 0.0))  # [out, samples]
    weight = xp.where((place >= -1) & (place <= length), 1 / samples, 0.0)
    place = xp.clip(place, 0, length - 1)
    low = xp.floor(place).astype("int32")
    above = place - low
    index = xp.concatenate([low, xp.minimum(low + 1, length - 1)], axis=1)
    return index, xp.concatenate([weight * (1 - above), weight * above], axis=1)


def bands(
    starts: np.ndarray,
    side: int,
    *,
    length: int,
    out: int,
    before: int | None = None,
    aligned: bool = False,
) -> Band:
    """Returns what resamples boxes of whole px along one axis.

    Args:
        starts: [N] int, of the boxes, px of a map.
        side: of every box, px.
        length: of the map, px.
        out: px of the result.
        before: the map is this many px, resized bilinearly to `length`; None: it is
            as it is.
        aligned: see `align`.
    """
    found = []
    for start in starts:
        index, weight = taps(
            float(start), float(side), length=length, out=out,
            samples=samples_per_px(side, out), aligned=aligned,
        )  # fmt: skip
        if before is not None:
            index, weight = _behind_resize(index, weight, before, length)
        found.append(_in_a_row(index, weight))
    return _stacked(found, before or length)


def _stacked(rows: list[tuple[np.ndarray, np.ndarray]], length: int) -> Band:
    """Joins boxes: first px [out] and weights from it on [out, taps] of each."""
    width = max(weight.shape[1] for _, weight in rows)
    first = np.stack([first for first, _ in rows])  # [N, out]
    weight = np.stack(
        [np.pad(w, ((0, 0), (0, width - w.shape[1]))) for _, w in rows]
    ).transpose(0, 2, 1)  # [N, taps, out]
    index = first[:, None] + np.arange(width)[:, None]
    used = weight != 0
    reach = int((np.where(used, index, 0).max((1, 2)) - first.min(1)).max()) + 1
    # Moved inside the map where the widest box's reach would go beyond it.
    origin = np.minimum(first.min(axis=1), length - reach)
    index = np.clip(index - origin[:, None, None], 0, reach - 1)  # unused: any
    return Band(
        origin.astype(np.int32),
        index.astype(np.int32),
        weight.astype(np.float32),
        reach,
    )


def _behind_resize(
    index: np.ndarray, weight: np.ndarray, before: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces px of a resized axis by those that they mix."""
    low, high, share = resize.taps(before, length, align_corners=False)
    share = share[index]
    mixed = np.concatenate([weight * (1 - share), weight * share], axis=1)
    return np.concatenate([low[index], high[index]], axis=1), mixed


def _in_a_row(index: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first px of every output [out] and the weights from it on."""
    used = weight != 0
    first = np.where(used, index, index.max()).min(axis=1)
    last = np.where(used, index, 0).max(axis=1)
    row = np.zeros((len(index), int(max((last - first).max(), 0)) + 1))
    outputs = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
    np.add.at(row, (outputs[used], (index - first[:, None])[used]), weight[used])
    return first, row


def cut(x: jax.Array, rows: Band, columns: Band, at: jax.Array) -> jax.Array:
    """Resamples one box of a map.

    Args:
        x: [H, W, C] floating point.
        rows: of all boxes.
        columns: of all boxes.
        at: [2] int, which of the rows and which of the columns.

    Returns:
        [out, out, C] float32.
    """
    corner, axes = [], []
    for which, band in zip(at, (rows, columns), strict=True):
        origin, index, weight = (jnp.asarray(part)[which] for part in band[:3])
        corner.append(origin)
        axes.append((index, weight))
    shape = (rows.reach, columns.reach, x.shape[2])
    return mix(jax.lax.dynamic_slice(x, (*corner, 0), shape), *axes)


def mix(x: jax.Array, rows: tuple[jax.Array, jax.Array], columns: tuple) -> jax.Array:
    """Mixes px along both axes; index and weight [taps, out] each; float32."""
    for axis, (index, weight) in enumerate((rows, columns)):
        total = 0.0
        for k in range(len(index)):
            shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
            part = jnp.take(x, index[k], axis=axis).astype(jnp.float32)
            total = total + weight[k].reshape(shape) * part
        x = total
    return x


def mean_matrix(
    starts: np.ndarray, side: int, *, length: int, out: int, aligned: bool = False
) -> np.ndarray:
    """Returns [N, length] float32, whose product with an axis of a map is the mean over
    all outputs of `align` along it, for boxes of whole px."""
    matrix = np.zeros((len(starts), length))
    for row, start in zip(matrix, starts, strict=True):
        index, weight = taps(
            float(start), float(side), length=length, out=out,
            samples=samples_per_px(side, out), aligned=aligned,
        )  # fmt: skip
        np.add.at(row, index, weight / out)
    return matrix.astype(np.float32)
