"""Pyramid pooling (https://arxiv.org/abs/1612.01105, Sec. 3.2)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv
from uhrjax.ops import pool, resize


class PyramidPooling(nn.Module):
    """Adds the averages of whole image regions to every pixel."""

    features: int = 256  # channels of a branch and of the result
    bins: tuple[int, ...] = (1, 2, 3, 6)  # regions per side, one branch each
    dropout: float = 0.1  # share of whole channels dropped in training
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, features].

        The branches have no ReLU, as in the published PFNet code.
        """
        parts = []
        for index, size in enumerate(self.bins):
            branch = conv.ConvNorm(
                features=self.features,
                relu=False,
                dtype=self.dtype,
                name=f"branch_{index}",
            )(pool.adaptive_average(x, (size, size)), train=train)
            parts.append(resize.bilinear(branch, x.shape[1:3], align_corners=True))
        x = jnp.concatenate([*parts, x.astype(self.dtype)], axis=-1)
        x = conv.ConvNorm(features=self.features, dtype=self.dtype, name="fuse")(
            x, train=train
        )
        drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        return drop(x)
