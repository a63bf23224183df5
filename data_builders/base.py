"""What every data set shares: raw scenes, and the `Builder` that lists them.

A data set is a subclass of `Builder` in a file of its own: it lists its scenes by split
and says how a mask decodes. Reading files is in `raster.py`, cutting and encoding in
`encode.py`, writing in `record.py`, and `prepare.py` runs it all.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from data_builders import files, raster
from data_builders import label as labels
from uhrjax import errors
from uhrjax.tiling import window as windows

LISTED = 20  # problems of raw files shown in one message


class Pixels:
    """An opened scene in memory: its pixels, labels and further maps by window."""

    def __init__(
        self, image: np.ndarray, label: np.ndarray, extras: dict[str, np.ndarray]
    ) -> None:
        self._image, self._label, self._extras = image, label, extras

    def image(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 3], 0 beyond the border."""
        return windows.cut(self._image, window, fill=0)

    def label(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w], 255 beyond the border."""
        return windows.cut(self._label, window, fill=labels.IGNORE)

    def extra(self, name: str, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w] of a further map, 0 beyond the border."""
        return windows.cut(self._extras[name], window, fill=0)

    def take_unknown(self) -> list[labels.Unknown]:
        """Returns the unknown mask values met since the last call."""
        return []

    def close(self) -> None:
        """Frees the pixels."""


