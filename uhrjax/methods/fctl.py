"""FCtL, from contexts to locality (https://arxiv.org/abs/2109.02580).

A patch is segmented together with windows around it that see more, in as many pixels:
a medium one, a large one or the whole scene, and the patch itself. At the end of the
encoder every local pixel attends to each context and takes up what it resembles there;
what the contexts give is weighed per pixel and channel and added to the patch. FCN-8s
on VGG16 does the rest; a second network (`refinement`) repairs the assembled masks.

Differs from the paper (where its code does, the code made the published numbers):
- Features behind all five blocks of VGG16 are correlated (text: Conv1 to Conv3), and
  their values come from the context (text: from the patch; `value="local"`).
- Weights pass a sigmoid, then the softmax over contexts; they differ per channel, and
  no convolution squeezes (`fusion="adaptive_paper"` is Eq. 1). Each stream has a factor
  gamma that starts at 0.
- Contexts reach over the border of the scene, black there (`border="shift"` moves them
  inside, the literal reading).
- Four trainings follow each other: FCN-8s, it with the medium, it with the large
  context through one shared encoder, then all contexts with the encoders of the two
  before, frozen.
- Images are scaled to 0..1, not normalised.

Our reading of what neither settles: the widths of Eq. 1's squeeze, the softmax of one
learned number per context ("weighted"), the 1x1 convolution of "concat"; the local
encoder, the head and the first stream of the last training come from the training with
the first context.

Ours: without ImageNet weights the encoder does not learn from contexts what a patch
lacks. With `config.stages.pretrain` an FCN-8s that labels whole scenes made small comes
first; encoders start from it, be it the patch's or, in the trainings with contexts, the
shared one.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.typing import Dtype

from uhrjax import losses, weights
from uhrjax.backbones import fctl_file, vgg
from uhrjax.errors import InputError
from uhrjax.methods import base
from uhrjax.nn import correlation, fcn8
from uhrjax.tiling import view
from uhrjax.tiling import window as windows

GLOBAL, LOCAL = "global", "local"
PRETRAIN = "pretrain"  # the stage of that name
ENCODERS = ("frozen", "shared")
BORDERS = ("zero", "shift")
# Names of the trainings with one context, by how many there are.
STAGE_NAMES = {1: ("medium",), 2: ("medium", "large"), 3: ("small", "medium", "large")}


class Encoded(NamedTuple):
    """A context that has passed its encoder already."""

    features: jax.Array  # [B or 1, h, w, C]


class FCtL(nn.Module):
    """Patch and contexts -> logits of the patch."""

    num_classes: int
    contexts: tuple[str, ...] = ("3", GLOBAL, LOCAL)  # "2": twice the patch; in order
    encoders: str = "frozen"  # one per context without training, or "shared"
    fusion: str = "adaptive"  # one of correlation.FUSIONS
    spatial_only: bool = False  # adaptive_paper: one weight per pixel
    value: str = "context"  # what attention sums, or "local"
    gamma_init: float = 0.0
    border: str = "zero"  # of the scene, see above; `FCtLMethod.inputs` reads it
    fc_features: int = 4096  # of the head
    wide_border: bool = True  # 100 px around every image, as FCN-8s; False: 1 px (ours)
    skip_scales: tuple[float, float] = (0.01, 0.0001)  # of pool4 and pool3 (code)
    dropout: float = 0.5
    width: int = 64  # of the encoders
    remat: bool = False
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts; encoders `context_0`, ... if each context has its own."""
        encoder = {"width": self.width, "wide_border": self.wide_border}
        encoder |= {"remat": self.remat, "dtype": self.dtype}
        self.backbone = vgg.VGG16(**encoder)
        if self.encoders == "frozen":
            self.context = [vgg.VGG16(**encoder) for _ in outer(self.contexts)]
        if self.contexts:
            self.attention = correlation.ContextFusion(
                fusion=self.fusion,
                spatial_only=self.spatial_only,
                value=self.value,
                gamma_init=self.gamma_init,
                dtype=self.dtype,
            )
        self.head = fcn8.FCN8Head(
            num_classes=self.num_classes,
            fc_features=self.fc_features,
            dropout=self.dropout,
            wide_border=self.wide_border,
            skip_scales=self.skip_scales,
            dtype=self.dtype,
        )

    def __call__(
        self,
        images: jax.Array,
        contexts: tuple[jax.Array | Encoded, ...] = (),
        *,
        train: bool,
        details: bool = False,
    ) -> dict[str, Any]:
        """Segments patches with the help of their contexts.

        Args:
            images: [B, H, W, 3] float, the patches.
            contexts: one per outer context, [B or 1, h, w, 3] float or encoded; 1: the
                same for all patches.
            train: drop features.
            details: also return attention maps and weights.

        Returns:
            "logits": [B, H, W, num_classes] float32; with details and contexts also
            "attention": per context [B, h * w, h_c * w_c] float32, and
            "weights": [T, B, h, w, C] float32 or, with one context, None.
        """
        *skips, local = self.backbone(images)
        fused = correlation.Fused(local)
        if self.contexts:
            encoded = [self.encode(x, index) for index, x in enumerate(contexts)]
            for place, name in enumerate(self.contexts):
                if name == LOCAL:
                    encoded.insert(place, local)
            fused = self.attention(local, encoded, details=details)
        logits = self.head([*skips, fused.features], images.shape[1:3], train=train)
        found = {"attention": fused.attention, "weights": fused.weights}
        return {"logits": logits, **(found if details and self.contexts else {})}

    def encode(self, images: jax.Array | Encoded, index: int) -> jax.Array:
        """Maps the index-th outer context [B, h, w, 3] to its features, stride 32."""
        if isinstance(images, Encoded):
            return images.features
        if self.encoders == "frozen":
            return jax.lax.stop_gradient(self.context[index](images)[-1])
        return self.backbone(images)[-1]


