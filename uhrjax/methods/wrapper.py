"""A method around another one, which labels images for it: its segmentation network.

Variables are {kind: {own parts, "segmenter"}}.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax.errors import InputError
from uhrjax.methods import base
from uhrjax.nn import initial
from uhrjax.ops import crop

SHARED = ("num_classes", "tile", "mean", "std", "dtype", "remat")  # config keys


class Wrapper(base.Method):
    """What such methods have in common."""

    @classmethod
    def inner(cls, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        """Returns the config of the segmentation network, `config.segmenter`."""
        given = config.get("segmenter") or {}
        if not given.get("method"):
            raise InputError(
                "config.segmenter.method is not set: which network labels the patches? "
                "e.g. --config.segmenter.method=hrnet"
            )
        found = {name: config[name] for name in SHARED}
        own = {"model": {}, "loss": {}, **given}
        return ml_collections.ConfigDict({**found, **own})

    def __init__(self, config: ml_collections.ConfigDict, segmenter: base.Method):
        """Builds the module around a segmentation network; raises InputError."""
        self.segmenter = segmenter
        super().__init__(config)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns what the segmentation network freezes of itself."""
        return tuple(f"segmenter/{path}" for path in self.segmenter.frozen)

    def shapes(self) -> base.Variables:
        """Returns the tree of `init` with shapes and dtypes instead of arrays."""
        return join(self.own_shapes(), self.segmenter.shapes())

    def own_shapes(self) -> base.Variables:
        """Returns the part of `shapes` that is not the segmentation network's."""
        return super().shapes()

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with an ImageNet backbone in the segmentation network."""
        theirs = part_of(variables, "segmenter")
        filled = self.segmenter.import_backbone(theirs, state_dict)
        return join(variables, filled)

    def _check_segmenter(self) -> None:
        seg = self.segmenter
        if len(seg.views) > 1 or seg.overview or seg.collects or seg.whole_scenes:
            raise InputError(
                "config.segmenter needs more than a patch; use a network of one view "
                "without overview (hrnet, upernet, semantic_fpn, pfnet, or fctl with "
                "--config.segmenter.model.contexts='()')"
            )
        if seg.reads_labels or seg.refines:
            raise InputError(
                "config.segmenter refines label maps; use a network that labels images"
            )


class OnSmallScenes(Wrapper):
    """One whose segmentation network sees whole scenes made small, `model.size`."""

    @classmethod
    def inputs(cls, config: ml_collections.ConfigDict) -> base.Inputs:
        """Returns the window and the small scene."""
        given = config.model.get("size", cls.module_class.size)
        height, width = (side or config.tile for side in given)
        return base.Inputs(overview=(height, width))

    def init(self, key: jax.Array) -> base.Variables:
        """Returns random variables; no forward pass is computed."""
        ours, theirs = jax.random.split(key)
        if isinstance(key, jax.core.Tracer):
            example = (jnp.zeros(x.shape, x.dtype) for x in self._example())
            own = self.module.init(ours, *example, train=False)
        else:
            own = initial.draw(self.own_shapes(), ours, rules=self.initial_rules)
        return join(own, self.segmenter.init(theirs))

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Refuses: published weights are of one of the two networks."""
        raise InputError(
            f"there are no published weights of {type(self).__name__} and its "
            "segmentation network; set --config.init_what=backbone for an ImageNet "
            "backbone of that"
        )

    def context(self, variables: base.Variables, overview: jax.Array) -> jax.Array:
        """Returns the logits [1, h, w, K] float32 of a whole scene made small."""
        part = part_of(variables, "segmenter")
        outputs = self.segmenter.apply(part, {"views": overview[:, None]}, train=False)
        return self.segmenter.logits(outputs)

    def maps_in_windows(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool,
        key: jax.Array | None,
        size: tuple[int, int],
    ) -> tuple[jax.Array, base.Variables]:
        """Labels the batch's small scenes and cuts its windows from the logits.

        Args:
            variables: of both networks.
            batch: "overview", or "context", its logits, which are used then; "position"
                and "scene_size".
            train: whether the segmentation network is trained.
            key: its randomness, in training.
            size: of a window, px.

        Returns:
            Logits [B, *size, K] float32, and its new statistics (in training).
        """
        maps, stats = batch.get("context"), {}
        if train:
            views = {"views": jnp.asarray(batch["overview"])[:, None]}
            outputs, stats = self.segmenter.apply(
                part_of(variables, "segmenter"), views, train=True, key=key
            )
            maps = self.segmenter.logits(outputs)
        elif maps is None:
            maps = self.context(variables, jnp.asarray(batch["overview"]))
        place = (jnp.asarray(batch[name]) for name in ("position", "scene_size"))
        return crop.windows(maps, *place, size=size), stats


def own_of(variables: base.Variables) -> base.Variables:
    """Returns the variables that are not the segmentation network's."""
    return {
        kind: {name: leaf for name, leaf in tree.items() if name != "segmenter"}
        for kind, tree in variables.items()
    }


def join(own: base.Variables, segmenter: base.Variables) -> base.Variables:
    """Returns {kind: {own parts, "segmenter"}}, without empty parts."""
    joined: base.Variables = {kind: dict(tree) for kind, tree in own.items()}
    for kind, tree in segmenter.items():
        joined.setdefault(kind, {})["segmenter"] = tree
    return joined


def part_of(variables: base.Variables, name: str) -> base.Variables:
    """Returns one part's own variables."""
    return {kind: tree[name] for kind, tree in variables.items() if name in tree}
