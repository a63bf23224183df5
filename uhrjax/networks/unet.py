"""U-Net (https://arxiv.org/abs/1505.04597), trained from scratch.

Five levels of two 3x3 convolutions, each half the size and twice the channels of the
one above; the way back upsamples by 2x2 transposed convolutions and reads each level's
map once more.

Differs from the paper: padded convolutions with batch norm, so that the answer has the
image's size. From memory of the architecture; no case checks it.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.errors import InputError
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv
from uhrjax.ops import pool

LEVELS = 5


class UNet(nn.Module):
    """Image -> logits."""

    num_classes: int
    width: int = 64  # channels of the finest level
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "logits", [B, H, W, num_classes] float32, and the
        "features" that they are made of, [B, H, W, C]."""
        double = nn.remat(Double, static_argnums=(2,)) if self.remat else Double
        x, skips = images, []
        for level in range(LEVELS):
            if level:
                x = pool.max_2x2(x)
            features = self.width * 2**level
            x = double(features, self.dtype, name=f"down_{level}")(x, train)
            skips.append(x)
        for level in reversed(range(LEVELS - 1)):
            skip, features = skips[level], self.width * 2**level
            x = conv.Enlarge(features, self.dtype, name=f"enlarge_{level}")(x)
            x = x[:, : skip.shape[1], : skip.shape[2]]  # poolings round sizes up
            x = jnp.concatenate([skip, x], axis=-1)
            x = double(features, self.dtype, name=f"up_{level}")(x, train)
        # The last layer stays in float32: its result goes into a softmax.
        logits = conv.Conv(features=self.num_classes, bias=True, name="classify")(x)
        return {"logits": logits, "features": x}


class Double(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, features]."""
        for index in range(2):
            x = conv.ConvNorm(
                features=self.features,
                kernel=3,
                kernel_init=conv.he_in_init,
                dtype=self.dtype,
                name=f"conv_{index}",
            )(x, train=train)
        return x


class UNetMethod(network.NetworkMethod):
    """U-Net with a cross-entropy."""

    module_class = UNet
    initial_rules = (
        ("/(conv_|spread).*kernel$", "he_in"),
        ("/enlarge_./bias$", "constant 0"),
    )

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Refuses: this network has no backbone that others have trained."""
        raise InputError(
            "a U-Net is trained from scratch, there is no backbone in it; leave "
            "config.init_from empty, or use --config.init_what=model for all weights"
        )

    def _check_model(self) -> None:
        base.check_range("config.model.width", self.module.width, low=1)
