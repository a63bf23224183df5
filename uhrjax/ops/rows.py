"""Maps whose rows are shared by several devices, and the few rows a neighbour lends.

Training and prediction with `config.mesh.space` > 1 run under a mesh whose axis `space`
splits the rows of every map. Convolutions and pooling exchange rows by themselves. An
operation that picks rows by an index would fetch the whole map; it works on blocks of
rows instead, one per device, each with a few rows of the blocks around it.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

AXIS = "space"


def blocks(*heights: int) -> int:
    """Returns into how many blocks maps of these heights are split: 1 if not evenly."""
    count = dict(jax.sharding.get_abstract_mesh().shape).get(AXIS, 1)
    return count if all(height % count == 0 for height in heights) else 1


def split(x: jax.Array, count: int, *, before: int, after: int) -> jax.Array:
    """Cuts a map into blocks of rows that overlap.

    Args:
        x: [B, H, W, C].
        count: of blocks; H is a multiple of it.
        before: rows that each gets of the block above, at most H / count.
        after: rows that each gets of the block below, at most H / count.

    Returns:
        [B, count, before + H / count + after, W, C]; zeros beyond the map.
    """
    own = _shared(x.reshape(x.shape[0], count, -1, *x.shape[2:]))
    above = _moved(own[:, :, own.shape[2] - before :], 1)
    below = _moved(own[:, :, :after], -1)
    return _shared(jnp.concatenate([above, own, below], axis=2))


def _moved(x: jax.Array, step: int) -> jax.Array:
    """Hands every block's rows on to the next (1) or the last one (-1)."""
    if not x.shape[2]:
        return x
    is_beyond = jnp.arange(x.shape[1]) == (0 if step == 1 else x.shape[1] - 1)
    rolled = jnp.roll(x, step, axis=1)
    return jnp.where(is_beyond[:, None, None, None], 0, rolled)


def join(x: jax.Array) -> jax.Array:
    """Puts blocks [B, count, h, W, C] together, [B, count * h, W, C]."""
    whole = _shared(x).reshape(x.shape[0], -1, *x.shape[3:])
    return _shared(whole)


def _shared(x: jax.Array) -> jax.Array:
    """Keeps the second axis split over the devices; the compiler sees to the others."""
    free = PartitionSpec.UNCONSTRAINED
    spec = PartitionSpec(free, AXIS, *[free] * (x.ndim - 2))
    return jax.lax.with_sharding_constraint(x, spec)
