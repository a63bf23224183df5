"""OCNet with pyramid object context, ASP-OC (https://arxiv.org/abs/1809.00916).

At stride 8 five branches see a place: one sums all the places that resemble it, a 1x1
and three dilated 3x3 convolutions look around; together they classify.

Differs from the paper: each branch reads the backbone's map, as fits the weights that
PFNet's Table 6 prints (64.7 M), not a map of 512 channels.
From memory of the architecture; no case checks it.

Attention of 896 px images (12 544 places) goes through 128 queries at a time: 6.4 MB
instead of 630 MB per image.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.networks import network
from uhrjax.nn import conv, correlation


class ObjectContext(nn.Module):
    """Sums at every place what resembles it (Sec. 3.2)."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        channels = x.shape[-1]
        half = max(channels // 2, 1)

        def tokens(y: jax.Array) -> jax.Array:
            return y.reshape(y.shape[0], -1, y.shape[-1])

        # One layer makes queries and keys: who resembles whom is mutual.
        key = conv.ConvNorm(features=half, dtype=self.dtype, name="key")(x, train=train)
        value = conv.Conv(features=channels, bias=True, dtype=self.dtype, name="value")(
            x
        )
        query = tokens(key) / math.sqrt(half)
        summed = correlation.attend(query, tokens(key), tokens(value)).reshape(x.shape)
        return conv.Conv(features=channels, bias=True, dtype=self.dtype, name="leave")(
            summed
        )


class OCNet(network.Network):
    """Image -> logits."""

    rates: tuple[int, ...] = (12, 24, 36)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8."""
        maps = self.features(images, train)
        x = self.convolve("enter", self.fpn_dim, 3)(maps[-1], train=train)
        parts = [ObjectContext(self.dtype, name="context")(x, train=train)]
        parts.append(self.convolve("branch_0", self.fpn_dim)(maps[-1], train=train))
        for index, rate in enumerate(self.rates, start=1):
            branch = self.convolve(f"branch_{index}", self.fpn_dim, 3, dilation=rate)
            parts.append(branch(maps[-1], train=train))
        x = jnp.concatenate(parts, axis=-1)
        x = self.convolve("fuse", self.fpn_dim)(x, train=train)
        return self.outputs(self.classify(self.drop(x, train)), maps, images, train)


class OCNetMethod(network.NetworkMethod):
    """OCNet with a cross-entropy of its heads."""

    module_class = OCNet
    torch_names = resnet.TORCH_NAMES
