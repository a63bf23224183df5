"""Where a prepared data set lies and what is in it (no pixels, no TFDS).

A data set is prepared once by `data_builders` in up to two layouts ("configs" in TFDS'
words), each a folder `<data_dir>/<name>/<config>/<version>` in TFDS format:

- `scenes`: whole scenes as lossless tiles, for windows anywhere (`scenes.open_scenes`);
- `patches_<tile>_<stride>[_v1-2-4]`: views and labels cut beforehand on a fixed grid
  (`scenes.open_patches`).
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from uhrjax import errors

VERSION = "1.0.0"  # of the layouts above; raised when their format changes
SCENES = "scenes"
IGNORE_LABEL = 255


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
    views: tuple[int, ...] = (1,)  # scales of a patch's views
    extras: tuple[str, ...] = ()  # further maps of a scene, e.g. "thin"
    notes: tuple[str, ...] = ()  # what a builder did to pixels or labels on the way


def default_data_dir() -> pathlib.Path:
    """Returns TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    root = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(root).expanduser()


def patches_config(*, tile: int, stride: int, views: Sequence[int] = (1,)) -> str:
    """Returns the config name of a patch pyramid, e.g. `patches_896_512_v1-2-4`."""
    scales = tuple(int(scale) for scale in views)
    suffix = "" if scales == (1,) else "_v" + "-".join(map(str, scales))
    return f"patches_{tile}_{stride}{suffix}"


def directory_of(data_dir: str | os.PathLike, name: str, config: str) -> pathlib.Path:
    """Returns the folder of a prepared data set, whether or not it exists."""
    return pathlib.Path(data_dir).expanduser() / name / config / VERSION


def is_prepared(directory: pathlib.Path) -> bool:
    """Says whether a folder holds a prepared data set."""
    return (directory / "dataset_info.json").is_file() and (
        directory / "metadata.json"
    ).is_file()


def locate(data_dir: str | os.PathLike, name: str, config: str) -> pathlib.Path:
    """Returns the folder of a prepared data set.

    Args:
        data_dir: root of all prepared data sets.
        name: `isaid`, `synthetic/objects_tiny`, `folder/roofs-1a2b3c4d`.
        config: `scenes`, or a name made by `patches_config`.

    Raises:
        FileNotFoundError: not prepared; the message holds the command to run.
    """
    directory = directory_of(data_dir, name, config)
    if is_prepared(directory):
        return directory
    raise FileNotFoundError(
        f"data set {name!r} is not prepared as {config!r} in {data_dir}; "
        f"run: {prepare_command(data_dir, name, config)}"
    )


def prepare_command(data_dir: str | os.PathLike, name: str, config: str) -> str:
    """Returns the shell command that prepares a data set."""
    builder, _, subset = name.partition("/")
    words = ["python -m data_builders.prepare", builder]
    if builder == "synthetic" and subset:
        words.append(f"--subset={subset}")
    if builder == "folder":
        words.append("--dir=PATH")
    if config.startswith("patches_"):
        words.append("--configs=patches")
        fields = config.split("_")[1:]
        words += [
            f"--{k}={v}" for k, v in zip(("tile", "stride"), fields, strict=False)
        ]
        if len(fields) > 2:
            words.append(f"--views={fields[2][1:].replace('-', ',')}")
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
