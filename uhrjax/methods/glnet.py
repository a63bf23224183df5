"""GLNet (https://arxiv.org/abs/1905.06368): a global and a local branch that talk.

Two feature pyramids look at a scene, one at all of it made small, one at a window at
full resolution. At every layer a branch reads the other's maps beside its own: the
local one a crop of the global maps, the global one the maps of all windows pasted
together. An ensemble head joins both at the window. Trained in three stages: the
"global" branch alone, the "local" branch with the global one frozen, then the global
branch once more, guided by all windows of the frozen local one ("joint").

What a method sees differs between training and prediction:
- "global": a training sample is a whole scene made small (`views`, its label nearest);
  prediction hands windows, whose logits are cut from those of `overview`.
- "local": both see windows with `overview`, `position` and `scene_size`.
- "joint": training sees all windows of one scene in one batch; prediction goes over a
  scene twice: `collect` adds up the windows' maps, `context` makes the guided global
  maps of them, `apply` then labels windows. Without a context, the windows of the
  batch count as all there are.
- "local_alone": the net of "global" on windows; with "global" the paper's ablation.

Differs from the paper, as its code does:
- no activation and no norm in the pyramids; focal loss without ignored label;
- the window's maps are guided by a net of the first stage that stays as it was, not by
  the net that the last stage trains.
Differs from the code:
- batch norm of the joint stage sees one overview at a time, not those of six scenes;
- a window that covers less than one px of a map reads one px (the code fails).
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import losses
from uhrjax.backbones import branches
from uhrjax.methods import base
from uhrjax.nn import collection, guided_fpn
from uhrjax.ops import crop as crop_lib
from uhrjax.ops import resize

TORCH_NAMES = (
    (r"^resnet_global\.", "backbone."),
    (r"^resnet_local\.", "local_backbone."),
    (r"^resnet_fixed\.", "fixed_backbone."),
    (r"^fpn_(global|local)\.classify\.", r"\1_head."),
    (r"^fpn_global\.(\w+)_ext\.", r"joint_fpn.\1."),
    (r"^fpn_global\.smooth\.", "joint_fpn.fuse."),
    (r"^fpn_(global|local)\.", r"\1_fpn."),
    (r"^ensemble_conv\.", "ensemble."),
    *guided_fpn.TORCH_NAMES,
)
# Published files hold all branches; what a mode has none of:
_JOINT = r"fpn_global\.(\w+_ext|smooth)\."
_GUIDED = rf"resnet_local|fpn_local|ensemble_conv|{_JOINT}"
_ABSENT = {"global": _GUIDED, "local_alone": _GUIDED, "local": _JOINT, "joint": "$"}


_GLOBAL = ("backbone", "global_fpn", "global_head")
_LOCAL = ("local_backbone", "local_fpn", "local_head")


@dataclasses.dataclass(frozen=True)
class GLNetLoss(losses.FocalLoss):
    """Focal losses of the branches at a quarter of the resolution."""

    difference_weight: float = 0.15  # of the branches' maps; stage "local"
    group: int = 6  # windows that share one mean; stage "joint"


class GLNetMethod(base.Method):
    """GLNet in one of its modes."""

    module_class = branches.GLNet
    loss_class = GLNetLoss
    torch_names = TORCH_NAMES
    initial_rules = (
        (r"_backbone/.*kernel$", "he_out"),
        (r"(_fpn|_head|ensemble)/.*kernel$", "normal 0.01"),
        (r"(_fpn|_head|ensemble)/.*bias$", "constant 0"),
    )

    @classmethod
    def inputs(cls, config: ml_collections.ConfigDict) -> base.Inputs:
        """Returns one view and, but for "local_alone", an overview of the same size."""
        alone = config.model.get("mode", branches.GLNet.mode) == "local_alone"
        return base.Inputs(overview=None if alone else (config.tile, config.tile))

    @classmethod
    def stages(cls, config: ml_collections.ConfigDict) -> tuple[base.Stage, ...]:
        """Returns the trainings up to the mode of the config."""
        mode = config.model.get("mode", branches.GLNet.mode)
        if mode not in branches.MODES or mode == "local_alone":
            return (base.Stage("main"),)
        both = (*_GLOBAL, *_LOCAL, "ensemble")
        starts = (
            (),
            tuple((name, "global", name) for name in _GLOBAL),
            (
                *((name, "local", name) for name in both),
                ("fixed_backbone", "local", "backbone"),
            ),
        )
        changes = (
            {"data.unit": "overviews"},
            {"data.unit": "scenes"},
            {"data.unit": "scenes", "sub_batch": 0},  # all patches of a scene
        )
        names = branches.MODES[: branches.MODES.index(mode) + 1]
        return tuple(
            base.Stage(name, {"model.mode": name, **changes[k]}, starts[k])
            for k, name in enumerate(names)
        )

    @property
    def mode(self) -> str:
        """One of branches.MODES."""
        return self.module.mode

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the branches that guide the one which the stage trains."""
        joint = ("fixed_backbone", "global_fpn", *_LOCAL)
        return {"local": _GLOBAL, "joint": joint}.get(self.mode, ())

    @property
    def collects(self) -> bool:
        """Whether prediction goes over a scene with `collect` first."""
        return self.mode == "joint"

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights.

        Args:
            state_dict: PyTorch name -> array. Branches that the mode lacks are left
                out. In mode "joint" the guide's backbone is `resnet_fixed.*`, or else
                the global branch's.
        """
        given = {name.removeprefix("module."): v for name, v in state_dict.items()}
        given = {n: v for n, v in given.items() if not re.match(_ABSENT[self.mode], n)}
        if self.mode == "joint":
            copies = {n.replace("resnet_global.", "resnet_fixed."): n for n in given}
            named = any(n.startswith("fixed_backbone.") for n in given)  # ours
            given |= (
                {}
                if named
                else {c: given[n] for c, n in copies.items() if c not in given}
            )
        return super().import_torch(given)

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with every branch's backbone from one classifier."""
        loaded = super().import_backbone(variables, state_dict)
        return {
            kind: {
                name: tree["backbone"] if name.endswith("backbone") else value
                for name, value in tree.items()
            }
            for kind, tree in loaded.items()
        }

    def model_inputs(self, batch: base.Batch) -> tuple[Any, ...]:
        """Returns the windows and, with two branches, their overview and place."""
        if not self.module.is_guided:
            return (self.images(batch),)
        overview = self._normalised(batch["overview"])
        overview = overview[:1] if self.mode == "joint" else overview
        return (self.images(batch), overview, *_place(batch))

    def apply(
        self,
        variables: base.Variables,
        batch: base.Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Runs the model, see `base.Method.apply` and the top of this module."""
        if train and self.mode == "joint":
            return self._train_jointly(variables, batch)
        context = None if train else batch.get("context")
        if self.mode == "global" and not train and "overview" in batch:
            context = context or self.context(variables, batch["overview"])
        if context is None:
            return super().apply(variables, batch, train=train, key=key)
        images, place = self.images(batch), _place(batch)
        window = images.shape[1:3]
        if self.mode == "global":
            logits = crop_lib.nearest_crop(context["global"], *place, window=window)
            return {"global": context["global"], "logits": logits}
        guide = context["guide"]
        run = functools.partial(self.module.apply, variables)
        local = run(images, guide, place, train=False, method="look_closely").joined
        joined = context.get("joined", guide.joined)
        return run(local, joined, place, window, method="classify")

    def context(
        self,
        variables: base.Variables,
        overview: jax.Array,
        collected: collection.Collection | None = None,
    ) -> dict[str, Any] | None:
        """Returns what windows need of their scene: the global branch's maps or logits.

        Args:
            variables: of this method.
            overview: [1, h, w, 3] uint8, the whole scene made small.
            collected: of all windows, in mode "joint". Without it the result is good
                for `collect` only.
        """
        if self.mode == "local_alone":
            return None
        run = functools.partial(self.module.apply, variables)
        overview = self._normalised(overview)
        if self.mode == "global":
            return {"global": run(overview, train=False)["global"]}
        context = {"guide": run(overview, train=False, method="look")}
        if collected is not None:
            again = run(overview, collected, train=False, method="look_again")
            context["joined"], context["global"] = again
        return context

    def empty_collection(self, scene_size: tuple[int, int]) -> collection.Collection:
        """Returns the collection of no windows; the same for scenes of any size."""
        return collection.empty_collection(self._guide_shapes, xp=np)

    @functools.cached_property
    def _guide_shapes(self) -> Any:
        """The shapes of a context's guide; a trace of the network, made once."""
        overview = jax.ShapeDtypeStruct((1, *self.overview, 3), jnp.uint8)
        return jax.eval_shape(self.context, self.shapes(), overview)["guide"]

    def collect(
        self,
        variables: base.Variables,
        batch: base.Batch,
        collected: collection.Collection,
    ) -> collection.Collection:
        """Adds a batch of windows of one scene to a collection.

        Args:
            variables: of this method.
            batch: with `context` or `overview`; windows not `valid` add nothing.
            collected: so far.
        """
        context = batch.get("context") or self.context(variables, batch["overview"][:1])
        images, place = self.images(batch), _place(batch)
        maps = self.module.apply(
            variables, images, context["guide"], place, train=False,
            method="look_closely",
        )  # fmt: skip
        window, valid = images.shape[1:3], batch.get("valid")
        return collection.add_windows(
            collected, maps, place, window=window, valid=valid
        )

    def _train_jointly(
        self, variables: base.Variables, batch: base.Batch
    ) -> tuple[dict[str, jax.Array], Any]:
        """Does what the module does, some windows at a time.

        Of all windows together only the joined maps of the local branch are held.
        """
        images, overview, *place = self.model_inputs(batch)
        window, count = images.shape[1:3], len(images)
        valid = batch.get("valid", jnp.ones(count, bool))
        run = functools.partial(self.module.apply, variables)
        guide = run(overview, train=False, method="look")
        group = functools.partial(collection.in_groups, size=self.loss_rule.group)
        places = collection.Place(*map(group, place))
        valid = collection.in_groups(valid, size=self.loss_rule.group, fill=False)

        def collect(
            collected: collection.Collection, some: Any
        ) -> tuple[collection.Collection, jax.Array]:
            images, place, valid = some
            maps = run(images, guide, place, train=False, method="look_closely")
            added = collection.add_windows(
                collected, maps, place, window=window, valid=valid
            )
            return added, maps.joined

        collected, local = jax.lax.scan(
            collect, collection.empty_collection(guide), (group(images), places, valid)
        )
        collected, local = jax.lax.stop_gradient((collected, local))
        (joined, logits), updates = run(
            overview, collected, train=True, mutable="batch_stats", method="look_again"
        )

        @jax.checkpoint
        def classify(some: Any) -> jax.Array:
            local, place = some
            return run(local, joined, place, window, method="classify")["ensemble"]

        quarter = jax.lax.map(classify, (local, places))
        quarter = quarter.reshape(-1, *quarter.shape[2:])[:count]
        full = resize.nearest(quarter, window)
        outputs = {"global": logits, "ensemble": quarter, "logits": full}
        return outputs, updates["batch_stats"]

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the losses of the stage; labels are nearest at a quarter."""
        rule, label = self.loss_rule, jnp.asarray(batch["label"])

        def focal(name: str) -> jax.Array:
            return rule.segmentation(outputs[name], _shrink(label, outputs[name]))

        if not self.module.is_guided:
            parts = {"seg": focal("global")}
        elif self.mode == "local":
            apart = outputs["difference"]
            valid = batch.get("valid", jnp.ones(len(apart), bool))
            parts = {"local": focal("local"), "ensemble": focal("ensemble")}
            mean = losses.masked_mean(apart, valid)
            parts["difference"] = rule.difference_weight * mean
        else:
            whole = crop_lib.nearest_paste(
                label, *_place(batch), between=self.overview,
                size=outputs["global"].shape[1:3], fill=losses.IGNORE_LABEL,
            )  # fmt: skip
            small = _shrink(label, outputs["ensemble"])
            small = collection.in_groups(
                small, size=rule.group, fill=losses.IGNORE_LABEL
            )
            quarter = collection.in_groups(outputs["ensemble"], size=rule.group)
            parts = {
                "global": rule.segmentation(outputs["global"], whole),
                "ensemble": jnp.sum(jax.vmap(rule.segmentation)(quarter, small)),
            }
        return {"total": sum(parts.values()), **parts}

    def check(self) -> None:
        """Raises InputError for values, or combinations of them, that make no sense."""
        super().check()
        for name, low in (("group", 1), ("difference_weight", 0)):
            value = getattr(self.loss_rule, name)
            base.check_range(f"config.loss.{name}", value, low=low)

    def _check_model(self) -> None:
        base.check_choice("config.model.mode", self.mode, branches.MODES)
        super()._check_model()
        base.check_range("config.model.fpn_dim", self.module.fpn_dim, low=2)

    def _example(self) -> tuple[Any, ...]:
        (images,) = super()._example()
        if not self.module.is_guided:
            return (images,)
        pair = jax.ShapeDtypeStruct((1, 2), jnp.int32)
        return (images, images, pair, pair)

    def _normalised(self, images: jax.Array) -> jax.Array:
        return base.normalise(jnp.asarray(images), mean=self.mean, std=self.std)


def _place(batch: base.Batch) -> collection.Place:
    return collection.Place(
        jnp.asarray(batch["position"]), jnp.asarray(batch["scene_size"])
    )


def _shrink(label: jax.Array, like: jax.Array) -> jax.Array:
    return resize.nearest(label, like.shape[1:3])
