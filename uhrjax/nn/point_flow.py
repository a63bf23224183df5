"""Point flow: a few chosen points carry features between two pyramid levels.

Sec. 3.2 and 3.3 of https://arxiv.org/abs/2103.06564; `methods/pfnet.py` says where this
follows the published code instead.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.nn import conv
from uhrjax.ops import pool, resize, sample, select

SALIENT = ("max_pool", "attention", "uniform", "none")
EDGE_PREDICTIONS = ("subtraction", "direct")
ATTENTION_POINTS = 128
UNIFORM_CELL = 7  # px of the coarse map

# Names in published networks -> names below a point flow.
TORCH_NAMES = (
    (r"point_matcher\.match_conv\.", "saliency."),
    (r"down_h\.", "compress_high."),
    (r"down_l\.", "compress_low."),
    (r"edge_final\.0\.", "edge_features.conv."),
    (r"edge_final\.1\.", "edge_features.norm."),
    (r"edge_final\.3\.", "edge."),
)


class Flow(NamedTuple):
    """What a point flow returns; None for a part that is switched off."""

    features: jax.Array  # the receiving map, some pixels replaced
    edge: jax.Array | None  # [B, h, w, 1] float32 logits on the coarse grid
    salient: jax.Array | None  # [B, P] int32, flat positions on the coarse grid
    boundary: jax.Array | None  # [B, K] int32
    grid: tuple[int, int]  # (h, w), the coarse grid


class PointFlow(nn.Module):
    """Point flow between a coarse and a fine map of the same channels."""

    reduce_dim: int = 64  # channels of the compressed maps behind the saliency
    salient: str = "max_pool"  # how salient points are chosen, or "none"
    boundary: bool = True  # flow at boundary points, with an edge head
    edge_prediction: str = "subtraction"  # from the map minus its body, or "direct"
    edge_points: int = 128  # boundary points, at most
    maxpool_size: int = 14  # cells per side, one salient point each
    avgpool_size: int = 9  # cells per side of the body that is subtracted
    onto_fine: bool = True  # False lets the fine features flow onto the coarse map
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_high: jax.Array, x_low: jax.Array, *, train: bool) -> Flow:
        """Passes features from one map to the other.

        Args:
            x_high: [B, h, w, C], the coarse map.
            x_low: [B, r * h, r * w, C], the fine map, r a whole number.
            train: use and update the statistics of the batch.

        Returns:
            The flow; its features have the shape of the receiving map: x_low, or
            x_high if not onto_fine.
        """
        _check_ratio(x_high, x_low)
        saliency = None
        if self.salient != "none" or self.edge_prediction == "subtraction":
            saliency = self._saliency(x_high, x_low)
        features = x_low if self.onto_fine else x_high
        edge = edge_index = salient_index = None
        if self.boundary:
            edge = self._edge(x_high, saliency, train)
            edge_index = select.top_index(
                jax.lax.stop_gradient(edge[..., 0]), self.edge_points
            )
            high = sample.gather(x_high, edge_index)
            low = sample.bilinear(x_low, _block_centres(edge_index, x_high, x_low))
            target = self._target_index(edge_index, x_high, x_low)
            new = self._attend(high, low)
            features = sample.overwrite(features, target, new, unique=True)
        if self.salient != "none":
            salient_index = self._salient_index(saliency, train)
            target = self._target_index(salient_index, x_high, x_low)
            high, low = self._salient_features(x_high, x_low, saliency, salient_index)
            # Second, so that salient points win over boundary points.
            features = sample.overwrite(features, target, self._attend(high, low))
        return Flow(features, edge, salient_index, edge_index, x_high.shape[1:3])

    def _saliency(self, x_high: jax.Array, x_low: jax.Array) -> jax.Array:
        """Returns M in (0, 1), [B, h, w, 1] float32."""
        compress = {"features": self.reduce_dim, "bias": True, "dtype": self.dtype}
        u = conv.Conv(**compress, name="compress_high")(x_high)
        v = conv.Conv(**compress, name="compress_low")(x_low)
        v = resize.bilinear(v, x_high.shape[1:3], align_corners=True)
        match = conv.Conv(features=1, kernel=3, bias=True, name="saliency")
        return nn.sigmoid(match(jnp.concatenate([u, v], axis=-1)))

    def _edge(self, x_high: jax.Array, saliency: jax.Array | None, train: bool):
        """Returns edge logits [B, h, w, 1] float32."""
        if self.edge_prediction == "subtraction":
            cells = (self.avgpool_size, self.avgpool_size)
            body = pool.adaptive_average(saliency, cells)
            body = resize.bilinear(body, x_high.shape[1:3], align_corners=True)
            x_high = x_high * (1 - body)
        x = conv.ConvNorm(
            features=x_high.shape[-1], kernel=3, dtype=self.dtype, name="edge_features"
        )(x_high, train=train)
        return conv.Conv(features=1, kernel=3, name="edge")(x)

    def _salient_index(self, saliency: jax.Array, train: bool) -> jax.Array:
        """Returns [B, P] int32; positions repeat where pooling windows overlap."""
        scores = jax.lax.stop_gradient(saliency[..., 0])
        if self.salient == "attention":
            return select.top_index(scores, ATTENTION_POINTS)
        if self.salient == "uniform":
            key = self.make_rng("dropout") if train else jax.random.key(0)
            return _one_per_cell(key, scores.shape)
        cells = (self.maxpool_size, self.maxpool_size)
        index = pool.adaptive_max_index(scores, cells)
        return index.reshape(index.shape[0], -1)

    def _salient_features(self, x_high, x_low, saliency, index):
        """Features [B, P, C] of both maps, the sending one times 1 + saliency."""
        batch, height, width, _ = saliency.shape
        cells = (self.maxpool_size, self.maxpool_size)
        peak_index = pool.adaptive_max_index(
            jax.lax.stop_gradient(saliency[..., 0]), cells
        )
        peaks = sample.gather(saliency, peak_index.reshape(batch, -1))
        peaks = resize.bilinear(
            peaks.reshape(batch, *cells, 1), (height, width), align_corners=True
        )
        scale = 1 + sample.gather(peaks, index)
        high = sample.gather(x_high, index)
        low = sample.gather(x_low, _fine_index(index, x_high, x_low))
        return (high * scale, low) if self.onto_fine else (high, low * scale)

    def _target_index(self, index, x_high, x_low):
        """Where a coarse position's result is written: top left of its fine block."""
        return _fine_index(index, x_high, x_low) if self.onto_fine else index

    def _attend(self, high: jax.Array, low: jax.Array) -> jax.Array:
        """Each receiving point adds the sending features it resembles; [B, P, C]."""
        sent, kept = (high, low) if self.onto_fine else (low, high)
        # Unscaled products of many channels make sharp softmaxes: full precision.
        sent, kept = sent.astype(jnp.float32), kept.astype(jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        affinity = jnp.einsum("bic,bjc->bij", kept, sent, precision=highest)
        affinity = nn.softmax(affinity, axis=-1)
        return kept + jnp.einsum("bij,bjc->bic", affinity, sent, precision=highest)


def _check_ratio(x_high: jax.Array, x_low: jax.Array) -> None:
    height, width = x_high.shape[1:3]
    ratio = x_low.shape[1] // height
    if x_low.shape[1:3] != (ratio * height, ratio * width):
        raise ValueError(
            f"the fine map {x_low.shape[1:3]} is no whole multiple of the coarse one "
            f"{(height, width)}; use images whose sides are multiples of 32 px"
        )


def _fine_index(index: jax.Array, x_high: jax.Array, x_low: jax.Array) -> jax.Array:
    """Flat coarse positions -> those of the top left pixels of their fine blocks."""
    ratio, width = x_low.shape[1] // x_high.shape[1], x_high.shape[2]
    return index // width * ratio * x_low.shape[2] + index % width * ratio


def _block_centres(index: jax.Array, x_high: jax.Array, x_low: jax.Array) -> jax.Array:
    """Flat coarse positions -> centres of their fine blocks, [B, P, 2] (y, x) px."""
    ratio, width = x_low.shape[1] // x_high.shape[1], x_high.shape[2]
    coarse = jnp.stack([index // width, index % width], axis=-1).astype(jnp.float32)
    return (coarse + 0.5) * ratio - 0.5


def _one_per_cell(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Returns [B, P] int32: a random flat position within every cell of [B, h, w]."""
    batch, height, width = shape
    starts = np.mgrid[0:height:UNIFORM_CELL, 0:width:UNIFORM_CELL].reshape(2, -1)
    sides = np.minimum(np.array([[height], [width]]) - starts, UNIFORM_CELL)
    drawn = jax.random.uniform(key, (batch, *starts.shape))
    # The product can round up to the side itself.
    offset = jnp.minimum((drawn * sides).astype(jnp.int32), sides - 1)
    position = jnp.asarray(starts, jnp.int32) + offset  # [B, 2, P]
    return position[:, 0] * width + position[:, 1]
