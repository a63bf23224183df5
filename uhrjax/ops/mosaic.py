"""Patches put together on one map, where boxes may overlap or leave pixels out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uhrjax.ops import resize

# "mean" of all patches at a pixel; "released": the last one, divided by how many
# patches' interiors are there, as MagNet's code has it.
RULES = ("mean", "released")
RELEASED_MARGIN = 10  # px


class Canvas(NamedTuple):
    """What patches left on a map."""

    total: jax.Array  # [H, W, C] float32
    divisor: jax.Array  # [H, W] uint8, 0 where no patch is
    inner: jax.Array | None  # [H, W] uint8, how many patches' interiors are there


def assemble(
    patches: jax.Array,
    corners: jax.Array,
    *,
    box: tuple[int, int],
    size: tuple[int, int],
    rule: str = "mean",
    margin: int | None = None,
) -> Canvas:
    """Puts patches into their boxes, one after the other.

    Args:
        patches: [N, h, w, C] float32, each resized bilinearly to its box.
        corners: [N, 2] int, (top, left) of the boxes, px; they lie inside the map.
        box: (height, width) of all boxes, px.
        size: (height, width) of the map, px.
        rule: of RULES.
        margin: count interiors: boxes without a frame of that many px; None: do not.
    """
    if rule == "released":
        margin = RELEASED_MARGIN
    ones = jnp.ones(box, jnp.uint8)
    inner = None if margin is None else _interior(box, margin)

    def add(canvas: Canvas, given: tuple[jax.Array, jax.Array]):
        patch, corner = given
        patch = resize.bilinear(patch[None], box, align_corners=False)[0]
        if rule == "mean":
            total = _add(canvas.total, patch, corner)
        else:
            total = jax.lax.dynamic_update_slice(canvas.total, patch, (*corner, 0))
        counts = canvas.inner if inner is None else _add(canvas.inner, inner, corner)
        return Canvas(total, _add(canvas.divisor, ones, corner), counts), None

    zeros = jnp.zeros(size, jnp.uint8)
    start = Canvas(
        jnp.zeros((*size, patches.shape[-1]), jnp.float32),
        zeros,
        None if inner is None else zeros,
    )
    canvas, _ = jax.lax.scan(add, start, (patches, corners))
    return canvas._replace(divisor=canvas.inner) if rule == "released" else canvas


def _interior(box: tuple[int, int], margin: int) -> jax.Array:
    """Returns a box of ones in a frame of zeros, uint8."""
    frame = [min(margin, side // 2) for side in box]
    inside = [max(side - 2 * margin, 0) for side in box]
    ends = [
        (before, side - before - kept)
        for before, side, kept in zip(frame, box, inside, strict=True)
    ]
    return jnp.pad(jnp.ones(inside, jnp.uint8), ends)


def read(
    canvas: Canvas, rows: jax.Array, columns: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Returns some px of the map, [h, w, C] float32, and where interiors are [h, w].

    Args:
        canvas: of `assemble`.
        rows: [h] int, px.
        columns: [w] int, px.
    """
    part = Canvas(*(None if x is None else x[rows][:, columns] for x in canvas))
    return divided(part)


def read_rows(
    canvas: Canvas, first: jax.Array, count: int
) -> tuple[jax.Array, jax.Array | None]:
    """Returns what `read` does of whole rows that follow each other."""
    part = Canvas(
        *(
            None if x is None else jax.lax.dynamic_slice_in_dim(x, first, count)
            for x in canvas
        )
    )
    return divided(part)


def divided(part: Canvas) -> tuple[jax.Array, jax.Array | None]:
    """Returns the map that px of a canvas are, see `read`."""
    divisor = jnp.maximum(part.divisor, 1).astype(jnp.float32)
    inside = None if part.inner is None else part.inner > 0
    return part.total / divisor[..., None], inside


def _add(total: jax.Array, part: jax.Array, corner: jax.Array) -> jax.Array:
    place = (*corner, *([0] * (total.ndim - 2)))
    old = jax.lax.dynamic_slice(total, place, part.shape)
    return jax.lax.dynamic_update_slice(total, old + part, place)
