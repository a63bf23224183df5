"""A small network of everything that looks beyond its own rows: for sharded maps.

Strided and pooled convolutions, pyramid pooling, resizing in both directions, points
that are gathered and scattered, and the mining of hard pixels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.methods import base
from uhrjax.nn import conv, point_flow, ppm
from uhrjax.ops import pool, resize


class Suspects(nn.Module):
    """Image -> logits at the image's size."""

    num_classes: int
    width: int = 4
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to {"logits": [B, H, W, num_classes]}."""
        x = conv.ConvNorm(self.width, kernel=3, stride=2, name="stem")(
            images, train=train
        )
        fine = pool.max_3x3_stride_2(x)  # at H / 4
        coarse = conv.ConvNorm(self.width, kernel=3, stride=2, dilation=2, name="down")(
            fine, train=train
        )
        coarse = ppm.PyramidPooling(features=self.width, dropout=0.0, name="ppm")(
            coarse, train=train
        )
        flow = point_flow.PointFlow(
            reduce_dim=2, edge_points=8, maxpool_size=2, avgpool_size=3, name="flow"
        )(coarse, fine, train=train)
        fine += resize.bilinear(coarse, fine.shape[1:3], align_corners=False)
        logits = conv.Conv(self.num_classes, bias=True, name="classify")(
            flow.features + fine
        )
        size = images.shape[1:3]
        return {"logits": resize.bilinear(logits, size, align_corners=True)}


class SuspectsMethod(base.Method):
    """With hard example mining."""

    module_class = Suspects

    def _check_model(self) -> None:
        base.check_range("config.model.width", self.module.width, low=1)
