"""Deep guided filter (https://arxiv.org/abs/1803.05619) behind a scene made small.

A segmentation network labels the whole scene, made small; its logits are enlarged and
filtered, guided by two 1x1 convolutions over the image at full size. Network and guide
are trained together. It is a row of MagNet's tables (its supplement states no settings;
these are of the public DeepLab example).

Differs from that example:
- logits are enlarged with half-pixel centres, not with aligned corners;
- scenes are filtered in windows: within 2 radius px of a window's border squares are
  cut off as at a scene's, so windows should overlap by more (`eval.stride`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.methods import base, wrapper
from uhrjax.nn import conv
from uhrjax.ops import guided


class GuidedFilter(nn.Module):
    """Image and logits -> logits with the image's edges."""

    num_classes: int
    size: tuple[int, int] = (0, 0)  # (height, width) of small scenes, px; 0: the tile
    hidden: int = 64  # channels of the guide
    radius: int = 4  # px
    epsilon: float = 0.01
    remat: bool = False  # nothing to gain: it is small
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, maps: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] and [B, H, W, K] to {"logits": [B, H, W, K] float32}."""
        x = conv.Conv(features=self.hidden, bias=True, dtype=self.dtype, name="hidden")(
            images
        )
        guide = conv.Conv(features=self.num_classes, bias=True, name="guide")(
            nn.relu(x)
        )
        found = guided.guided_filter(
            maps.astype(jnp.float32), guide.astype(jnp.float32), radius=self.radius,
            epsilon=self.epsilon,
        )  # fmt: skip
        return {"logits": found}


class DGFMethod(wrapper.OnSmallScenes):
    """A network that sees scenes made small, and the filter at full size."""

    module_class = GuidedFilter
    loss_class = losses.PlainLoss
    initial_rules = (("/(hidden|guide)/kernel$", "he_out"),)

    def apply(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Labels windows of scenes; see `base.Method.apply`."""
        images = self.images(batch)
        windows, stats = self.maps_in_windows(
            variables, batch, train=train, key=key, size=images.shape[1:3]
        )
        own = wrapper.own_of(variables)
        outputs = self.module.apply(own, images, windows, train=train)
        if not train:
            return outputs
        return outputs, {"segmenter": stats} if stats else {}

    def _example(self) -> tuple[Any, ...]:
        shape = jax.ShapeDtypeStruct
        return (
            shape((1, 8, 8, 3), jnp.float32),
            shape((1, 8, 8, self.num_classes), jnp.float32),
        )

    def _check_model(self) -> None:
        base.check_range("config.model.hidden", self.module.hidden, low=1)
        base.check_range("config.model.radius", self.module.radius, low=1)
        base.check_range("config.model.epsilon", self.module.epsilon, low=1e-6)
        self._check_segmenter()
        self.segmenter.check_sides("config.model.size", self.overview)
