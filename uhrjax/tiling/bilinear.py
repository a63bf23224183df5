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
    total = pixels
    for axis, length in ((1, width), (0, height)):
        place, weight = taps(pixels.shape[axis], length)
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
    place, rest = np.divmod(
        (2 * np.arange(after, dtype=np.int64) + 1) * before - after, 2 * after
    )
    weight = ((rest << BITS) + after) // (2 * after)
    return place, weight.astype(np.int32)
