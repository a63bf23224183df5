"""SegFix (https://arxiv.org/abs/2007.04269) behind a scene made small.

A segmentation network labels the whole scene, made small. Another network looks at the
image in full size only, and says which pixels lie at a boundary and which way the
interior of their region is; such a pixel takes the label that it finds two pixels that
way, where labels are surer. It is a row of MagNet's tables.

Differs from the paper: both networks are trained in one run (no loss of one touches the
other); the second starts from random weights. From memory of the architecture; no case
checks it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import boundary, losses
from uhrjax.backbones import hrnet
from uhrjax.methods import base, wrapper
from uhrjax.nn import conv
from uhrjax.ops import resize, sample

IS_BOUNDARY = 1  # class of the boundary head


class SegFix(nn.Module):
    """Image -> is a pixel at a boundary, and which way is its region's interior?"""

    num_classes: int
    size: tuple[int, int] = (0, 0)  # (height, width) of small scenes, px; 0: the tile
    network: str = "w48"  # a key of hrnet.SIZES
    width: int = 0  # channels of its finest branch; 0: as the size says
    stem_width: int = 64
    features: int = 256  # of each head
    step: int = 2  # px that a boundary pixel looks inward
    reach: float = 5.0  # px from another class that are boundary
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "boundary" [B, H, W, 2] and "direction" [B, H, W, 8],
        float32 logits."""
        x = hrnet.HRNet(
            size=self.network,
            width=self.width,
            stem_width=self.stem_width,
            align_corners=True,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )(images, train=train)
        found = {}
        for name, count in (("boundary", 2), ("direction", len(boundary.DIRECTIONS))):
            hidden = conv.ConvNorm(
                features=self.features, dtype=self.dtype, name=f"{name}_hidden"
            )(x, train=train)
            # In float32: the result goes into a softmax.
            logits = conv.Conv(features=count, name=name)(hidden)
            size = images.shape[1:3]
            found[name] = resize.bilinear(logits, size, align_corners=True)
        return found


class SegFixMethod(wrapper.OnSmallScenes):
    """A network that sees scenes made small, and the one that mends its boundaries."""

    module_class = SegFix
    loss_class = losses.PlainLoss

    def apply(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Labels windows of scenes; see `base.Method.apply`.

        Returns "logits" that are mended, and those "before", [B, H, W, K] float32, with
        what the module says.
        """
        images = self.images(batch)
        before, theirs = self.maps_in_windows(
            variables, batch, train=train, key=key, size=images.shape[1:3]
        )
        own, stats = wrapper.own_of(variables), {}
        if train:
            found, state = self.module.apply(
                own, images, train=True, mutable="batch_stats"
            )
            stats = {**state["batch_stats"], "segmenter": theirs}
        else:
            found = self.module.apply(own, images, train=False)
        found |= {"before": before, "logits": self._mend(before, found)}
        return (found, stats) if train else found

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", "seg", "boundary" and "direction"."""
        label = jnp.asarray(batch["label"])
        target = jnp.asarray(batch["direction"]).astype(jnp.int32)
        is_boundary = (target < len(boundary.DIRECTIONS)).astype(jnp.int32)
        edge = jnp.where(target == boundary.IGNORED, losses.IGNORE_LABEL, is_boundary)
        says_so = jnp.argmax(outputs["boundary"], axis=-1) == IS_BOUNDARY
        way = jnp.where((is_boundary == 1) & says_so, target, losses.IGNORE_LABEL)
        parts = {
            "seg": self.loss_rule.segmentation(outputs["before"], label),
            "boundary": _balanced(outputs["boundary"], edge),
            "direction": _balanced(outputs["direction"], way),
        }
        return {"total": sum(parts.values()), **parts}

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns {"direction": [P, P] uint8}, see `boundary.direction_target`."""
        drawn = boundary.direction_target(label, reach=self.module.reach)
        return {"direction": drawn}

    def _mend(self, logits: jax.Array, found: Mapping[str, jax.Array]) -> jax.Array:
        """Gives boundary pixels what lies some px inward."""
        batch, height, width, _ = logits.shape
        way = jnp.argmax(found["direction"], axis=-1)
        is_boundary = jnp.argmax(found["boundary"], axis=-1) == IS_BOUNDARY
        step = self.module.step * jnp.asarray(boundary.DIRECTIONS)[way]
        step = jnp.where(is_boundary[..., None], step, 0)  # [B, H, W, 2]
        row = jnp.clip(jnp.arange(height)[:, None] + step[..., 0], 0, height - 1)
        column = jnp.clip(jnp.arange(width) + step[..., 1], 0, width - 1)
        index = (row * width + column).reshape(batch, -1)
        return sample.gather(logits, index).reshape(logits.shape)

    def _check_model(self) -> None:
        module = self.module
        base.check_choice("config.model.network", module.network, hrnet.SIZES)
        for name in ("stem_width", "features", "step"):
            base.check_range(f"config.model.{name}", getattr(module, name), low=1)
        base.check_range("config.model.reach", module.reach, low=1.0)
        self._check_segmenter()
        self.segmenter.check_sides("config.model.size", self.overview)


def _balanced(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Returns a cross-entropy in which a class counts 1 - its share of the pixels.

    Args:
        logits: [B, H, W, C].
        label: [B, H, W] int32, 255 = ignore.
    """
    is_class = label[..., None] == jnp.arange(logits.shape[-1])
    count = jnp.sum(is_class, axis=(0, 1, 2), dtype=jnp.float32)
    share = count / jnp.maximum(jnp.sum(count), 1.0)
    weight = jnp.sum(jnp.where(is_class, 1 - share, 0.0), axis=-1)
    each = weight * losses.cross_entropy(logits, label)
    return jnp.sum(each) / jnp.maximum(jnp.sum(weight), 1e-6)
