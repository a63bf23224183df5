"""UPerNet, the "baseline + PPM" of PFNet (https://arxiv.org/abs/2103.06564, Table 2).

A feature pyramid network over a residual backbone whose coarsest map passes through
pyramid pooling. Every coarser map is upsampled and added to the next finer one; all
levels together classify at stride 4. It is PFNet with each point flow replaced by
bilinear upsampling.

Differs from the paper (https://arxiv.org/abs/1807.10221), as the baseline's code does:
- pyramid pooling ends in a 1x1 instead of a 3x3 convolution, its branches in no ReLU;
- laterals have a bias, 256 channels, and no task but segmentation is trained;
- the 3x3 convolutions of the backbone's last two stages are dilated at full stride.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.nn import fpn
from uhrjax.ops import resize


class UPerNet(nn.Module):
    """Image -> logits at the image's size."""

    num_classes: int
    backbone: str = "resnet50"
    stem: str = "deep"
    dilation: str = "keep_stride"
    width: int = 64  # of the backbone
    fpn_dim: int = 256
    dropout: float = 0.1  # of whole channels, behind the pyramid pooling
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to {"logits": [B, H, W, num_classes] float32}."""
        maps = resnet.of_fields(self)(images, train=train)
        maps = fpn.PyramidInput(
            features=self.fpn_dim, dropout=self.dropout, dtype=self.dtype, name="neck"
        )(maps, train=train)
        logits = fpn.PyramidOutput(
            num_classes=self.num_classes,
            features=self.fpn_dim,
            dtype=self.dtype,
            name="head",
        )(fpn.add_top_down(maps), train=train)
        size = images.shape[1:3]
        return {"logits": resize.bilinear(logits, size, align_corners=True)}


class UPerNetMethod(base.Method):
    """UPerNet with a cross-entropy loss."""

    module_class = UPerNet
    torch_names = (*resnet.TORCH_NAMES, *fpn.TORCH_NAMES)
