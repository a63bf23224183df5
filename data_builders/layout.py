"""The layouts a data set is written in, each named by what is in it.

- `scenes`: whole scenes as lossless tiles;
- `patches_<tile>_<stride>[_even][_v<views>]`: a patch pyramid on a grid;
- `overview_<height>x<width>`: every scene made small, once, by Pillow's rule.
Views are named in `uhrjax/data/prepared.py`: 2 (mean of 2 x 2), p3 and p762px (Pillow),
b2 (bilinear, no antialiasing), p3s (moved inside the scene), p3r (mirrored). Patches
that are not square are named by height and width: patches_128x256_128x256.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from data_builders import base
from uhrjax import errors
from uhrjax.data import prepared
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as windows

# Side in px of the tiles in which whole scenes are stored. Random windows of 512 px are
# read 1.6 times as fast as from tiles of 512 px, at the same size on disk.
STORED_TILE = 256
PATCHES = re.compile(r"patches_(\d+(?:x\d+)?)_(\d+(?:x\d+)?)(_even)?(?:_v([^_]+))?")
OVERVIEW = re.compile(r"overview_(\d+)x(\d+)")


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Whole scenes."""

    config = prepared.SCENES

    def count(self, scene: base.RawScene) -> int:
        """Returns the number of records of a scene."""
        rows, columns = scene.height / STORED_TILE, scene.width / STORED_TILE
        return math.ceil(rows) * math.ceil(columns)


@dataclasses.dataclass(frozen=True)
class PatchGrid:
    """The grid of a patch pyramid."""

    tile: windows.Side  # px
    stride: windows.Side  # px
    views: tuple[view_lib.View, ...] = (view_lib.View(),)  # smallest field first
    spacing: str = "shifted"  # or "even": of `windows.GRIDS`
    small: str = "pad"

    @property
    def words(self) -> tuple[int | str, ...]:
        """The names of the views."""
        return tuple(prepared.view_word(view, tile=self.tile) for view in self.views)

    @property
    def config(self) -> str:
        """The name of the layout."""
        return prepared.patches_config(
            tile=self.tile, stride=self.stride, views=self.views, spacing=self.spacing
        )

    def windows_of(self, scene: base.RawScene) -> list[windows.Window]:
        """Returns the windows of a scene in reading order."""
        if self.resizes(scene):
            return [windows.Window(0, 0, scene.height, scene.width)]
        return windows.plan_windows(
            scene.height,
            scene.width,
            tile=self.tile,
            stride=self.stride,
            spacing=self.spacing,
        )

    def resizes(self, scene: base.RawScene) -> bool:
        """Says whether a scene is stretched to one patch instead of being cut."""
        height, width = windows.sides(self.tile)
        return self.small == "resize" and (
            scene.height <= height or scene.width <= width
        )

    def count(self, scene: base.RawScene) -> int:
        """Returns the number of records of a scene."""
        return len(self.windows_of(scene))


@dataclasses.dataclass(frozen=True)
class Overview:
    """Every scene made small."""

    height: int  # px
    width: int  # px

    @property
    def config(self) -> str:
        """The name of the layout."""
        return prepared.overview_config(height=self.height, width=self.width)

    def count(self, scene: base.RawScene) -> int:
        """Returns the number of records of a scene."""
        return 1


Layout = Tiles | PatchGrid | Overview


def choose(
    builder: base.Builder,
    configs: Sequence[str],
    *,
    tile: int | None,
    stride: int | None,
    views: Sequence[prepared.ViewName],
) -> list[Layout]:
    """Returns the layouts that were asked for, each once.

    Args:
        builder: of the data set; its pyramids have names of their own.
        configs: of `scenes`, `patches`, `patches_<method>` and the names above.
        tile: of `patches`, px; None: the builder's.
        stride: of `patches`, px; None: the builder's, or half a tile.
        views: of `patches`, or their words.

    Raises:
        errors.InputError: such a layout cannot be made.
    """
    chosen: list[Layout] = []
    for config in configs:
        if config == prepared.SCENES:
            chosen.append(Tiles())
        elif config == "patches":
            chosen.append(_plain_grid(builder, tile, stride, views))
        else:
            alias = builder.pyramids.get(config.removeprefix("patches_"), (config,))
            chosen += [_parse(builder, name) for name in alias]
    if not chosen:
        raise errors.InputError(f"no configs given; choose from {_known(builder)}")
    return list({layout.config: layout for layout in chosen}.values())


def _known(builder: base.Builder) -> str:
    named = [f"patches_{method}" for method in builder.pyramids]
    return ", ".join(
        [
            prepared.SCENES,
            "patches",
            *named,
            "patches_508_388_v1-p3",
            "overview_508x508",
        ]
    )


def _parse(builder: base.Builder, name: str) -> Layout:
    if found := OVERVIEW.fullmatch(name):
        height, width = map(int, found.groups())
        if not height or not width:
            raise errors.InputError(f"{name}: an overview has at least 1 x 1 px")
        return Overview(height, width)
    if found := PATCHES.fullmatch(name):
        tile, stride, even, words = found.groups()
        return _check_grid(
            builder,
            prepared.parse_side(tile),
            prepared.parse_side(stride),
            words.split("-") if words else (1,),
            "even" if even else "shifted",
        )
    raise errors.InputError(
        f"unknown config {name!r} of {builder.name}; choose from {_known(builder)} "
        "(the last two stand for any numbers, see data_builders/layout.py)"
    )


def _plain_grid(
    builder: base.Builder,
    tile: int | None,
    stride: int | None,
    views: Sequence[prepared.ViewName],
) -> PatchGrid:
    if stride is None:
        stride = builder.default_stride if tile is None else max(tile // 2, 1)
    tile = builder.default_tile if tile is None else tile
    return _check_grid(builder, tile, stride, views, "shifted")


def _check_grid(
    builder: base.Builder,
    tile: windows.Side,
    stride: windows.Side,
    words: Sequence[prepared.ViewName],
    spacing: str,
) -> PatchGrid:
    size, steps = prepared.side_word(tile), prepared.side_word(stride)
    for side, step in zip(windows.sides(tile), windows.sides(stride), strict=True):
        if side < 1:
            raise errors.InputError(f"patches of {size} px; use --tile >= 1")
        if not 0 < step <= side:
            raise errors.InputError(
                f"patches of {size} px at a stride of {steps} px leave gaps; use "
                f"1 <= stride <= {side}"
            )
    views = tuple(prepared.parse_view(word, tile=tile) for word in words)
    scales = [view.scale for view in views]
    if not scales or scales != sorted(set(scales)):
        raise errors.InputError(
            f"views {','.join(map(str, words))}: give rising scales >= 1, e.g. 1,2,4"
        )
    if builder.small == "resize" and scales != [1]:
        raise errors.InputError(
            f"{builder.name} stretches small scenes to one patch, which has no wider "
            "views; use --views=1, or cut the views from config scenes"
        )
    return PatchGrid(tile, stride, views, spacing, builder.small)
