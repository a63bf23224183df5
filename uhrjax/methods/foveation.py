"""Foveation, a learned field of view per location (https://arxiv.org/abs/2007.15124).

A small network looks at the whole scene made small and says, for every place in it,
how wide to look: a distribution over D patches of one centre and growing side, all
resampled to the smallest one's. They are mixed, or one is chosen, and any segmentation
network labels the result, which is taken to be the area of the smallest patch. Both
networks are trained together; the loss reaches the first only through these weights.

Differs from the paper, as its code does:
- the smallest patch begins at the low-resolution pixel's corner (`anchor="center"` is
  the text's); beyond the scene lies the data set's mean colour;
- ReLU is clipped at 6, and the last block has none;
- "mode" divides the gradient by the probability (`straight_through="st"` copies it);
- Gumbel-softmax feeds the soft mixture (`hard=True`: one patch);
- L scenes are trained on at N locations each before others are fetched, B a step.
Differs from its code, as the paper does: the temperature falls during training, the
random baseline draws anew everywhere, gradients of earlier steps are not replayed, and
without a labelled pixel the loss is 0. REINFORCE is ours where the code's is not one.
Ours, for want of ImageNet weights: with `config.stages.pretrain` the segmentation
network learns from one patch first, a wide one, so that width is of use to choose.

A batch holds `scene` [L, H, W, 3] uint8, whole scenes; `label` [L, H, W]; `locations`
[1, B, 2] int32, (row, column) of the small scenes, the same for all of them; `progress`
[1] float32, the share of training that is done (of t / T in the paper's terms).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import weights
from uhrjax.errors import InputError
from uhrjax.methods import base, wrapper
from uhrjax.nn import foveater, initial, patch_bank
from uhrjax.ops import choice, zoom
from uhrjax.tiling import location

PRETRAIN = "pretrain"  # the stage of that name


@dataclasses.dataclass(frozen=True)
class FoveationLoss:
    """What is added to the segmentation network's own loss."""

    entropy_weight: float = 0.0  # of the distribution's entropy (code, off there, too)


