"""A label map in a file of its own, as the engine reads scenes."""

from __future__ import annotations

import pathlib
import threading
from types import TracebackType

import numpy as np

from uhrjax import errors
from uhrjax.data import prepared, raster, raster_source
from uhrjax.tiling import window as windows

ROWS = 1024  # checked at a time
MISSING = 255  # in bytes of probabilities
# Files that a prediction writes beside its label maps, with a record NAME.json.
BESIDE = ("_overlay", "_probabilities", "_uncertainty")


class MaskFile:
    """An open label map; any thread may read, one at a time."""

    def __init__(self, source: raster_source.Source, image: raster.Scene | None):
        self._source, self._lock = source, threading.Lock()
        self.image = image  # what is labelled, if anybody needs it
        self.path = source.path
        self.files = (source.path, *(image.files if image else ()))
        self.info = prepared.SceneInfo(
            source.scene_id,
            *source.sizes[0],
            crs=source.crs,
            transform=source.transform,
        )

    def __enter__(self) -> MaskFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the files."""
        with self._lock:
            self._source.close()
        if self.image is not None:
            self.image.close()

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 1] class ids, 255 beyond the border."""
        height, width = self.info.height, self.info.width
        inside = windows.intersect(window, height=height, width=width)
        labels = np.zeros((inside.height, inside.width, 1), np.uint8)
        if labels.size:
            with self._lock:
                labels = self._source.read(inside, level=0, bands=(0,))
        return windows.paste(labels, inside, window, fill=prepared.IGNORE_LABEL)

    def read_valid(self, window: windows.Window) -> np.ndarray | None:
        """Returns bool [h, w]: where a class is; None: everywhere."""
        valid = self.read(window)[..., 0] != prepared.IGNORE_LABEL
        return None if valid.all() else valid

    def overview(self, max_side: int) -> np.ndarray | None:
        """Returns uint8 [h, w, 3], the image made small; None without one."""
        return None if self.image is None else self.image.overview(max_side)


class ProbabilityFile(MaskFile):
    """An open file of probabilities, one band per class."""

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns float32 [h, w, K], NaN where there are none."""
        height, width = self.info.height, self.info.width
        inside = windows.intersect(window, height=height, width=width)
        with self._lock:
            stored = self._source.read(inside, level=0, bands=range(self._source.bands))
        values = stored.astype(np.float32)
        if stored.dtype == np.uint8:
            values[stored == MISSING] = np.nan
        return windows.paste(values, inside, window, fill=np.nan)

    def read_valid(self, window: windows.Window) -> np.ndarray | None:
        """Returns bool [h, w]: where probabilities are; None: everywhere."""
        valid = ~np.isnan(self.read(window)).any(-1)
        return None if valid.all() else valid


def open_mask(
    path: pathlib.Path,
    classes: tuple[str, ...],
    *,
    image: pathlib.Path | None = None,
    reading: raster.ReadOptions | None = None,
    probabilities: bool = False,
) -> MaskFile:
    """Opens a label map and looks at all of its values.

    Args:
        path: one band of uint8: class ids, 255 where there is no class.
        classes: names of those that may occur.
        image: what is labelled.
        reading: how pixels of the image are read.
        probabilities: a file with a band per class is welcome, too, as a prediction
            writes it: uint8, 255 where there are none, or floating point.

    Raises:
        FileNotFoundError: there is no such file.
        errors.InputError: it is no label map, of other classes, or of another size than
            the image.
    """
    source = raster.open_source(path, raw=True)
    opened = None
    try:
        is_soft = probabilities and source.bands == len(classes)
        if not is_soft and (source.dtype != np.uint8 or source.bands != 1):
            more = f"; probabilities have {len(classes)} bands" if probabilities else ""
            raise errors.InputError(
                f"{path} has {source.bands} bands of {source.dtype}; a label map has "
                f"one band of uint8: class ids, and 255 where there is no class{more}"
            )
        if image is not None:
            opened = raster.open_scene(image, reading)
            _check_size(path, source, opened)
        if is_soft:
            return ProbabilityFile(source, opened)
        mask = MaskFile(source, opened)
        _check_labels(mask, classes)
        return mask
    except BaseException:
        source.close()
        if opened is not None:
            opened.close()
        raise


def _check_size(
    path: pathlib.Path, source: raster_source.Source, image: raster.Scene
) -> None:
    ours, theirs = source.sizes[0], (image.info.height, image.info.width)
    if ours != theirs:
        raise errors.InputError(
            f"{path} has {ours[0]} x {ours[1]} px, its image {image.path} {theirs[0]} "
            f"x {theirs[1]}; give the image that it is a mask of (of a pyramid, the "
            "same --config.predict.level or .mpp)"
        )


def _check_labels(mask: MaskFile, classes: tuple[str, ...]) -> None:
    known = np.zeros(256, bool)
    known[: len(classes)] = known[prepared.IGNORE_LABEL] = True
    for top in range(0, mask.info.height, ROWS):
        height = min(ROWS, mask.info.height - top)
        labels = mask.read(windows.Window(top, 0, height, mask.info.width))
        wrong = labels[~known[labels]]
        if wrong.size:
            raise errors.InputError(
                f"{mask.path} holds the label {wrong.max()}; this run knows the ids 0 "
                f"to {len(classes) - 1} ({', '.join(classes)}) and 255 for no class: "
                "give a label map of its classes"
            )


def leave_out_other_files(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    """Returns `paths` without overlays and the like that a prediction wrote."""

    def is_beside(path: pathlib.Path) -> bool:
        return any(
            path.stem.endswith(word)
            and path.with_name(path.stem.removesuffix(word) + ".json").is_file()
            for word in BESIDE
        )

    return [path for path in paths if not is_beside(path)] or paths
