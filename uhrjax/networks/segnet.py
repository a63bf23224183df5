"""SegNet (https://arxiv.org/abs/1511.00561).

VGG16 with batch norm is mirrored: where the encoder pooled, the decoder puts values
back to where the maxima lay, all else 0, and convolves. No features skip the middle.

From memory of the architecture; no case checks it.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.backbones import vgg
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv
from uhrjax.ops import pool

# Place of each convolution in torchvision's `features`, block by block; its norm is
# the next one.
PLACES = ((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40))
TORCH_NAMES = tuple(
    (rf"^features\.{place + step}\.", f"backbone.block_{block}.layer_{index}.{part}.")
    for block, places in enumerate(PLACES)
    for index, place in enumerate(places)
    for step, part in enumerate(("conv", "norm"))
)


class Block(nn.Module):
    """3x3 convolutions with batch norm and ReLU."""

    features: tuple[int, ...]  # of each
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, features[-1]]."""
        for index, features in enumerate(self.features):
            x = conv.ConvNorm(
                features=features,
                kernel=3,
                bias=True,
                kernel_init=conv.he_in_init,
                dtype=self.dtype,
                name=f"layer_{index}",
            )(x, train=train)
        return x


class Encoder(nn.Module):
    """VGG16 with batch norm (https://arxiv.org/abs/1409.1556)."""

    width: int = 64
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, list[tuple[jax.Array, tuple[int, int]]]]:
        """Returns the map of stride 32 and, of every pooling, where the maxima lay and
        the size before it."""
        kind = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        poolings = []
        for block, (factor, count) in enumerate(vgg.BLOCKS):
            features = (self.width * factor,) * count
            x = kind(features, self.dtype, name=f"block_{block}")(x, train)
            size = x.shape[1:3]
            x, places = pool.max_2x2_with_places(x)
            poolings.append((places, size))
        return x, poolings


class SegNet(nn.Module):
    """Image -> logits."""

    num_classes: int
    width: int = 64  # channels of the finest level
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "logits", [B, H, W, num_classes] float32, and the
        "features" that they are made of, [B, H, W, C]."""
        x, poolings = Encoder(self.width, self.remat, self.dtype, name="backbone")(
            images, train=train
        )
        kind = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for block, (factor, count) in reversed(list(enumerate(vgg.BLOCKS))):
            x = pool.unpool_2x2(x, *poolings[block])
            # A block's last convolution has the channels of the next finer one; that of
            # the finest classifies.
            last = (self.width * vgg.BLOCKS[block - 1][0],) if block else ()
            features = (self.width * factor,) * (count - 1) + last
            x = kind(features, self.dtype, name=f"up_{block}")(x, train)
        # In float32: the result goes into a softmax.
        logits = conv.Conv(
            features=self.num_classes, kernel=3, bias=True, name="classify"
        )(x)
        return {"logits": logits, "features": x}


class SegNetMethod(network.NetworkMethod):
    """SegNet with a cross-entropy."""

    module_class = SegNet
    initial_rules = (("/layer_./conv/kernel$", "he_in"),)

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with the convolutions of torchvision's `vgg16_bn`.

        Args:
            variables: of this method; not changed.
            state_dict: PyTorch name -> array; what classifies is dropped.
        """
        features = {}
        for name, value in state_dict.items():
            name = name.removeprefix("module.")
            for pattern, ours in TORCH_NAMES:
                prefix = pattern[1:].replace("\\", "")
                if name.startswith(prefix):
                    features[ours + name.removeprefix(prefix)] = value
                    break
            else:
                if not name.startswith("classifier."):
                    features[name] = value
        return super().import_backbone(variables, features)

    def _check_model(self) -> None:
        base.check_range("config.model.width", self.module.width, low=1)
