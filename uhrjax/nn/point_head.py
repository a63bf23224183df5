"""Rendering of label maps point by point (PointRend, https://arxiv.org/abs/1912.08193).

A small head classifies single points from the coarse logits and a fine map. It is
trained at points chosen at random, most of them uncertain; it is used where the
upsampled logits are least certain, resolution by resolution.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv
from uhrjax.ops import points as points_lib
from uhrjax.ops import resize, sample, select

IGNORE_LABEL = 255
OVERSAMPLE = 3  # candidates per training point (Sec. 4.1)
IMPORTANT = 0.75  # share of training points that are the most uncertain candidates


class PointHead(nn.Module):
    """Coarse logits and fine features of points -> their logits."""

    num_classes: int
    layers: int = 0  # hidden ones; each of them sees the coarse logits again
    features: int = 256  # of a hidden layer
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, logits: jax.Array, fine: jax.Array) -> jax.Array:
        """Maps [B, P, K] and [B, P, C] to [B, P, K] float32."""
        x = jnp.concatenate([logits, fine.astype(logits.dtype)], axis=-1)[:, :, None]
        for index in range(self.layers):
            x = conv.Conv(
                features=self.features,
                bias=True,
                dtype=self.dtype,
                name=f"hidden_{index}",
            )(x)
            x = jnp.concatenate([logits[:, :, None], nn.relu(x)], axis=-1)
        # In float32: the result goes into a softmax.
        x = conv.Conv(features=self.num_classes, bias=True, name="classify")(x)
        return x[:, :, 0]


def read(x: jax.Array, points: jax.Array) -> jax.Array:
    """Reads a map [B, h, w, C] at points [B, P, 2], (y, x) in 0 to 1; [B, P, C]."""
    return sample.bilinear(x, points * jnp.array(x.shape[1:3]) - 0.5)


def training_points(key: jax.Array, logits: jax.Array, count: int) -> jax.Array:
    """Draws points, three quarters of them where logits are undecided.

    Args:
        key: of the random numbers.
        logits: [B, h, w, K], coarse.
        count: points per image.

    Returns:
        [B, count, 2] float32, (y, x) in 0 to 1.
    """
    batch = len(logits)
    first, second = jax.random.split(key)
    candidates = jax.random.uniform(first, (batch, OVERSAMPLE * count, 2))
    certain = points_lib.certainty(jax.lax.stop_gradient(read(logits, candidates)))
    kept = int(IMPORTANT * count)
    index = jax.lax.top_k(-certain, kept)[1]
    chosen = jnp.take_along_axis(candidates, index[..., None], axis=1)
    anywhere = jax.random.uniform(second, (batch, count - kept, 2))
    return jnp.concatenate([chosen, anywhere], axis=1)


def labels_at(label: jax.Array, points: jax.Array) -> jax.Array:
    """Reads labels [B, H, W] of the pixels that hold points [B, P, 2]; [B, P]."""
    side = jnp.array(label.shape[1:3])
    row, column = jnp.split((points * side).astype(jnp.int32), 2, axis=-1)
    row, column = (
        jnp.minimum(index[..., 0], length - 1)
        for index, length in zip((row, column), label.shape[1:3], strict=True)
    )
    index = row * label.shape[2] + column
    return sample.gather(label[..., None], index)[..., 0]


def loss(logits: jax.Array, label: jax.Array, points: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy [] float32 of points.

    Args:
        logits: [B, P, K].
        label: [B, H, W] integers; 255 = ignore.
        points: [B, P, 2], (y, x) in 0 to 1 of the label.
    """
    label = labels_at(label, points).astype(jnp.int32)
    is_true = label[..., None] == jnp.arange(logits.shape[-1])
    true_logit = jnp.sum(jnp.where(is_true, logits, 0.0), axis=-1)
    valid = label != IGNORE_LABEL
    each = jnp.where(valid, jax.nn.logsumexp(logits, axis=-1) - true_logit, 0.0)
    return jnp.sum(each) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)


def render(
    logits: jax.Array,
    fine: jax.Array,
    head: PointHead,
    *,
    size: tuple[int, int],
    points: int,
    again: bool = True,
    align_corners: bool = True,
) -> jax.Array:
    """Doubles logits up to a size; the head decides the least certain pixels anew.

    Args:
        logits: [B, h, w, K], coarse.
        fine: [B, h', w', C], what the head reads besides.
        head: of the network.
        size: (height, width) of the result, px.
        points: pixels per doubling.
        again: the head reads the logits that it changed before; else the coarse ones.
        align_corners: where logits are doubled.

    Returns:
        [B, size[0], size[1], K] float32.
    """
    coarse = logits
    for height, width in _sizes(logits.shape[1:3], size):
        logits = resize.bilinear(logits, (height, width), align_corners=align_corners)
        gap = points_lib.certainty(jax.lax.stop_gradient(logits))
        index = select.top_index(-gap, points)
        place = jnp.stack([index // width, index % width], axis=-1)
        place = (place + 0.5) / jnp.array([height, width])
        before = sample.gather(logits, index) if again else read(coarse, place)
        new = head(before, read(fine, place))
        logits = sample.overwrite(logits, index, new, unique=True)
    return logits


def _sizes(small: tuple[int, int], large: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns the large size and its halves, rounded up, that are above the small."""
    found = []
    height, width = large
    while height > small[0] or width > small[1]:
        found.insert(0, (height, width))
        height, width = -(-height // 2), -(-width // 2)
    return found
