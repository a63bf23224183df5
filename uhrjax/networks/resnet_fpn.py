"""A feature pyramid over ResNet-50, MagNet's network on DeepGlobe and Inria.

It is one branch of GLNet (https://arxiv.org/abs/1905.06368): laterals bring the four
backbone maps to one width, every coarser map is added to the next finer one, two 3x3
convolutions per level without norm or activation follow, and one classifies all levels
at stride 4.

Differs from GLNet, as MagNet's code does (https://arxiv.org/abs/2104.03778): logits are
upsampled bilinearly, the loss is a cross-entropy, statistics inside the backbone's
blocks move by 0.01.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import losses, weights
from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.nn import guided_fpn
from uhrjax.ops import resize

# Theirs count levels from the coarsest.
TORCH_NAMES = (
    (r"^resnet_backbone\.", "backbone."),
    (r"^(toplayer|latlayer|smooth)", r"pyramid_fpn.\1"),
    *guided_fpn.TORCH_NAMES,
    (r"^classify\.", "head."),
)


class ResNetFPN(nn.Module):
    """Image -> logits at the image's size."""

    num_classes: int
    backbone: str = "resnet50"
    stem: str = "classic"
    dilation: str = "none"
    width: int = 64  # of the backbone
    fpn_dim: int = 256
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "logits", [B, H, W, num_classes] float32, and the
        "features" C2, [B, H / 4, W / 4, C]."""
        maps = resnet.of_fields(self, momentum=0.99)(images, train=train)
        pyramid = guided_fpn.GuidedPyramid(self.fpn_dim, self.dtype, name="pyramid_fpn")
        joined = pyramid(tuple(maps)).joined
        # The last layer stays in float32: its result goes into a softmax.
        logits = guided_fpn.small_conv(self.num_classes, 3, name="head")(joined)
        size = images.shape[1:3]
        full = resize.bilinear(logits, size, align_corners=False)
        return {"logits": full, "features": maps[0]}


class ResNetFPNMethod(base.Method):
    """The pyramid with a cross-entropy loss."""

    module_class = ResNetFPN
    loss_class = losses.PlainLoss
    torch_names = TORCH_NAMES
    initial_rules = (
        ("/(pyramid_fpn|head)/.*kernel$", "normal 0.01"),
        ("/(pyramid_fpn|head)/.*bias$", "constant 0"),
    )

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights of the whole network.

        Args:
            state_dict: PyTorch name -> array, also as MagNet's wrapper saves it.
        """
        return super().import_torch(weights.without_wrapper(state_dict))
