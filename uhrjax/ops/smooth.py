"""Filters with zeros beyond the border."""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.ops import select


def median(x: jax.Array, side: int) -> jax.Array:
    """Returns the median of every side x side px, exactly, without sorting.

    Builds the answer bit by bit, as `select.kth_smallest` does: 32 passes, each counts
    the px around that are at least a candidate.

    Args:
        x: [B, H, W] float32.
        side: odd.

    Returns:
        [B, H, W] float32.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(
            f"a median over {side} x {side} px has no centre; use an odd number, e.g. "
            f"{max(side, 0) + 1}"
        )
    if side == 1:
        return x
    reach = side // 2
    keys = select.sortable_bits(x + 0.0)
    zero = select.sortable_bits(jnp.zeros((), jnp.float32))
    border = ((0, 0), (reach, reach), (reach, reach))
    padded = jax.lax.pad(keys, zero, [(*ends, 0) for ends in border])
    height, width = x.shape[1:]
    around = [
        (slice(None), slice(dy, dy + height), slice(dx, dx + width))
        for dy, dx in itertools.product(range(side), repeat=2)
    ]

    def set_bit(step: jax.Array, answer: jax.Array) -> jax.Array:
        candidate = answer | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        counts = ((padded[place] >= candidate).astype(jnp.int32) for place in around)
        above = functools.reduce(operator.add, counts)
        return jnp.where(above > side * side // 2, candidate, answer)

    start = jnp.zeros(x.shape, jnp.uint32)
    return select.float_of_bits(jax.lax.fori_loop(0, 32, set_bit, start))


def gaussian(
    x: jax.Array, sides: tuple[int, int], sigmas: tuple[float, float]
) -> jax.Array:
    """Returns the mean of px around, weighed by exp(-distance^2 / (2 sigma^2)).

    Args:
        x: [B, H, W] float32.
        sides: of the window, down and across, odd.
        sigmas: px, down and across.

    Returns:
        [B, H, W] float32.
    """
    for axis, (side, sigma) in enumerate(zip(sides, sigmas, strict=True), start=1):
        if side < 1 or side % 2 == 0:
            raise ValueError(f"a Gaussian over {side} px has no centre; use odd sides")
        reach = side // 2
        weight = np.exp(-0.5 * ((np.arange(side) - reach) / sigma) ** 2)
        weight /= weight.sum()
        ends = [(0, 0)] * 3
        ends[axis] = (reach, reach)
        padded, length, total = jnp.pad(x, ends), x.shape[axis], 0.0
        for k in range(side):
            part = jax.lax.slice_in_dim(padded, k, k + length, axis=axis)
            total = total + np.float32(weight[k]) * part
        x = total
    return x