class FoveationMethod(wrapper.Wrapper):
    """The foveation module in front of another method, which it trains along.

    Variables: {kind: {"foveater", "segmenter"}}; the fixed selections have no foveater.
    """

    module_class = foveater.Foveation
    loss_class = FoveationLoss
    initial_rules = foveater.INITIAL_RULES
    whole_scenes: ClassVar[bool] = True

    @classmethod
    def stages(cls, config: ml_collections.ConfigDict) -> tuple[base.Stage, ...]:
        """Returns one training, or `PRETRAIN` (if the config has it) and the rest."""
        if PRETRAIN not in config.get("stages", {}):
            return super().stages(config)
        first = base.Stage(PRETRAIN, {"model.selection": "patch"})
        taken = (("segmenter", PRETRAIN, "segmenter"),)
        return (first, base.Stage("select", start=taken))

    def own_shapes(self) -> base.Variables:
        """Returns the part of `shapes` that is not the segmentation network's."""
        return super().own_shapes() if self.module.learns else {}

    def init(self, key: jax.Array) -> base.Variables:
        """Returns random variables; no forward pass is computed."""
        ours, theirs = jax.random.split(key)
        own = {}
        if self.module.learns and isinstance(key, jax.core.Tracer):
            own = self.module.init(ours, jnp.zeros((1, 8, 8, 3)), train=False)
        elif self.module.learns:
            own = initial.draw(self.own_shapes(), ours, rules=self.initial_rules)
        return wrapper.join(own, self.segmenter.init(theirs))

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights.

        Args:
            state_dict: the published files merged, the foveation module's under the
                prefix "foveater."; the fixed selections have none.
        """
        bare = {name.removeprefix("module."): v for name, v in state_dict.items()}
        own, rest = {}, {}
        for name, value in bare.items():
            if not name.startswith("foveater."):
                rest[name] = value
            elif not name.endswith(foveater.UNUSED):
                own[name] = value
        filled = {}
        if self.module.learns or own:
            filled = weights.from_torch(
                own, self.own_shapes(), names=foveater.TORCH_NAMES
            )
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
        """Labels the patches at some locations of scenes; a pure function.

        The memory it takes beside the scenes themselves depends on the number and size
        of patches and on the size of the small scenes, not on that of the scenes.

        Args:
            variables: of this method.
            batch: see the head of this file.
            train: use the batch's statistics; the temperature follows `progress`.
            key: for dropout and for drawing patches; without: one fixed draw.

        Returns:
            What the segmentation network returns for [L B, P, P] patches, scene by
            scene, with "weights" and "foveation_logits" [L, B, D] float32 beside it;
            with `train` the pair (dict, new batch_stats).
        """
        key = jax.random.key(0) if key is None else key
        drawing, dropping = jax.random.split(key)
        places = batch["locations"][0]  # [B, 2]
        maps, own_stats = self.look(variables, batch["scene"], train=train)
        logits = maps[:, places[:, 0], places[:, 1]]  # [L, B, D]
        tau = (
            self.module.temperature(batch.get("progress"))
            if train
            else self.module.temperature()
        )
        shares, log_p = self.module.select(logits, drawing, tau, train=train)
        patches = self.patches(batch["scene"], places, shares, train=train)
        patches = patches.reshape(-1, *patches.shape[2:])
        extra = {"weights": shares, "foveation_logits": logits, "log_p": log_p}
        if not train:
            return {**self.segment(variables, patches), **extra}
        outputs, stats = self.segmenter.apply(
            wrapper.part_of(variables, "segmenter"),
            {"views": patches[:, None]},
            train=True,
            key=dropping,
        )
        stats = {"segmenter": stats} if stats else {}
        return {**outputs, **extra}, {**own_stats, **stats}

    def segment(
        self, variables: base.Variables, patches: jax.Array
    ) -> Mapping[str, Any]:
        """Labels mixed patches [N, P, P, 3] float32; returns the network's outputs."""
        part = wrapper.part_of(variables, "segmenter")
        return self.segmenter.apply(part, {"views": patches[:, None]}, train=False)

    def look(
        self, variables: base.Variables, scenes: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, base.Variables]:
        """Returns the logits of the patches at every location.

        Args:
            variables: of this method.
            scenes: [L, H, W, 3] uint8.
            train: use the statistics of these scenes.

        Returns:
            [L, h, w, D] float32, zeros with a fixed selection, and new batch_stats.
        """
        size = self.map_size(*scenes.shape[1:3])
        if not self.module.learns:
            shape = (len(scenes), *size, len(self.module.bank))
            return jnp.zeros(shape, jnp.float32), {}
        small = jax.vmap(
            functools.partial(zoom.overview, size=size, normalise=self._normalise)
        )(scenes)
        own = {
            kind: {"foveater": tree["foveater"]} for kind, tree in variables.items()
            if "foveater" in tree
        }  # fmt: skip
        if not train:
            return self.module.apply(own, small, train=False), {}
        logits, new = self.module.apply(own, small, train=True, mutable="batch_stats")
        return logits, new["batch_stats"]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size of a small scene, halves rounded to even."""
        grid = location.plan_grid(height, width, rate=self.module.scale, patch=1)
        return grid.rows, grid.columns

    def patches(
        self,
        scenes: jax.Array,
        places: jax.Array,
        shares: jax.Array,
        *,
        rate: int = 0,
        train: bool = False,
    ) -> jax.Array:
        """Cuts and mixes patches; differentiable in their weights.

        Args:
            scenes: [L, H, W, 3] uint8.
            places: [B, 2] int, locations.
            shares: [L, B, D] float32, the weights.
            rate: scene px per location; 0: the module's scale.
            train: in training; elsewhere one crop is cut where one is chosen.

        Returns:
            [L, B, P, P, 3] float32, normalised; P is the smallest side of the bank.
        """
        module = self.module
        return self.module.crops.patches(
            scenes,
            places,
            shares,
            rate=rate or module.scale,
            normalise=self._normalise,
            one=module.selection in ("patch", "random")
            or not (train or module.mixes()),
        )

    def logits(self, outputs: Mapping[str, Any]) -> jax.Array:
        """Returns [L B, P, P, K] float32."""
        return self.segmenter.logits(outputs)

    def points(self, outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Returns what the segmentation network looked at, patch px."""
        return self.segmenter.points(outputs)

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", the segmentation network's parts and what is added."""
        stride = self.segmenter.label_stride
        label = self.module.crops.labels(
            batch["label"], batch["locations"][0], rate=self.module.scale, stride=stride
        )
        own = {"label": label.reshape(-1, *label.shape[2:])}
        parts = dict(self.segmenter.loss(outputs, own))
        del parts["total"]
        if self.module.selection == "reinforce":
            parts["reinforce"] = self._reinforce(outputs, own)
        if self.loss_rule.entropy_weight:
            entropy = jnp.mean(choice.entropy(outputs["foveation_logits"]))
            parts["entropy"] = self.loss_rule.entropy_weight * entropy
        return {"total": sum(parts.values()), **parts}

    def _reinforce(self, outputs: Mapping[str, Any], batch: base.Batch) -> jax.Array:
        """Returns 0 whose gradient at the foveation module is the score function's."""
        known = ("weights", "foveation_logits", "log_p")
        of_patches = {k: v for k, v in outputs.items() if k not in known}

        def one(outputs: Any, batch: Any) -> jax.Array:
            single = jax.tree.map(lambda leaf: leaf[None], (outputs, batch))
            return self.segmenter.loss(*single)["total"]

        losses = jax.lax.stop_gradient(jax.vmap(one)(of_patches, batch))  # [L B]
        count, reference = len(losses), 0.0
        if self.module.baseline and count > 1:
            reference = (jnp.sum(losses) - losses) / (count - 1)
        with_score = choice.reinforce(losses, outputs["log_p"].reshape(-1), reference)
        return jnp.mean(with_score - jax.lax.stop_gradient(with_score))

    def _normalise(self, pixels: jax.Array) -> jax.Array:
        return base.normalise(pixels, mean=self.mean, std=self.std)

    def _example(self) -> tuple[Any, ...]:
        return (jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32),)

    def _check_model(self) -> None:
        module = self.module
        for name, known in (
            ("selection", (*foveater.LEARNED, *foveater.FIXED)),
            ("anchor", patch_bank.ANCHORS),
            ("border", zoom.BORDERS),
            ("straight_through", choice.STRAIGHT_THROUGH),
            ("gsm_eval", foveater.GSM_EVAL),
            ("activation", foveater.ACTIVATIONS),
        ):
            base.check_choice(f"config.model.{name}", getattr(module, name), known)
        base.check_range("config.model.scale", module.scale, low=1)
        base.check_range("config.model.tau_rate", module.tau_rate, low=0)
        self._check_bank()
        self._check_segmenter()

    def _check_bank(self) -> None:
        module, bank = self.module, self.module.bank
        if not bank or min(bank) < 1 or list(bank) != sorted(set(bank)):
            raise InputError(
                f"config.model.bank = {bank}; use ascending sides, px, e.g. "
                "(512, 640, 768, 896, 1024)"
            )
        if bank[0] != self.tile:
            raise InputError(
                f"config.model.bank = {bank} begins with another side than config.tile "
                f"= {self.tile}; the network sees the smallest patch: make them equal"
            )
        if not 1 <= module.patch <= len(bank):
            raise InputError(
                f"config.model.patch = {module.patch}: the bank has the patches 1 to "
                f"{len(bank)}"
            )
        if self.module.learns and len(bank) == 1:
            raise InputError(
                f"config.model.bank = {bank} leaves selection = {module.selection!r} "
                "nothing to choose from; use two sides or more, or selection = 'patch'"
            )
