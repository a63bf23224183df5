"""Where windows of a scene add up: scores and their weights, a block of a band.

Pure functions of arrays, compiled by the engine.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from uhrjax.tiling import plan

Canvas = tuple[jax.Array, jax.Array]  # scores [h, w, K], weights [h, w]
UNSEEN = 255  # label of pixels that no window covered (skipped nodata)


def open_block(rows: Canvas, apron: Canvas, *, tiling: plan.Tiling) -> Canvas:
    """Returns a canvas [tile, block + tile] of what lies above and to the left."""
    tile, block = tiling.tile, tiling.block

    def opened(rows: jax.Array, apron: jax.Array) -> jax.Array:
        canvas = jnp.zeros((tile, block + tile, *rows.shape[2:]), jnp.float32)
        canvas = canvas.at[: rows.shape[0], :block].set(rows)
        return canvas.at[:, :tile].add(apron)

    return opened(rows[0], apron[0]), opened(rows[1], apron[1])


def add_windows(
    canvas: Canvas,
    scores: jax.Array,
    starts: jax.Array,
    valid: jax.Array,
    owned: jax.Array,
    window: jax.Array,
) -> Canvas:
    """Adds windows to a block's canvas, one after the other.

    Args:
        canvas: [tile, block + tile, K] and weights.
        scores: [B, tile, tile, K] float32.
        starts: [B] int32, left borders in block px.
        valid: [B] bool, False for padding.
        owned: [B, 4] int32: top, bottom, left, right of what counts, window px.
        window: [tile, tile] float32, the weight of a window's pixels.
    """
    line = jnp.arange(scores.shape[1])
    top, bottom, left, right = (owned[:, k, None, None] for k in range(4))
    rows, columns = line[None, :, None], line[None, None, :]
    counts = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    counts &= valid[:, None, None]
    weights = jnp.where(counts, window, 0.0)  # [B, tile, tile]
    totals = list(canvas)
    for b in range(len(starts)):
        added = (weights[b, ..., None] * scores[b], weights[b])
        for k, value in enumerate(added):
            place = (0, starts[b]) + (0,) * (value.ndim - 2)
            old = jax.lax.dynamic_slice(totals[k], place, value.shape)
            totals[k] = jax.lax.dynamic_update_slice(totals[k], old + value, place)
    return tuple(totals)


def close_block(
    canvas: Canvas, finished: jax.Array, *, kept: int, tiling: plan.Tiling
) -> tuple[dict[str, jax.Array], Canvas, Canvas]:
    """Returns a block's labels, `kept` rows below the finished ones, the apron."""
    tile, block = tiling.tile, tiling.block
    scores, weights = (part[:, :block] for part in canvas)
    labels = jnp.where(weights > 0, scores.argmax(-1), UNSEEN).astype(jnp.uint8)
    taken = {"labels": labels}
    if tiling.probabilities:
        mean = scores / jnp.maximum(weights, 1e-12)[..., None]
        is_logit = tiling.score == "logits"
        taken["probabilities"] = jax.nn.softmax(mean) if is_logit else mean

    def below(part: jax.Array) -> jax.Array:
        room = jnp.zeros((kept, *part.shape[1:]), part.dtype)
        part = jnp.concatenate([part, room])
        return jax.lax.dynamic_slice_in_dim(part, finished, kept)

    apron = tuple(part[:, block : block + tile] for part in canvas)
    return taken, (below(scores), below(weights)), apron
