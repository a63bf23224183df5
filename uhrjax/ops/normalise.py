"""Batch normalisation by the statistics of the batch, with a gradient of few passes.

The values are those of Flax. Its gradient is derived operation by operation, through
the mean and the mean of squares, and reads the map about twice as often.
"""

import functools

import jax
import jax.numpy as jnp

EPSILON = 1e-5  # added to the variance


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def by_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float = EPSILON
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises every channel by its mean and variance over all other axes.

    Differentiable backwards, and only in what is normalised: the statistics are for
    running averages.

    Args:
        x: [..., C] floating point; computed in float32.
        scale: [C] float32, standard deviation of the result.
        bias: [C] float32, mean of the result.
        epsilon: added to the variance.

    Returns:
        [..., C] float32; mean [C] float32; biased variance [C] float32.
    """
    wide = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(wide, axes)
    # As Flax has it: one pass, and rounding may not make it negative.
    variance = jnp.maximum(0.0, jnp.mean(wide * wide, axes) - mean * mean)
    return by_statistics(x, scale, bias, mean, variance, epsilon), mean, variance


def by_statistics(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    epsilon: float = EPSILON,
) -> jax.Array:
    """Normalises every channel by a given mean and variance, [C] float32 each.

    Args and result as of `by_batch`.
    """
    factor = jax.lax.rsqrt(variance + epsilon) * scale
    return (x.astype(jnp.float32) - mean) * factor + bias


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    found = by_batch(x, scale, bias, epsilon)
    return found, (x, scale, *found[1:])


def _backward(
    epsilon: float, kept: tuple[jax.Array, ...], slopes: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    x, scale, mean, variance = kept
    slope, axes = slopes[0], tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    inverse = jax.lax.rsqrt(variance + epsilon)
    unit = (x.astype(jnp.float32) - mean) * inverse
    of_bias = jnp.sum(slope, axes)
    of_scale = jnp.sum(slope * unit, axes)
    rest = slope - (of_bias + unit * of_scale) / count
    return (rest * (inverse * scale)).astype(x.dtype), of_scale, of_bias


by_batch.defvjp(_forward, _backward)
