"""Shows a prepared data set: `python -m data_builders.show NAME [flags]`.

Writes a contact sheet: scenes with their labels in the class colours, the class
histogram, and one patch with all its views and its overview. Where whole scenes are not
prepared, their overviews are shown. NAME is what `prepare` printed
(`synthetic/objects_tiny`), or its first words where only one data set has them.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import cv2
import numpy as np

from data_builders import contact_sheet
from uhrjax import errors
from uhrjax.data import overview, prepared, scenes

LOOKED_AT = 32  # patches, among which the one with the most classes is shown


def show(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    count: int = 4,
    patches: str | None = None,
) -> np.ndarray:
    """Draws the contact sheet of a prepared data set.

    Args:
        name: of a prepared data set, or the start of one.
        data_dir: root of all prepared data; default: TFDS_DATA_DIR or TFDS' own.
        split: default: the first one.
        count: how many scenes, evenly spread over the split.
        patches: config to show a patch of; default: the first that is prepared.

    Returns:
        [h, w, 3] uint8 RGB.

    Raises:
        FileNotFoundError: not prepared; says how to.
        errors.InputError: the split, the config or the count cannot be shown.
    """
    if count < 1:
        raise errors.InputError(f"--count={count}: show 1 scene or more")
    root = pathlib.Path(data_dir or prepared.default_data_dir()).expanduser()
    home = root / _find_name(root, name)
    info = prepared.read_info(next(iter(_configs(home).values())))
    split = split or next(iter(info.scenes))
    drawn = _draw_scenes(home, split, count)
    half = -(-len(drawn) // 2)  # two columns of scenes
    columns = [contact_sheet.below(*each) for each in (drawn[:half], drawn[half:])
               if each]  # fmt: skip
    sheet = contact_sheet.beside(*columns, contact_sheet.draw_legend(info, split))
    sheet = contact_sheet.below(sheet, _draw_patch(home, split, patches))
    return contact_sheet.framed(sheet)


def _draw_scenes(home: pathlib.Path, split: str, count: int) -> list[np.ndarray]:
    """Draws some scenes of a split; none if only patches are prepared."""
    if found := _configs(home, prepared.SCENES):
        reader = scenes.open_scenes(found[prepared.SCENES], split)
        draw = contact_sheet.draw_scene
    elif found := _configs(home, "overview_"):
        reader = overview.open_overviews(next(iter(found.values())), split)
        draw = contact_sheet.draw_overview
    else:
        return []
    indices = np.unique(np.linspace(0, len(reader) - 1, count).round().astype(int))
    return [draw(reader, int(i), split=split) for i in indices]


def _find_name(root: pathlib.Path, name: str) -> str:
    """Returns the full name of the one prepared data set that is meant."""
    found = sorted(
        {
            file.parent.parent.parent.relative_to(root).as_posix()
            for file in root.glob("**/metadata.json")
            if prepared.is_prepared(file.parent)
        }
    )
    if name in found:
        return name
    close = [each for each in found if each.startswith(name)]
    if len(close) == 1:
        return close[0]
    if close:
        raise errors.InputError(f"which {name!r}? There are {', '.join(close)}")
    raise FileNotFoundError(
        f"no data set {name!r} is prepared in {root}; there is "
        f"{', '.join(found) or 'none'}. Prepare it: python -m data_builders.prepare "
        f"{name.partition('/')[0]} --data_dir={root}"
    )


def _draw_patch(home: pathlib.Path, split: str, config: str | None) -> np.ndarray:
    """Draws the patch with the most classes of some, or says that there is none."""
    found = _configs(home, "patches_")
    if config and config not in found:
        raise errors.InputError(
            f"--patches={config}: {home.name} is not prepared as that; it is as "
            f"{', '.join(found) or 'no patches'}"
        )
    if not found:
        return contact_sheet.write(["no patches are prepared"], width=400)
    config = config or next(iter(found))
    source = scenes.open_patches(found[config], split)
    spread = np.linspace(0, len(source) - 1, LOOKED_AT).round().astype(int)
    patches = (source[int(index)] for index in np.unique(spread))
    patch: dict[str, Any] = max(patches, key=lambda p: len(np.unique(p["label"])))
    small = next(iter(_configs(home, "overview_").values()), None)
    if small is not None:
        made = overview.open_overviews(small, split)
        patch["overview"] = made.read(patch["scene_id"])
    return contact_sheet.draw_patch(patch, source.info)


def _configs(home: pathlib.Path, start: str = "") -> dict[str, pathlib.Path]:
    """Returns the folders of the prepared layouts whose names start so."""
    folders = sorted(home.glob(f"{start}*/{prepared.VERSION}"))
    return {each.parent.name: each for each in folders if prepared.is_prepared(each)}


class _Parser(argparse.ArgumentParser):
    """Says what was wrong in one line, not after a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = _Parser(
        prog="python -m data_builders.show", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", help="of a prepared data set")
    parser.add_argument("--split", help="default: the first one")
    parser.add_argument("--data_dir", help="default: TFDS_DATA_DIR or TFDS' own")
    parser.add_argument("--count", type=int, default=4, help="scenes; default: 4")
    parser.add_argument("--patches", help="config of the patch, e.g. patches_896_512")
    parser.add_argument("--output", default="sheet.png", help="default: sheet.png")
    args = vars(parser.parse_args(argv))
    output = pathlib.Path(args.pop("output")).expanduser()
    try:
        if output.suffix.lower() != ".png" or not output.parent.is_dir():
            raise errors.InputError(
                f"--output={output}: give a file *.png in a folder that exists"
            )
        sheet = show(args.pop("name"), **args)
        _, coded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        output.write_bytes(coded.tobytes())
    except (errors.InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {sheet.shape[1]} x {sheet.shape[0]} px")
    return 0


if __name__ == "__main__":
    sys.exit(main())
