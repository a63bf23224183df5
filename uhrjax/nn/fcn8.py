"""The head of FCN-8s (https://arxiv.org/abs/1411.4038): three strides to one logit map.

Upsampling is a transposed convolution with a fixed bilinear kernel, without padding;
skips are cropped to it. The offsets belong to an encoder padded by 100 px. Without that
border the classifier pads instead, and what is upsampled is cropped to the skips: ours,
a small fraction of the work for small patches.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.nn import conv

# Where the upsampled map begins in the map of stride 16 and 8, and the image in the
# result.
OFFSETS, OFFSET_IMAGE = {"pool4": 5, "pool3": 9}, 31
# Without the encoder's border: where what is upsampled begins in the result.
OFFSET_X2, OFFSET_X8 = 1, 4

# Names in published networks, and in a classifier made of convolutions -> names below
# `head`.
TORCH_NAMES = (
    (r"^classifier\.0\.", "head.fc6."),
    (r"^classifier\.3\.", "head.fc7."),
    (r"^output\.0\.", "head.fc6."),
    (r"^output\.3\.", "head.fc7."),
    (r"^output\.6\.", "head.score."),
    (r"^adj_pool(\d)\.", r"head.score_pool\1."),
)


class FCN8Head(nn.Module):
    """Maps of strides 8, 16 and 32 -> logits at the image's size."""

    num_classes: int
    fc_features: int = 4096
    dropout: float = 0.5
    wide_border: bool = True  # of the encoder
    # Of the features of pool4 and pool3, not of their bias.
    skip_scales: tuple[float, float] = (0.01, 0.0001)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, maps: Sequence[jax.Array], size: tuple[int, int], *, train: bool
    ) -> jax.Array:
        """Classifies the coarsest map and refines its logits by the finer maps.

        Args:
            maps: three maps [B, h, w, C] of `vgg.VGG16`, finest first.
            size: (height, width) of the image, px.
            train: drop features.

        Returns:
            [B, size[0], size[1], num_classes] float32.
        """
        pool3, pool4, x = maps
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for name, kernel in (("fc6", 7), ("fc7", 1)):
            x = conv.Conv(
                features=self.fc_features,
                kernel=kernel,
                bias=True,
                padding=0 if self.wide_border else kernel // 2,
                dtype=self.dtype,
                name=name,
            )(x)
            x = drop(nn.relu(x))
        scores = self._score(x, "score")
        pairs = zip((pool4, pool3), self.skip_scales, ("pool4", "pool3"), strict=True)
        for features, scale, name in pairs:
            skip = self._score(scale * features.astype(jnp.float32), f"score_{name}")
            scores = self._double(scores, skip.shape[1:3])
            self.sow("intermediates", f"below_{name}", scores)
            offset = OFFSETS[name] if self.wide_border else 0
            scores += _crop(skip, offset, scores.shape[1:3])
        offset = OFFSET_IMAGE if self.wide_border else OFFSET_X8
        return upsample(scores, kernel=16, stride=8, offset=offset, size=size)

    def _double(self, scores: jax.Array, size: tuple[int, int]) -> jax.Array:
        """Upsamples twofold: whole, or what lies over a skip of that size."""
        if self.wide_border:
            return upsample(scores, kernel=4, stride=2)
        return upsample(scores, kernel=4, stride=2, offset=OFFSET_X2, size=size)

    def _score(self, x: jax.Array, name: str) -> jax.Array:
        # In float32: the result goes into a softmax.
        return conv.Conv(features=self.num_classes, bias=True, name=name)(x)


def upsample(
    x: jax.Array,
    *,
    kernel: int,
    stride: int,
    offset: int = 0,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """Transposed convolution of every channel with the bilinear kernel, cropped.

    Args:
        x: [B, h, w, C] float32.
        kernel: side of the kernel, even.
        stride: of the transposed convolution.
        offset: where the crop begins, on both axes.
        size: of the crop; None: everything from the offset on.

    Returns:
        [B, *size, C] float32; everything is (h - 1) * stride + kernel rows.
    """
    matrices = []
    for axis in (0, 1):
        matrix = _upsampling_matrix(x.shape[axis + 1], kernel=kernel, stride=stride)
        end = offset + size[axis] if size else None
        matrices.append(jnp.asarray(matrix[offset:end]))
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("jw,bhwc->bhjc", matrices[1], x, precision=highest)
    return jnp.einsum("ih,bhjc->bijc", matrices[0], x, precision=highest)


def _upsampling_matrix(length: int, *, kernel: int, stride: int) -> np.ndarray:
    """Returns [(length - 1) * stride + kernel, length] float32, one axis of it."""
    half = kernel / 2
    taps = 1 - np.abs(np.arange(kernel) - (half - 0.5)) / half
    matrix = np.zeros(((length - 1) * stride + kernel, length), np.float32)
    for column in range(length):
        matrix[column * stride : column * stride + kernel, column] = taps
    return matrix


def _crop(x: jax.Array, offset: int, size: tuple[int, int]) -> jax.Array:
    rows, columns = (slice(offset, offset + side) for side in size)
    return x[:, rows, columns]
