"""Semantic FPN (https://arxiv.org/abs/1901.02446), the FPN baseline of PointFlow.

Laterals bring all four backbone maps to one width. Every coarser map is upsampled and
added to the next finer one. All levels together classify at stride 4.

Differs from the paper, as the baseline's code does:
- the levels are upsampled bilinearly and concatenated, not upsampled by convolutions
  and summed;
- batch norm instead of group norm; laterals have batch norm and ReLU;
- 256 channels throughout (the code's decoder has 128), to compare with UPerNet.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.nn import fpn
from uhrjax.ops import resize


class SemanticFPN(nn.Module):
    """Image -> logits at the image's size."""

    num_classes: int
    backbone: str = "resnet50"
    stem: str = "deep"
    dilation: str = "keep_stride"
    width: int = 64  # of the backbone
    fpn_dim: int = 256
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "logits", [B, H, W, num_classes] float32, and the
        "features" C2, [B, H / 4, W / 4, C]."""
        maps = resnet.of_fields(self)(images, train=train)
        finest = maps[0]
        maps = fpn.PyramidInput(
            features=self.fpn_dim, ppm=False, dtype=self.dtype, name="neck"
        )(maps, train=train)
        logits = fpn.PyramidOutput(
            num_classes=self.num_classes,
            features=self.fpn_dim,
            dtype=self.dtype,
            name="head",
        )(fpn.add_top_down(maps), train=train)
        size = images.shape[1:3]
        full = resize.bilinear(logits, size, align_corners=True)
        return {"logits": full, "features": finest}


class SemanticFPNMethod(base.Method):
    """Semantic FPN with a cross-entropy loss."""

    module_class = SemanticFPN
    torch_names = (*resnet.TORCH_NAMES, *fpn.TORCH_NAMES)
