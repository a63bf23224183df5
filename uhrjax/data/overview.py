"""Overviews: whole scenes made small, the global context of several methods."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import triangle
from uhrjax.tiling import window as windows

BAND_PIXELS = 2**22  # of a scene, read at a time


def make(
    read: Callable[[windows.Window], np.ndarray],
    scene: prepared.SceneInfo,
    *,
    height: int,
    width: int,
) -> np.ndarray:
    """Reduces a whole scene as Pillow's bilinear resize does, in bounded memory.

    Args:
        read: returns the uint8 [h, w, 3] pixels of a window.
        scene: its size.
        height: of the overview, px.
        width: of the overview, px; the aspect of the scene is not kept.

    Returns:
        [height, width, 3] uint8.
    """
    rows = max(BAND_PIXELS // scene.width, 1)
    bands = []
    for top in range(0, scene.height, rows):
        count = min(rows, scene.height - top)
        band = read(windows.Window(top, 0, count, scene.width))
        # The horizontal pass; rows do not mix in it.
        bands.append(triangle.reduce(band, height=count, width=width))
    return triangle.reduce(np.concatenate(bands), height=height, width=width)


class OverviewReader:
    """The overviews of one split, by scene."""

    def __init__(self, directory: str | os.PathLike, split: str) -> None:
        self.info = prepared.read_info(directory)
        if not self.info.config.startswith("overview"):
            raise errors.InputError(
                f"{directory} holds {self.info.config!r}, not overviews; use the "
                "folder of a config named overview_*"
            )
        self._records = scenes.open_records(directory, split, self.info)
        listed = self.info.scenes[split]
        self._index_of = {scene.id: index for index, scene in enumerate(listed)}

    def __len__(self) -> int:
        return len(self._records)

    def read(self, scene_id: str) -> np.ndarray:
        """Returns [h, w, 3] uint8, the whole scene made small."""
        if scene_id not in self._index_of:
            raise errors.InputError(
                f"{self.info.name} as {self.info.config} has no scene {scene_id!r}; "
                "patches and overviews were prepared from different splits"
            )
        record = self._records[self._index_of[scene_id]]
        return scenes.decode_png(record["overview"])


class WithOverview:
    """A source of samples that gives each the `overview` of its scene."""

    def __init__(self, samples: Any, overviews: OverviewReader) -> None:
        self._samples, self._overviews = samples, overviews

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a sample of the patch schema with `overview` [h, w, 3] uint8."""
        sample = self._samples[index]
        return {**sample, "overview": self._overviews.read(sample["scene_id"])}


def open_overviews(directory: str | os.PathLike, split: str) -> OverviewReader:
    """Opens one split of a data set prepared as `overview_*`."""
    return OverviewReader(directory, split)
