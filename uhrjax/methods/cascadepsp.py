"""CascadePSP (https://arxiv.org/abs/2005.02551): refines a coarse mask of any origin.

A pyramid pooling network reads the image and three binary masks. It runs three times
with the same weights: first with the coarse mask alone, then with the mask it made at
stride 8, then with those at strides 8 and 4; the last pass answers at full resolution.
It knows no classes. `uhrjax/cascade.py` applies it to whole scenes and label maps, and
so prediction with other methods: it refines them and labels nothing on its own.

Training masks are labels made worse on purpose (Sec. 3.4): outlines lose points, then
random places grow or shrink until little enough of the mask agrees.

Differs from the paper:
- what the paper leaves open about worse masks (sizes, numbers of places) is ours;
- one random class of a crop is the foreground, where the paper has objects.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.backbones import resnet
from uhrjax.errors import InputError
from uhrjax.methods import base
from uhrjax.nn import conv
from uhrjax.ops import pool, resize

BINS = (1, 2, 3, 6)  # regions per side of the pyramid pooling
MOST_CHANGES = 100  # of a mask that is made worse; some masks nothing changes
HEAD_DIM = 32  # channels at full resolution and inside the heads
TORCH_NAMES = (
    (r"^feats\.", "backbone."),
    (r"^psp\.stages\.(\d)\.1\.", r"neck.branch_\1."),
    (r"^psp\.bottleneck\.", "neck.fuse."),
    (r"^up_(\d)\.conv\.", r"up_\1.main."),
    (r"^up_(\d)\.conv2\.", r"up_\1.residual."),
    (r"\.(main|residual)\.0\.", r".\1.norm_1."),
    (r"\.(main|residual)\.2\.", r".\1.conv_1."),
    (r"\.(main|residual)\.3\.", r".\1.norm_2."),
    (r"\.(main|residual)\.5\.", r".\1.conv_2."),
    (r"^final_28\.", "head_8."),
    (r"^final_56\.", "head_4."),
    (r"^final_11\.", "head_1.0."),
    (r"^final_21\.", "head_1.2."),
    (r"^(head_\d)\.0\.", r"\1.hidden."),
    (r"^(head_\d)\.2\.", r"\1.answer."),
)


class CascadePSP(nn.Module):
    """Image and coarse mask -> finer masks."""

    num_classes: int = 2  # of the label maps; the network itself has one answer
    backbone: str = "resnet50"
    stem: str = "classic"
    dilation: str = "os8_late"
    width: int = 64
    fpn_dim: int = 1024  # channels behind the pyramid pooling
    remat: bool = False
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        half, quarter = self.fpn_dim // 2, self.fpn_dim // 4
        self.net = resnet.of_fields(self, with_stem=True)
        self.neck = Pooling(self.fpn_dim, self.dtype)
        self.up_1 = Up(half, self.dtype)
        self.up_2 = Up(quarter, self.dtype)
        self.up_3 = Up(HEAD_DIM, self.dtype)
        self.head_8, self.head_4, self.head_1 = Head(), Head(), Head()

    def __call__(
        self,
        images: jax.Array,
        mask: jax.Array,
        mask_8: jax.Array | None = None,
        mask_4: jax.Array | None = None,
        *,
        train: bool,
    ) -> dict[str, Any]:
        """Refines a mask.

        Args:
            images: [B, H, W, 3], normalised; H and W are multiples of 8.
            mask: [B, H, W, 1], the coarse mask, -1 to 1.
            mask_8: the same at stride 8 (but of full size); spares the first pass.
            mask_4: at stride 4; with it the last pass alone runs.
            train: use and update the statistics of the batch.

        Returns:
            Logits [B, H, W, 1] float32, positive inside the mask: "logits"; "stride_8"
            and "stride_4", tuples with those of every pass, first pass first.
        """
        coarse, fine = [], []

        def run(*masks: jax.Array, to: int) -> jax.Array | None:
            x = jnp.concatenate([images, *masks], axis=-1)
            answer_8, answer_4, answer = self._pass(x, images, train=train, to=to)
            coarse.append(answer_8)
            fine.extend([] if answer_4 is None else [answer_4])
            return answer

        if mask_8 is None:
            run(mask, mask, mask, to=8)
            mask_8 = jnp.tanh(coarse[-1])
        if mask_4 is None:
            run(mask, mask_8, mask_8, to=4)
            mask_8, mask_4 = jnp.tanh(coarse[-1]), jnp.tanh(fine[-1])
        logits = run(mask, mask_8, mask_4, to=1)
        return {"logits": logits, "stride_8": tuple(coarse), "stride_4": tuple(fine)}

    def _pass(
        self, x: jax.Array, images: jax.Array, *, train: bool, to: int
    ) -> tuple[jax.Array | None, ...]:
        """Returns logits at strides 8, 4 and 1, as far as stride `to`, at full size."""
        size = images.shape[1:3]
        first, finest, _, _, coarsest = self.net(x, train=train)
        y = self.neck(coarsest)
        answers: list[jax.Array | None] = [_full(self.head_8(y), size), None, None]
        if to <= 4:
            y = self.up_1(y, finest, train=train)
            answers[1] = _full(self.head_4(y), size)
        if to == 1:
            y = self.up_2(y, first, train=train)
            y = self.up_3(y, images, train=train)
            y = jnp.concatenate([y, images.astype(y.dtype)], axis=-1)
            answers[2] = self.head_1(y)
        return tuple(answers)


class Pooling(nn.Module):
    """Appends averages of whole image regions to every pixel and mixes them."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, features]."""
        parts = []
        for i, size in enumerate(BINS):
            part = pool.adaptive_average(x, (size, size))
            part = conv.Conv(x.shape[-1], dtype=self.dtype, name=f"branch_{i}")(part)
            parts.append(resize.bilinear(part, x.shape[1:3], align_corners=False))
        x = jnp.concatenate([*parts, x], axis=-1)
        fuse = conv.Conv(self.features, bias=True, dtype=self.dtype, name="fuse")
        return nn.relu(fuse(x))


