"""Prepares data sets: `python -m data_builders.prepare [NAME] [flags]`.

Without NAME it lists the data sets. Each is written as `scenes` (whole scenes, read by
window) and as `patches_<tile>_<stride>` (cut beforehand): `uhrjax/data/prepared.py`. A
data set appears complete or not at all; one that is there is left alone.
"""

from __future__ import annotations

import argparse
import inspect
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from data_builders import base, encode, folder, generate, isaid, record, synthetic
from uhrjax import errors
from uhrjax.data import prepared

BUILDERS: dict[str, type[base.Builder]] = {
    builder.name: builder
    for builder in (synthetic.Synthetic, folder.Folder, isaid.Isaid)
}
LAYOUTS = ("scenes", "patches")
DEFAULTS = {  # of the command line
    "name": None,
    "data_dir": None,
    "configs": LAYOUTS,
    "tile": None,
    "stride": None,
    "views": (1,),
    "workers": None,
    "overwrite": False,
}


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    configs: Sequence[str] = LAYOUTS,
    tile: int | None = None,
    stride: int | None = None,
    views: Sequence[int] = (1,),
    overwrite: bool = False,
    workers: int | None = None,
    **options: Any,
) -> prepared.DataInfo:
    """Prepares a data set unless it is there already.

    Args:
        name: of a builder, also with its subset: `synthetic/landcover_full`.
        data_dir: root of all prepared data; default: TFDS_DATA_DIR or TFDS' own.
        configs: which layouts are wanted, of `scenes` and `patches`.
        tile: side of the patches, px; default: the data set's own.
        stride: of the patches, px; default: the data set's own, or half a tile.
        views: scales of the views of a patch, starting with 1.
        overwrite: prepare again what is there.
        workers: processes; default: one per core.
        **options: the builder's own, e.g. `dir` for `folder`.

    Returns:
        What the data set holds; `name` in it is the one to locate it by.

    Raises:
        errors.InputError: the request or the raw files cannot be used.
        FileNotFoundError: raw files are missing; says where to get them.
        OSError: the disk is full or fails.
    """
    builder, targets, grid = plan(
        name,
        data_dir=data_dir,
        configs=configs,
        tile=tile,
        stride=stride,
        views=views,
        **options,
    )
    _run(builder, targets, grid, overwrite, workers)
    return prepared.read_info(next(iter(targets.values())))


def plan(
    name: str,
    *,
    data_dir: str | os.PathLike | None,
    configs: Sequence[str],
    tile: int | None,
    stride: int | None,
    views: Sequence[int],
    overwrite: bool = False,
    workers: int | None = None,
    **options: Any,
) -> tuple[base.Builder, dict[str, pathlib.Path], encode.PatchGrid]:
    """Returns the builder, the folder of each layout wanted, and the patch grid."""
    del overwrite, workers  # of no interest before there is something to do
    root = pathlib.Path(data_dir or prepared.default_data_dir()).expanduser()
    builder = make_builder(name, options)
    grid = _check_grid(builder, tile, stride, views)
    return builder, _targets(builder, root, configs, grid), grid


def _run(
    builder: base.Builder,
    targets: dict[str, pathlib.Path],
    grid: encode.PatchGrid,
    overwrite: bool,
    workers: int | None,
) -> None:
    """Prepares the layouts that are missing."""

    def missing() -> dict[str, pathlib.Path]:
        return {
            layout: directory
            for layout, directory in targets.items()
            if overwrite or not prepared.is_prepared(directory)
        }

    if not missing():
        return
    data_set = next(iter(targets.values())).parent.parent
    with record.one_at_a_time(data_set):
        # Another process may have prepared it while this one waited.
        if wanted := missing():
            generate.generate(builder, wanted, grid, workers)


