"""Random changes of one training sample, on the host: scale, crop, flips, turns, blur.

All views of a sample and its label change together. The order is the one of the PFNet
recipe (spec: scale and crop, flips, rotation, blur).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np

from uhrjax import errors

IGNORE = 255


@dataclasses.dataclass(frozen=True)
class Augment:
    """What may happen to a sample; call it with a sample and grain's generator.

    The sample's `views` [V, P, P, 3] uint8 and `label` [P, P] uint8 are replaced by new
    ones of side `tile`; everything else in it is handed through.
    """

    tile: int  # px
    scale: tuple[float, ...] = ()  # (lowest, highest), or () for none
    hflip: float = 0.0  # probability
    vflip: float = 0.0
    rotate90: bool = False
    blur: tuple[float, ...] = ()  # (lowest, highest) sigma in px, or () for none

    def __call__(
        self, sample: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Returns the changed sample.

        Raises:
            errors.InputError: random scaling was asked for samples of several views.
        """
        views, label = sample["views"], sample["label"]
        if self.scale:
            if len(views) > 1:
                raise errors.InputError(
                    "data.augment.scale needs samples of one view; contexts of a "
                    "scaled crop would need pixels that were not stored"
                )
            image, label = self._scale_and_crop(views[0], label, rng)
            views = image[None]
        elif label.shape != (self.tile, self.tile):
            views, label = _resize(views, label, self.tile)
        if rng.random() < self.hflip:
            views, label = views[:, :, ::-1], label[:, ::-1]
        if rng.random() < self.vflip:
            views, label = views[:, ::-1], label[::-1]
        if self.rotate90:
            turns = int(rng.integers(4))
            views = np.rot90(views, turns, axes=(1, 2))
            label = np.rot90(label, turns)
        if self.blur:
            views = _blur(views, rng.uniform(*self.blur))
        return {
            **sample,
            "views": np.ascontiguousarray(views),
            "label": np.ascontiguousarray(label),
        }

    def _scale_and_crop(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scales by U(scale), pads what is then too small, crops at random."""
        factor = rng.uniform(*self.scale)
        height, width = (max(1, int(n * factor)) for n in label.shape)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        # Half of what is missing plus one px on both sides, as in the authors' loader.
        rows, cols = (
            (self.tile - n) // 2 + 1 if n < self.tile else 0 for n in label.shape
        )
        if rows or cols:
            image = np.pad(image, ((rows, rows), (cols, cols), (0, 0)))
            label = np.pad(label, ((rows, rows), (cols, cols)), constant_values=IGNORE)
        top = int(rng.integers(label.shape[0] - self.tile + 1))
        left = int(rng.integers(label.shape[1] - self.tile + 1))
        crop = np.s_[top : top + self.tile, left : left + self.tile]
        return image[crop], label[crop]


def _resize(
    views: np.ndarray, label: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    size = (side, side)
    views = np.stack(
        [cv2.resize(v, size, interpolation=cv2.INTER_CUBIC) for v in views]
    )
    return views, cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)


def _blur(views: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur in float32; the result is truncated to uint8, not rounded."""
    blurred = [
        cv2.GaussianBlur(np.ascontiguousarray(view, np.float32), (0, 0), sigma)
        for view in views
    ]
    return np.clip(np.stack(blurred), 0, 255).astype(np.uint8)