class Up(nn.Module):
    """Doubles the resolution with the help of a finer map."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, finer: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] and [B, 2 h, 2 w, D] to [B, 2 h, 2 w, features]."""
        x = resize.bilinear(x, finer.shape[1:3], align_corners=False)
        both = jnp.concatenate([x, finer.astype(x.dtype)], axis=-1)
        main = PreActivation(self.features, self.dtype, name="main")
        shortcut = conv.Conv(
            self.features, bias=True, dtype=self.dtype, name="shortcut"
        )
        x = main(both, train=train) + shortcut(x)
        residual = PreActivation(self.features, self.dtype, name="residual")
        return x + residual(x, train=train)


class PreActivation(nn.Module):
    """Twice batch norm, ReLU and a 3x3 convolution."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, features]."""
        for i in (1, 2):
            norm = conv.batch_norm(train=train, dtype=self.dtype, name=f"norm_{i}")
            layer = conv.Conv(
                self.features, kernel=3, bias=True, dtype=self.dtype, name=f"conv_{i}"
            )
            x = layer(nn.relu(norm(x)))
        return x


class Head(nn.Module):
    """One logit per pixel; float32, since it goes into a sigmoid."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, 1] float32."""
        x = nn.relu(conv.Conv(HEAD_DIM, bias=True, name="hidden")(x))
        return conv.Conv(1, bias=True, name="answer")(x)


