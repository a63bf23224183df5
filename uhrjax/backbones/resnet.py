"""Residual networks (https://arxiv.org/abs/1512.03385) with the stems and dilations of
segmentation.

The stride of a bottleneck sits on its 3x3 convolution. Module names are the published
ones with `_` for `.`, so that ImageNet weights convert without a table.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv
from uhrjax.ops import pool

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    10: (1, 1, 1, 1),  # ours, for runs on a CPU
}
STEMS = ("deep", "classic")
# Per mode the (stride, dilation) of layer1 .. layer4. "keep_stride" dilates the 3x3
# convolutions although the strides stay, so the output stride is still 32.
DILATIONS = {
    "none": ((1, 1), (2, 1), (2, 1), (2, 1)),
    "keep_stride": ((1, 1), (2, 1), (2, 2), (2, 4)),
    "os8": ((1, 1), (2, 1), (1, 2), (1, 4)),
    "os8_late": ((1, 1), (2, 1), (1, 2), (1, 4)),
    "os16": ((1, 1), (2, 1), (2, 1), (1, 2)),
}
LATE = ("os8_late",)  # modes in which a stage's first block is not dilated yet
# Names in published segmentation networks -> names below `backbone`.
TORCH_NAMES = (
    (r"^layer0\.0\.(\d+)\.", r"backbone.conv1.\1."),
    (r"^layer0\.0\.weight$", "backbone.conv1.weight"),
    (r"^layer0\.1\.", "backbone.bn1."),
    (r"^(conv1|bn1|layer[1-4])\.", r"backbone.\1."),
)
# A deep stem whose layers are numbered instead (Foveation's code) -> names of a ResNet.
NUMBERED_STEM = {
    "conv1.": "conv1_0.",
    "bn1.": "conv1_1.",
    "conv2.": "conv1_3.",
    "bn2.": "conv1_4.",
    "conv3.": "conv1_6.",
    "bn3.": "bn1.",
}


class ResNet(nn.Module):
    """Image -> the outputs of the four residual stages."""

    depth: int = 50
    stem: str = "classic"  # "classic" 7x7, or "deep": three 3x3
    dilation: str = "none"  # a key of DILATIONS
    width: int = 64  # channels inside a block of layer1
    with_stem: bool = False  # also return what the stem's first convolution makes
    momentum: float = 0.9  # of the statistics inside blocks, in Flax' terms
    remat: bool = False  # recompute the blocks in the backward pass
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, stages: int = 4
    ) -> list[jax.Array]:
        """Returns the feature maps C2 .. C5.

        Args:
            images: [B, H, W, 3 or more] float, normalised.
            train: use and update the statistics of the batch.
            stages: how many to compute.

        Returns:
            Four maps [B, h, w, C]; C = width * (1, 2, 4, 8), times 4 from depth 50 on;
            strides 4, 8, 16, 32 unless dilated. Before them, if asked for, the first
            convolution's result [B, H / 2, W / 2, width], neither normalised nor
            rectified.
        """
        first, x = self._stem(images, train)
        x = pool.max_3x3_stride_2(x)
        block_class = Bottleneck if self.depth >= 50 else BasicBlock
        if self.remat:
            block_class = nn.remat(block_class, static_argnums=(2,))
        features = [first] if self.with_stem else []
        for stage, blocks in enumerate(BLOCKS[self.depth][:stages]):
            stride, dilation = DILATIONS[self.dilation][stage]
            is_late = self.dilation in LATE
            for block in range(blocks):
                x = block_class(
                    width=self.width * 2**stage,
                    stride=stride if block == 0 else 1,
                    dilation=1 if block == 0 and is_late else dilation,
                    momentum=self.momentum,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train)
            features.append(x)
        return features

    def _stem(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, C] -> the first convolution's result, the stem's, both at H/2."""
        if self.stem == "deep":
            first = None
            for index, (factor, stride) in enumerate(((1, 2), (1, 1), (2, 1))):
                last = index == 2
                x = convolve(
                    self, f"conv1_{3 * index}", self.width * factor, 3, stride
                )(x)
                first = x if index == 0 else first
                x = normalise(self, "bn1" if last else f"conv1_{3 * index + 1}", train)(
                    x
                )
                x = nn.relu(x)
            return first, x
        first = convolve(self, "conv1", self.width, 7, 2)(x)
        return first, nn.relu(normalise(self, "bn1", train)(first))


def named_stem(name: str) -> str:
    """Renames a parameter of a deep stem whose layers are numbered 1 to 3."""
    for theirs, ours in NUMBERED_STEM.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def of_fields(
    network: nn.Module,
    *,
    name: str = "backbone",
    with_stem: bool = False,
    momentum: float = 0.9,
) -> ResNet:
    """Returns the backbone that a network's fields of the same names describe.

    To be called inside the network's `__call__` or `setup`, whose submodule it becomes.
    """
    return ResNet(
        depth=int(network.backbone.removeprefix("resnet")),
        stem=network.stem,
        dilation=network.dilation,
        width=network.width,
        with_stem=with_stem,
        momentum=momentum,
        remat=network.remat,
        dtype=network.dtype,
        name=name,
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a shortcut; 4 * `width` channels out."""

    width: int
    stride: int = 1
    dilation: int = 1
    momentum: float = 0.9  # of the statistics, in Flax' terms
    shortcut_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), 4 * width]."""
        y = convolve(self, "conv1", self.width, 1)(x)
        y = nn.relu(normalise(self, "bn1", train, self.momentum)(y))
        y = convolve(self, "conv2", self.width, 3, self.stride, self.dilation)(y)
        y = nn.relu(normalise(self, "bn2", train, self.momentum)(y))
        y = convolve(self, "conv3", 4 * self.width, 1)(y)
        y = normalise(self, "bn3", train, self.momentum)(y)
        return nn.relu(y + _shortcut(self, x, 4 * self.width, train))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; `width` channels out."""

    width: int
    stride: int = 1
    dilation: int = 1
    momentum: float = 0.9  # of the statistics, in Flax' terms
    shortcut_momentum: float = 0.9
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), width]."""
        y = convolve(self, "conv1", self.width, 3, self.stride, self.dilation)(x)
        y = nn.relu(normalise(self, "bn1", train, self.momentum)(y))
        y = convolve(self, "conv2", self.width, 3, 1, self.dilation)(y)
        y = normalise(self, "bn2", train, self.momentum)(y)
        return nn.relu(y + _shortcut(self, x, self.width, train))


def _shortcut(block: nn.Module, x: jax.Array, features: int, train: bool) -> jax.Array:
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = convolve(block, "downsample_0", features, 1, block.stride)(x)
    return normalise(block, "downsample_1", train, block.shortcut_momentum)(x)


def convolve(
    parent: nn.Module,
    name: str,
    features: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
) -> conv.Conv:
    """Returns a convolution without bias, a submodule of `parent`."""
    return conv.Conv(
        features=features,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        kernel_init=conv.he_init,
        dtype=parent.dtype,
        name=name,
    )


def normalise(
    parent: nn.Module, name: str, train: bool, momentum: float = 0.9
) -> conv.BatchNorm:
    """Returns a batch norm, a submodule of `parent`."""
    return conv.batch_norm(
        train=train, dtype=parent.dtype, name=name, momentum=momentum
    )
