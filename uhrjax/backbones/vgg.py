"""VGG16 without batch norm (https://arxiv.org/abs/1409.1556), as FCN-8s pads it.

The first convolution is padded by 100 px, so that images of any size leave enough
coarse pixels for the 7x7 classifier of FCN-8s; poolings round sizes up.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.nn import conv
from uhrjax.ops import pool

# (channels in units of `width`, convolutions) of block1 .. block5.
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
FIRST_PADDING = 100  # px
STRIDE = 2 ** len(BLOCKS)  # of the coarsest map
# Place of each convolution in torchvision's `features`, block by block.
PLACES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
# torchvision's names -> names of a network with this `backbone`.
TORCH_NAMES = tuple(
    (rf"^features\.{place}\.", f"backbone.block{block + 1}.conv{index + 1}.")
    for block, places in enumerate(PLACES)
    for index, place in enumerate(places)
)
# Names within the encoders of FCtL: `pool3` holds three blocks, the others one each.
FCTL_NAMES = tuple(
    (rf"\.pool{max(block, 2) + 1}\.{place}\.", f".block{block + 1}.conv{index + 1}.")
    for block, places in enumerate(PLACES)
    for index, place in enumerate(places if block < 3 else (0, 2, 4))
)


class VGG16(nn.Module):
    """Image -> the maps behind the last three of five poolings."""

    width: int = 64  # channels of block1
    wide_border: bool = True  # see above; False pads by 1 px, as later networks do
    remat: bool = False  # recompute the blocks in the backward pass
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> list[jax.Array]:
        """Returns the feature maps of strides 8, 16 and 32.

        Args:
            images: [B, H, W, 3] float.

        Returns:
            Three maps [B, h, w, C], C = width * (4, 8, 8). Both sides of an image grow
            by 198 px in the first convolution (with a wide border) and are halved, up,
            by each pooling.
        """
        block_class = nn.remat(Block) if self.remat else Block
        border = FIRST_PADDING if self.wide_border else 1
        x, maps = images, []
        for index, (factor, count) in enumerate(BLOCKS):
            x = block_class(
                features=self.width * factor,
                count=count,
                padding=1 if index else border,
                dtype=self.dtype,
                name=f"block{index + 1}",
            )(x)
            maps.append(x)
        return maps[2:]


class Block(nn.Module):
    """3x3 convolutions with ReLU, then a 2x2 max pooling."""

    features: int
    count: int  # of convolutions
    padding: int = 1  # of the first, px
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, h, w, features], half the size, rounded up."""
        for index in range(self.count):
            x = conv.Conv(
                features=self.features,
                kernel=3,
                bias=True,
                padding=1 if index else self.padding,
                kernel_init=conv.centred_init,  # ours, for want of ImageNet weights
                bias_init=nn.initializers.zeros,
                dtype=self.dtype,
                name=f"conv{index + 1}",
            )(x)
            x = nn.relu(x)
        return pool.max_2x2(x)


def initial_rules(place: str) -> tuple[tuple[str, str], ...]:
    """Returns the rules of `initial.draw` for encoders called `place`, a pattern."""
    return ((f"/({place})/.*kernel$", "centred"), (f"/({place})/.*bias$", "constant 0"))


def as_convolutions(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns torchvision's VGG16 with convolutions for fully connected layers.

    Args:
        state_dict: PyTorch name -> array of the classifier.

    Returns:
        The same without the last layer: `classifier.0` is a 7x7 convolution,
        `classifier.3` a 1x1 one.
    """
    found = {}
    for name, value in state_dict.items():
        name, value = name.removeprefix("module."), np.asarray(value)
        if name.startswith("classifier.6."):
            continue
        if name.startswith("classifier.") and value.ndim == 2:
            side = 7 if name.startswith("classifier.0.") else 1
            value = value.reshape(len(value), -1, side, side)
        found[name] = value
    return found
