"""High-resolution networks, HRNetV2 (https://arxiv.org/abs/1908.07919).

Branches of strides 4, 8, 16 and 32 run side by side and exchange what they found after
every few blocks; the finest one is never given up. Module names are the published ones
with `_` for `.`, so that ImageNet weights convert without a table.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.ops import resize


class Size(NamedTuple):
    """What the networks of the family differ in."""

    width: int  # channels of the finest branch; every next one has twice as many
    first_blocks: int  # bottlenecks of layer1
    modules: tuple[int, int, int]  # of stage 2, 3 and 4
    blocks: int  # basic blocks of a branch within a module


SIZES = {
    "w48": Size(48, 4, (1, 4, 3), 4),
    "w18": Size(18, 4, (1, 4, 3), 4),
    "w18_small_v2": Size(18, 2, (1, 3, 2), 2),
    "tiny": Size(8, 1, (1, 1, 1), 1),  # ours, for runs on a CPU
}
# Names in published files -> names below `backbone`.
TRUNK = r"(conv[12]|bn[12]|layer1|transition[1-3]|stage[2-4])\."
# What ImageNet classifiers and segmentation networks have beside the trunk.
CLASSIFIER = (
    "incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "last_layer.",
    "aux_head.", "cls_head.",
)  # fmt: skip


def trunk_of(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the trunk of an ImageNet classifier, under names below `backbone`."""
    bare = {name.removeprefix("module."): v for name, v in state_dict.items()}
    return {
        f"backbone.{name}": value
        for name, value in bare.items()
        if not name.startswith(CLASSIFIER)
    }


class HRNet(nn.Module):
    """Image -> the four branches, joined at the resolution of the finest one."""

    size: str = "w48"  # a key of SIZES
    width: int = 0  # of the finest branch; 0: as the size says
    stem_width: int = 64  # of the stem and inside the blocks of layer1
    stem_stride: int = 2  # of both its convolutions; 1: full resolution (MagNet)
    align_corners: bool = False  # where branches are upsampled; MagNet: True
    momentum: float = 0.9  # of the statistics, in Flax' terms; MagNet: 0.99
    remat: bool = False  # recompute the blocks in the backward pass
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns the features of all branches.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: use and update the statistics of the batch.

        Returns:
            [B, h, w, 15 * width]; h = H / 4, rounded up twice, or H with stem_stride 1.
        """
        x = images
        for name in ("1", "2"):
            x = self._convolve(x, f"conv{name}", f"bn{name}", self.stem_width, train)
        size = SIZES[self.size]
        for index in range(size.first_blocks):
            x = self._block(resnet.Bottleneck, f"layer1_{index}", self.stem_width)(
                x, train
            )
        width = self.width or size.width
        maps = [x]
        for stage, modules in enumerate(size.modules, start=2):
            maps = self._open_branch(maps, stage, width, train)
            for module in range(modules):
                maps = self._exchange(maps, f"stage{stage}_{module}", train)
            self.sow("intermediates", f"stage{stage}", tuple(maps))
        return jnp.concatenate(
            [maps[0], *(self._resize(x, maps[0]) for x in maps[1:])], axis=-1
        )

    def _convolve(
        self, x: jax.Array, conv: str, norm: str, features: int, train: bool
    ) -> jax.Array:
        """One convolution of the stem."""
        x = resnet.convolve(self, conv, features, 3, self.stem_stride)(x)
        return nn.relu(resnet.normalise(self, norm, train, self.momentum)(x))

    def _open_branch(
        self, maps: list[jax.Array], stage: int, width: int, train: bool
    ) -> list[jax.Array]:
        """Adds a branch of half the resolution of the coarsest map."""
        name = f"transition{stage - 1}"
        opened = list(maps)
        if stage == 2:  # layer1's width becomes that of the finest branch
            opened = [self._step(maps[0], f"{name}_0", width, 1, train)]
        added = 2 ** (stage - 1) * width
        new = self._step(maps[-1], f"{name}_{stage - 1}_0", added, 2, train)
        return [*opened, new]

    def _exchange(
        self, maps: list[jax.Array], name: str, train: bool
    ) -> list[jax.Array]:
        """Runs every branch by itself, then sums all of them at each resolution."""
        found = []
        for branch, x in enumerate(maps):
            for index in range(SIZES[self.size].blocks):
                block = f"{name}_branches_{branch}_{index}"
                x = self._block(resnet.BasicBlock, block, x.shape[-1])(x, train)
            found.append(x)
        fused = []
        for i, target in enumerate(found):
            total = 0.0
            for j, x in enumerate(found):
                layer = f"{name}_fuse_layers_{i}_{j}"
                total += self._bring(x, target, i - j, layer, train)
            fused.append(nn.relu(total))
        return fused

    def _bring(
        self, x: jax.Array, target: jax.Array, halvings: int, name: str, train: bool
    ) -> jax.Array:
        """Brings a branch to the channels and the resolution of another."""
        features = target.shape[-1]
        if halvings < 0:
            x = resnet.convolve(self, f"{name}_0", features, 1)(x)
            x = resnet.normalise(self, f"{name}_1", train, self.momentum)(x)
            return self._resize(x, target)
        for k in range(halvings):
            last = k == halvings - 1
            width = features if last else x.shape[-1]
            x = self._step(x, f"{name}_{k}", width, 2, train, relu=not last)
        return x

    def _step(
        self,
        x: jax.Array,
        name: str,
        features: int,
        stride: int,
        train: bool,
        *,
        relu: bool = True,
    ) -> jax.Array:
        x = resnet.convolve(self, f"{name}_0", features, 3, stride)(x)
        x = resnet.normalise(self, f"{name}_1", train, self.momentum)(x)
        return nn.relu(x) if relu else x

    def _resize(self, x: jax.Array, target: jax.Array) -> jax.Array:
        return resize.bilinear(x, target.shape[1:3], align_corners=self.align_corners)

    def _block(self, kind: type[nn.Module], name: str, width: int) -> nn.Module:
        if self.remat:
            kind = nn.remat(kind, static_argnums=(2,))
        momentum = {"momentum": self.momentum, "shortcut_momentum": self.momentum}
        return kind(width=width, dtype=self.dtype, name=name, **momentum)
