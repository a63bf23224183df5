"""Overviews: whole scenes made small, the global context of several methods."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import triangle
from uhrjax.tiling import window as windows

BAND_PIXELS = 2**22  # of a scene, read at a time
CACHED = 32  # decoded overviews kept per reader: 25 MB at 508 x 508 px


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


def make_label(
    read: Callable[[windows.Window], np.ndarray],
    scene: prepared.SceneInfo,
    *,
    height: int,
    width: int,
) -> np.ndarray:
    """Reduces the labels of a whole scene to the nearest, in bounded memory.

    Output row i is row floor(i * H / height), columns likewise: the nearest neighbour
    of PyTorch's `interpolate`, by which GLNet reduces labels.

    Args:
        read: returns the uint8 [h, w] labels of a window.
        scene: its size.
        height: of the overview, px.
        width: of the overview, px.

    Returns:
        [height, width] uint8.
    """
    rows = np.arange(height) * scene.height // height
    columns = np.arange(width) * scene.width // width
    small = np.empty((height, width), np.uint8)
    step = max(BAND_PIXELS // scene.width, 1)
    for top in range(0, scene.height, step):
        within = np.flatnonzero((rows >= top) & (rows < top + step))
        if len(within):
            count = min(step, scene.height - top)
            band = read(windows.Window(top, 0, count, scene.width))
            small[within] = band[np.ix_(rows[within] - top, columns)]
    return small


class OverviewReader:
    """The overviews of one split, by scene; can be pickled and shared by threads."""

    def __init__(self, directory: str | os.PathLike, split: str) -> None:
        self.info = prepared.read_info(directory)
        if not self.info.config.startswith("overview"):
            raise errors.InputError(
                f"{directory} holds {self.info.config!r}, not overviews; use the "
                "folder of a config named overview_*"
            )
        self._records = scenes.open_records(directory, split, self.info)
        self.scenes = self.info.scenes[split]
        self._index_of = {scene.id: index for index, scene in enumerate(self.scenes)}
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._decoded: collections.OrderedDict[tuple[str, str], np.ndarray]
        self._decoded = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def __getstate__(self) -> dict[str, Any]:
        skipped = ("_lock", "_decoded")
        return {k: v for k, v in self.__dict__.items() if k not in skipped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, scene_id: str) -> np.ndarray:
        """Returns [h, w, 3] uint8, the whole scene made small; not to be written to."""
        return self._read("overview", scene_id)

    def read_label(self, scene_id: str) -> np.ndarray:
        """Returns [h, w] uint8, the labels of `read`; not to be written to."""
        return self._read("label", scene_id)

    def _read(self, field: str, scene_id: str) -> np.ndarray:
        key = (field, scene_id)
        with self._lock:
            if key in self._decoded:
                self._decoded.move_to_end(key)
                return self._decoded[key]
        if scene_id not in self._index_of:
            raise errors.InputError(
                f"{self.info.name} as {self.info.config} has no scene {scene_id!r}; "
                "patches and overviews were prepared from different splits"
            )
        record = self._records[self._index_of[scene_id]]
        if field not in record:
            raise errors.InputError(
                f"{self.info.name} as {self.info.config} was prepared by an earlier "
                f"version, without {field}s; prepare it again with --overwrite"
            )
        pixels = scenes.decode_png(record[field])
        pixels.flags.writeable = False  # it is handed out again
        with self._lock:
            self._decoded[key] = pixels
            while len(self._decoded) > CACHED:
                self._decoded.popitem(last=False)
        return pixels


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


class OverviewSource:
    """Overviews as samples: networks that see whole scenes made small learn by them."""

    def __init__(self, overviews: OverviewReader) -> None:
        self._overviews = overviews

    def __len__(self) -> int:
        return len(self._overviews)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one scene made small, in the patch schema.

        Returns:
            views [1, h, w, 3] uint8; label [h, w] uint8, the nearest; position [2]
            int32, 0; scene_size [2] int32: h, w, as the overview is all there is of the
            scene; scene_id: str.
        """
        scene_id = self._overviews.scenes[index].id
        view = self._overviews.read(scene_id)
        return {
            "views": view[None],
            "label": self._overviews.read_label(scene_id),
            "position": np.zeros(2, np.int32),
            "scene_size": np.array(view.shape[:2], np.int32),
            "scene_id": scene_id,
        }


def open_overviews(directory: str | os.PathLike, split: str) -> OverviewReader:
    """Opens one split of a data set prepared as `overview_*`."""
    return OverviewReader(directory, split)
