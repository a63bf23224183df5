"""Global inference: a scene made small is labelled, windows are cut out of the answer.

The papers' tables call it "global" (FCtL, GLNet) or "Downsample" (MagNet). Any network
that labels one view does it; trained on whole scenes (`data.unit` "overviews").
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.methods import base, wrapper
from uhrjax.ops import crop


class Downsample(nn.Module):
    """What such a network has beside the segmentation network: no weights."""

    num_classes: int
    size: tuple[int, int] = (0, 0)  # (height, width) of small scenes, px; 0: the tile
    remat: bool = False
    dtype: Dtype = jnp.float32


class DownsampleMethod(wrapper.OnSmallScenes):
    """A segmentation network that sees whole scenes, made small.

    The label of a training batch belongs to its `views`, the small scenes.
    """

    module_class = Downsample
    loss_class = losses.SegmentationLoss

    def own_shapes(self) -> base.Variables:
        """Returns no weights."""
        return {}

    def init(self, key: jax.Array) -> base.Variables:
        """Returns random variables of the segmentation network."""
        return wrapper.join({}, self.segmenter.init(key))

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables with the segmentation network's published weights."""
        return wrapper.join({}, self.segmenter.import_torch(state_dict))

    def context(self, variables: base.Variables, overview: jax.Array) -> jax.Array:
        """Returns the logits [1, h, w, K] float32 of a whole scene made small."""
        outputs = self._label(variables, {"views": overview[:, None]})
        return self.segmenter.logits(outputs)

    def apply(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Labels small scenes, or windows of scenes; see `base.Method.apply`.

        Args:
            variables: of this method.
            batch: `views` are small scenes, unless it has `context` or `overview`: then
                `views` are windows of those.
            train: takes `views` as small scenes.
            key: for dropout.
        """
        if train:
            part = wrapper.part_of(variables, "segmenter")
            outputs, stats = self.segmenter.apply(
                part, {"views": batch["views"]}, train=True, key=key
            )
            return outputs, {"segmenter": stats} if stats else {}
        maps = batch.get("context")
        if maps is None and batch.get("overview") is not None:
            maps = self.context(variables, jnp.asarray(batch["overview"]))
        if maps is None:
            return self._label(variables, {"views": batch["views"]})
        position, scene = (jnp.asarray(batch[k]) for k in ("position", "scene_size"))
        size = batch["views"].shape[2:4]
        return {"logits": crop.windows(maps, position, scene, size=size)}

    def logits(self, outputs: Mapping[str, Any]) -> jax.Array:
        """Returns [B, H, W, K] float32."""
        return self.segmenter.logits(outputs)

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the segmentation network's losses."""
        return self.segmenter.loss(outputs, batch)

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns the segmentation network's extra targets of a small label."""
        return self.segmenter.targets(label, rng)

    def _label(self, variables: base.Variables, batch: base.Batch) -> dict[str, Any]:
        part = wrapper.part_of(variables, "segmenter")
        return self.segmenter.apply(part, batch, train=False)

    def _check_model(self) -> None:
        self._check_segmenter()
        self.segmenter.check_sides("config.model.size", self.overview)
