"""HRNetV2 (https://arxiv.org/abs/1908.07919), of width 18 in PFNet's tables.

Four branches of different resolution exchange what they find after every few blocks;
they are joined at the finest, a quarter of the image, where 1x1 convolutions classify.

`hrnet` is the same trunk with Foveation's head and loss, `hrnet_ocr` with MagNet's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import hrnet
from uhrjax.networks import hrnet_trunk, network
from uhrjax.nn import conv
from uhrjax.ops import resize

TORCH_NAMES = (
    (rf"^{hrnet.TRUNK}", r"backbone.\1."),
    (r"^last_layer\.0\.", "hidden.conv."),
    (r"^last_layer\.1\.", "hidden.norm."),
    (r"^last_layer\.3\.", "classify."),
)


class HRNetV2(nn.Module):
    """Image -> logits."""

    num_classes: int
    size: str = "w18"  # a key of hrnet.SIZES
    width: int = 0  # channels of the finest branch; 0: as the size says
    stem_width: int = 64
    stem_stride: int = 2  # 1: everything at full resolution
    align_corners: bool = True  # where branches and logits are upsampled
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "coarse", [B, H / 4, W / 4, num_classes] float32, and
        "logits", the same at the size of the images; the trunk's "features"."""
        x = hrnet.HRNet(
            size=self.size,
            width=self.width,
            stem_width=self.stem_width,
            stem_stride=self.stem_stride,
            align_corners=self.align_corners,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )(images, train=train)
        hidden = conv.ConvNorm(
            features=x.shape[-1], bias=True, dtype=self.dtype, name="hidden"
        )(x, train=train)
        # In float32: the result goes into a softmax.
        coarse = conv.Conv(features=self.num_classes, bias=True, name="classify")(
            hidden
        )
        size = images.shape[1:3]
        full = resize.bilinear(coarse, size, align_corners=self.align_corners)
        return {"coarse": coarse, "logits": full, "features": x}


class HRNetV2Method(hrnet_trunk.HRNetTrunk, network.NetworkMethod):
    """HRNetV2 with a cross-entropy."""

    module_class = HRNetV2
    torch_names = TORCH_NAMES
