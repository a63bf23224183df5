"""PointRend (https://arxiv.org/abs/1912.08193) behind a scene made small.

A segmentation network labels the whole scene, made small. Its answer is doubled twice;
each time a small head classifies the least certain pixels anew, from the network's
logits and features there. Network and head are trained together, the head at points of
windows of full size. It is a row of MagNet's tables.

MagNet's supplement states the features only (HRNet's last stage, or C2); head, points
and doublings are those of PointRend's semantic segmentation, from memory.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.errors import InputError
from uhrjax.methods import base, wrapper
from uhrjax.nn import point_head
from uhrjax.ops import crop


class Rendered(nn.Module):
    """Coarse logits and features of points -> their logits."""

    num_classes: int
    size: tuple[int, int] = (0, 0)  # (height, width) of small scenes, px; 0: the tile
    layers: int = 3  # hidden ones of the head
    features: int = 256  # of each
    doublings: int = 2  # of the small scene's answer
    points: int = 8192  # per doubling
    train_points: int = 2048  # per window
    remat: bool = False  # nothing to gain: it is small
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, logits: jax.Array, fine: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, P, K] and [B, P, C] to [B, P, K] float32."""
        return point_head.PointHead(
            self.num_classes, self.layers, self.features, self.dtype, name="head"
        )(logits, fine)


class RenderedMethod(wrapper.OnSmallScenes):
    """A network that sees scenes made small, and the head that renders its answer."""

    module_class = Rendered
    loss_class = losses.PlainLoss

    def context(self, variables: base.Variables, overview: jax.Array) -> jax.Array:
        """Returns the rendered logits [1, r h, r w, K] float32 of a small scene."""
        part = wrapper.part_of(variables, "segmenter")
        outputs = self.segmenter.apply(part, {"views": overview[:, None]}, train=False)
        logits = self.segmenter.logits(outputs)
        return point_head.render(
            logits,
            outputs["features"],
            lambda *x: self._classify(variables, *x),
            size=tuple(side << self.module.doublings for side in logits.shape[1:3]),
            points=self.module.points,
            again=False,
            align_corners=False,
        )

    def apply(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Labels windows of scenes; see `base.Method.apply`.

        In training with "points" [B, P, 2], (y, x) in 0 to 1 of the window, and
        "point_logits" [B, P, K] float32.
        """
        place = [jnp.asarray(batch[name]) for name in ("position", "scene_size")]
        size = batch["views"].shape[2:4]
        if not train:
            maps = batch.get("context")
            if maps is None:
                maps = self.context(variables, jnp.asarray(batch["overview"]))
            return {"logits": crop.windows(maps, *place, size=size)}
        theirs, ours = jax.random.split(key)
        part = wrapper.part_of(variables, "segmenter")
        views = {"views": jnp.asarray(batch["overview"])[:, None]}
        outputs, stats = self.segmenter.apply(part, views, train=True, key=theirs)
        maps = self.segmenter.logits(outputs)
        windows = crop.windows(maps, *place, size=size)
        points = point_head.training_points(ours, windows, self.module.train_points)
        start, scene = (x[:, None].astype(jnp.float32) for x in place)
        in_scene = (start + points * jnp.array(size)) / scene
        read = [point_head.read(x, in_scene) for x in (maps, outputs["features"])]
        logits = self._classify(variables, *read)
        found = {"logits": windows, "points": points, "point_logits": logits}
        return found, {"segmenter": stats} if stats else {}

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", "seg" and, in training, "points"."""
        label = jnp.asarray(batch["label"])
        parts = {"seg": self.loss_rule.segmentation(outputs["logits"], label)}
        if "points" in outputs:
            parts["points"] = point_head.loss(
                outputs["point_logits"], label, outputs["points"]
            )
        return {"total": sum(parts.values()), **parts}

    def _classify(
        self, variables: base.Variables, logits: jax.Array, fine: jax.Array
    ) -> jax.Array:
        own = {"params": {"head": variables["params"]["head"]}}
        return self.module.apply(own, logits, fine, train=False)

    def _example(self) -> tuple[Any, ...]:
        shape = jax.ShapeDtypeStruct
        return (
            shape((1, 8, self.num_classes), jnp.float32),
            shape((1, 8, self._seen().shape[-1]), jnp.float32),
        )

    def _seen(self) -> jax.ShapeDtypeStruct:
        """Returns the shape of the features that the head reads."""
        seg = self.segmenter
        views = jax.ShapeDtypeStruct((1, 1, *self.overview, 3), jnp.uint8)
        outputs = jax.eval_shape(
            lambda variables, views: seg.apply(variables, {"views": views}),
            seg.shapes(), views,
        )  # fmt: skip
        if "features" not in outputs:
            raise InputError(
                "config.segmenter.method: this network hands out no features to read "
                "at points; use hrnet_ocr, resnet_fpn or one of configs/baseline.py"
            )
        return outputs["features"]

    def _check_model(self) -> None:
        for name in ("features", "points", "train_points"):
            base.check_range(f"config.model.{name}", getattr(self.module, name), low=1)
        for name in ("layers", "doublings"):
            base.check_range(f"config.model.{name}", getattr(self.module, name), low=0)
        self._check_segmenter()
        self.segmenter.check_sides("config.model.size", self.overview)
