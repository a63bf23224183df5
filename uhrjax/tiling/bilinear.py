"""Bilinear resampling of 8-bit pixels without antialiasing.

Every output mixes the four pixels around its place (half-pixel centres), whatever the
factor, as Foveation resamples its crops. Places are exact ratios of integers, weights
have 11 bits, and the result is rounded once: within one grey level of exact arithmetic.
Nothing but indexing and operators is applied to the pixels, so that the same lines run
on numpy arrays (host) and within `jax.jit` (device): they cannot differ.
"""

import numpy as np

BITS = 11  # of a weight; sums of four products stay below 2**31


def resample(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Resizes pixels; those beyond the border are those at the border.

    Args:
        pixels: [h, w, C] uint8, a numpy or a jax array.
        height: of the result, px.
        width: of the result, px.

    Returns:
        [height, width, C] uint8, of the same kind of array.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    return mix(pixels, taps(pixels.shape[0], height), taps(pixels.shape[1], width))


def mix(pixels: np.ndarray, rows: tuple, columns: tuple) -> np.ndarray:
    """Returns the px that some `taps`, all or a part of them, lie at; see `resample`.

    Args:
        pixels: [h, w, C] uint8, a numpy or a jax array.
        rows: place and weight [n].
        columns: place and weight [m].

    Returns:
        [n, m, C] uint8, of the same kind of array.
    """
    total = pixels
    for axis, (place, weight) in ((1, columns), (0, rows)):
        weight = weight.reshape(-1, *(1,) * (pixels.ndim - 1 - axis))
        first = total.take(place, axis=axis, mode="clip").astype(np.int32)
        second = total.take(place + 1, axis=axis, mode="clip").astype(np.int32)
        total = first * ((1 << BITS) - weight) + second * weight
    return ((total + np.int32(1 << (2 * BITS - 1))) >> (2 * BITS)).astype(np.uint8)


def taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where on an axis every output lies.

    Args:
        before: length of the axis, px.
        after: length of the result, px.

    Returns:
        place: [after] int64, the pixel before it; -1 and before - 1 at the ends where
            the result is longer.
        weight: [after] int32 of the pixel after `place`, fixed point.
    """
    return taps_at(np.arange(after, dtype=np.int64), before, after)


def taps_at(index: np.ndarray, before: int, after: int) -> tuple:
    """Returns place and weight of some outputs, see `taps`.

    Args:
        index: [n] integers, the outputs, a numpy or a jax array; in 32 bits, twice the
            product of both lengths must be below 2**31.
        before: length of the axis, px.
        after: length of the result, px.
    """
    number = (2 * index + 1) * before - after
    place, rest = number // (2 * after), number % (2 * after)
    return place, (((rest << BITS) + after) // (2 * after)).astype(np.int32)
