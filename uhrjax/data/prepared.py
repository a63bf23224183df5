"""Where a prepared data set lies and what is in it (no pixels, no TFDS).

A data set is prepared once by `data_builders` in several layouts ("configs" in TFDS'
words), each a folder `<data_dir>/<name>/<config>/<version>` in TFDS format:

- `scenes`: whole scenes as lossless tiles, for windows anywhere (`scenes.open_scenes`);
- `patches_<tile>_<stride>[_even][_v1-2-4]`: views and labels cut beforehand on a fixed
  grid (`scenes.open_patches`); tile and stride are sides, or height x width;
- `overview_<height>x<width>`: whole scenes made small (`overview.open_overviews`).
The names of data sets with several protocols say which: `deepglobe/glnet`.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from uhrjax import errors
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib

VERSION = "1.0.0"  # of the layouts above; raised when their format changes
SCENES = "scenes"
IGNORE_LABEL = 255
Side = window_lib.Side
ViewName = int | str | view_lib.View  # a view, or a word that `parse_view` reads


@dataclasses.dataclass(frozen=True)
class SceneInfo:
    """One scene: its size, its place on earth, and its records."""

    id: str
    height: int  # px
    width: int  # px
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = None  # affine a, b, c, d, e, f as in rasterio
    first_record: int = 0  # of this scene, in its split
    records: int = 0  # tiles of `scenes`, patches of `patches_*`


@dataclasses.dataclass
class DataInfo:
    """What a prepared data set holds."""

    name: str
    config: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    scenes: dict[str, list[SceneInfo]]  # by split
    histogram: dict[str, list[int]]  # by split: pixels per class, then ignored ones
    split_hash: str  # sha256 over split names and scene ids
    source: str  # where the pixels come from, for reports
    ignore_label: int = IGNORE_LABEL
    tile: Side = 0  # px: of a stored tile (`scenes`) or of a patch (`patches_*`)
    stride: Side = 0  # px
    views: tuple[int | str, ...] = (1,)  # of a patch, as `view_word` names them
    extras: tuple[str, ...] = ()  # further maps of a scene, e.g. "thin"
    notes: tuple[str, ...] = ()  # what a builder did to pixels or labels on the way


def default_data_dir() -> pathlib.Path:
    """Returns TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    root = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(root).expanduser()


def patches_config(
    *,
    tile: Side,
    stride: Side,
    views: Sequence[int | view_lib.View] = (1,),
    spacing: str = "shifted",
) -> str:
    """Returns the config name of a patch pyramid, e.g. `patches_896_512_v1-2-4`.

    Args:
        tile: side of a patch, or (height, width): `patches_128x256_128x256`, px.
        stride: of the grid, px.
        views: smallest field of view first; a whole number stands for its area view.
        spacing: of the grid, of `tiling.window.GRIDS`.
    """
    words = [view_word(view, tile=tile) for view in views]
    grid = "" if spacing == "shifted" else f"_{spacing}"
    suffix = "" if words == [1] else "_v" + "-".join(map(str, words))
    return f"patches_{side_word(tile)}_{side_word(stride)}{grid}{suffix}"


def side_word(side: Side) -> str:
    """Returns 896, or 128x256 (height x width)."""
    height, width = window_lib.sides(side)
    return f"{height}" if height == width else f"{height}x{width}"


def parse_side(word: str) -> Side:
    """Inverse of `side_word`."""
    height, _, width = word.partition("x")
    return (int(height), int(width)) if width else int(height)


def overview_config(*, height: int, width: int) -> str:
    """Returns the config name of whole scenes made small, `overview_508x508`."""
    return f"overview_{height}x{width}"


def view_word(view: int | view_lib.View, *, tile: Side) -> int | str:
    """Returns the name of a view, e.g. 2, `p3s` or `b640px`.

    First comes how it is resized: as the mean (nothing), by Pillow's rule (p) or
    bilinearly (b); then its scale, or its side in px where that is no multiple of the
    patch; then the border: black (nothing), moved inside the scene (s) or mirrored (r).
    """
    if not isinstance(view, view_lib.View):
        view = view_lib.View(view)
    border = _BORDER_LETTERS[view.border]
    letter = "" if view.scale == 1 else _RESIZE_LETTERS[view.resize]
    if float(view.scale).is_integer():
        word = f"{letter}{int(view.scale)}{border}"
        return int(word) if word.isdigit() else word
    return f"{letter}{round(view.scale * _square(tile))}px{border}"


def parse_view(word: ViewName, *, tile: Side) -> view_lib.View:
    """Inverse of `view_word`; takes views, numbers as text, and any `p1016px`, too.

    Raises:
        errors.InputError: it names no view.
    """
    if isinstance(word, view_lib.View):
        return word
    found = re.fullmatch(r"([pb]?)(\d+)(px)?([sr]?)", str(word))
    if not found or (found[3] and not found[1]) or int(found[2]) < 1:
        raise errors.InputError(
            f"view {word!r}: write 2 (the mean of 2 x 2 px), p2 (as Pillow does), b2 "
            "(bilinear, without antialiasing) or, for a field of view that is no "
            "multiple of the patch, p762px (its side); then s for windows moved inside "
            "the scene, r for its mirror image, nothing for black beyond its border"
        )
    scale: int | float = int(found[2])
    if found[3]:
        side = _square(tile)
        if scale < side:
            raise errors.InputError(
                f"view {word!r} is smaller than the patch; use {found[1]}{side}px or "
                "more"
            )
        scale = scale / side if scale % side else scale // side
    resizes = {letter: resize for resize, letter in _RESIZE_LETTERS.items()}
    borders = {letter: border for border, letter in _BORDER_LETTERS.items()}
    resize = resizes[found[1]] if scale > 1 else "area"
    return view_lib.View(scale, resize, borders[found[4]])


