"""Flips and quarter turns of images."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def turns(axis: int, *, back: bool = False) -> list[Callable[..., jax.Array]]:
    """Returns the 8 symmetries of the square, as functions of arrays.

    Args:
        axis: they act on axes (axis, axis + 1), of equal length.
        back: return their inverses, in the same order.
    """

    def turn(x: jax.Array, *, flip: bool, quarters: int) -> jax.Array:
        axes = (axis, axis + 1)
        if back:
            x = jnp.rot90(x, -quarters, axes)
            return jnp.flip(x, axis + 1) if flip else x
        return jnp.rot90(jnp.flip(x, axis + 1) if flip else x, quarters, axes)

    return [
        functools.partial(turn, flip=flip, quarters=quarters)
        for flip in (False, True)
        for quarters in range(4)
    ]
