"""Prepares data sets: `python -m data_builders.prepare [NAME] [flags]`.

Without NAME it lists the data sets. Each is written as `scenes` (whole scenes, read by
window) and as `patches_<tile>_<stride>` (cut beforehand), or as --configs says:
`data_builders/layout.py`. A data set appears complete or not at all; one that is there
is left alone.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from data_builders import (
    ade20k,
    base,
    bdd100k,
    cityscapes,
    deepglobe,
    folder,
    generate,
    gleason2019,
    inria,
    isaid,
    isprs,
    record,
    synthetic,
)
from data_builders import beam as beam_lib
from data_builders import layout as layout_lib
from uhrjax import errors
from uhrjax.data import prepared

BUILDERS: dict[str, type[base.Builder]] = {
    builder.name: builder
    for builder in (
        synthetic.Synthetic,
        folder.Folder,
        isaid.Isaid,
        isprs.Vaihingen,
        isprs.Potsdam,
        deepglobe.DeepGlobe,
        inria.Inria,
        cityscapes.Cityscapes,
        gleason2019.Gleason2019,
        ade20k.Ade20k,
        bdd100k.Bdd100k,
    )
}
LAYOUTS = ("scenes", "patches")
KINDS = {"scenes": "tiles", "patches": "patches", "overview": "overviews"}
Targets = dict[layout_lib.Layout, pathlib.Path]
DEFAULTS = {  # of the command line
    "name": None,
    "data_dir": None,
    "configs": LAYOUTS,
    "tile": None,
    "stride": None,
    "views": (1,),
    "workers": None,
    "beam": False,
    "runner": None,
    "overwrite": False,
}


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    configs: Sequence[str] = LAYOUTS,
    tile: int | None = None,
    stride: int | None = None,
    views: Sequence[prepared.ViewName] = (1,),
    overwrite: bool = False,
    workers: int | None = None,
    runner: str | None = None,
    **options: Any,
) -> prepared.DataInfo:
    """Prepares a data set unless it is there already.

    Args:
        name: of a builder, also with its subset: `synthetic/landcover_full`.
        data_dir: root of all prepared data; default: TFDS_DATA_DIR or TFDS' own.
        configs: which layouts are wanted: `scenes`, `patches`, `patches_fctl` or any
            name of `data_builders/layout.py`.
        tile: side of `patches`, px; default: the data set's own.
        stride: of `patches`, px; default: the data set's own, or half a tile.
        views: of `patches`: scales (area), or words such as p3 (Pillow), 1 first.
        overwrite: prepare again what is there.
        workers: processes; default: one per core.
        runner: of Apache Beam, to encode on instead of processes of this machine.
        **options: the builder's own, e.g. `dir` for `folder`.

    Returns:
        What the data set holds; `name` in it is the one to locate it by.

    Raises:
        errors.InputError: the request or the raw files cannot be used.
        FileNotFoundError: raw files are missing; says where to get them.
        OSError: the disk is full or fails.
    """
    builder, targets = plan(
        name,
        data_dir=data_dir,
        configs=configs,
        tile=tile,
        stride=stride,
        views=views,
        **options,
    )
    _run(builder, targets, overwrite, workers, runner)
    return prepared.read_info(next(iter(targets.values())))


def plan(
    name: str,
    *,
    data_dir: str | os.PathLike | None,
    configs: Sequence[str],
    tile: int | None,
    stride: int | None,
    views: Sequence[prepared.ViewName],
    overwrite: bool = False,
    workers: int | None = None,
    runner: str | None = None,
    **options: Any,
) -> tuple[base.Builder, Targets]:
    """Returns the builder, and the folder of each layout wanted."""
    del overwrite, workers, runner  # of no interest before there is something to do
    root = pathlib.Path(data_dir or prepared.default_data_dir()).expanduser()
    builder = make_builder(name, options)
    chosen = layout_lib.choose(builder, configs, tile=tile, stride=stride, views=views)
    return builder, {
        layout: prepared.directory_of(root, builder.full_name, layout.config)
        for layout in chosen
    }


def _run(
    builder: base.Builder,
    targets: Targets,
    overwrite: bool,
    workers: int | None,
    runner: str | None,
) -> None:
    """Prepares the layouts that are missing."""

    def missing() -> Targets:
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
            generate.generate(builder, wanted, workers, runner)


def make_builder(name: str, options: dict[str, Any]) -> base.Builder:
    """Returns the builder of a data set; options that are None are left out."""
    kind, _, subset = name.partition("/")
    if kind not in BUILDERS:
        raise errors.InputError(
            f"unknown data set {name!r}; there are {', '.join(BUILDERS)}"
        )
    given = {key: value for key, value in options.items() if value is not None}
    given = BUILDERS[kind].parse_subset(subset) | given
    allowed = BUILDERS[kind].option_names()
    if unknown := given.keys() - set(allowed):
        raise errors.InputError(
            f"data set {kind!r} has no option {', '.join(sorted(unknown))}; it has: "
            f"{', '.join(allowed)}"
        )
    return BUILDERS[kind](**given)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    args = DEFAULTS | vars(_parser().parse_args(argv))
    name = args.pop("name")
    args["data_dir"] = args["data_dir"] or prepared.default_data_dir()
    try:
        args["runner"] = _choose_runner(args.pop("beam"), args["runner"])
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


def _choose_runner(beam: bool, runner: str | None) -> str | None:
    if runner and not beam:
        raise errors.InputError(f"--runner={runner} is for Apache Beam; add --beam")
    return (runner or beam_lib.DEFAULT_RUNNER) if beam else None


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
    common.add_argument("--configs", type=words, help="scenes,patches,patches_fctl...")
    common.add_argument("--tile", type=int, help="side of the patches, px")
    common.add_argument("--stride", type=int, help="of the patches, px")
    common.add_argument(
        "--views", type=words, help="of a patch: 1,2,4 or 1,p3 (default: 1)"
    )
    common.add_argument("--workers", type=int, help="processes; default: all cores")
    common.add_argument("--beam", action="store_true", help="encode on Apache Beam")
    common.add_argument("--runner", help='of Beam, e.g. "FlinkRunner --flink_master=X"')
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


def _prepare_and_report(name: str, args: dict[str, Any]) -> None:
    began = time.monotonic()
    builder, targets = plan(name, **args)
    there = [t for t in targets.values() if prepared.is_prepared(t)]
    if len(there) == len(targets) and not args["overwrite"]:
        print(
            f"{builder.full_name} is already prepared (--overwrite prepares it again)"
        )
    else:
        _run(builder, targets, args["overwrite"], args["workers"], args["runner"])
    infos = {directory: prepared.read_info(directory) for directory in targets.values()}
    print(report(infos, time.monotonic() - began))
    if builder.checked():
        print(builder.checked())


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
        kind = KINDS[info.config.partition("_")[0]]
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
        if builder.contents():
            lines.append(f"  holds:    {builder.contents()}")
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
