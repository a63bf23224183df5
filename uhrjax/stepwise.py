"""Labelling whole scenes with MagNet: its counterpart of `inference`.

A scene that fits is labelled on the device in one program (`scene_pass`), a larger one
patch by patch with its maps on the host (`window_pass`); both give the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import (
    canvas,
    dense_crf,
    errors,
    inference,
    progressive,
    scene_pass,
    window_pass,
)
from uhrjax import cost as cost_lib
from uhrjax.data import band as band_lib
from uhrjax.data import shares
from uhrjax.methods import magnet
from uhrjax.tiling import window as window_lib

FIELDS = tuple(field.name for field in dataclasses.fields(progressive.Options))
STRIP = 1024  # rows that are handed out at a time
CPU_MB = 4096  # that the pass may take where no device tells of its memory
SHARE = 0.8  # of the device's memory that the pass may take


class Cost(NamedTuple):
    """What labelling a scene takes."""

    patches: int  # that the segmentation network labels, the small scene included
    gmac: float  # of all networks' layers


def read_options(
    config: ml_collections.ConfigDict, **changes: Any
) -> progressive.Options:
    """Returns the options of a config's pass; raises InputError.

    Args:
        config: of a run of MagNet.
        **changes: fields of `progressive.Options` that differ, or `fast`.
    """
    group = config.magnet.to_dict()
    fields = {name: group[name] for name in FIELDS}
    if changes.pop("fast", group["fast"]):
        fields |= {"n_patches": group["fast_patches"], "n_points": group["fast_points"]}
    if unknown := sorted(set(changes) - set(FIELDS)):
        raise errors.InputError(
            f"{unknown[0]} has no meaning where a scene is labelled scale by scale; "
            f"use any of fast, {', '.join(FIELDS)}"
        )
    try:
        return progressive.Options(**{**fields, **changes})
    except ValueError as error:
        raise errors.InputError(f"config.magnet: {error}") from error


class StepwiseEngine:
    """Labels whole scenes as `inference.Engine` does; compiles once per size."""

    tiling = None  # no windows

    def __init__(
        self,
        method: magnet.MagNetMethod,
        options: progressive.Options,
        *,
        probabilities: bool = False,
        memory_mb: int = 0,
        crf: str = "",
    ):
        """Compiles nothing yet.

        Args:
            method: the networks.
            options: of the pass.
            probabilities: hand them out, too.
            memory_mb: that the pass may take on the device; 0: most of what it has.
            crf: of `dense_crf.KINDS`, behind the pass.
        """
        self.method, self.probabilities = method, probabilities
        self.resident = scene_pass.ScenePass(
            method, options, probabilities=probabilities or bool(crf)
        )
        self.options = self.resident.options
        self.settings: Any = (options, crf)  # all that labels depend on, beside weights
        self._crf = crf
        self.windowed = window_pass.WindowPass(self.resident)
        self._bytes = 1e6 * memory_mb or device_bytes()

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
        first: np.ndarray | None = None,
    ) -> Iterator[inference.Rows]:
        """Yields the labels of a scene, see `inference.Engine.label`.

        All of it is labelled, also the rows above `first_row`. `on_windows` is told of
        patches. `first` [h, w, K] are probabilities to begin with, of any size.
        """
        height, width = scene.info.height, scene.info.width
        whole = window_lib.Window(0, 0, height, width)
        if self.fits(height, width):
            found = self.resident.label(variables, scene.read(whole), first)
            labels = np.asarray(found.labels)
            likely = found.probabilities
            on_windows(self.count_windows(scene), 0)
        else:
            likely = self.windowed.label(variables, scene, first, on_windows=on_windows)
            labels = None
        if self._crf:
            likely = dense_crf.refine(scene.read(whole), np.asarray(likely), self._crf)
            labels = None
        for top in range(first_row, height, STRIP):
            rows = slice(top, min(top + STRIP, height))
            part = None if likely is None else np.asarray(likely[rows])
            if labels is None:
                ours = part.argmax(-1).astype(np.uint8)
            else:
                ours = labels[rows].copy()
            valid = scene.read_valid(window_lib.Window(top, 0, len(ours), width))
            if valid is not None:
                ours[~valid] = canvas.UNSEEN
            yield inference.Rows(top, ours, part if self.probabilities else None, {})

    def explore(
        self, variables: Any, image: np.ndarray, first: np.ndarray | None = None
    ) -> scene_pass.Found:
        """Labels a scene [H, W, 3] uint8 and returns all that is known of it."""
        return self.resident.label(variables, image, first)

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many patches `label` will run, the small scene included."""
        return self._patches(scene.info.height, scene.info.width)[0]

    def fits(self, height: int, width: int) -> bool:
        """Returns whether the device's memory suffices for a scene as a whole.

        Beside the scene's bytes these are the maps of its last scales: the one before,
        all patches of the last one and the new map, enlarged and as probabilities.
        """
        if max(height, width) > scene_pass.LONGEST:
            return False
        scales = self.resident.scales(height, width)
        pixels = [scale.height * scale.width for scale in scales]
        size = self.method.module.input_size
        patches = self.options.patches(scales[-1]) * size[0] * size[1]
        values = 2 * pixels[-1] + patches + (pixels[-2] if len(pixels) > 1 else 0)
        return 3 * pixels[-1] + 4 * self.method.num_classes * values <= self._bytes

    def cost(self, height: int, width: int) -> Cost:
        """Returns what labelling a scene takes; nothing is run."""
        method, shapes = self.method, self.method.shapes()
        size = method.module.input_size
        image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        maps = jax.ShapeDtypeStruct((1, *size, method.num_classes), jnp.float32)
        each = cost_lib.multiply_accumulates(method.label_patches, shapes, image)
        refine = cost_lib.multiply_accumulates(
            lambda v, *both: method.refine(v, 1, *both), shapes, maps, maps
        )
        labelled, refined = self._patches(height, width)
        return Cost(labelled, (labelled * each + refined * refine) / 1e9)

    def _patches(self, height: int, width: int) -> tuple[int, int]:
        """Returns how many patches are labelled, and how many of them refined."""
        scales = self.windowed.scales(height, width)
        refined = sum(
            self.options.patches(scale)
            for index, scale in enumerate(scales[1:], start=1)
            if self.options.passes(index)
        )
        return 1 + refined, refined


