"""The patches of a split scene by scene, in reading order: stored ones or cut ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from uhrjax.data import prepared, scenes
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib


class Grid(Protocol):
    """All patches of all scenes; one scene's are next to each other."""

    @property
    def scenes(self) -> Sequence[prepared.SceneInfo]: ...
    def count(self, scene: int) -> int: ...  # patches of a scene
    def read(self, scene: int, patch: int) -> dict[str, Any]: ...  # the patch schema


@dataclasses.dataclass(frozen=True)
class StoredGrid:
    """Patches that were cut beforehand."""

    source: scenes.PatchSource

    @property
    def scenes(self) -> Sequence[prepared.SceneInfo]:
        """The scenes, in order."""
        return self.source.scenes

    def count(self, scene: int) -> int:
        """Returns the number of patches of a scene."""
        return self.source.scenes[scene].records

    def read(self, scene: int, patch: int) -> dict[str, Any]:
        """Returns one patch of a scene (see `scenes.PatchSource`)."""
        return self.source[self.source.scenes[scene].first_record + patch]


@dataclasses.dataclass(frozen=True)
class CutGrid:
    """Patches that are cut from scenes when they are asked for."""

    reader: scenes.SceneReader
    tile: prepared.Side  # px
    stride: prepared.Side  # px
    views: tuple[view_lib.View, ...]
    spacing: str = "shifted"  # of `window.GRIDS`

    @property
    def scenes(self) -> Sequence[prepared.SceneInfo]:
        """The scenes, in order."""
        return self.reader.scenes

    def count(self, scene: int) -> int:
        """Returns the number of patches of a scene."""
        return len(self._windows(scene))

    def read(self, scene: int, patch: int) -> dict[str, Any]:
        """Returns one patch of a scene (see `scenes.PatchSource`)."""
        return read_sample(self.reader, scene, self._windows(scene)[patch], self.views)

    def _windows(self, scene: int) -> list[window_lib.Window]:
        info = self.reader.scenes[scene]
        return _plan(info.height, info.width, self.tile, self.stride, self.spacing)


@functools.lru_cache(maxsize=64)
def _plan(
    height: int,
    width: int,
    tile: prepared.Side,
    stride: prepared.Side,
    spacing: str,
) -> list[window_lib.Window]:
    return window_lib.plan_windows(
        height, width, tile=tile, stride=stride, spacing=spacing
    )


def read_sample(
    reader: scenes.SceneReader,
    scene: int,
    window: window_lib.Window,
    views: tuple[view_lib.View, ...],
) -> dict[str, Any]:
    """Cuts the views and the label of one window of a scene (see `PatchSource`)."""
    info = reader.scenes[scene]
    return {
        "views": view_lib.cut_views(
            lambda w: reader.read_image(scene, w),
            window,
            views,
            scene_size=(info.height, info.width),
        ),
        "label": reader.read_label(scene, window),
        "position": np.array([window.top, window.left], np.int32),
        "scene_size": np.array([info.height, info.width], np.int32),
        "scene_id": info.id,
    }
