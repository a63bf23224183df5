"""Other ways from a coarse map to a fine one, in the place of point flow.

Table 2c of https://arxiv.org/abs/2103.06564 compares them; only point flow is published
as code, so each of these is our reading of the paper that it comes from.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.nn import conv, correlation, point_flow
from uhrjax.ops import resize, sample

TAPS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


class FlowAlignment(nn.Module):
    """Semantic flow (https://arxiv.org/abs/2002.10120): where to read the coarse map.

    Both maps together say how far from its own place each fine pixel looks.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_high: jax.Array, x_low: jax.Array, *, train: bool
    ) -> point_flow.Flow:
        """Returns the coarse map [B, h, w, C] warped onto the fine one's grid."""
        size, features = x_low.shape[1:3], max(x_low.shape[-1] // 2, 1)
        high, low = (
            conv.Conv(features=features, dtype=self.dtype, name=name)(x)
            for name, x in (("reduce_high", x_high), ("reduce_low", x_low))
        )
        high = resize.bilinear(high, size, align_corners=True)
        # In float32: positions.
        flow = conv.Conv(features=2, kernel=3, name="flow")(
            jnp.concatenate([high, low], axis=-1)
        )
        coarse = np.array(x_high.shape[1:3])
        # A flow of 1 is half a fine pixel, as the published normalisation has it.
        shift = flow * jnp.array((coarse - 1) / (2 * np.array(size)), jnp.float32)
        points = _grid(size, scale=(coarse - 1) / np.maximum(np.array(size) - 1, 1))
        points = points + shift.reshape(len(flow), -1, 2)
        warped = sample.bilinear(x_high, points)
        return _flow(warped.reshape(*x_low.shape[:3], -1), x_high)


class DeformableConv(nn.Module):
    """A 3x3 convolution whose taps lie where the maps say (https://arxiv.org/abs/1703.06211),
    and count as much as they say (v2, https://arxiv.org/abs/1811.11168)."""

    modulated: bool = False  # v2
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_high: jax.Array, x_low: jax.Array, *, train: bool
    ) -> point_flow.Flow:
        """Returns the upsampled coarse map [B, H, W, C], convolved."""
        size, channels = x_low.shape[1:3], x_high.shape[-1]
        up = resize.bilinear(x_high, size, align_corners=True)
        both = jnp.concatenate([up, x_low.astype(up.dtype)], axis=-1)
        zeros = nn.initializers.zeros
        start = {"kernel": 3, "bias": True, "kernel_init": zeros, "bias_init": zeros}
        # In float32: positions.
        offset = conv.Conv(features=2 * len(TAPS), **start, name="offset")(both)
        offset = offset.reshape(len(up), -1, len(TAPS), 2)
        strength = None
        if self.modulated:
            strength = conv.Conv(features=len(TAPS), **start, name="strength")(both)
            strength = nn.sigmoid(strength).reshape(len(up), -1, len(TAPS), 1)
        shape = (3, 3, channels, channels)
        kernel = self.param("kernel", conv.torch_init, shape, jnp.float32)
        kernel = kernel.reshape(len(TAPS), channels, channels).astype(self.dtype)
        grid, total = _grid(size), 0.0
        for index, tap in enumerate(TAPS):
            points = grid + np.array(tap, np.float32) + offset[:, :, index]
            read = sample.bilinear(up, points)
            if strength is not None:
                read = read * strength[:, :, index].astype(read.dtype)
            total += read.astype(self.dtype) @ kernel[index]
        return _flow(total.reshape(*x_low.shape[:3], channels), x_high)


class DenseAffinity(nn.Module):
    """Every fine pixel adds the coarse pixels that it resembles; no weights.

    128 of them at a time: at 896 px the whole map has 50 176 x 12 544 entries.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_high: jax.Array, x_low: jax.Array, *, train: bool
    ) -> point_flow.Flow:
        """Returns the fine map [B, H, W, C] with what it found added."""
        low, high = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (x_low, x_high))
        found = correlation.attend(low, high, high).reshape(x_low.shape)
        return _flow(x_low + found.astype(x_low.dtype), x_high)


KINDS = {  # of `make`, beside point flow itself
    "dcn_v1": lambda dtype, name: DeformableConv(False, dtype, name=name),
    "dcn_v2": lambda dtype, name: DeformableConv(True, dtype, name=name),
    "dense_affinity": lambda dtype, name: DenseAffinity(dtype, name=name),
    "flow_alignment": lambda dtype, name: FlowAlignment(dtype, name=name),
}
INITIAL_RULES = (("/(offset|strength)/(kernel|bias)$", "constant 0"),)


def make(kind: str, *, dtype: Dtype, name: str) -> nn.Module:
    """Returns one of KINDS, a submodule of the module that calls this."""
    return KINDS[kind](dtype, name)


def _grid(size: tuple[int, int], scale: np.ndarray | float = 1.0) -> np.ndarray:
    """Returns the places of all pixels, [1, H * W, 2] float32 (y, x), times a scale."""
    grid = np.stack(np.mgrid[: size[0], : size[1]], axis=-1) * scale
    return grid.reshape(1, -1, 2).astype(np.float32)


def _flow(features: jax.Array, x_high: jax.Array) -> point_flow.Flow:
    """Returns features as a flow without points or edges."""
    return point_flow.Flow(features, None, None, None, x_high.shape[1:3])
