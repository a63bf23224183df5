"""A network that compiles in no time, and its config: for tests of all around it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from configs import base as configs
from uhrjax.methods import base
from uhrjax.nn import conv


class Pixel(nn.Module):
    """One convolution, batch norm and a classifier."""

    num_classes: int
    width: int = 4
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to {"logits": [B, H, W, num_classes]}."""
        x = conv.ConvNorm(self.width, kernel=3, name="body")(images, train=train)
        return {"logits": conv.Conv(self.num_classes, bias=True, name="classify")(x)}


class PixelMethod(base.Method):
    """It has no backbone."""

    module_class = Pixel

    def _check_model(self) -> None:
        base.check_range("config.model.width", self.module.width, low=1)


def get_config(variant: str = ""):
    """Returns a recipe for a folder of scenes."""
    config = configs.defaults()
    configs.folder(config)
    config.method = "pixel"
    config.model.width = 4
    config.tile, config.stride, config.eval.stride = 32, 32, 24
    config.batch_size, config.epochs, config.learning_rate = 8, 2, 0.05
    config.log_every, config.eval.panels = 1, 1
    return config