_RESIZE_LETTERS = {"area": "", "pillow": "p", "bilinear": "b"}
_BORDER_LETTERS = {"zero": "", "shift": "s", "reflect": "r"}


def _square(tile: Side) -> int:
    height, width = window_lib.sides(tile)
    if height != width:
        raise errors.InputError(
            f"patches of {height} x {width} px take views of whole scales only, such "
            "as 2, p2 or b2"
        )
    return height


def file_stem(scene_id: str) -> str:
    """Returns the beginning of the names of files about a scene."""
    return scene_id.replace("/", "_").replace(os.sep, "_")


def directory_of(data_dir: str | os.PathLike, name: str, config: str) -> pathlib.Path:
    """Returns the folder of a prepared data set, whether or not it exists."""
    return pathlib.Path(data_dir).expanduser() / name / config / VERSION


def is_prepared(directory: pathlib.Path) -> bool:
    """Says whether a folder holds a prepared data set."""
    return (directory / "dataset_info.json").is_file() and (
        directory / "metadata.json"
    ).is_file()


def locate_all(
    data_dir: str | os.PathLike, name: str, *configs: str
) -> list[pathlib.Path]:
    """Returns the folders of a prepared data set, one per config.

    Args:
        data_dir: root of all prepared data sets.
        name: `isaid`, `synthetic/objects_tiny`, `folder/roofs-1a2b3c4d`.
        *configs: `scenes`, or names made by `patches_config` and `overview_config`.

    Raises:
        FileNotFoundError: one is not prepared; the message holds the command to run.
    """
    found = [directory_of(data_dir, name, config) for config in configs]
    missing = [
        c for c, path in zip(configs, found, strict=True) if not is_prepared(path)
    ]
    if not missing:
        return found
    raise FileNotFoundError(
        f"data set {name!r} is not prepared as {' and '.join(map(repr, missing))} in "
        f"{data_dir}; run: {prepare_command(data_dir, name, *missing)}"
    )


def locate(data_dir: str | os.PathLike, name: str, config: str) -> pathlib.Path:
    """Returns the folder of one config, see `locate_all`."""
    return locate_all(data_dir, name, config)[0]


def prepare_command(data_dir: str | os.PathLike, name: str, *configs: str) -> str:
    """Returns the shell command that prepares a data set in some layouts."""
    builder, _, subset = name.partition("/")
    words = ["python -m data_builders.prepare", builder]
    if builder == "synthetic" and subset:
        words.append(f"--subset={subset}")
    elif builder == "folder":
        words.append("--dir=PATH")
    elif builder != "synthetic":  # protocol, then option_value
        words.append("--manual_dir=PATH")
        for part in filter(None, subset.split("-")):
            option, _, value = part.partition("_")
            words.append(f"--{option}={value}" if value else f"--protocol={option}")
    words.append(f"--configs={','.join(configs)}")
    return " ".join([*words, f"--data_dir={data_dir}"])


def read_info(directory: str | os.PathLike) -> DataInfo:
    """Reads what a prepared data set holds, without opening its records.

    Raises:
        FileNotFoundError: nothing is prepared there.
        errors.InputError: the description is damaged.
    """
    directory = pathlib.Path(directory)
    if not is_prepared(directory):
        raise FileNotFoundError(
            f"no prepared data set in {directory}; prepare one with "
            "`python -m data_builders.prepare NAME` (without NAME: a table of them)"
        )
    path = directory / "metadata.json"
    try:
        return info_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.InputError(
            f"{path} is damaged ({type(error).__name__}: {error}); prepare the data "
            "set again with --overwrite"
        ) from error


def info_to_json(info: DataInfo) -> dict[str, Any]:
    """Returns what `metadata.json` stores."""
    return dataclasses.asdict(info)


def info_from_json(stored: dict[str, Any]) -> DataInfo:
    """Inverse of `info_to_json`."""
    scenes = {
        split: [_scene_from_json(scene) for scene in listed]
        for split, listed in stored["scenes"].items()
    }
    tuples = {
        key: tuple(stored[key]) for key in ("classes", "views", "extras", "notes")
    }
    for key in ("tile", "stride"):
        if isinstance(stored[key], list):
            tuples[key] = tuple(stored[key])
    colours = tuple(tuple(colour) for colour in stored["colours"])
    return DataInfo(**{**stored, **tuples, "colours": colours, "scenes": scenes})


def _scene_from_json(stored: dict[str, Any]) -> SceneInfo:
    transform = stored["transform"]
    return SceneInfo(**{**stored, "transform": transform and tuple(transform)})
