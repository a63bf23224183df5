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


def turn_places(tile: int) -> list[Callable[..., tuple[jax.Array, jax.Array]]]:
    """Returns what `turns` of a whole scene do to the places of its windows.

    Args:
        tile: side of a window, px.

    Returns:
        8 functions (position [B, 2], scene_size [B, 2]) -> the same in the turned
        scene; position is a window's (top, left), scene_size (height, width), px.
    """

    def turn(
        position: jax.Array, size: jax.Array, *, flip: bool, quarters: int
    ) -> tuple[jax.Array, jax.Array]:
        if flip:
            left = size[:, 1] - position[:, 1] - tile
            position = jnp.stack([position[:, 0], left], axis=1)
        for _ in range(quarters):  # counter-clockwise: the right side comes up
            top = size[:, 1] - position[:, 1] - tile
            position = jnp.stack([top, position[:, 0]], axis=1)
            size = size[:, ::-1]
        return position, size

    return [
        functools.partial(turn, flip=flip, quarters=quarters)
        for flip in (False, True)
        for quarters in range(4)
    ]