def _full(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    return resize.bilinear(x, size, align_corners=False)


@dataclasses.dataclass(frozen=True)
class CascadeLoss:
    """The paper's losses of every answer (Sec. 3.2)."""

    edge_weight: float = 5.0  # of the outlines of the final answer
    fine_weight: float = 0.5  # of the answers at stride 4

    def of_final(self, logits: jax.Array, target: jax.Array, valid: jax.Array):
        """Returns L1 + L2 of the probabilities and L1 of their outlines; [B, H, W]."""
        apart = _difference(logits, target, valid)
        edges = _edges(target + apart) - _edges(target)
        edges = _mean(jnp.abs(edges), valid)
        return _distance(apart, valid) + self.edge_weight * edges

    def of_fine(self, logits: jax.Array, target: jax.Array, valid: jax.Array):
        """Returns cross-entropy, L1 and L2, in equal parts; [B, H, W]."""
        distance = _distance(_difference(logits, target, valid), valid)
        entropy = self.of_coarse(logits, target, valid)
        return self.fine_weight * (entropy + distance / 2)

    def of_coarse(self, logits: jax.Array, target: jax.Array, valid: jax.Array):
        """Returns the cross-entropy; [B, H, W]."""
        entropy = jax.nn.softplus(jnp.where(target > 0, -logits, logits))
        return _mean(entropy, valid)


class CascadePSPMethod(base.Method):
    """CascadePSP, trained on labels that are made worse."""

    module_class = CascadePSP
    loss_class = CascadeLoss
    torch_names = TORCH_NAMES
    multiple = 8
    refines = True  # labels nothing: see uhrjax/cascade.py

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with the backbone of a bare ImageNet classifier.

        Its first layer knows no masks: their kernels become 0.
        """
        first = "conv1.0.weight" if self.module.stem == "deep" else "conv1.weight"
        padded = dict(state_dict)
        for name, value in state_dict.items():
            if name.removeprefix("module.") == first and value.shape[1] == 3:
                padded[name] = np.concatenate([value, np.zeros_like(value)], axis=1)
        return super().import_backbone(variables, padded)

    def model_inputs(self, batch: base.Batch) -> tuple[jax.Array, jax.Array]:
        """Returns image and mask; `coarse` [B, P, P] holds shares from 0 to 1."""
        if "coarse" not in batch:
            raise InputError(
                "CascadePSP refines masks of another method and labels nothing on its "
                "own; use it with that method's config: --config.refine=FOLDER"
            )
        coarse = jnp.asarray(batch["coarse"], jnp.float32)
        return self.images(batch), 2 * coarse[..., None] - 1

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns a class of the crop as a mask, and the mask made worse.

        Args:
            label: [P, Q] uint8, 255 = ignore.
            rng: draws class and changes.

        Returns:
            "binary" [P, Q] uint8, 0, 1 or 255 = ignore; "coarse" [P, Q] uint8, 0 or 1.
        """
        present = np.unique(label[label != losses.IGNORE_LABEL])
        if not len(present):
            return {"binary": label.copy(), "coarse": np.zeros_like(label)}
        return self.worse_mask(label, int(rng.choice(present)), rng)

    def worse_mask(
        self, label: np.ndarray, k: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns the same as `targets`, of class `k`."""
        ignored = label == losses.IGNORE_LABEL
        binary = (label == k).astype(np.uint8)
        coarse = worsen(binary, rng)
        return {
            "binary": np.where(ignored, losses.IGNORE_LABEL, binary).astype(np.uint8),
            "coarse": coarse,
        }

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the losses of all answers, float32; parts sum to total."""
        rule, binary = self.loss_rule, jnp.asarray(batch["binary"])
        valid = (binary != losses.IGNORE_LABEL) & (
            jnp.asarray(batch["label"]) != losses.IGNORE_LABEL
        )
        given = {"target": jnp.where(valid, binary, 0).astype(jnp.float32)}
        given["valid"] = valid
        parts = {"final": rule.of_final(outputs["logits"][..., 0], **given)}
        for i, logits in enumerate(outputs["stride_8"]):
            parts[f"stride_8_{i + 1}"] = rule.of_coarse(logits[..., 0], **given)
        for i, logits in enumerate(outputs["stride_4"]):
            parts[f"stride_4_{i + 2}"] = rule.of_fine(logits[..., 0], **given)
        return {"total": sum(parts.values()), **parts}

    def _example(self) -> tuple[Any, ...]:
        (images,) = super()._example()
        return (images, jax.ShapeDtypeStruct((*images.shape[:3], 1), jnp.float32))


def worsen(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a mask as a coarse segmentation might have drawn it.

    Args:
        mask: [H, W] uint8, 0 or 1.
        rng: draws how well both agree (intersection over union, 0.8 to 1, missed at
            most by one change) and what changes.

    Returns:
        [H, W] uint8, 0 or 1.
    """
    goal = rng.uniform(0.8, 1.0)
    changed = _subsample_outlines(mask, rng)
    longest = max(mask.shape)
    for _ in range(MOST_CHANGES):
        union = np.count_nonzero(mask | changed)
        if np.count_nonzero(mask & changed) < goal * union or not union:
            break
        height, width = rng.integers(longest // 16 + 1, longest // 2 + 2, 2)
        top = int(rng.integers(-(height // 2), mask.shape[0]))
        left = int(rng.integers(-(width // 2), mask.shape[1]))
        place = np.s_[max(top, 0) : top + height, max(left, 0) : left + width]
        side = 2 * int(rng.integers(1, max(longest // 32, 1) + 1)) + 1
        pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        change = cv2.dilate if rng.random() < 0.5 else cv2.erode
        changed[place] = change(np.ascontiguousarray(changed[place]), pen)
    return changed


def _subsample_outlines(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a mask [H, W] uint8 from a random part of its outlines' points."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    kept = []
    for outline in outlines:
        count = min(len(outline), max(int(rng.uniform(0.1, 1) * len(outline)), 3))
        chosen = np.sort(rng.choice(len(outline), count, replace=False))
        kept.append(outline[chosen])
    drawn = np.zeros_like(mask)
    # Odd and even: the outline of a hole runs within the mask and is drawn, too.
    return cv2.fillPoly(drawn, kept, 1) if kept else drawn


def _difference(logits: jax.Array, target: jax.Array, valid: jax.Array) -> jax.Array:
    """Probability minus target, 0 where not valid."""
    return jnp.where(valid, jax.nn.sigmoid(logits) - target, 0.0)


def _distance(difference: jax.Array, valid: jax.Array) -> jax.Array:
    return _mean(jnp.abs(difference) + difference**2, valid)


def _mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    return losses.masked_mean(x.reshape(-1), valid.reshape(-1))


def _edges(x: jax.Array) -> jax.Array:
    """Returns the strength of edges of [B, H, W]; zeros lie beyond the border."""
    smooth = [1 / 3, 1 / 3, 1 / 3]
    x = _filter(x, smooth, smooth)
    down = _filter(x, [0.25, 0.5, 0.25], [-1, 0, 1])
    across = _filter(x, [-1, 0, 1], [0.25, 0.5, 0.25])
    return jnp.sqrt(down**2 + across**2 + 1e-4)


def _filter(x: jax.Array, columns: list[float], rows: list[float]) -> jax.Array:
    """Weighs 3 px along both axes of [B, H, W]."""
    for axis, taps in ((2, columns), (1, rows)):
        border = [(0, 0)] * 3
        border[axis] = (1, 1)
        wide = jnp.pad(x, border)
        x = sum(
            tap * jax.lax.slice_in_dim(wide, k, k + x.shape[axis], axis=axis)
            for k, tap in enumerate(taps)
        )
    return x