def make_builder(name: str, options: dict[str, Any]) -> base.Builder:
    """Returns the builder of a data set; options that are None are left out."""
    kind, _, subset = name.partition("/")
    if kind not in BUILDERS:
        raise errors.InputError(
            f"unknown data set {name!r}; there are {', '.join(BUILDERS)}"
        )
    given = {key: value for key, value in options.items() if value is not None}
    if subset and kind == "synthetic":
        given["subset"] = subset
    allowed = inspect.signature(BUILDERS[kind]).parameters
    if unknown := given.keys() - allowed:
        raise errors.InputError(
            f"data set {kind!r} has no option {', '.join(sorted(unknown))}; it has: "
            f"{', '.join(allowed)}"
        )
    return BUILDERS[kind](**given)


def _check_grid(
    builder: base.Builder, tile: int | None, stride: int | None, views: Sequence[int]
) -> encode.PatchGrid:
    if stride is None:
        stride = builder.default_stride if tile is None else max(tile // 2, 1)
    tile = builder.default_tile if tile is None else tile
    if tile < 1:
        raise errors.InputError(f"patches of {tile} px; use --tile >= 1")
    if not 0 < stride <= tile:
        raise errors.InputError(
            f"patches of {tile} px at a stride of {stride} px leave gaps; use "
            f"1 <= stride <= {tile}"
        )
    scales = tuple(views)
    if not scales or scales != tuple(sorted(set(scales))) or scales[0] < 1:
        raise errors.InputError(f"views {scales}: give rising scales >= 1, e.g. 1,2,4")
    if builder.small == "resize" and scales != (1,):
        raise errors.InputError(
            f"{builder.name} stretches small scenes to one patch, which has no wider "
            "views; use --views=1, or cut the views from config scenes"
        )
    return encode.PatchGrid(tile, stride, scales, builder.small)


def _targets(
    builder: base.Builder,
    root: pathlib.Path,
    configs: Sequence[str],
    grid: encode.PatchGrid,
) -> dict[str, pathlib.Path]:
    """Returns the folder of each layout wanted."""
    unknown = set(configs) - set(LAYOUTS)
    if unknown or not configs:
        raise errors.InputError(
            f"unknown configs {sorted(unknown)}; choose from {', '.join(LAYOUTS)}"
        )
    patches = prepared.patches_config(
        tile=grid.tile, stride=grid.stride, views=grid.views
    )
    names = {"scenes": prepared.SCENES, "patches": patches}
    return {
        layout: prepared.directory_of(root, builder.full_name, names[layout])
        for layout in configs
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    args = DEFAULTS | vars(_parser().parse_args(argv))
    name = args.pop("name")
    args["data_dir"] = args["data_dir"] or prepared.default_data_dir()
    try:
        if name is None:
            print(describe_all(args["data_dir"]))
        else:
            _prepare_and_report(name, args)
    except (errors.InputError, OSError) as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing half-written was kept", file=sys.stderr)
        return 130
    return 0


def _sentence(error: Exception) -> str:
    """Returns the message of an error without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    place = f"{error.filename}: " if error.filename else ""
    return place + error.strerror


class _Parser(argparse.ArgumentParser):
    """Says what was wrong in one line, not after a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    # Flags may stand before and after NAME: what is not given is filled in later.
    style = {"allow_abbrev": False, "argument_default": argparse.SUPPRESS}
    common = _Parser(add_help=False, **style)
    common.add_argument("--data_dir", help="default: TFDS_DATA_DIR or TFDS' own")
    common.add_argument("--configs", type=words, help="scenes,patches (default: both)")
    common.add_argument("--tile", type=int, help="side of the patches, px")
    common.add_argument("--stride", type=int, help="of the patches, px")
    common.add_argument("--views", type=scales, help="of a patch: 1,2,4 (default: 1)")
    common.add_argument("--workers", type=int, help="processes; default: all cores")
    common.add_argument("--overwrite", action="store_true", help="prepare again")
    parser = _Parser(prog="python -m data_builders.prepare", parents=[common], **style)
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for name, builder in BUILDERS.items():
        own = names.add_parser(
            name,
            parents=[common],
            help=builder.about,
            description=sys.modules[builder.__module__].__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **style,
        )
        builder.add_arguments(own)
    return parser


def words(text: str) -> tuple[str, ...]:
    """Reads a list of words from the command line: a,b."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def scales(text: str) -> tuple[int, ...]:
    """Reads the scales of views from the command line: 1,2,4."""
    return tuple(int(word) for word in words(text))


def _prepare_and_report(name: str, args: dict[str, Any]) -> None:
    began = time.monotonic()
    builder, targets, grid = plan(name, **args)
    there = [t for t in targets.values() if prepared.is_prepared(t)]
    if len(there) == len(targets) and not args["overwrite"]:
        print(
            f"{builder.full_name} is already prepared (--overwrite prepares it again)"
        )
    else:
        _run(builder, targets, grid, args["overwrite"], args["workers"])
    infos = {directory: prepared.read_info(directory) for directory in targets.values()}
    print(report(infos, time.monotonic() - began))


def report(infos: dict[pathlib.Path, prepared.DataInfo], seconds: float) -> str:
    """Returns what the user reads at the end: counts, classes, bytes, paths."""
    first = next(iter(infos.values()))
    pixels = {
        split: sum(scene.height * scene.width for scene in listed)
        for split, listed in first.scenes.items()
    }
    lines = [f"{first.name}: split hash {first.split_hash[:12]}"]
    for split, listed in first.scenes.items():
        lines.append(f"  {split}: {len(listed)} scenes, {pixels[split] / 1e6:.1f} MPix")
    lines += _histogram_lines(first)
    lines += [f"note: {note}" for note in first.notes]
    for directory, info in infos.items():
        size = sum(file.stat().st_size for file in directory.iterdir())
        records = {
            split: sum(scene.records for scene in listed)
            for split, listed in info.scenes.items()
        }
        kind = "tiles" if info.config == prepared.SCENES else "patches"
        counts = ", ".join(f"{split} {count}" for split, count in records.items())
        lines.append(
            f"{info.config}: {kind} {counts}; {size / 1e6:.1f} MB in {directory}"
        )
    speed = 3 * sum(pixels.values()) / 1e6 / seconds
    lines.append(f"{seconds:.1f} s, {speed:.0f} MB/s of decoded pixels")
    return "\n".join(lines)


def _histogram_lines(info: prepared.DataInfo) -> list[str]:
    """Returns the share of each class in each split, as a table."""
    names = [*info.classes, "(ignored)"]
    wide = max(map(len, names))
    lines = [f"  {'class':{wide}}" + "".join(f"{s:>18}" for s in info.histogram)]
    for index, name in enumerate(names):
        cells = []
        for counts in info.histogram.values():
            share = counts[index] / max(sum(counts), 1)
            cells.append(f"{counts[index]:>11} {share:6.2%}")
        lines.append(f"  {name:{wide}}" + "".join(f"{cell:>18}" for cell in cells))
    return lines


def describe_all(data_dir: str | os.PathLike) -> str:
    """Returns the table of data sets, and which of them are prepared."""
    root = pathlib.Path(data_dir).expanduser()
    lines = []
    for name, builder in BUILDERS.items():
        lines.append(f"{name}: {builder.about}")
        lines.append(f"  get it:   {builder.getting}")
        if builder.page:
            lines.append(f"  page:     {builder.page} ({builder.licence})")
        found = sorted((root / name).glob("**/metadata.json"))
        found = [file.parent for file in found if file.parent.name == prepared.VERSION]
        for directory in found:
            info = prepared.read_info(directory)
            scenes = ", ".join(f"{s} {len(v)}" for s, v in info.scenes.items())
            lines.append(
                f"  prepared: {info.name} as {info.config}: scenes {scenes}; "
                f"{len(info.classes)} classes"
            )
        if not found:
            lines.append(f"  prepared: no (in {root})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
