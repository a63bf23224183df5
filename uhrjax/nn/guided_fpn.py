"""GLNet's feature pyramid, which another pyramid may guide at every layer.

Sec. 3.3 of https://arxiv.org/abs/1905.06368; `methods/glnet.py` has the differences.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv, fpn
from uhrjax.ops import resize

LEVELS = 4
KINDS = ("features", "summed", "smooth", "narrow")  # of maps that pyramids exchange
# Names in published networks -> names below a pyramid; theirs count from the coarsest.
TORCH_NAMES = (
    (r"_fpn\.smooth\.", "_fpn.fuse."),
    (r"_fpn\.toplayer\.", "_fpn.lateral_3."),
    *((rf"_fpn\.latlayer{i}\.", f"_fpn.lateral_{3 - i}.") for i in (1, 2, 3)),
    *((rf"_fpn\.smooth{i}_1\.", f"_fpn.smooth_{4 - i}.") for i in (1, 2, 3, 4)),
    *((rf"_fpn\.smooth{i}_2\.", f"_fpn.narrow_{4 - i}.") for i in (1, 2, 3, 4)),
)


class PyramidMaps(NamedTuple):
    """What a pyramid computes, level by level, finest first; each [B, h, w, C]."""

    features: tuple[jax.Array, ...]  # C2 .. C5 of the backbone
    summed: tuple[jax.Array, ...]  # laterals, the coarser ones added
    smooth: tuple[jax.Array, ...]  # behind the first 3x3 convolution
    narrow: tuple[jax.Array, ...]  # behind the second, half the channels
    joined: jax.Array  # all levels at the size of the finest


class GuidedPyramid(nn.Module):
    """Feature pyramid without norms and activations.

    A guide gives maps of the same sizes; each is appended to the own one in front of
    the layer that reads it.
    """

    features: int = 256
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: tuple[jax.Array, ...], guide: PyramidMaps | None = None
    ) -> PyramidMaps:
        """Returns the pyramid over C2 .. C5; `joined` has 2 * `features` channels."""

        def layer(name: str, width: int, kernel: int, kind: str, level: int, x):
            if guide is not None:
                other = getattr(guide, kind)[level]
                x = jnp.concatenate([x, other.astype(x.dtype)], axis=-1)
            return small_conv(width, kernel, self.dtype, name=f"{name}_{level}")(x)

        def layers(name, width, kernel, kind, maps):
            return tuple(
                layer(name, width, kernel, kind, level, x)
                for level, x in enumerate(maps)
            )

        half = self.features // 2
        laterals = layers("lateral", self.features, 1, "features", features)
        summed = tuple(fpn.add_top_down(list(laterals), align_corners=False))
        smooth = layers("smooth", self.features, 3, "summed", summed)
        narrow = layers("narrow", half, 3, "smooth", smooth)
        joined = self._join(narrow, guide)
        return PyramidMaps(tuple(features), summed, smooth, narrow, joined)

    def _join(
        self, narrow: tuple[jax.Array, ...], guide: PyramidMaps | None
    ) -> jax.Array:
        size, parts = narrow[0].shape[1:3], []
        for level in reversed(range(LEVELS)):
            parts.append(narrow[level])
            if guide is not None:
                parts.append(guide.narrow[level].astype(self.dtype))
        joined = jnp.concatenate(
            [resize.bilinear(x, size, align_corners=False) for x in parts], axis=-1
        )
        if guide is None:
            return joined
        return small_conv(2 * self.features, 3, self.dtype, name="fuse")(joined)


def small_conv(
    features: int, kernel: int, dtype: Dtype = jnp.float32, *, name: str
) -> conv.Conv:
    """Returns a convolution with a bias that starts near 0."""
    return conv.Conv(
        features=features,
        kernel=kernel,
        bias=True,
        kernel_init=nn.initializers.normal(0.01),
        bias_init=nn.initializers.zeros,
        dtype=dtype,
        name=name,
    )
