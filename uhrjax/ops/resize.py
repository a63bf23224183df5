"""Resizing of [B, H, W, C] maps with the sampling positions of PyTorch.

Forward, every output pixel gathers its two neighbours per axis; backward, every input
pixel gathers the few output pixels that read it. On a CPU either is an order of
magnitude faster than the product with an interpolation matrix, which remains where a
pixel has many readers; the gather's own transpose, a scatter, is slower than both.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.ops import rows

MOST_READERS = 24  # of a pixel, for its gradient to be gathered


def bilinear(x: jax.Array, size: tuple[int, int], *, align_corners: bool) -> jax.Array:
    """Resizes bilinearly, without antialiasing.

    Args:
        x: [B, H, W, C] floating point.
        size: (height, width) of the result, px.
        align_corners: True puts the corner pixels' centres onto each other; False
            aligns the images' outer edges (half-pixel centres).

    Returns:
        [B, size[0], size[1], C], dtype of x; interpolated in float32 or wider.
    """
    if min(size) < 1:
        raise ValueError(f"cannot resize to {size}; both sides must be at least 1 px")
    x = _resize_rows(x, size[0], align_corners)
    return _interpolate(x, 2, x.shape[2], size[1], align_corners)


def bilinear_at(
    x: jax.Array, size: tuple[int, int], rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Returns some px of a map resized bilinearly, with half-pixel centres.

    Args:
        x: [H, W, C] floating point.
        size: (height, width) to which all of it would be resized, px.
        rows: [h] int, of the resized map; may be traced.
        columns: [w] int.

    Returns:
        [h, w, C], dtype of x.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    found = x
    for axis, index in enumerate((rows, columns)):
        low, high, weight = (
            jnp.asarray(part)[index]
            for part in taps(x.shape[axis], size[axis], align_corners=False)
        )
        weight = weight.astype(wide).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        below = jnp.take(found, low, axis=axis).astype(wide)
        above = jnp.take(found, high, axis=axis).astype(wide)
        found = below * (1 - weight) + above * weight
    return found.astype(x.dtype)


def nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Takes source pixel floor(i * n / m) for pixel i of m; x is [B, H, W, ...]."""
    before, (height, width) = x.shape, size
    count = rows.blocks(before[1], height)
    index = np.arange(height // count) * before[1] // height  # in every block alike
    if count > 1:
        parts = rows.split(x, count, before=0, after=0)
        x = rows.join(jnp.take(parts, index, axis=2))
    else:
        x = jnp.take(x, index, axis=1)
    return jnp.take(x, np.arange(width) * before[2] // width, axis=2)


def interpolation_matrix(n: int, m: int, *, align_corners: bool) -> np.ndarray:
    """Returns [m, n] float32, whose product with n samples gives the m resized ones."""
    low, high, weight = taps(n, m, align_corners=align_corners)
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m), low), 1 - weight)
    np.add.at(matrix, (np.arange(m), high), weight)
    return matrix.astype(np.float32)


def taps(
    n: int, m: int, *, align_corners: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what each of m samples interpolates, when n are resized to m.

    Returns:
        Lower and upper source index [m] int, weight of the upper [m] float64.
    """
    if align_corners:
        position = np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        position = np.maximum((np.arange(m) + 0.5) * n / m - 0.5, 0.0)
    low = np.minimum(np.floor(position).astype(np.int32), n - 1)
    return low, np.minimum(low + 1, n - 1), np.clip(position - low, 0.0, 1.0)


def _resize_rows(x: jax.Array, length: int, align_corners: bool) -> jax.Array:
    """Resizes along the rows: of all at once, or in blocks where devices share them."""
    n, count = x.shape[1], rows.blocks(x.shape[1], length)
    low, high, weight = taps(n, length, align_corners=align_corners)
    first = np.arange(count)[:, None] * (n // count)
    low, high = (index.reshape(count, -1) - first for index in (low, high))
    before, after = max(-low.min(), 0), max(high.max() - n // count + 1, 0)
    if count == 1 or n == length or max(before, after) > n // count:
        return _interpolate(x, 1, n, length, align_corners)
    matrix = np.zeros((count, length // count, before + n // count + after))
    place = (*np.ogrid[:count, : length // count], low + before)
    np.add.at(matrix, place, 1 - weight.reshape(count, -1))
    place = (*np.ogrid[:count, : length // count], high + before)
    np.add.at(matrix, place, weight.reshape(count, -1))
    parts = rows.split(x, count, before=before, after=after)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    found = jnp.einsum(
        "bshwc,srh->bsrwc", parts.astype(wide), jnp.asarray(matrix, wide),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    return rows.join(found).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _interpolate(x: jax.Array, axis: int, n: int, m: int, align_corners: bool):
    if n == m:
        return x
    low, high, weight = taps(n, m, align_corners=align_corners)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    shape = [1] * x.ndim
    shape[axis] = m
    weight = jnp.asarray(weight, wide).reshape(shape)
    below = jnp.take(x, low, axis=axis).astype(wide)
    above = jnp.take(x, high, axis=axis).astype(wide)
    return (below * (1 - weight) + above * weight).astype(x.dtype)


def _interpolate_forward(x, axis, n, m, align_corners):
    return _interpolate(x, axis, n, m, align_corners), None


def _interpolate_backward(axis, n, m, align_corners, _, gradient):
    if n == m:
        return (gradient,)
    wide = jnp.promote_types(gradient.dtype, jnp.float32)
    index, weight = _readers(n, m, align_corners)
    if index.shape[1] > MOST_READERS:
        matrix = interpolation_matrix(n, m, align_corners=align_corners)
        spread = jnp.tensordot(
            gradient.astype(wide),
            jnp.asarray(matrix, wide),
            axes=(axis, 0),
            precision=jax.lax.Precision.HIGHEST,
        )  # the resized axis comes last
        return (jnp.moveaxis(spread, -1, axis).astype(gradient.dtype),)
    shape = [1] * gradient.ndim
    shape[axis] = n
    total = 0.0
    for k in range(index.shape[1]):
        part = jnp.take(gradient, index[:, k], axis=axis).astype(wide)
        total += part * jnp.asarray(weight[:, k], wide).reshape(shape)
    return (total.astype(gradient.dtype),)


def _readers(n: int, m: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of m samples interpolate each of n, and how much they take of it.

    Returns:
        [n, R] int and [n, R] float32, 0 where there are fewer.
    """
    matrix = interpolation_matrix(n, m, align_corners=align_corners)
    reads = matrix != 0
    first = reads.argmax(axis=0)  # they lie side by side
    last = np.where(reads.any(axis=0), m - 1 - reads[::-1].argmax(axis=0), first)
    index = first[:, None] + np.arange((last - first).max() + 1)
    inside = np.minimum(index, m - 1)
    weight = np.where(index <= last[:, None], matrix[inside, np.arange(n)[:, None]], 0)
    return inside, weight


_interpolate.defvjp(_interpolate_forward, _interpolate_backward)
