"""Crops of any side of a resident 8-bit scene, resampled to one side.

Every px of the result gathers the few scene px that it mixes; neither a crop of full
size nor a floating-point copy of the scene is ever made. Places are exact ratios of
integers: sample k of n from a crop of m px lies at (k + 1/2) m / n - 1/2. Corners, and
the sides of crops, may be traced.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

BORDERS = ("zero", "reflect")
Normalise = Callable[[jax.Array], jax.Array]  # uint8 [..., 3] -> float32
# Per axis: what each of n samples mixes, index and weight [t, n]; weights may be 0.
Taps = tuple[jax.Array, jax.Array]


def crop(
    scene: jax.Array,
    corner: jax.Array,
    side: int | jax.Array,
    *,
    size: int,
    normalise: Normalise,
    border: str = "zero",
    widest: int = 0,
) -> jax.Array:
    """Returns a square crop, resampled bilinearly or, with `widest`, by area.

    Args:
        scene: [H, W, 3] uint8.
        corner: [2] int, (top, left), px; the crop may reach beyond the scene.
        side: of the crop, px, at least `size`.
        size: of the result, px.
        normalise: applied to px before they are mixed.
        border: beyond the scene: "zero" behind `normalise`, or "reflect", its mirror
            image, which does not repeat the border px.
        widest: 0: no antialiasing. Else every sample averages all px that it covers;
            the number is the largest value that `side` can have.

    Returns:
        [size, size, 3] float32.
    """
    if widest:
        taps = [
            _area_taps(corner[axis], side, size, -(-widest // size) + 1)
            for axis in (0, 1)
        ]
    else:
        taps = [_bilinear_taps(corner[axis], side, size) for axis in (0, 1)]
    rows, columns = (
        _beyond(tap, scene.shape[axis], border) for axis, tap in enumerate(taps)
    )
    return _mix(scene, rows, columns, normalise)


def overview(
    scene: jax.Array, size: tuple[int, int], *, normalise: Normalise
) -> jax.Array:
    """Returns the whole scene made small, bilinearly, without antialiasing.

    Args:
        scene: [H, W, 3] uint8.
        size: (height, width) of the result.
        normalise: applied to px before they are mixed.

    Returns:
        [*size, 3] float32.
    """
    taps = []
    for before, after in zip(scene.shape[:2], size, strict=True):
        index, weight = _bilinear_taps(jnp.int32(0), before, after)
        taps.append((jnp.clip(index, 0, before - 1), weight))
    return _mix(scene, *taps, normalise)


def label_crop(
    label: jax.Array,
    corner: jax.Array,
    *,
    side: int,
    stride: int = 1,
    ignore: int = 255,
    border: str = "zero",
) -> jax.Array:
    """Cuts a square of labels.

    Args:
        label: [H, W] integers.
        corner: [2] int, (top, left), px of the scene.
        side: px of the scene.
        stride: reduce the label first, to the middle of every stride x stride px.
        ignore: what stands beyond the scene with border "zero".
        border: see `crop`.

    Returns:
        [side // stride, side // stride], dtype of label.
    """
    start = (corner + side - 1) // stride - (side - 1) // stride
    index, within = [], []
    for axis in (0, 1):
        length = -(-(label.shape[axis] - stride // 2) // stride)  # when reduced
        place = start[axis] + jnp.arange(side // stride)
        within.append((place >= 0) & (place < length))
        place = mirror(place, length) if border == "reflect" else place
        index.append(jnp.clip(place, 0, length - 1) * stride + stride // 2)
    found = label[index[0][:, None], index[1][None, :]]
    if border == "reflect":
        return found
    inside = within[0][:, None] & within[1][None, :]
    return jnp.where(inside, found, jnp.array(ignore, label.dtype))


def mirror(index: jax.Array, length: int) -> jax.Array:
    """Maps any index into [0, length) by reflection that leaves the border px alone."""
    period = 2 * (length - 1)
    return (period - abs(2 * (index % max(period, 1)) - period)) // 2


def _bilinear_taps(start: jax.Array, side: int | jax.Array, size: int) -> Taps:
    number = (2 * jnp.arange(size) + 1) * side - size
    low, rest = number // (2 * size), number % (2 * size)
    share = rest.astype(jnp.float32) / (2 * size)
    return start + jnp.stack([low, low + 1]), jnp.stack([1 - share, share])


def _area_taps(start: jax.Array, side: int | jax.Array, size: int, most: int) -> Taps:
    """Px j of a crop covers [j, j + 1) size-ths, sample k [k, k + 1) side-ths of it."""
    first, last = (jnp.arange(size) + k for k in (0, 1))
    index = first * side // size + jnp.arange(most)[:, None]
    overlap = jnp.minimum(last * side, (index + 1) * size)
    overlap = overlap - jnp.maximum(first * side, index * size)
    weight = jnp.maximum(overlap, 0).astype(jnp.float32) / side
    return start + index, weight


def _beyond(taps: Taps, length: int, border: str) -> Taps:
    index, weight = taps
    if border == "reflect":
        return mirror(index, length), weight
    weight = jnp.where((index >= 0) & (index < length), weight, 0.0)
    return jnp.clip(index, 0, length - 1), weight


def _mix(scene: jax.Array, rows: Taps, columns: Taps, normalise: Normalise):
    scene = jnp.asarray(scene)
    (row, row_weight), (column, column_weight) = rows, columns
    across = len(column)

    def add(k: jax.Array, total: jax.Array) -> jax.Array:
        i, j = k // across, k % across
        pixels = normalise(scene[row[i][:, None], column[j][None, :]])
        weight = row_weight[i][:, None] * column_weight[j][None, :]
        return total + weight[..., None] * pixels

    start = jnp.zeros((row.shape[1], column.shape[1], 3), jnp.float32)
    count = len(row) * across
    if count > 4:  # a loop: unrolled, its compilation would take long
        return jax.lax.fori_loop(0, count, add, start)
    for k in range(count):
        start = add(k, start)
    return start
