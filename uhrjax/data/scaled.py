"""Crops of scenes at several scales, as MagNet trains; no scene is ever resized."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np

from uhrjax.data import scenes
from uhrjax.tiling import bilinear, pyramid
from uhrjax.tiling import window as windows

KEPT_BYTES = 2**30  # of scenes made small: 1300 at 508 x 508 px


class KeptScenes:
    """Scenes made small that are needed again every epoch, in bounded memory.

    Those that came first stay: with all scenes met in turn, the last ones would be gone
    again whenever they are wanted. Threads share it.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._left = most_bytes
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, scene: int) -> np.ndarray | None:
        """Returns [h, w, 3] uint8, not to be written to; None: not kept."""
        return self._kept.get(scene)

    def add(self, scene: int, small: np.ndarray) -> None:
        """Keeps a scene made small, if there is room."""
        with self._lock:
            if scene not in self._kept and small.nbytes <= self._left:
                small.flags.writeable = False
                self._kept[scene] = small
                self._left -= small.nbytes

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return KeptScenes, (self._left + sum(a.nbytes for a in self._kept.values()),)


@dataclasses.dataclass(frozen=True)
class ScaledCrops:
    """A transform that cuts one random crop of a scene; an epoch has one of each."""

    reader: scenes.SceneReader
    scales: tuple[float, ...]  # shares of a scene's sides
    crop: tuple[int, int]  # (height, width) of a crop, px of its scale
    size: tuple[int, int]  # (height, width) that it is resized to, px
    among: tuple[int, ...]  # indices of the scales that crops are of
    with_overview: bool  # adds `overview` and `box`
    kept: KeptScenes = dataclasses.field(default_factory=KeptScenes)

    def counts(self) -> np.ndarray:
        """Returns how often each scene is drawn in an epoch, int64 [scenes]."""
        return np.ones(len(self.reader), np.int64)

    def __call__(self, scene: int, rng: np.random.Generator) -> dict[str, Any]:
        """Returns a sample of scene `scene`.

        Returns:
            views [1, h, w, 3] uint8; label [h, w] uint8, the nearest; scene_id: str;
            overview [h, w, 3] uint8, the whole scene made small; box [4] float32,
            (top, left, bottom, right) of the crop as shares of the scene's sides.
        """
        info = self.reader.scenes[scene]
        sides = {"height": info.height, "width": info.width}
        scales = pyramid.plan_scales(**sides, scales=self.scales, crop=self.crop)
        drawn = pyramid.draw_crop(scales, rng, among=self.among)
        scale, corner = scales[drawn.scale], (drawn.top, drawn.left)
        place = pyramid.window_of(scale, corner, **sides)
        sample = {"scene_id": info.id}
        origin = place.top, place.left
        small = self.kept.get(scene) if self.with_overview else None
        if self.with_overview and small is None:
            whole = windows.Window(0, 0, info.height, info.width)
            pixels, origin = self.reader.read_image(scene, whole), (0, 0)
            height, width = self.size
            small = bilinear.resample(pixels, height=height, width=width)
            self.kept.add(scene, small)
        else:
            pixels = self.reader.read_image(scene, place)
        if self.with_overview:
            sample |= {"overview": small, "box": drawn.box}
        where = {"size": self.size, "scene": (info.height, info.width)}
        view = pyramid.cut(pixels, scale, corner, **where, origin=origin)
        label = pyramid.cut_label(
            self.reader.read_label(scene, place), scale, corner, **where,
            origin=(place.top, place.left),
        )  # fmt: skip
        return {**sample, "views": view[None], "label": label}