# One context alone is weighed in one way: all fusions share the stages before "all".
UNFUSED = {"model.fusion": FCtL.fusion, "model.spatial_only": FCtL.spatial_only}


class FCtLMethod(base.Method):
    """FCtL with focal loss, its stages and published weights."""

    module_class = FCtL
    loss_class = losses.FocalLoss

    @classmethod
    def inputs(cls, config: ml_collections.ConfigDict) -> base.Inputs:
        """Returns the patch, its windows by rising size, and the overview."""
        contexts = tuple(config.model.get("contexts", FCtL.contexts))
        border = config.model.get("border", FCtL.border)
        base.check_choice("config.model.border", border, BORDERS)
        scales = sorted(_scale(name) for name in outer(contexts) if name != GLOBAL)
        views = [view.View(), *(view.View(s, "pillow", border) for s in scales)]
        for wide in views:
            try:
                view.widen(windows.Window(0, 0, config.tile, config.tile), wide.scale)
            except ValueError as error:
                raise InputError(
                    f"config.model.contexts = {contexts}: {error}"
                ) from None
        overview = (config.tile, config.tile) if GLOBAL in contexts else None
        return base.Inputs(tuple(views), overview)

    @classmethod
    def stages(cls, config: ml_collections.ConfigDict) -> tuple[base.Stage, ...]:
        """Returns FCN-8s, each outer context alone, and all contexts together."""
        contexts = tuple(config.model.get("contexts", FCtL.contexts))
        encoders = config.model.get("encoders", FCtL.encoders)
        stages, encoder = [], ("backbone", "fcn", "backbone")
        fusion = config.model.get("fusion", FCtL.fusion)
        if PRETRAIN in config.get("stages", {}):
            stages.append(base.Stage(PRETRAIN, _global_inference(config)))
            encoder = ("backbone", PRETRAIN, "segmenter/backbone")
        starts = (encoder,) if stages else ()
        stages.append(base.Stage("fcn", {"model.contexts": (), **UNFUSED}, starts))
        if not contexts:
            return tuple(stages)
        kept = (encoder, ("head", "fcn", "head"))
        single = _single_stages(contexts)
        if len(contexts) == 1 or encoders == "frozen":
            for context, name in single.items():
                changes = {"model.contexts": (context,), "model.encoders": "shared"}
                changes |= {} if fusion == "concat" else UNFUSED
                stages.append(base.Stage(name, changes, kept))
        if len(contexts) > 1 and encoders == "shared":  # ours: no published counterpart
            stages.append(base.Stage("all", {"model.contexts": contexts}, kept))
        elif len(contexts) > 1:
            changes = {"model.contexts": contexts, "model.encoders": "frozen"}
            start = _start_of_all(contexts, single, streams=fusion != "concat")
            stages.append(base.Stage("all", changes, start))
        return tuple(stages)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the encoders of the contexts, unless they are the patch's."""
        if self.module.encoders == "shared":
            return ()
        return tuple(f"context_{i}" for i in range(len(outer(self.module.contexts))))

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        attention = correlation.initial_rules(
            "attention", gamma_init=self.module.gamma_init
        )
        return (*attention, *vgg.initial_rules("backbone|context_[0-9]+"))

    def context(self, variables: base.Variables, overview: jax.Array) -> Any:
        """Returns the features [1, h, w, C] of the whole scene, or None."""
        if GLOBAL not in self.module.contexts:
            return None
        images = base.normalise(jnp.asarray(overview), mean=self.mean, std=self.std)
        index = outer(self.module.contexts).index(GLOBAL)
        return self.module.apply(variables, images, index, method="encode")

    def model_inputs(self, batch: base.Batch) -> tuple[Any, ...]:
        """Returns the patches and their outer contexts, in the order of the config."""
        images = self.images(batch)
        contexts = []
        for name in outer(self.module.contexts):
            if name == GLOBAL and batch.get("context") is not None:
                contexts.append(Encoded(batch["context"]))
                continue
            seen = self._overview(batch) if name == GLOBAL else self._view(batch, name)
            contexts.append(base.normalise(seen, mean=self.mean, std=self.std))
        return images, tuple(contexts)

    @property
    def feature_grid(self) -> tuple[int, int]:
        """Returns where the first coarse pixel begins before the image, and its side.

        Both in px; coarse pixels are those that attend and are attended to.
        """
        return (vgg.FIRST_PADDING - 1 if self.module.wide_border else 0), vgg.STRIDE

    def explain(self, variables: base.Variables, batch: base.Batch) -> dict[str, Any]:
        """Returns the outputs with "attention" and "weights", see `FCtL`."""
        return self.module.apply(
            variables, *self.model_inputs(batch), train=False, details=True
        )

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights.

        Args:
            state_dict: one published file, or several merged under the prefixes
                "local.", "medium.", "large." (as `stages` names the contexts).
        """
        contexts = self.module.contexts
        stages = tuple(_single_stages(contexts).values()) if outer(contexts) else ()
        filled = weights.from_torch(
            fctl_file.used(state_dict, stages, streams=len(contexts)),
            self.shapes(),
            names=fctl_file.torch_names(stages),
        )
        return jax.tree.map(jnp.asarray, filled)

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with torchvision's VGG16 in every encoder.

        Its first two fully connected layers become those of the head if that has their
        size, else they are dropped, as is the last one.

        Args:
            variables: of this method; not changed.
            state_dict: PyTorch name -> array of the classifier.
        """
        params = self.shapes()["params"]
        template = {"backbone": params["backbone"]}
        given = vgg.as_convolutions(state_dict)
        if self.module.fc_features == 4096 and self.module.width == 64:
            template["head"] = {name: params["head"][name] for name in ("fc6", "fc7")}
        else:
            given = {n: v for n, v in given.items() if not n.startswith("classifier.")}
        names = (*vgg.TORCH_NAMES, *fcn8.TORCH_NAMES)
        loaded = weights.from_torch(given, {"params": template}, names=names)["params"]
        loaded = jax.tree.map(jnp.asarray, loaded)
        head = {**variables["params"]["head"], **loaded.get("head", {})}
        encoders = {
            name: loaded["backbone"]
            for name in params
            if name == "backbone" or name.startswith("context_")
        }
        filled = {**variables["params"], **encoders, "head": head}
        return {**variables, "params": filled}

    def _check_model(self) -> None:
        module = self.module
        named = [c if c in (GLOBAL, LOCAL) else _scale(c) for c in module.contexts]
        if len(set(named)) < len(named):
            raise InputError(
                f"config.model.contexts = {module.contexts} names one twice; use each "
                "context once"
            )
        for name, known in (
            ("encoders", ENCODERS),
            ("fusion", correlation.FUSIONS),
            ("value", correlation.VALUES),
        ):
            base.check_choice(f"config.model.{name}", getattr(module, name), known)
        if module.spatial_only and module.fusion != "adaptive_paper":
            raise InputError(
                "config.model.spatial_only = True is a switch of fusion = "
                f"'adaptive_paper', not of {module.fusion!r}; change one of them"
            )
        for name in ("width", "fc_features"):
            base.check_range(f"config.model.{name}", getattr(module, name), low=1)
        if not 0 <= module.dropout < 1:
            raise InputError(
                f"config.model.dropout = {module.dropout}; use 0 (none) to below 1"
            )

    def _example(self) -> tuple[Any, ...]:
        image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        return image, tuple(image for _ in outer(self.module.contexts))

    def _view(self, batch: base.Batch, name: str) -> jax.Array:
        scales = [view.scale for view in self.views]
        return jnp.asarray(batch["views"])[:, scales.index(_scale(name))]

    def _overview(self, batch: base.Batch) -> jax.Array:
        if batch.get("overview") is None:
            raise InputError(
                "the batch has no 'overview', which the context 'global' is made of; "
                f"prepare the data with overviews of {self.overview} px, or leave "
                "'global' out of config.model.contexts"
            )
        return jnp.asarray(batch["overview"])