class MapEngine:
    """MagNet behind label maps, or probabilities, that are there already.

    Its scenes have, beside `read`, an `image` to read windows of. They are averaged
    over the px of the networks' input; from there on the pass is as ever, so that what
    is finer comes from MagNet.
    """

    def __init__(self, engine: StepwiseEngine):
        """Wraps the engine that labels images."""
        self._engine, self.method = engine, engine.method
        self.settings = ("map", engine.settings)

    def count_windows(self, scene: Any, *, first_row: int = 0) -> int:
        """Returns how many patches `label` will run."""
        return self._engine.count_windows(scene)

    def label(
        self,
        variables: Any,
        scene: Any,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields refined labels, see `inference.Engine.label`."""
        height, width = self.method.module.input_size
        first = shares.make(
            scene.read, scene.info, classes=self.method.num_classes, height=height,
            width=width,
        )  # fmt: skip
        for rows in self._engine.label(
            variables, scene.image, first_row=first_row, on_windows=on_windows,
            first=first,
        ):  # fmt: skip
            size = rows.labels.shape
            valid = scene.read_valid(window_lib.Window(rows.top, 0, *size))
            if valid is not None:
                rows.labels[~valid] = canvas.UNSEEN
            yield rows


def device_bytes() -> float:
    """Returns how much of the device's memory the pass may take."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return 1e6 * CPU_MB if limit is None else SHARE * limit
