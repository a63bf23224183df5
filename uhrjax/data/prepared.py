"""Where a prepared data set lies and what is in it (no pixels, no TFDS).

A data set is prepared once by `data_builders` in several layouts ("configs" in TFDS'
words), each a folder `<data_dir>/<name>/<config>/<version>` in TFDS format:

- `scenes`: whole scenes as lossless tiles, for windows anywhere (`scenes.open_scenes`);
- `patches_<tile>_<stride>[_even][_v1-2-4]`: views and labels cut beforehand on a fixed
  grid (`scenes.open_patches`);
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

VERSION = "1.0.0"  # of the layouts above; raised when their format changes
SCENES = "scenes"
IGNORE_LABEL = 255
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
    tile: int = 0  # px: side of a stored tile (`scenes`) or of a patch (`patches_*`)
    stride: int = 0  # px
    views: tuple[int | str, ...] = (1,)  # of a patch, as `view_word` names them
    extras: tuple[str, ...] = ()  # further maps of a scene, e.g. "thin"
    notes: tuple[str, ...] = ()  # what a builder did to pixels or labels on the way


def default_data_dir() -> pathlib.Path:
    """Returns TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    root = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(root).expanduser()


def patches_config(
    *,
    tile: int,
    stride: int,
    views: Sequence[int | view_lib.View] = (1,),
    spacing: str = "shifted",
) -> str:
    """Returns the config name of a patch pyramid, e.g. `patches_896_512_v1-2-4`.

    Args:
        tile: side of a patch, px.
        stride: of the grid, px.
        views: smallest field of view first; a whole number stands for its area view.
        spacing: of the grid, of `tiling.window.GRIDS`.
    """
    words = [view_word(view, tile=tile) for view in views]
    grid = "" if spacing == "shifted" else f"_{spacing}"
    suffix = "" if words == [1] else "_v" + "-".join(map(str, words))
    return f"patches_{tile}_{stride}{grid}{suffix}"


def view_word(view: int | view_lib.View, *, tile: int) -> int | str:
    """Returns the name of a view: 2, `p2` by Pillow's rule, `p762px` of odd scales.

    A field of view that is no multiple of the patch is named by its side.
    """
    if not isinstance(view, view_lib.View):
        view = view_lib.View(view)
    if view.scale == 1:
        return 1
    if view.resize == "area":
        return int(view.scale)
    if float(view.scale).is_integer():
        return f"p{int(view.scale)}"
    return f"p{round(view.scale * tile)}px"


def parse_view(word: ViewName, *, tile: int) -> view_lib.View:
    """Inverse of `view_word`; takes views, numbers as text, and any `p1016px`, too.

    Raises:
        errors.InputError: it names no view.
    """
    if isinstance(word, view_lib.View):
        return word
    found = re.fullmatch(r"(p?)(\d+)(px)?", str(word))
    if not found or (found[3] and not found[1]) or int(found[2]) < 1:
        raise errors.InputError(
            f"view {word!r}: write 2 (the mean of 2 x 2 px), p2 (as Pillow does) or, "
            "for a field of view that is no multiple of the patch, p762px (its side)"
        )
    scale = int(found[2])
    if found[3]:
        if scale < tile:
            raise errors.InputError(
                f"view {word!r} is smaller than the patch; use p{tile}px or more"
            )
        scale = scale / tile if scale % tile else scale // tile
    return view_lib.View(scale, "pillow" if found[1] and scale > 1 else "area")


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
        *configs: `scenes`, or names made by `patches_config`.

    Raises:
        FileNotFoundError: one is not prepared; the message holds the command to run.
    """
    found = [directory_of(data_dir, name, config) for config in configs]
    missing = [
        c for c, path in zip(configs, found, strict=True) if not is_prepared(path)
    ]
    if not missing:
        return found
    command = prepare_command(data_dir, name, missing[-1])
    if SCENES in missing[:-1]:
        command = command.replace("--configs=patches", "--configs=scenes,patches")
    raise FileNotFoundError(
        f"data set {name!r} is not prepared as {' and '.join(map(repr, missing))} in "
        f"{data_dir}; run: {command}"
    )


def locate(data_dir: str | os.PathLike, name: str, config: str) -> pathlib.Path:
    """Returns the folder of one config, see `locate_all`."""
    return locate_all(data_dir, name, config)[0]


def prepare_command(data_dir: str | os.PathLike, name: str, config: str) -> str:
    """Returns the shell command that prepares a data set."""
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
    plain = re.fullmatch(r"patches_(\d+)_(\d+)(?:_v([\d-]+))?", config)
    if plain:
        tile, stride, views = plain.groups()
        words += ["--configs=patches", f"--tile={tile}", f"--stride={stride}"]
        if views:
            words.append(f"--views={views.replace('-', ',')}")
    else:
        words.append(f"--configs={config}")
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
    colours = tuple(tuple(colour) for colour in stored["colours"])
    return DataInfo(**{**stored, **tuples, "colours": colours, "scenes": scenes})


def _scene_from_json(stored: dict[str, Any]) -> SceneInfo:
    transform = stored["transform"]
    return SceneInfo(**{**stored, "transform": transform and tuple(transform)})