def outer(contexts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the contexts that show more than the patch, in order."""
    return tuple(name for name in contexts if name != LOCAL)


def _scale(name: str) -> int | float:
    """Returns the multiplier that a context's name states."""
    try:
        scale = float(name)
    except (TypeError, ValueError):
        scale = math.nan
    if not 1 < scale < math.inf:
        raise InputError(
            f"config.model.contexts: {name!r} is no context; use numbers above 1 such "
            f"as '2' or '1.5' (times the patch), {GLOBAL!r} (the whole scene) or "
            f"{LOCAL!r} (the patch itself)"
        )
    return int(scale) if scale == int(scale) else scale


def _global_inference(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the config keys of an FCN-8s on whole scenes made small."""
    bare = {"contexts": (), **{k.removeprefix("model."): v for k, v in UNFUSED.items()}}
    network = {"model": {**config.model, **bare}, "loss": config.loss}
    changes = {"method": "downsample", "segmenter": {"method": "fctl", **network}}
    own = {"model": {"size": (0, 0)}, "loss": {}}  # a size of 0: the tile's
    return {**changes, **own, "data.unit": "overviews"}


def _single_stages(contexts: tuple[str, ...]) -> dict[str, str]:
    """Returns context -> name of the training with it alone."""
    alone = outer(contexts)
    if not alone:
        return {LOCAL: LOCAL}
    numbered = tuple(f"context_{i + 1}" for i in range(len(alone)))
    return dict(zip(alone, STAGE_NAMES.get(len(alone), numbered), strict=True))


def _start_of_all(
    contexts: tuple[str, ...], single: Mapping[str, str], *, streams: bool
) -> tuple[tuple[str, str, str], ...]:
    """Returns where the last training starts: see the head of this file."""
    context, stage = next(iter(single.items()))
    start = [(part, stage, part) for part in ("backbone", "head")]
    if streams:
        ours = f"attention/stream_{contexts.index(context)}"
        start.append((ours, stage, "attention/stream_0"))
    for index, other in enumerate(single.values()):
        start.append((f"context_{index}", other, "backbone"))
    return tuple(start)
