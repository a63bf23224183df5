"""FarSeg, foreground-aware relations (https://arxiv.org/abs/2011.09766).

What the whole scene is, one vector, gates every level of a feature pyramid: where its
content is like the scene, the level passes. The levels are brought to stride 4, summed
and classified. The loss turns from a cross-entropy into one of the hard pixels while
the network learns.

Differs from the paper: the pyramid's laterals are those of PFNet's SemanticFPN. From
memory of the architecture; no case checks it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhrjax import losses
from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv, fpn
from uhrjax.ops import resize


class FarSeg(network.Network):
    """Image -> logits."""

    dilation: str = "none"
    fpn_dim: int = 256
    dropout: float = 0.0
    decoder_dim: int = 128

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 4, and "steps", a
        float32 scalar: how many it has been trained."""
        maps = self.features(images, train)
        scene = jnp.mean(maps[-1].astype(jnp.float32), axis=(1, 2), keepdims=True)
        pyramid = fpn.PyramidInput(
            features=self.fpn_dim, ppm=False, dtype=self.dtype, name="neck"
        )(maps, train=train)
        total = 0.0
        for level, x in enumerate(fpn.add_top_down(pyramid)):
            x = self._relate(level, x, scene, train)
            total += self._enlarge(level, x, maps[0].shape[1:3], train)
        coarse = self.classify(self.drop(total / len(maps), train))
        steps = self.variable("batch_stats", "steps", jnp.zeros, (), jnp.float32)
        if train and not self.is_initializing():
            steps.value += 1
        return {**self.outputs(coarse, maps, images, train), "steps": steps.value}

    def _relate(
        self, level: int, x: jax.Array, scene: jax.Array, train: bool
    ) -> jax.Array:
        """Lets pass what is like the scene (Sec. 3.2)."""
        common = {"features": self.fpn_dim, "bias": True, "dtype": self.dtype}
        for index in range(2):
            scene = conv.Conv(**common, name=f"scene_{level}_{index}")(scene)
            scene = nn.relu(scene) if index == 0 else scene
        content = self.convolve(f"content_{level}", self.fpn_dim)(x, train=train)
        likeness = jnp.sum(
            (scene * content).astype(jnp.float32), axis=-1, keepdims=True
        )
        passed = self.convolve(f"encode_{level}", self.fpn_dim)(x, train=train)
        return passed * nn.sigmoid(likeness).astype(passed.dtype)

    def _enlarge(
        self, level: int, x: jax.Array, size: tuple[int, int], train: bool
    ) -> jax.Array:
        """Brings a level to stride 4, by doublings behind 3x3 convolutions."""
        for index in range(max(level, 1)):
            name = f"decode_{level}_{index}"
            x = self.convolve(name, self.decoder_dim, 3)(x, train=train)
            if level:
                doubled = (2 * x.shape[1], 2 * x.shape[2])
                target = size if index == level - 1 else doubled
                x = resize.bilinear(x, target, align_corners=self.align_corners)
        return x


@dataclasses.dataclass(frozen=True)
class FarSegLoss(network.NetworkLoss):
    """Foreground-aware loss (Sec. 3.4); off, the others' cross-entropy."""

    focal: bool = True
    gamma: float = 2.0
    annealing_steps: int = 10000  # until it is the focal loss

    def annealed(
        self, logits: jax.Array, label: jax.Array, steps: jax.Array
    ) -> jax.Array:
        """Returns the loss after so many steps, a float32 scalar.

        Args:
            logits: [B, H, W, K].
            label: [B, H, W] integers, 255 = ignore.
            steps: float32 scalar.
        """
        pixel_loss = losses.cross_entropy(logits, label).reshape(-1)
        valid = (label != losses.IGNORE_LABEL).reshape(-1)
        still = jax.lax.stop_gradient(pixel_loss)
        hardness = (1 - jnp.exp(-still)) ** self.gamma
        # The sum over all pixels stays what it is without the factors.
        factor = losses.masked_mean(still, valid)
        factor /= jnp.maximum(losses.masked_mean(still * hardness, valid), 1e-12)
        share = jnp.minimum(steps / self.annealing_steps, 1.0)
        share = (1 - jnp.cos(jnp.pi * share)) / 2
        weight = 1 + share * (hardness * factor - 1)
        return self.seg_weight * losses.masked_mean(pixel_loss * weight, valid)


class FarSegMethod(network.NetworkMethod):
    """FarSeg with its annealed loss."""

    module_class = FarSeg
    loss_class = FarSegLoss
    torch_names = resnet.TORCH_NAMES
    initial_rules = (("batch_stats/steps$", "constant 0"),)

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", "seg" and, of a network that has a second head, "aux"."""
        found = super().loss(outputs, batch)
        if not self.loss_rule.focal:
            return found
        own = self.loss_rule.annealed(
            outputs["logits"], jnp.asarray(batch["label"]), outputs["steps"]
        )
        return {**found, "seg": own, "total": found["total"] - found["seg"] + own}

    def _check_model(self) -> None:
        super()._check_model()
        base.check_range("config.model.decoder_dim", self.module.decoder_dim, low=1)
        rule = self.loss_rule
        base.check_range("config.loss.annealing_steps", rule.annealing_steps, low=1)
