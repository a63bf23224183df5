"""Random changes of a training sample, on the host: scale, crop, flips, turns, colour.

All maps of a sample change together. The order is the one of the PFNet recipe (spec:
scale and crop, flips, rotation, blur); brightness, contrast and saturation come last.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np

from uhrjax import errors
from uhrjax.data import turn as turn_lib

IGNORE = 255
TURNED = ("label", "overview", "coarse")  # maps of a sample, beside its views
STRIP = 64  # rows that are blurred at a time
GREY = np.array([0.299, 0.587, 0.114])  # of R, G, B
MIDDLE = 127.5  # the value that a change of contrast leaves as it is


@dataclasses.dataclass(frozen=True)
class Augment:
    """What may happen to a sample; call it with a sample and a generator.

    The sample's `views` [V, P, P, 3] uint8 and `label` [P, P] uint8 are replaced by new
    ones of the size `tile`. Flips and turns are those of the whole scene: `overview`
    and `coarse`, where a sample has them, `position` and `scene_size` follow. Blur and
    colours change `views` and `overview`. All else is handed through. What is drawn
    does not depend on the sample: generators of one seed change all patches of a scene
    alike.
    """

    tile: int | tuple[int, int]  # side, or (height, width), px
    scale: tuple[float, ...] = ()  # (lowest, highest), or () for none
    hflip: float = 0.0  # probability
    vflip: float = 0.0
    rotate90: bool | float = False  # True: by 0, 90, 180 or 270 degrees, all alike; a
    # number: probability of a turn by one of 90, 180 and 270 degrees
    blur: tuple[float, ...] = ()  # (lowest, highest) sigma in px, or () for none
    jitter: tuple[float, ...] = ()  # (brightness, contrast, saturation): each is
    # multiplied by 1 - strength to 1 + strength; () for none
    greyscale: float = 0.0  # probability

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result, px."""
        return (self.tile, self.tile) if isinstance(self.tile, int) else self.tile

    def __post_init__(self) -> None:
        if self.rotate90 and self.size[0] != self.size[1]:
            height, width = self.size
            raise errors.InputError(
                f"data.augment.rotate90 would make {width} x {height} px of "
                f"{height} x {width} px; set it to False for patches that are not "
                "square"
            )
        if len(self.jitter) not in (0, 3) or not all(0 <= s <= 1 for s in self.jitter):
            raise errors.InputError(
                f"data.augment.jitter={self.jitter}: use () for none or the strengths "
                "of brightness, contrast and saturation, each 0 to 1, e.g. "
                "(0.2, 0.2, 0.2)"
            )
        if not 0 <= self.greyscale <= 1:
            raise errors.InputError(
                f"data.augment.greyscale={self.greyscale} is no probability; use 0 "
                "(never) to 1 (always)"
            )

    def __call__(
        self, sample: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Returns the changed sample.

        Raises:
            errors.InputError: random scaling was asked for samples of which more than
                one view is known.
        """
        views, label = sample["views"], sample["label"]
        stored = label.shape  # of the window in the scene, px
        if self.scale:
            if len(views) > 1 or sample.keys() & {"overview", "coarse"}:
                raise errors.InputError(
                    "data.augment.scale needs samples of one view, without overview; "
                    "contexts of a scaled crop would need pixels that were not stored"
                )
            image, label = self._scale_and_crop(views[0], label, rng)
            views = image[None]
        elif label.shape != self.size:
            views, label = _resize(views, label, self.size)
        turn = self.draw_turn(rng)
        views = _stack([turn.pixels(view) for view in views])
        turned = {**sample, "label": label}
        turned |= {k: turn.pixels(turned[k]) for k in TURNED if k in turned}
        if "position" in sample:
            turned["position"], turned["scene_size"] = turn.place(
                sample["position"], size=stored, scene_size=sample["scene_size"]
            )
        if self.blur:
            sigma = rng.uniform(*self.blur)
            fresh = not np.may_share_memory(views, sample["views"])
            views = _stack([_blur(view, sigma, in_place=fresh) for view in views])
            if "overview" in turned:
                turned["overview"] = _blur(turned["overview"], sigma)
        if self.jitter or self.greyscale:
            change = self.draw_colours(rng)
            views = _stack([cv2.transform(view, change) for view in views])
            if "overview" in turned:
                turned["overview"] = cv2.transform(turned["overview"], change)
        return {**turned, "views": views}

    def draw_turn(self, rng: np.random.Generator) -> turn_lib.Turn:
        """Draws flips and turns."""
        across = bool(rng.random() < self.hflip)
        down = bool(rng.random() < self.vflip)
        if self.rotate90 is True or self.rotate90 == 0.75:  # the same
            return turn_lib.Turn(across, down, int(rng.integers(4)))
        turns = 0
        if self.rotate90 and rng.random() < self.rotate90:
            turns = int(rng.integers(1, 4))
        return turn_lib.Turn(across, down, turns)

    def draw_colours(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a change of colours, the same for any pixel: [3, 4] float64.

        Its columns are what R, G, B and 1 count in each new colour.
        """
        strengths = np.array(self.jitter or (0.0, 0.0, 0.0))
        brightness, contrast, saturation = 1 + strengths * rng.uniform(-1, 1, 3)
        if self.greyscale and rng.random() < self.greyscale:
            saturation = 0.0
        own = saturation * np.eye(3) + (1 - saturation) * GREY
        shift = np.full((3, 1), MIDDLE * (1 - contrast))
        return np.concatenate([brightness * contrast * own, shift], axis=1)

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
            (side - n) // 2 + 1 if n < side else 0
            for n, side in zip(label.shape, self.size, strict=True)
        )
        if rows or cols:
            image = np.pad(image, ((rows, rows), (cols, cols), (0, 0)))
            label = np.pad(label, ((rows, rows), (cols, cols)), constant_values=IGNORE)
        height, width = self.size
        top = int(rng.integers(label.shape[0] - height + 1))
        left = int(rng.integers(label.shape[1] - width + 1))
        crop = np.s_[top : top + height, left : left + width]
        return image[crop], label[crop]


def _resize(
    views: np.ndarray, label: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    size = size[::-1]  # OpenCV's (width, height)
    views = np.stack(
        [cv2.resize(v, size, interpolation=cv2.INTER_CUBIC) for v in views]
    )
    return views, cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)


def _stack(views: list[np.ndarray]) -> np.ndarray:
    return np.stack(views) if len(views) > 1 else views[0][None]


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
