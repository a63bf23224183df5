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
    original: bool = False  # as UPerNet's authors have it, see below
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, features].

        The branches have no ReLU, as in the published PFNet code. The original
        upsamples before its convolutions, which have one, with half-pixel centres, and
        joins by a 3x3 convolution.
        """
        corners = not self.original
        parts = []
        for index, size in enumerate(self.bins):
            branch = pool.adaptive_average(x, (size, size))
            if self.original:
                branch = resize.bilinear(branch, x.shape[1:3], align_corners=corners)
            branch = self._convolve(f"branch_{index}", relu=self.original)(
                branch, train=train
            )
            parts.append(resize.bilinear(branch, x.shape[1:3], align_corners=corners))
        whole = x.astype(self.dtype)
        parts = [whole, *parts] if self.original else [*parts, whole]
        x = self._convolve("fuse", kernel=3 if self.original else 1)(
            jnp.concatenate(parts, axis=-1), train=train
        )
        drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        return drop(x)

    def _convolve(
        self, name: str, *, kernel: int = 1, relu: bool = True
    ) -> conv.ConvNorm:
        return conv.ConvNorm(
            features=self.features,
            kernel=kernel,
            relu=relu,
            dtype=self.dtype,
            name=name,
            **(conv.ORIGINAL_START if self.original else {}),
        )
