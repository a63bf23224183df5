"""RANet, relation-augmented features (https://arxiv.org/abs/1904.05730).

At stride 8 a spatial module says how each place is related to places all over the
image, a channel module how the channels are related to each other; what both say stands
beside the features that they read, one behind the other, and classifies.

Differs from the paper: relations are to the means of an 8 x 8 grid of regions, not to
all places, so that weights do not depend on the image's size; PFNet's tables have its
backbone, a dilated ResNet. From memory of the architecture; no case checks it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv
from uhrjax.ops import pool


class SpatialRelation(nn.Module):
    """How each place is related to those of a grid."""

    grid: int = 8  # regions per side
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, grid ** 2] float32, products of features."""
        features = max(x.shape[-1] // 8, 1)
        query, key = (
            conv.Conv(features=features, bias=True, dtype=self.dtype, name=name)(x)
            for name in ("query", "key")
        )
        key = pool.adaptive_average(key, (self.grid, self.grid))
        key = key.reshape(key.shape[0], -1, features)
        products = jnp.einsum(
            "bhwc,brc->bhwr", query, key, preferred_element_type=jnp.float32
        )
        return nn.relu(products) / features**0.5


class ChannelRelation(nn.Module):
    """Channels, each joined with the others by how they are related."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape, float32."""
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        query, key = (
            conv.Conv(features=x.shape[-1], bias=True, name=name)(pooled)[:, 0, 0]
            for name in ("query", "key")
        )
        relation = nn.softmax(query[:, :, None] * key[:, None, :], axis=-1)
        return jnp.einsum("bcd,bhwd->bhwc", relation, x.astype(jnp.float32))


class RANet(network.Network):
    """Image -> logits."""

    grid: int = 8  # regions per side that places are related to

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8."""
        maps = self.features(images, train)
        x = self.convolve("enter", self.fpn_dim, 3)(maps[-1], train=train)
        for name, module in (
            ("channel", ChannelRelation(self.dtype, name="channel")),
            ("spatial", SpatialRelation(self.grid, self.dtype, name="spatial")),
        ):
            joined = jnp.concatenate([x, module(x).astype(x.dtype)], axis=-1)
            x = self.convolve(f"leave_{name}", self.fpn_dim)(joined, train=train)
        return self.outputs(self.classify(self.drop(x, train)), maps, images, train)


class RANetMethod(network.NetworkMethod):
    """RANet with a cross-entropy of its heads."""

    module_class = RANet
    torch_names = resnet.TORCH_NAMES

    def _check_model(self) -> None:
        super()._check_model()
        base.check_range("config.model.grid", self.module.grid, low=1)
