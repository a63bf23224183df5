"""What a method is: the contract between models and training, evaluation, prediction.

A batch is a dict; B samples, V views of P x P px each:

| key          | shape           | type      | meaning                                 |
| ------------ | --------------- | --------- | --------------------------------------- |
| `views`      | [B, V, P, P, 3] | uint8 or  | RGB crops around one centre, smallest   |
|              |                 | float     | field of view first; uint8 is           |
|              |                 |           | normalised here, float is taken as is   |
| `label`      | [B, P, P]       | integer   | of the first view, 255 = ignore         |
| `position`   | [B, 2]          | int32     | (top, left) of the first view, scene px |
| `scene_size` | [B, 2]          | int32     | (height, width) of the scene, px        |
| `scene_id`   | [B]             | str       | stays on the host                       |
| `overview`   | [B, h, w, 3] or | as views  | optional: the whole scene, small; one   |
|              | [1, h, w, 3]    |           | for all if they are of one scene        |
| `context`    | any tree        |           | optional: what `Method.context` makes   |
|              |                 |           | of a scene, leading axes 1              |
| `valid`      | [B]             | bool      | optional: False for padding of a last   |
|              |                 |           | batch, whose labels are 255             |

and whatever `Method.targets` adds to the label. Applying a method reads the inputs, its
loss reads `label` and the method's own targets.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import losses, weights
from uhrjax.backbones import resnet
from uhrjax.errors import InputError
from uhrjax.nn import initial
from uhrjax.tiling import view

Batch = Mapping[str, Any]
Variables = dict[str, Any]
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Fields of a module that the config holds outside of `config.model`.
_COMMON_FIELDS = ("num_classes", "dtype", "remat", "parent", "name")


class Inputs(NamedTuple):
    """What of a scene one sample shows."""

    views: tuple[view.View, ...] = (view.View(),)  # smallest field of view first
    overview: tuple[int, int] | None = None  # the whole scene in (height, width) px


class Masks(NamedTuple):
    """The label maps that a refining network learns to refine."""

    stage: str  # whose network makes them
    epoch: int  # after which it does so, 0: the last


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training of several that follow each other.

    A line of `start` names a subtree of the weights, the stage to take it from and the
    subtree there; paths are joined by "/", "" is everything. A later line overrides an
    earlier one. What no line names starts as `config.init_from` says.
    """

    name: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # config keys
    start: tuple[tuple[str, str, str], ...] = ()
    masks: Masks | None = None


