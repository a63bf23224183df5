"""Exact selection: the k largest, the k-th smallest, the last of equal positions."""

import jax
import jax.numpy as jnp


def top_index(scores: jax.Array, k: int) -> jax.Array:
    """Returns the flat positions of the k largest scores.

    Args:
        scores: [B, H, W].
        k: how many; at most all of them are returned.

    Returns:
        [B, min(k, H * W)] int32, distinct, largest first, ties by lower position.
    """
    flat = scores.reshape(scores.shape[0], -1)
    return jax.lax.top_k(flat, min(k, flat.shape[1]))[1]


def kth_smallest(x: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns the k-th smallest value along the last axis, exactly, without sorting.

    Builds the answer bit by bit: 32 passes, each counts the values below a candidate.
    Nothing but counts crosses devices, where a sort or top-k gathers a sharded array.

    Args:
        x: [..., N] float32; no gradient flows through it.
        k: 1 for the minimum, N for the maximum; an array [...] is not checked.

    Returns:
        [...] float32.
    """
    if isinstance(k, int) and not 1 <= k <= x.shape[-1]:
        raise ValueError(f"k = {k} is outside 1 .. {x.shape[-1]}, the number of values")
    # Adding zero turns -0.0 into 0.0, which compare equal but differ in their bits.
    keys = sortable_bits(jax.lax.stop_gradient(x) + 0.0)

    def set_bit(step, answer):
        candidate = answer | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        below = jnp.sum(keys < candidate[..., None], axis=-1, dtype=jnp.int32)
        return jnp.where(below < k, candidate, answer)

    start = jnp.zeros(x.shape[:-1], jnp.uint32)
    return float_of_bits(jax.lax.fori_loop(0, 32, set_bit, start))


def kth_largest(x: jax.Array, k: int | jax.Array) -> jax.Array:
    """Returns the k-th largest value along the last axis; see `kth_smallest`."""
    return -kth_smallest(-x, k)


def last_occurrence(index: jax.Array, *, size: int) -> jax.Array:
    """Returns [B, P] bool: no later entry of the row [B, P] holds the same position.

    Positions lie in [0, size). A maximum decides, so that the order in which a device
    executes a scatter does not matter.
    """
    order = jnp.arange(index.shape[1], dtype=jnp.int32)

    def row(positions):
        winner = jnp.full((size,), -1, jnp.int32).at[positions].max(order)
        return winner[positions] == order

    return jax.vmap(row)(index)


def sortable_bits(x: jax.Array) -> jax.Array:
    """Maps float32 to uint32 so that a < b holds for the results as before.

    Of the two zeros -0.0 comes first: add 0.0 to `x` where they should be equal.
    """
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    negative = bits >> 31 == 1
    return jnp.where(negative, ~bits, bits | jnp.uint32(1 << 31))


def float_of_bits(keys: jax.Array) -> jax.Array:
    """Undoes `sortable_bits`."""
    negative = keys >> 31 == 0
    bits = jnp.where(negative, ~keys, keys & jnp.uint32((1 << 31) - 1))
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
