"""Random changes of one training sample, on the host: scale, crop, flips, turns, blur.

All views of a sample and its label change together. The order is the one of the PFNet
recipe (spec: scale and crop, flips, rotation, blur).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np

from uhrjax import errors

IGNORE = 255
STRIP = 64  # rows that are blurred at a time


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
        across = rng.random() < self.hflip
        down = rng.random() < self.vflip
        turns = int(rng.integers(4)) if self.rotate90 else 0
        views = _stack([_turn(view, across, down, turns) for view in views])
        label = _turn(label, across, down, turns)
        if self.blur:
            sigma = rng.uniform(*self.blur)
            fresh = not np.may_share_memory(views, sample["views"])
            views = _stack([_blur(view, sigma, in_place=fresh) for view in views])
        return {**sample, "views": views, "label": label}

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


def _stack(views: list[np.ndarray]) -> np.ndarray:
    return np.stack(views) if len(views) > 1 else views[0][None]


def _turn(pixels: np.ndarray, across: bool, down: bool, turns: int) -> np.ndarray:
    """Flips left-right, then up-down, then turns by 90 degrees counterclockwise.

    All of it is at most one transposition and one flip; OpenCV does these several times
    as fast as a numpy view is copied.
    """
    target = None
    if turns % 2:
        pixels = target = cv2.transpose(pixels)
        across, down = down, across
    across ^= turns >= 2
    down ^= turns in (1, 2)
    if across or down:
        code = -1 if across and down else int(across)
        return cv2.flip(pixels, code, dst=target)
    return np.ascontiguousarray(pixels)


def _blur(view: np.ndarray, sigma: float, *, in_place: bool = False) -> np.ndarray:
    """Gaussian blur in float32; the result is truncated to uint8, not rounded.

    It is done in strips that stay in the processor's cache, twice as fast.
    """
    height = view.shape[0]
    reach = math.ceil(4 * sigma) + 1  # px, at least OpenCV's radius
    blurred = view if in_place else np.empty_like(view)
    above = view[:0]  # the rows before a strip, as they were
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        given = np.concatenate([above, view[top : bottom + reach]])
        first, last = len(above), len(above) + bottom - top
        done = cv2.GaussianBlur(given.astype(np.float32), (0, 0), sigma)
        blurred[top:bottom] = done[first:last]
        above = given[max(last - reach, 0) : last]
    return blurred