class FilePixels(Pixels):
    """An opened scene in an image and a mask file."""

    def __init__(self, scene: FileScene) -> None:
        self._scene = scene
        self._unknown: list[labels.Unknown] = []
        self._label: np.ndarray | None = None
        with contextlib.ExitStack() as stack:
            self._image_path = stack.enter_context(files.local(scene.image_path))
            self._raster = raster.open_image(self._image_path)
            stack.callback(self._raster.close)
            self._label_path = stack.enter_context(files.local(scene.label_path))
            self._mask = raster.Mask(self._label_path)
            stack.callback(self._mask.close)
            if not scene.streams:  # the mask is in memory anyway: decode it once
                whole = windows.Window(0, 0, scene.height, scene.width)
                self._label = self._decode(whole)
            self._opened = stack.pop_all()

    def image(self, window: windows.Window) -> np.ndarray:
        with files.naming(self._image_path, self._scene.image_path):
            return self._raster.read(window)

    def label(self, window: windows.Window) -> np.ndarray:
        scene = self._scene
        if self._label is not None:
            return windows.cut(self._label, window, fill=labels.IGNORE)
        inside = windows.intersect(window, height=scene.height, width=scene.width)
        decoded = self._decode(inside)
        return windows.paste(decoded, inside, window, fill=labels.IGNORE)

    def _decode(self, inside: windows.Window) -> np.ndarray:
        """Returns the labels of a window inside the scene."""
        scene = self._scene
        with files.naming(self._label_path, scene.label_path):
            raw = self._mask.read(inside)
        coloured = raw.ndim == 3 and (raw != raw[..., :1]).any()
        if coloured and not scene.table.codes:
            raise errors.InputError(
                f"{scene.label_path}: a mask of RGB colours, but the class table has "
                'no colours; name them, e.g. --classes="ground=#000000,roof=#ff0000"'
            )
        decoded, unknown = scene.table.decode(raw)
        self._unknown += [
            one._replace(row=one.row + inside.top, column=one.column + inside.left)
            for one in unknown
        ]
        return decoded

    def take_unknown(self) -> list[labels.Unknown]:
        taken, self._unknown = self._unknown, []
        return taken

    def close(self) -> None:
        self._label = None
        self._opened.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawScene:
    """A scene before preparation; subclasses say how it is opened."""

    id: str
    height: int  # px
    width: int  # px
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = None  # affine a, b, c, d, e, f
    streams: bool = False  # bands can be read without decoding the whole scene

    def open(self) -> Pixels:
        """Opens the scene; called in a worker process."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileScene(RawScene):
    """A scene of one image file and one mask file."""

    image_path: files.File
    label_path: files.File
    table: labels.ClassTable

    def open(self) -> Pixels:
        return FilePixels(self)


def file_scene(
    scene_id: str,
    image_path: files.File,
    label_path: files.File,
    table: labels.ClassTable,
) -> FileScene:
    """Makes a scene of two files, after a look at both headers.

    Raises:
        errors.InputError: a file is no image, or the sizes differ.
    """
    image, mask = read_headers(image_path, label_path)
    packed = isinstance(image_path, files.Member) or isinstance(
        label_path, files.Member
    )
    return FileScene(
        id=scene_id,
        height=image.height,
        width=image.width,
        crs=image.crs,
        transform=image.transform,
        streams=image.streams and mask.streams and not packed,
        image_path=image_path,
        label_path=label_path,
        table=table,
    )


def read_headers(
    image_path: files.File, label_path: files.File
) -> tuple[raster.Header, raster.Header]:
    """Reads the headers of an image and its mask, which must have one size."""
    with files.local(image_path) as path:
        image = raster.read_header(path, mask=False)
    with files.local(label_path) as path:
        mask = raster.read_header(path, mask=True)
    if (image.height, image.width) != (mask.height, mask.width):
        raise errors.InputError(
            f"{label_path}: the mask is {mask.height}x{mask.width} px (height x "
            f"width), its image {image_path.name} {image.height}x{image.width}; they "
            "must agree"
        )
    return image, mask


def open_pairs(
    pairs: dict[str, list[tuple[str, files.File, Any]]],
    make: Callable[[str, files.File, Any], RawScene],
    problems: Sequence[str] = (),
) -> dict[str, list[RawScene]]:
    """Makes the scenes by split, after a look at every header.

    Args:
        pairs: (id, image, mask) by split.
        make: makes a scene of the three.
        problems: found before, to be listed with those found here.

    Raises:
        errors.InputError: with all files that cannot be used.
    """
    scenes: dict[str, list[RawScene]] = {split: [] for split in pairs}
    problems = list(problems)
    for split, listed in pairs.items():
        for scene_id, image, mask in listed:
            try:
                scenes[split].append(make(scene_id, image, mask))
            except errors.InputError as error:
                problems.append(str(error))
    if problems:
        count = len(problems)
        raise errors.InputError(
            list_problems(f"{count} of the files cannot be used", problems)
        )
    return scenes


def list_problems(title: str, problems: Sequence[str]) -> str:
    """Returns a message with the first problems, one a line, and how many more."""
    lines = [f"- {problem}" for problem in problems[:LISTED]]
    more = len(problems) - LISTED
    if more > 0:
        lines.append(f"- and {more} more")
    return "\n".join([f"{title}:", *lines])


class Builder:
    """One data set; a subclass with its facts, its scenes and its class table."""

    name: ClassVar[str]
    about: ClassVar[str]  # one line: what it is
    page: ClassVar[str] = ""  # where to get it
    licence: ClassVar[str] = ""
    getting: ClassVar[str] = ""  # one line: how to get it
    default_tile: ClassVar[int] = 512  # px, of patches
    default_stride: ClassVar[int] = 256  # px
    small: ClassVar[str] = "pad"  # scenes not larger than a patch: "pad" or "resize"
    pyramids: ClassVar[dict[str, tuple[str, ...]]] = {}  # method -> config names

    table: labels.ClassTable
    extras: tuple[str, ...] = ()
    source: str = ""  # where the pixels came from

    @property
    def full_name(self) -> str:
        """The name under which it is prepared, e.g. `synthetic/objects_tiny`."""
        return self.name

    @classmethod
    def contents(cls) -> str:
        """Returns one line for the table: scenes, size, classes, splits."""
        return ""

    @classmethod
    def option_names(cls) -> list[str]:
        """Returns the names of this data set's own options."""
        return list(inspect.signature(cls).parameters)

    @classmethod
    def parse_subset(cls, subset: str) -> dict[str, str]:
        """Returns the options that the second part of a prepared name stands for."""
        return {}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds this data set's own flags."""

    def scenes(self) -> dict[str, list[RawScene]]:
        """Returns the scenes by split.

        Raises:
            FileNotFoundError: raw files are missing; says which and where to get them.
            errors.InputError: they are there, but unusable.
        """
        raise NotImplementedError

    def checked(self) -> str:
        """Returns what the numbers of scenes were compared with, for the user."""
        return ""

    def settle(
        self, histogram: np.ndarray, unknown: collections.Counter[str]
    ) -> tuple[labels.ClassTable, tuple[str, ...]]:
        """Returns the final class table and notes, once all labels were seen.

        Args:
            histogram: [256] int64, pixels per label over all splits.
            unknown: pixels per mask value that the table lacks, where such are allowed.

        Raises:
            errors.InputError: the labels make no sense.
        """
        notes = [
            f"{count} px of unknown mask value {value} taken as "
            f"{self.table.names[self.table.unknown]!r}"
            for value, count in sorted(unknown.items())
            if value != labels.ROUNDED
        ]
        if rounded := unknown[labels.ROUNDED]:
            notes.append(
                f"{rounded} px of mask values between two codes, taken as 0 below "
                f"{self.table.threshold} and as 255 from there on"
            )
        return self.table, tuple(notes)
