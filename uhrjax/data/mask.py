"""Label maps that a run wrote for the scenes of a split, read by window.

They are what a refinement network learns from: `masks/` of a run's folder, PNG or
GeoTIFF, one per scene, named after it.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhrjax import errors
from uhrjax.data import prepared, raster
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as windows

ENDINGS = (".png", ".tif")
CACHED = 4  # whole maps kept per reader
LISTED = 5  # problems named in one message


class MaskReader:
    """The label maps of a split; can be pickled and shared by threads."""

    def __init__(
        self, folder: str | os.PathLike, scenes: Sequence[prepared.SceneInfo]
    ) -> None:
        """Finds the file of every scene and checks its size.

        Raises:
            FileNotFoundError: some scenes have no file; names them.
            errors.InputError: some files are no label maps of their scenes.
        """
        self.scenes = tuple(scenes)
        self._paths = _find(pathlib.Path(folder).expanduser(), self.scenes)
        wrong = [_check(*pair) for pair in zip(self._paths, self.scenes, strict=True)]
        if problems := [problem for problem in wrong if problem]:
            raise errors.InputError(_list("label maps that do not fit", problems))
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._maps: collections.OrderedDict[int, np.ndarray]
        self._maps = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getstate__(self) -> dict[str, Any]:
        skipped = ("_lock", "_maps")
        return {k: v for k, v in self.__dict__.items() if k not in skipped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, index: int, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w] labels of a window of a scene, 255 beyond the border."""
        with self._lock:  # held while decoding: no map is decoded twice at a time
            if index not in self._maps:
                self._maps[index] = _decode(self._paths[index])
                while len(self._maps) > CACHED:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(index)
            whole = self._maps[index]
        return windows.cut(whole, window, fill=prepared.IGNORE_LABEL)


@dataclasses.dataclass(frozen=True)
class CoarseWindows:
    """Windows of label maps around patches: `coarse` of `pipeline.scene_batches`."""

    masks: MaskReader
    scale: int | float = 1  # side of the window / side of the patch

    def __call__(self, scene: int, window: windows.Window) -> np.ndarray:
        """Returns uint8 [m P, m P] labels around a patch, 255 beyond the border."""
        return self.masks.read(scene, view_lib.widen(window, self.scale))


@dataclasses.dataclass(frozen=True)
class MaskScene:
    """A scene whose pixels are a label map, as the engine reads scenes."""

    masks: MaskReader
    index: int

    @property
    def info(self) -> prepared.SceneInfo:
        """Size and place."""
        return self.masks.scenes[self.index]

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 1] class ids, 255 beyond the border."""
        return self.masks.read(self.index, window)[..., None]

    def read_valid(self, window: windows.Window) -> None:
        """Returns None: every pixel is refined."""
        return None


def _find(
    folder: pathlib.Path, scenes: Sequence[prepared.SceneInfo]
) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder of label maps; a run writes them to masks/ in "
            "its folder (--mode=evaluate with --config.eval.masks=True)"
        )
    there = set(os.listdir(folder))
    paths, missing, double = [], [], []
    for scene in scenes:
        names = [prepared.file_stem(scene.id) + ending for ending in ENDINGS]
        found = [name for name in names if name in there]
        if len(found) == 1:
            paths.append(folder / found[0])
        elif found:
            double.append(" and ".join(found))
        else:
            missing.append(names[0])
    if missing:
        raise FileNotFoundError(
            _list(f"label maps missing in {folder} (.png or .tif)", missing)
            + "; label the scenes of this split with the run they come from: "
            "--mode=evaluate --config.data.split=SPLIT"
        )
    if double:
        said = _list(f"two label maps of one scene in {folder}", double)
        raise errors.InputError(said + "; remove the older of each")
    return paths


def _check(path: pathlib.Path, scene: prepared.SceneInfo) -> str:
    """Returns what is wrong with a file, "" if nothing."""
    source = raster.open_source(path, raw=True)
    try:
        if source.sizes[0] != (scene.height, scene.width):
            height, width = source.sizes[0]
            return (
                f"{path} has {height} x {width} px, its scene {scene.height} x "
                f"{scene.width}"
            )
        if source.dtype != np.uint8 or source.bands != 1:
            return f"{path} has {source.bands} bands of {source.dtype}, not 1 of uint8"
    finally:
        source.close()
    return ""


def _decode(path: pathlib.Path) -> np.ndarray:
    source = raster.open_source(path, raw=True)
    try:
        whole = windows.Window(0, 0, *source.sizes[0])
        return np.ascontiguousarray(source.read(whole, level=0, bands=(0,))[..., 0])
    finally:
        source.close()


def _list(title: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} {title}: {', '.join(names[:LISTED])}{more}"
