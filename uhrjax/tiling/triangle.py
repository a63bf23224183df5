"""Pillow's bilinear reduction of 8-bit pixels, bit for bit.

A triangle as wide as two output pixels weighs the input pixels (antialiasing), with
weights in 22-bit fixed point. Sums stay below 2**31: weights add up to one and pixels
are below 2**8. Nothing but indexing and operators is applied to the pixels, so that the
same lines run on numpy arrays (host) and within `jax.jit` (device): they cannot differ.
"""

import numpy as np

BITS = 22  # after the binary point of a weight


def reduce(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Resizes as `PIL.Image.resize(..., BILINEAR)` does.

    The horizontal pass comes first. Recent versions of Pillow swap the passes where the
    height shrinks far more than the width, which no square window does.

    Args:
        pixels: [h, w, C] uint8, a numpy or a jax array.
        height: of the result, px.
        width: of the result, px.

    Returns:
        [height, width, C] uint8, of the same kind of array.
    """
    for axis, length in ((1, width), (0, height)):  # rounded in between
        if pixels.shape[axis] != length:
            pixels = _reduce_axis(pixels, axis, length)
    return pixels


def _reduce_axis(pixels: np.ndarray, axis: int, length: int) -> np.ndarray:
    places, weights = taps(pixels.shape[axis], length)
    beside = (1,) * (pixels.ndim - 1 - axis)  # the axes behind, to broadcast over
    total = np.int32(1 << (BITS - 1))  # one half
    for place, weight in zip(places, weights, strict=True):
        taken = pixels.take(place, axis=axis, mode="clip").astype(np.int32)
        total = total + taken * weight.reshape(-1, *beside)
    return (total >> BITS).astype(np.uint8)


def taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which pixels of an axis every output sums, and their weights.

    Args:
        before: length of the axis, px.
        after: length of the result, px.

    Returns:
        places: [taps, after] int64 in [0, before).
        weights: [taps, after] int32, fixed point; a column adds up to about 2**22.
    """
    ratio = before / after
    reach = max(ratio, 1.0)  # half of the triangle's base, input px
    centre = (np.arange(after) + 0.5) * ratio
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), before)
    places = first + np.arange((last - first).max())[:, None]
    shares = np.maximum(1 - np.abs((places - centre + 0.5) * (1 / reach)), 0)
    shares[places >= last] = 0
    shares /= shares.sum(0)
    weights = (shares * (1 << BITS) + 0.5).astype(np.int32)
    return np.minimum(places, before - 1), weights
