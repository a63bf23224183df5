"""The contextual semantics refinement network of FCtL (Sec. 3.2).

It reads no image: only the label map that a segmentation network assembled, a patch of
it and a window around the patch that is made as small. Both pass an encoder; where both
are coarsest, the patch attends to the context (Sec. 3.1's correlation); a U-Net decoder
gives the repaired patch. It repairs any method's label maps.

The paper describes it in half a page and its code is not public. Ours are: the widths,
one convolution pair per level, batch norm, the context as class shares of an
antialiased reduction, zeros beyond the scene, relevance at the bottleneck only, skips
from the patch alone.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.errors import InputError
from uhrjax.methods import base
from uhrjax.nn import conv, correlation
from uhrjax.ops import pool
from uhrjax.tiling import triangle, view
from uhrjax.tiling import window as windows

LEVELS = (1, 2, 4, 8, 8)  # channels in units of `width`, finest first
MULTIPLE = 2 ** (len(LEVELS) - 1)  # px; images are padded to it
# By fan in, so that what is upsampled keeps its scale.
he_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Refinement(nn.Module):
    """Two maps of class shares -> logits of the repaired patch."""

    num_classes: int
    width: int = 64  # channels of the finest level
    context: float = 2.0  # field of view, times the patch's
    value: str = "context"  # what attention sums, or "local"
    share_encoders: bool = False  # one for patch and context
    context_skips: bool = False  # the decoder also reads the context's finer maps
    gamma_init: float = 0.0  # at 0 the network starts as a plain U-Net of the patch
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        local: jax.Array,
        context: jax.Array,
        *,
        train: bool,
        details: bool = False,
    ) -> dict[str, Any]:
        """Repairs patches of a label map.

        Args:
            local: [B, H, W, num_classes] float, one-hot, zeros where nothing is known.
            context: the same of the window around it, shares of each class.
            train: use and update the statistics of the batch.
            details: also return the attention map.

        Returns:
            "logits": [B, H, W, num_classes] float32; with details also
            "attention": [B, N, N] float32, N coarse pixels.
        """
        size = local.shape[1:3]
        fields = {"width": self.width, "remat": self.remat, "dtype": self.dtype}
        encoder = Encoder(**fields, name="encoder")
        other = (
            encoder
            if self.share_encoders
            else Encoder(**fields, name="encoder_context")
        )
        *skips, x = encoder(_pad(local), train=train)
        *more, seen = other(_pad(context), train=train)
        stream, attention = correlation.Correlation(
            value=self.value,
            gamma_init=self.gamma_init,
            dtype=self.dtype,
            name="relevance",
        )(x, seen, details=details)
        x = (x.astype(jnp.float32) + stream).astype(self.dtype)
        for level in reversed(range(len(skips))):
            beside = [skips[level], *([more[level]] if self.context_skips else [])]
            features = skips[level].shape[-1]
            x = conv.Enlarge(features=features, dtype=self.dtype, name=f"up_{level}")(x)
            x = _double(self, features, f"decoder_{level}")(
                jnp.concatenate([x, *beside], axis=-1), train
            )
        # The last layer stays in float32: its result goes into a softmax.
        logits = conv.Conv(
            features=self.num_classes,
            bias=True,
            kernel_init=he_in,
            bias_init=nn.initializers.zeros,
            name="classify",
        )(x)
        found = {"logits": _crop(logits, size)}
        return {**found, "attention": attention} if details else found


class Encoder(nn.Module):
    """Five levels of convolutions, each half the size of the one before."""

    width: int = 64
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> list[jax.Array]:
        """Maps [B, H, W, K], sides multiples of 16, to five maps, finest first."""
        maps = []
        for level, factor in enumerate(LEVELS):
            x = pool.max_2x2(x) if level else x
            x = _double(self, self.width * factor, f"level_{level}")(x, train)
            maps.append(x)
        return maps


class DoubleConv(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, features]."""
        for index in range(2):
            x = conv.ConvNorm(
                features=self.features,
                kernel=3,
                kernel_init=he_in,
                dtype=self.dtype,
                name=f"conv_{index}",
            )(x, train=train)
        return x


