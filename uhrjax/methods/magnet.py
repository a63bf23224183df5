"""MagNet, progressive segmentation (https://arxiv.org/abs/2104.03778).

The whole scene, made small, is labelled by a segmentation network. At every finer scale
the probabilities found so far are enlarged; the same network labels patches of that
scale; a small refinement network, reading nothing but both opinions on a patch, says
which to believe; and its answer replaces the old one at the pixels where it is sure and
the old one was not. Every network sees images of one small size, whatever the scene's.

The segmentation network is trained by itself and then frozen (`trained`). This file
has the refinement network with its training, `progressive.py` the pass over a scene.
Without refinement networks patches count as they are: one finer scale, all of it
replaced, is the papers' "Patching", no finer scale "Downsample".

Differs from the authors' code:
- the refinement network reads [fine, coarse] in training as in prediction; the code
  trains it the other way round (`refine_order`);
- MagNet-Fast looks at the most uncertain patches and chooses pixels inside of what they
  cover; the code has both the other way round (`patch_order`, of the pass);
- overlapping patches are averaged; in the code the last one is divided by their number
  (`overlap`); boxes reach the border, where the code's may stop short of it;
- kernels of the refinement network start by He's rule (the code's are not known).
As in the code: patches of the old map lie half a pixel off (`roi_aligned`), and scenes
are made small in two steps in prediction, in one in training (`coarse_resize`).

A batch holds `views` [B, 1, h, w, 3], crops of any of the finer scales; `overview`
[B, h, w, 3], the scenes made small; `box` [B, 4] float32, (top, left, bottom, right) of
the crops as shares of the scene's sides; `label` [B, h, w] of the crops.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.typing import Dtype

from uhrjax import losses, weights
from uhrjax.backbones import patch_refiner
from uhrjax.errors import InputError
from uhrjax.methods import base, wrapper
from uhrjax.nn import initial
from uhrjax.ops import points, roi
from uhrjax.tiling import pyramid

SEGMENTER = -1  # as what is trained: the segmentation network
ORDERS = ("fine_first", "coarse_first")
COARSE_RESIZES = ("two_steps", "direct")
PRETRAIN = "pretrain"  # the stage of that name


class MagNet(nn.Module):
    """The refinement networks, and the geometry that they are made for."""

    num_classes: int
    scales: tuple[float, ...] = (0.25, 0.5, 1.0)  # shares of the scene's sides
    crop: tuple[int, int] = (612, 612)  # (height, width) of a patch, px of its scale
    input_size: tuple[int, int] = (508, 508)  # what the networks see, px
    refiners: int = 1  # one for all scales, or one each from the second scale on
    trained: int = 0  # which of them training changes; -1: the segmentation network
    learned: tuple[int, ...] = ()  # indices of the scales whose crops the segmentation
    # network learns by, (): all
    width: int = 64  # channels of a refinement network
    input_norm: bool = True  # batch norm on its input
    momentum: float = patch_refiner.MOMENTUM  # of its statistics, in Flax' terms
    refine_order: str = "fine_first"  # of its inputs; the code trains "coarse_first"
    roi_aligned: bool = False  # without the shift by half a px
    coarse_resize: str = "two_steps"  # first to the first scale, or "direct"
    remat: bool = False  # nothing to gain: it is small
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, fine: jax.Array, coarse: jax.Array, *, train: bool, index: int = 0
    ) -> jax.Array:
        """Returns the logits of one of the refinement networks.

        Args:
            fine: [B, h, w, K], probabilities of patches by themselves.
            coarse: [B, h, w, K], those of the scale before at the same place.
            train: use and update the statistics of the batch.
            index: of the network.

        Returns:
            [B, h, w, K] float32.
        """
        opinions = (fine, coarse)
        if self.refine_order == "coarse_first":
            opinions = (coarse, fine)
        answers = {}
        for k in range(self.refiners) if self.is_initializing() else [index]:
            answers[k] = patch_refiner.PatchRefiner(
                num_classes=self.num_classes,
                width=self.width,
                input_norm=self.input_norm,
                momentum=self.momentum,
                dtype=self.dtype,
                name=f"refiner_{k}",
            )(*opinions, train=train)
        return answers[index]


class MagNetMethod(wrapper.Wrapper):
    """The refinement networks behind any segmentation network, which is frozen.

    Variables: {kind: {"refiner_0", ..., "segmenter"}}.
    """

    module_class = MagNet
    progressive: ClassVar[bool] = True
    loss_class = losses.HardPixelLoss
    initial_rules = (("/refiner_.*kernel$", "he_out"),)

    @classmethod
    def inputs(cls, config: ml_collections.ConfigDict) -> base.Inputs:
        """Returns one view and an overview of the networks' input size."""
        size = config.model.get("input_size", MagNet.input_size)
        return base.Inputs(overview=tuple(size))

    @classmethod
    def stages(cls, config: ml_collections.ConfigDict) -> tuple[base.Stage, ...]:
        """Returns the training of the segmentation network, then of each refiner.

        With `config.stages.pretrain` (ours, for want of ImageNet weights) the former
        learns to read scenes made small first, before patches are mixed in.
        """
        count = config.model.get("refiners", MagNet.refiners)
        own = {"model.trained": SEGMENTER, "magnet.stages": 0}
        found = [base.Stage("backbone", own)]
        if PRETRAIN in config.get("stages", {}):
            first = base.Stage(PRETRAIN, {**own, "model.learned": (0,)})
            found = [first, base.Stage("backbone", own, start=(("", PRETRAIN, ""),))]
        for k in range(count):
            own = {"model.trained": k}
            if k + 1 < count:  # scored by the scales that are trained
                own["magnet.stages"] = k + 1
            name = "refine" if count == 1 else f"refine{k + 1}"
            found.append(base.Stage(name, own, start=(("", found[-1].name, ""),)))
        return tuple(found)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns all but what is trained."""
        count, trained = self.module.refiners, self.module.trained
        others = tuple(f"refiner_{k}" for k in range(count) if k != trained)
        if trained == SEGMENTER:
            return (*(f"segmenter/{path}" for path in self.segmenter.frozen), *others)
        return ("segmenter", *others)

    @property
    def crop_scales(self) -> tuple[int, ...]:
        """Returns the indices of the scales that training crops are of."""
        module = self.module
        known = range(len(module.scales))
        if module.trained == SEGMENTER:
            return module.learned or tuple(known)
        return tuple(k for k in known[1:] if self._index(k) == module.trained)

    def own_shapes(self) -> base.Variables:
        """Returns the part of `shapes` that the refinement networks have."""
        return super().own_shapes() if self.module.refiners else {}

    def init(self, key: jax.Array) -> base.Variables:
        """Returns random variables; no forward pass is computed."""
        ours, theirs = jax.random.split(key)
        if not self.module.refiners:
            own: base.Variables = {}
        elif isinstance(key, jax.core.Tracer):
            example = (jnp.zeros(x.shape, x.dtype) for x in self._example())
            own = self.module.init(ours, *example, train=False)
        else:
            own = initial.draw(self.own_shapes(), ours, rules=self.initial_rules)
        return wrapper.join(own, self.segmenter.init(theirs))

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights.

        Args:
            state_dict: the published files merged, those of the refinement networks
                under the prefixes "refine0.", "refine1.", ... in the order of scales.
        """
        bare = {name.removeprefix("module."): v for name, v in state_dict.items()}
        prefixes = [f"refine{k}." for k in range(self.module.refiners)]
        own, rest = {}, {}
        for name, value in bare.items():
            (own if name.startswith(tuple(prefixes)) else rest)[name] = value
        for prefix in prefixes if self.module.input_norm else ():
            if f"{prefix}bn0.weight" not in own:
                raise InputError(
                    f"the weights have no {prefix}bn0.weight: a refinement network "
                    "without batch norm on its input, or none. It would answer "
                    "nonsense; give the file of one that has it, or set "
                    "--config.model.input_norm=false if it was trained without"
                )
        names = ((r"^refine(\d+)\.", r"refiner_\1."),)
        filled = weights.from_torch(own, self.own_shapes(), names=names)
        filled = jax.tree.map(jnp.asarray, filled)
        return wrapper.join(filled, self.segmenter.import_torch(rest))

    def apply(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Refines crops of scenes; a pure function.

        Args:
            variables: of this method.
            batch: see the head of this file; of a segmentation network that trains
                only the crops and their label.
            train: use the batch's statistics in the network that trains.
            key: for dropout of the segmentation network.

        Returns:
            "logits" [B, h, w, K] float32 with "fine" and "coarse", the probabilities
            they were made of; of a segmentation network that trains its own outputs;
            with `train` the pair (dict, new batch_stats).
        """
        if self.module.trained == SEGMENTER:
            return self._apply_segmenter(variables, batch, train=train, key=key)
        coarse, fine = self._opinions(variables, batch)
        index, own = self.module.trained, self._own(variables)
        outputs = {"fine": fine, "coarse": coarse}
        if not train:
            logits = self.module.apply(own, fine, coarse, train=False, index=index)
            return {"logits": logits, **outputs}
        logits, new = self.module.apply(
            own, fine, coarse, train=True, index=index, mutable="batch_stats"
        )
        stats = {**variables["batch_stats"], **new["batch_stats"]}
        return {"logits": logits, **outputs}, stats

    def logits(self, outputs: Mapping[str, Any]) -> jax.Array:
        """Returns [B, h, w, K] float32 of the network that trains."""
        if self.module.trained == SEGMENTER:
            return self.segmenter.logits(outputs)
        return super().logits(outputs)

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the losses of the network that trains."""
        if self.module.trained == SEGMENTER:
            return self.segmenter.loss(outputs, batch)
        return super().loss(outputs, batch)

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns the extra targets of the network that trains."""
        if self.module.trained == SEGMENTER:
            return self.segmenter.targets(label, rng)
        return {}

    def label_patches(self, variables: base.Variables, images: jax.Array) -> jax.Array:
        """Returns the network's probabilities [N, h, w, K] float32 of [N, h, w, 3]."""
        theirs = wrapper.part_of(variables, "segmenter")
        outputs = self.segmenter.apply(theirs, {"views": images[:, None]}, train=False)
        return jax.nn.softmax(self.segmenter.logits(outputs), axis=-1)

    def refine(
        self, variables: base.Variables, stage: int, fine: jax.Array, coarse: jax.Array
    ) -> jax.Array:
        """Returns the probabilities [N, h, w, K] float32 of refined patches.

        Args:
            variables: of this method.
            stage: index of the scale, from 1.
            fine: [N, h, w, K], probabilities of the patches by themselves.
            coarse: [N, h, w, K], those of the scale before.
        """
        if not self.module.refiners:
            return fine
        index, own = self._index(stage), self._own(variables)
        logits = self.module.apply(own, fine, coarse, train=False, index=index)
        return jax.nn.softmax(logits, axis=-1)

    def _index(self, stage: int) -> int:
        """Returns which refinement network a scale has; further ones the last."""
        return min(self.module.refiners, stage) - 1

    def _apply_segmenter(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool,
        key: jax.Array | None,
    ) -> Any:
        part = wrapper.part_of(variables, "segmenter")
        given = {"views": batch["views"]}
        if not train:
            return self.segmenter.apply(part, given, train=False)
        outputs, stats = self.segmenter.apply(part, given, train=True, key=key)
        others = variables.get("batch_stats", {})
        return outputs, {**others, "segmenter": stats} if stats else others

    def _opinions(
        self, variables: base.Variables, batch: base.Batch
    ) -> tuple[jax.Array, jax.Array]:
        """Returns probabilities of crops: those of the scene made small, their own."""
        views = jnp.asarray(batch["views"])
        overview = jnp.asarray(batch["overview"])
        crops = self.images({"views": views})
        scenes = base.normalise(overview, mean=self.mean, std=self.std)
        if scenes.shape == crops.shape:  # one pass of the network
            both = self.label_patches(variables, jnp.concatenate([scenes, crops]))
            whole, fine = jnp.split(both, 2)
        else:
            whole, fine = (self.label_patches(variables, x) for x in (scenes, crops))
        size = whole.shape[1:3]
        boxes = jnp.asarray(batch["box"]) * jnp.array([*size, *size], jnp.float32)
        samples = tuple(map(roi.samples_per_px, size, fine.shape[1:3]))
        coarse = roi.align(
            whole, boxes, fine.shape[1:3], samples=samples,
            aligned=self.module.roi_aligned,
        )  # fmt: skip
        return jax.lax.stop_gradient((coarse, fine))

    def _own(self, variables: base.Variables) -> base.Variables:
        return {
            kind: {name: leaf for name, leaf in tree.items() if name != "segmenter"}
            for kind, tree in variables.items()
        }

    def _example(self) -> tuple[Any, ...]:
        maps = jax.ShapeDtypeStruct((1, 8, 8, self.num_classes), jnp.float32)
        return maps, maps

    def _check_model(self) -> None:
        module = self.module
        base.check_choice("config.model.refine_order", module.refine_order, ORDERS)
        base.check_choice(
            "config.model.coarse_resize", module.coarse_resize, COARSE_RESIZES
        )
        base.check_range("config.model.width", module.width, low=1)
        if not 0 <= module.momentum < 1:
            raise InputError(f"config.model.momentum = {module.momentum}; use 0 to 1")
        base.check_range("config.model.refiners", module.refiners, low=0)
        if not SEGMENTER <= module.trained < module.refiners:
            known = f", the refinement networks 0 to {module.refiners - 1}"
            raise InputError(
                f"config.model.trained = {module.trained}: there are -1 (the "
                f"segmentation network){known if module.refiners else ''}"
            )
        try:
            pyramid.check_scales(module.scales)
        except ValueError as error:
            raise InputError(f"config.model.{error}") from error
        if not set(module.learned) <= set(range(len(module.scales))):
            raise InputError(
                f"config.model.learned = {module.learned}: scales have the indices 0 "
                f"to {len(module.scales) - 1}; use () for all"
            )
        if module.refiners >= max(len(module.scales), 2):
            raise InputError(
                f"config.model.refiners = {module.refiners}: {len(module.scales)} "
                f"scales have at most {max(len(module.scales) - 1, 1)} of them"
            )
        for name in ("crop", "input_size"):
            sides = getattr(module, name)
            if len(sides) != 2 or min(sides) < 1:
                raise InputError(
                    f"config.model.{name} = {sides}; use (height, width), px"
                )
        self._check_segmenter()
        self.segmenter.check_sides("config.model.input_size", module.input_size)


def aggregate(outputs: Mapping[str, jax.Array]) -> jax.Array:
    """Returns what prediction would do within a crop: refined where it promises most.

    The half of the pixels of largest certainty (of the crop by itself) times
    uncertainty (of the scale before) takes the refined probabilities.

    Args:
        outputs: of `MagNetMethod.apply`.

    Returns:
        [B, h, w, K] float32.
    """
    coarse, fine = outputs["coarse"], outputs["fine"]
    score = points.certainty(fine) * (1 - points.certainty(coarse))
    size = score.shape[1:]

    def half(score: jax.Array) -> jax.Array:
        choice = points.choose(score, size, max(score.size // 2, 1))
        return points.chosen(choice, *map(jnp.arange, size), size)

    refined = jax.nn.softmax(outputs["logits"], axis=-1)
    return jnp.where(jax.vmap(half)(score)[..., None], refined, coarse)
