"""RefineNet (https://arxiv.org/abs/1611.06612).

From the coarsest to the finest of four backbone maps, blocks refine what they get by
residual units, sum it at the finer resolution and add the background that chained 5x5
poolings see; logits of stride 4 come out.

Differs from the paper: two poolings in a chain, as its text's figure has them. From
memory of the architecture; no case checks it.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.networks import network
from uhrjax.nn import conv
from uhrjax.ops import resize


class Residual(nn.Module):
    """Two 3x3 convolutions, each behind a ReLU, around a shortcut."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        y = x
        for index in range(2):
            y = _convolve(f"conv_{index}", x.shape[-1], self.dtype, bias=True)(
                nn.relu(y)
            )
        return x + y


class RefineBlock(nn.Module):
    """Joins maps of several resolutions at the finest one."""

    features: int
    align_corners: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        """Maps one or two [B, h, w, C], the finest last, to [B, h, w, features]."""
        size, total = maps[-1].shape[1:3], 0.0
        for index, x in enumerate(maps):
            for unit in range(2):
                x = Residual(self.dtype, name=f"adapt_{index}_{unit}")(x)
            if len(maps) > 1:
                x = _convolve(f"fuse_{index}", self.features, self.dtype)(x)
            total += resize.bilinear(x, size, align_corners=self.align_corners)
        total = path = nn.relu(total)
        for index in range(2):
            path = _convolve(f"chain_{index}", total.shape[-1], self.dtype)(
                _max_5x5(path)
            )
            total += path
        return Residual(self.dtype, name="leave")(total)


class RefineNet(network.Network):
    """Image -> logits."""

    dilation: str = "none"
    fpn_dim: int = 256  # of all levels but the coarsest, which has twice as many
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 4."""
        maps = self.features(images, train)
        found: list[jax.Array] = []
        for level in reversed(range(4)):
            features = self.fpn_dim * (2 if level == 3 else 1)
            x = _convolve(f"enter_{level}", features, self.dtype)(maps[level])
            block = RefineBlock(
                features, self.align_corners, self.dtype, name=f"block_{level}"
            )
            found = [block([*found, x])]
        x = found[0]
        for unit in range(2):
            x = Residual(self.dtype, name=f"leave_{unit}")(x)
        return self.outputs(self.classify(self.drop(x, train)), maps, images, train)


class RefineNetMethod(network.NetworkMethod):
    """RefineNet with a cross-entropy of its heads."""

    module_class = RefineNet
    torch_names = resnet.TORCH_NAMES


def _convolve(
    name: str, features: int, dtype: Dtype, *, bias: bool = False
) -> conv.Conv:
    return conv.Conv(features=features, kernel=3, bias=bias, dtype=dtype, name=name)


def _max_5x5(x: jax.Array) -> jax.Array:
    """5x5 max pooling of stride 1 that keeps the size.

    Written as maxima of shifted maps: XLA's select-and-scatter, the gradient of a
    pooling, takes tens of times as long.
    """
    for axis in (1, 2):
        border = [(2, 2) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(x, border, constant_values=-jnp.inf)
        length = x.shape[axis]
        shifted = [
            jax.lax.slice_in_dim(padded, start, start + length, axis=axis)
            for start in range(5)
        ]
        x = functools.reduce(jnp.maximum, shifted)
    return x