class Method:
    """A model with its inputs, its loss and its published weights."""

    module_class: ClassVar[type[nn.Module]]
    loss_class: ClassVar[type[losses.SegmentationLoss]] = losses.SegmentationLoss
    torch_names: ClassVar[tuple[tuple[str, str], ...]] = ()
    initial_rules: ClassVar[tuple[tuple[str, str], ...]] = ()  # see `nn.initial.draw`
    multiple: ClassVar[int] = 1  # image sides must be multiples of it, px
    reads_labels: ClassVar[bool] = False  # a refiner: `coarse` label maps, no image
    refines: ClassVar[bool] = False  # a refiner of image and label map: `cascade`
    whole_scenes: ClassVar[bool] = False  # a batch holds scenes: `scene`, `locations`
    progressive: ClassVar[bool] = False  # labels a scene scale by scale: `scene_pass`
    label_stride: ClassVar[int] = 1  # image px per px of a label reduced for the loss

    @classmethod
    def inputs(cls, config: ml_collections.ConfigDict) -> Inputs:
        """Returns which views and overview a config asks for; raises InputError."""
        return Inputs()

    @classmethod
    def stages(cls, config: ml_collections.ConfigDict) -> tuple[Stage, ...]:
        """Returns the trainings that make up a config, in order; most have one."""
        return (Stage("main"),)

    @classmethod
    def inner(
        cls, config: ml_collections.ConfigDict
    ) -> ml_collections.ConfigDict | None:
        """Returns the config of the method that this one wraps, if any.

        `methods.build` builds it and hands it over as the second argument.
        """
        return None

    def __init__(self, config: ml_collections.ConfigDict):
        """Builds the module and the loss from a config; raises InputError."""
        self.num_classes: int = config.num_classes
        self.tile: int = config.tile
        self.views, self.overview = self.inputs(config)
        self.mean: tuple[float, ...] = tuple(config.mean)
        self.std: tuple[float, ...] = tuple(config.std)
        check_choice("config.dtype", config.dtype, _DTYPES)
        model = checked_fields("config.model", config.model, self.module_class)
        self.module = self.module_class(
            num_classes=config.num_classes,
            dtype=_DTYPES[config.dtype],
            remat=config.remat,
            **model,
        )
        loss = checked_fields("config.loss", config.loss, self.loss_class)
        self.loss_rule = self.loss_class(**loss)
        self.check()

    def check(self) -> None:
        """Raises InputError for values, or combinations of them, that make no sense."""
        if not 2 <= self.num_classes <= 255:
            raise InputError(
                f"config.num_classes = {self.num_classes}; use 2 to 255 (labels are "
                "bytes, 255 means ignore)"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(
                f"config.mean = {self.mean}, config.std = {self.std}; use three "
                "numbers each, for R, G, B of the range 0 to 1, std above 0"
            )
        self._check_model()
        self._check_loss()
        self.check_sides("config.tile", (self.tile, self.tile))

    def init(self, key: jax.Array) -> Variables:
        """Returns random {"params", "batch_stats"}; no forward pass is computed.

        Drawn by numpy, which takes a second where compiling the initialisers takes
        many. Under a transformation (`jax.jit(method.init)`) the modules' own
        initialisers run: the same distributions, other numbers.
        """
        if isinstance(key, jax.core.Tracer):
            example = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), self._example()
            )
            return self.module.init(key, *example, train=False)
        return initial.draw(self.shapes(), key, rules=self.initial_rules)

    def shapes(self) -> Variables:
        """Returns the tree of `init` with shapes and dtypes instead of arrays."""
        return jax.eval_shape(
            lambda key, *inputs: self.module.init(key, *inputs, train=False),
            jax.random.key(0),
            *self._example(),
        )

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the subtrees of the parameters ("a/b") that training leaves alone."""
        return ()

    @property
    def collects(self) -> bool:
        """Whether the context needs a first pass over all windows of a scene.

        Such a method also has `empty_collection(scene_size)`, a tree of zeros on the
        host; `collect(variables, batch, collected)`, which adds a batch of windows to
        it; and a `context` that takes it as the keyword `collected`.
        """
        return False

    def context(self, variables: Variables, overview: jax.Array) -> Any:
        """Returns what depends on the scene as a whole, for `batch["context"]`.

        Prediction computes it once per scene; without it `apply` does so itself.

        Args:
            variables: of this method.
            overview: [1, h, w, 3] uint8, the whole scene made small.
        """
        return None

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> Variables:
        """Returns variables filled with published weights of the whole network.

        Args:
            state_dict: PyTorch name -> array; every one must match, see `weights`.
        """
        loaded = weights.from_torch(state_dict, self.shapes(), names=self.torch_names)
        return jax.tree.map(jnp.asarray, loaded)

    def import_backbone(
        self, variables: Variables, state_dict: Mapping[str, np.ndarray]
    ) -> Variables:
        """Returns `variables` with the backbone of a bare ImageNet classifier.

        Args:
            variables: of this method; not changed.
            state_dict: PyTorch name -> array; the classifier `fc` is dropped, all else
                must match.
        """
        features = {
            name: value
            for name, value in state_dict.items()
            if not name.removeprefix("module.").startswith("fc.")
        }
        shapes = self.shapes()
        template = {
            kind: {"backbone": tree["backbone"]} for kind, tree in shapes.items()
        }
        loaded = weights.from_torch(features, template, names=resnet.TORCH_NAMES)
        loaded = jax.tree.map(jnp.asarray, loaded)
        return {kind: {**tree, **loaded[kind]} for kind, tree in variables.items()}

    def apply(
        self,
        variables: Variables,
        batch: Batch,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Any:
        """Runs the model; a pure function of its arguments.

        Args:
            variables: {"params", "batch_stats"}.
            batch: of the schema above.
            train: use the batch's statistics and dropout.
            key: for dropout; needed if and only if `train`.

        Returns:
            A dict with "logits" [B, P, P, K] float32 and what the method adds; with
            `train` the pair (dict, new batch_stats).
        """
        inputs = self.model_inputs(batch)
        if not train:
            return self.module.apply(variables, *inputs, train=False)
        outputs, updates = self.module.apply(
            variables, *inputs, train=True, rngs={"dropout": key}, mutable="batch_stats"
        )
        return outputs, updates.get("batch_stats", {})

    def model_inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Returns the module's arguments, in the shape of `_example`."""
        return (self.images(batch),)

    def images(self, batch: Batch) -> jax.Array:
        """Returns the model's input, the normalised first view [B, P, P, 3] float32."""
        views = jnp.asarray(batch["views"])
        if views.ndim != 5 or views.shape[1] != len(self.views) or views.shape[4] != 3:
            raise InputError(
                f"views have the shape {views.shape}; this method takes [batch, "
                f"{len(self.views)}, height, width, 3]: prepare the data with its views"
            )
        self.check_sides("views", views.shape[2:4])
        return normalise(views[:, 0], mean=self.mean, std=self.std)

    def logits(self, outputs: Mapping[str, Any]) -> jax.Array:
        """Returns [B, H, W, K] float32 at the label's size."""
        return outputs["logits"]

    def loss(self, outputs: Mapping[str, Any], batch: Batch) -> dict[str, jax.Array]:
        """Returns {"total": scalar, part: scalar, ...}, float32; parts sum to total."""
        part = self.loss_rule.segmentation(outputs["logits"], batch["label"])
        return {"total": part, "seg": part}

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns extra targets of one label crop [P, P] uint8; runs on the host."""
        return {}

    def points(self, outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Returns {kind: [B, N, 2] float32 (y, x) image px} the method looked at."""
        return {}

    def check_sides(self, what: str, sides: tuple[int, ...]) -> None:
        """Raises InputError unless the network takes images of these sides, px."""
        if any(side < 1 or side % self.multiple for side in sides):
            nearest = [
                max(1, -(-side // self.multiple)) * self.multiple for side in sides
            ]
            raise InputError(
                f"{what}: {' x '.join(map(str, sides))} px; "
                f"{type(self).__name__} takes multiples of {self.multiple} px: use "
                f"{' x '.join(map(str, nearest))}"
            )

    def _check_model(self) -> None:
        check_backbone(self.module)

    def _example(self) -> tuple[Any, ...]:
        """Returns the shapes of the module's arguments."""
        side = max(64, self.multiple)  # parameters do not depend on it
        return (jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32),)

    def _check_loss(self) -> None:
        lowest = {"ohem_thresh": 0, "seg_weight": 0, "loss_group": 0, "gamma": 0}
        lowest["ignore"] = -1
        for name, low in {**lowest, "aux_weight": 0, "ohem_min_kept": 1}.items():
            if hasattr(self.loss_rule, name):
                value = getattr(self.loss_rule, name)
                check_range(f"config.loss.{name}", value, low=low)
        factors = getattr(self.loss_rule, "class_weights", ())
        if factors and len(factors) != self.num_classes:
            raise InputError(
                f"config.loss.class_weights has {len(factors)} numbers for "
                f"{self.num_classes} classes; give one each, or () for none"
            )


def normalise(
    images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Scales uint8 images [..., 3] by mean and std (of values 0 to 1); float32.

    Floating point images are taken as normalised already.
    """
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images.astype(jnp.float32)
    if images.dtype != jnp.uint8:
        raise InputError(
            f"views have the type {images.dtype}; use uint8 (0 to 255) or floating "
            "point (already normalised)"
        )
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std


def checked_fields(what: str, given: Mapping[str, Any], target: type) -> dict[str, Any]:
    """Returns `given` if each is a field of the dataclass `target` and of its type.

    Args:
        what: where the fields come from, for the message.
        given: field -> value.
        target: a dataclass with a default for each field.

    Raises:
        InputError: naming the wrong field and the known ones.
    """
    known = {
        field.name: field.default
        for field in dataclasses.fields(target)
        if field.name not in _COMMON_FIELDS
    }
    fields = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"{what}.{name} is unknown to {target.__name__}; use any of "
                f"{', '.join(known)}"
            )
        wanted = type(known[name])
        if isinstance(value, list):
            value = tuple(value)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise InputError(
                f"{what}.{name} = {value!r} is of type {type(value).__name__}; use "
                f"{wanted.__name__}, for example {known[name]!r}"
            )
        fields[name] = value
    return fields


def check_backbone(module: nn.Module) -> None:
    """Raises InputError unless backbone, stem, dilation and width are known."""
    depths = [f"resnet{depth}" for depth in resnet.BLOCKS]
    check_choice("config.model.backbone", module.backbone, depths)
    check_choice("config.model.stem", module.stem, resnet.STEMS)
    check_choice("config.model.dilation", module.dilation, resnet.DILATIONS)
    check_range("config.model.width", module.width, low=1)
    check_range("config.model.fpn_dim", module.fpn_dim, low=1)
    dropout = getattr(module, "dropout", 0.0)
    if not 0 <= dropout < 1:
        raise InputError(f"config.model.dropout = {dropout}; use 0 (none) to below 1")


def check_choice(what: str, value: Any, known: Any) -> None:
    """Raises InputError unless `value` is one of the `known` names."""
    if value not in known:
        raise InputError(f"{what} = {value!r}; use one of {', '.join(map(str, known))}")


def check_range(what: str, value: float, *, low: float) -> None:
    """Raises InputError unless `value` >= `low`."""
    if value < low:
        raise InputError(f"{what} = {value}; use {low} or more")