class RefinementMethod(base.Method):
    """The refinement network with focal loss; its input is `batch["coarse"]`.

    `coarse`: [B, m * P, m * P] uint8 class ids of the label map in a window of
    `module.context` (m) times the tile around the tile (placed as `view.widen` says),
    255 beyond the scene.
    """

    module_class = Refinement
    loss_class = losses.FocalLoss
    reads_labels = True  # instead of images

    @classmethod
    def inputs(cls, config: ml_collections.ConfigDict) -> base.Inputs:
        """Returns the patch and the window around it, which is `coarse`."""
        scale = config.model.get("context", Refinement.context)
        if scale < 1:
            raise InputError(
                f"config.model.context = {scale}; use 1 or more (times the patch)"
            )
        wide = (view.View(scale, "pillow"),) if scale > 1 else ()
        return base.Inputs((view.View(), *wide))

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        relevance = correlation.initial_rules(
            "relevance", gamma_init=self.module.gamma_init
        )
        return (*relevance, ("kernel$", "he_in"), ("bias$", "constant 0"))

    def model_inputs(self, batch: base.Batch) -> tuple[jax.Array, jax.Array]:
        """Returns class shares of patch and context, [B, P, P, num_classes] float32."""
        coarse = self._coarse(batch)
        size = tuple(round(side / self.module.context) for side in coarse.shape[1:])
        wide = view.widen(windows.Window(0, 0, *size), self.module.context)
        if coarse.shape[1:] != (wide.height, wide.width):
            raise InputError(
                f"'coarse' has {coarse.shape[1]} x {coarse.shape[2]} px, which is not "
                f"{self.module.context} times a patch; use {wide.height} x {wide.width}"
            )
        rows, columns = (
            slice(-start, -start + side)
            for start, side in zip((wide.top, wide.left), size, strict=True)
        )
        local = one_hot(coarse[:, rows, columns], self.num_classes)
        return local, class_shares(coarse, size, self.num_classes)

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Raises InputError: no part of this network knows images."""
        raise InputError(
            "the refinement network has no ImageNet part; leave config.init_from "
            "empty, or set config.init_what to 'model' for weights of such a network"
        )

    def explain(self, variables: base.Variables, batch: base.Batch) -> dict[str, Any]:
        """Returns the outputs with "attention", see `Refinement`."""
        return self.module.apply(
            variables, *self.model_inputs(batch), train=False, details=True
        )

    def _coarse(self, batch: base.Batch) -> jax.Array:
        if batch.get("coarse") is None:
            raise InputError(
                "the batch has no 'coarse', the label map to refine; set "
                "config.data.masks to the folder of label maps that a run wrote"
            )
        coarse = jnp.asarray(batch["coarse"])
        if coarse.ndim != 3 or coarse.dtype != jnp.uint8:
            raise InputError(
                f"'coarse' has the shape {coarse.shape} and type {coarse.dtype}; use "
                "[batch, height, width] uint8 class ids"
            )
        return coarse

    def _example(self) -> tuple[Any, ...]:
        shape = (1, MULTIPLE, MULTIPLE, self.num_classes)
        return (jax.ShapeDtypeStruct(shape, jnp.float32),) * 2

    def _check_model(self) -> None:
        module = self.module
        base.check_range("config.model.width", module.width, low=1)
        base.check_range("config.model.context", module.context, low=1)
        base.check_choice("config.model.value", module.value, correlation.VALUES)
        try:
            view.widen(windows.Window(0, 0, self.tile, self.tile), module.context)
        except ValueError as error:
            raise InputError(f"config.model.context: {error}") from None


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """Maps [B, H, W] uint8 to [B, H, W, num_classes] float32, zeros for 255."""
    classes = jnp.arange(num_classes, dtype=jnp.uint8)
    return (labels[..., None] == classes).astype(jnp.float32)


def class_shares(
    labels: jax.Array, size: tuple[int, int], num_classes: int
) -> jax.Array:
    """Reduces the one-hot map of labels by triangle filters (antialiased bilinear).

    The one-hot map itself never exists: columns are weighed while they are compared.

    Args:
        labels: [B, H, W] uint8, 255 counts for no class.
        size: (height, width) of the result, px.
        num_classes: K.

    Returns:
        [B, *size, K] float32.
    """
    shares = 0.0
    for place, weight in _taps(labels.shape[2], size[1]):
        taken = one_hot(jnp.take(labels, place, axis=2), num_classes)
        shares += weight[:, None] * taken
    return sum(
        weight[:, None, None] * jnp.take(shares, place, axis=1)
        for place, weight in _taps(labels.shape[1], size[0])
    )


def _taps(before: int, after: int) -> list[tuple[np.ndarray, np.ndarray]]:
    places, weights = triangle.taps(before, after)
    shares = (weights / 2**triangle.BITS).astype(np.float32)
    return list(zip(places, shares, strict=True))


def _double(parent: nn.Module, features: int, name: str) -> nn.Module:
    block = nn.remat(DoubleConv, static_argnums=(2,)) if parent.remat else DoubleConv
    return block(features=features, dtype=parent.dtype, name=name)


def _margins(side: int) -> tuple[int, int]:
    missing = -side % MULTIPLE
    return missing // 2, missing - missing // 2


def _pad(x: jax.Array) -> jax.Array:
    """Repeats the border so that both sides are multiples of 16."""
    borders = ((0, 0), *(_margins(side) for side in x.shape[1:3]), (0, 0))
    return jnp.pad(x, borders, mode="edge")


def _crop(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Undoes `_pad`."""
    top, left = (_margins(side)[0] for side in size)
    return x[:, top : top + size[0], left : left + size[1]]
