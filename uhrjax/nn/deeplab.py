"""The heads of DeepLabV3 and DeepLabV3+ (https://arxiv.org/abs/1706.05587, 1802.02611).

Named and ordered as PFNet's code has them within PointRend, which leaves out the ReLU
behind the projection: `rectified=False`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv
from uhrjax.ops import resize

# Names in published networks -> names below `head`.
ASPP_NAMES = (
    (r"^aspp\.img_conv\.0\.", "head.aspp.pooled.conv."),
    (r"^aspp\.img_conv\.1\.", "head.aspp.pooled.norm."),
    (r"^aspp\.features\.(\d)\.0\.", r"head.aspp.branch_\1.conv."),
    (r"^aspp\.features\.(\d)\.1\.", r"head.aspp.branch_\1.norm."),
)
V3_NAMES = (
    *ASPP_NAMES,
    (r"^bot_aspp\.0\.", "head.project.conv."),
    (r"^bot_aspp\.1\.", "head.project.norm."),
)
V3PLUS_NAMES = (
    *ASPP_NAMES,
    (r"^bot_aspp\.", "head.project."),
    (r"^bot_fine\.", "head.skip."),
    (r"^final\.0\.", "head.fuse_0.conv."),
    (r"^final\.1\.", "head.fuse_0.norm."),
    (r"^final\.3\.", "head.fuse_1.conv."),
    (r"^final\.4\.", "head.fuse_1.norm."),
)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: one place seen at several dilations."""

    features: int = 256  # of a branch
    rates: tuple[int, ...] = (12, 24, 36)  # dilations of the 3x3 branches
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to all branches side by side.

        Returns:
            [B, h, w, (2 + rates) * features]: the image's mean, 1x1, the 3x3 ones.
        """
        mean = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        mean = self._branch("pooled")(mean.astype(x.dtype), train=train)
        size = (*x.shape[:3], self.features)
        parts = [jnp.broadcast_to(mean, size), self._branch("branch_0")(x, train=train)]
        for index, rate in enumerate(self.rates, start=1):
            branch = self._branch(f"branch_{index}", kernel=3, dilation=rate)
            parts.append(branch(x, train=train))
        return jnp.concatenate(parts, axis=-1)

    def _branch(self, name: str, **more: int) -> conv.ConvNorm:
        return conv.ConvNorm(
            features=self.features, dtype=self.dtype, name=name, **more
        )


class V3Head(nn.Module):
    """The coarsest map -> features of its own size."""

    features: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    rectified: bool = True  # see above
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[jax.Array], *, train: bool) -> jax.Array:
        """Maps C2 .. C5 [B, h, w, C] to [B, h, w, features] at C5's size."""
        x = ASPP(self.features, self.rates, self.dtype, name="aspp")(
            maps[-1], train=train
        )
        return conv.ConvNorm(
            features=self.features,
            relu=self.rectified,
            dtype=self.dtype,
            name="project",
        )(x, train=train)


class V3PlusHead(nn.Module):
    """The coarsest map and a few channels of the finest -> features at stride 4."""

    features: int = 256
    skip_features: int = 48
    rates: tuple[int, ...] = (12, 24, 36)
    rectified: bool = True
    align_corners: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, maps: list[jax.Array], *, train: bool, beside: jax.Array | None = None
    ) -> jax.Array:
        """Maps C2 .. C5 [B, h, w, C] to [B, h, w, features] at C2's size.

        Args:
            maps: of the backbone, finest first.
            train: use and update the statistics of the batch.
            beside: [B, h, w, D], of C5's size, joined with the branches.
        """
        x = ASPP(self.features, self.rates, self.dtype, name="aspp")(
            maps[-1], train=train
        )
        if beside is not None:
            x = jnp.concatenate([x, beside], axis=-1)
        x = self._reduce("project", self.features, x, train)
        skip = self._reduce("skip", self.skip_features, maps[0], train)
        x = resize.bilinear(x, skip.shape[1:3], align_corners=self.align_corners)
        x = jnp.concatenate([skip, x], axis=-1)
        for index in range(2):
            x = conv.ConvNorm(
                features=self.features,
                kernel=3,
                dtype=self.dtype,
                name=f"fuse_{index}",
            )(x, train=train)
        return x

    def _reduce(self, name: str, features: int, x: jax.Array, train: bool) -> jax.Array:
        """A 1x1 convolution; with norm and ReLU only if rectified."""
        if self.rectified:
            layer = conv.ConvNorm(features=features, dtype=self.dtype, name=name)
            return layer(x, train=train)
        return conv.Conv(features=features, dtype=self.dtype, name=name)(x)
