"""The two ends of a feature pyramid; what happens between them is a method's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv, ppm
from uhrjax.ops import resize

# Names in published networks -> names below `neck` and `head`.
TORCH_NAMES = (
    (r"^head\.ppm\.stages\.(\d+)\.1\.", r"neck.ppm.branch_\1.conv."),
    (r"^head\.ppm\.stages\.(\d+)\.2\.", r"neck.ppm.branch_\1.norm."),
    (r"^head\.ppm\.bottleneck\.0\.", "neck.ppm.fuse.conv."),
    (r"^head\.ppm\.bottleneck\.1\.", "neck.ppm.fuse.norm."),
    (r"^head\.fpn_in\.(\d)\.0\.", r"neck.lateral_\1.conv."),
    (r"^head\.fpn_in\.(\d)\.1\.", r"neck.lateral_\1.norm."),
    (r"^head\.fpn_out\.(\d)\.0\.0\.", r"head.smooth_\1.conv."),
    (r"^head\.fpn_out\.(\d)\.0\.1\.", r"head.smooth_\1.norm."),
    (r"^head\.conv_last\.0\.0\.", "head.fuse.conv."),
    (r"^head\.conv_last\.0\.1\.", "head.fuse.norm."),
    (r"^head\.conv_last\.1\.", "head.classify."),
)
# The same in files of the original, UPerNet as its authors have it: `decoder` alone, or
# all with the backbone as `encoder`.
ORIGINAL_NAMES = (
    (r"^decoder\.", ""),
    (r"^ppm_conv\.(\d)\.0\.", r"neck.ppm.branch_\1.conv."),
    (r"^ppm_conv\.(\d)\.1\.", r"neck.ppm.branch_\1.norm."),
    (r"^ppm_last_conv\.0\.", "neck.ppm.fuse.conv."),
    (r"^ppm_last_conv\.1\.", "neck.ppm.fuse.norm."),
    (r"^fpn_in\.(\d)\.0\.", r"neck.lateral_\1.conv."),
    (r"^fpn_in\.(\d)\.1\.", r"neck.lateral_\1.norm."),
    (r"^fpn_out\.(\d)\.0\.0\.", r"head.smooth_\1.conv."),
    (r"^fpn_out\.(\d)\.0\.1\.", r"head.smooth_\1.norm."),
    (r"^conv_last\.0\.0\.", "head.fuse.conv."),
    (r"^conv_last\.0\.1\.", "head.fuse.norm."),
    (r"^conv_last\.1\.", "head.classify."),
)


class PyramidInput(nn.Module):
    """Brings backbone maps to one number of channels."""

    features: int = 256
    ppm: bool = True  # pyramid pooling on the coarsest map instead of a plain lateral
    dropout: float = 0.1  # of the pyramid pooling
    original: bool = False  # no biases, `PyramidPooling.original`
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[jax.Array], *, train: bool) -> list[jax.Array]:
        """Maps C2 .. C5 [B, h, w, C], finest first, to the same with `features`."""
        *finer, coarsest = maps
        plain = finer if self.ppm else maps
        laterals = [
            conv.ConvNorm(
                features=self.features,
                bias=not self.original,
                dtype=self.dtype,
                name=f"lateral_{index}",
                **(conv.ORIGINAL_START if self.original else {}),
            )(x, train=train)
            for index, x in enumerate(plain)
        ]
        if self.ppm:
            context = ppm.PyramidPooling(
                features=self.features,
                dropout=self.dropout,
                original=self.original,
                dtype=self.dtype,
                name="ppm",
            )
            laterals.append(context(coarsest, train=train))
        return laterals


class PyramidOutput(nn.Module):
    """Classifies at the finest level from all levels together."""

    num_classes: int
    features: int = 256
    original: bool = False  # half-pixel centres, other initial weights
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[jax.Array], *, train: bool) -> jax.Array:
        """Returns logits at the finest level.

        Args:
            maps: finest first, [B, h, w, C] each.
            train: use and update the statistics of the batch.

        Returns:
            [B, h, w, num_classes] float32 at the size of the first map.
        """
        size = maps[0].shape[1:3]
        start = conv.ORIGINAL_START if self.original else {}
        wide = {"features": self.features, "kernel": 3, "dtype": self.dtype, **start}
        smooth = [
            conv.ConvNorm(**wide, name=f"smooth_{i}")(x, train=train)
            for i, x in enumerate(maps[:-1])
        ]
        joined = [
            resize.bilinear(x, size, align_corners=not self.original)
            for x in (*smooth, maps[-1])
        ]
        x = conv.ConvNorm(**wide, name="fuse")(
            jnp.concatenate(joined, axis=-1), train=train
        )
        # The last layer stays in float32: its result goes into a softmax.
        init = conv.he_in_init if self.original else conv.torch_init
        return conv.Conv(
            features=self.num_classes, bias=True, kernel_init=init, name="classify"
        )(x)


def add_top_down(
    maps: list[jax.Array], *, align_corners: bool = True
) -> list[jax.Array]:
    """Adds every coarser map, upsampled, to the next finer one; finest first."""
    *finer, coarsest = maps
    summed = [coarsest]
    for x in reversed(finer):
        x += resize.bilinear(summed[0], x.shape[1:3], align_corners=align_corners)
        summed.insert(0, x)
    return summed
