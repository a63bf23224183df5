"""MagNet's refinement network (https://arxiv.org/abs/2104.03778, Sec. 3.2).

It reads no image, only two opinions on a patch: what the segmentation network says of
it, and what is known from the scale before.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.nn import conv

MOMENTUM = 0.99  # of all statistics, in Flax' terms


class PatchRefiner(nn.Module):
    """Two maps of probabilities -> logits. Names are the published ones."""

    num_classes: int
    width: int = 64  # channels; half of them inside the blocks, double behind
    input_norm: bool = True  # batch norm on the probabilities
    momentum: float = MOMENTUM  # of the statistics, in Flax' terms
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, first: jax.Array, second: jax.Array, *, train: bool):
        """Maps two [B, h, w, K] to [B, h, w, K] float32."""
        x = jnp.concatenate([first, second], axis=-1)
        if self.input_norm:
            x = resnet.normalise(self, "bn0", train, self.momentum)(x)
        for index in ("1", "2"):
            x = resnet.convolve(self, f"conv{index}", self.width, 3)(x)
            x = nn.relu(resnet.normalise(self, f"bn{index}", train, self.momentum)(x))
        for index in range(2):
            x = resnet.Bottleneck(
                width=max(self.width // 2, 1),
                momentum=self.momentum,
                shortcut_momentum=self.momentum,
                dtype=self.dtype,
                name=f"residual_{index}",
            )(x, train)
        # In float32: the result goes into a softmax.
        return conv.Conv(
            features=self.num_classes, kernel_init=conv.he_init, name="seg_conv"
        )(x)
