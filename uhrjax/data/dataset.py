"""One prepared data set as a run sees it: its scenes, patches and overviews."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from uhrjax import errors
from uhrjax.data import grid, overview, pipeline, prepared, scenes
from uhrjax.tiling import view as view_lib


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared data set with the patch grid and the overviews a run asked for."""

    info: prepared.DataInfo
    scenes_dir: pathlib.Path
    patches_dir: pathlib.Path | None  # None: the run cuts windows of scenes
    overview_dir: pathlib.Path | None = None  # None: samples have no overview
    tile: prepared.Side = 0  # px, of a patch
    stride: prepared.Side = 0  # px, of the grid
    spacing: str = "shifted"  # of the grid, of `tiling.window.GRIDS`

    def open_scenes(self, split: str) -> scenes.SceneReader:
        """Opens whole scenes of a split."""
        self.check_split(split)
        return scenes.open_scenes(self.scenes_dir, split)

    def open_patches(
        self, split: str, *, views: Sequence[view_lib.View] | None = None
    ) -> pipeline.Source:
        """Opens the precomputed patches of a split.

        Args:
            split: of the data set.
            views: which of the stored ones; None: all.

        Returns:
            Samples of `scenes.PatchSource`, with `overview` if the run has overviews.
        """
        source = self._open_patches(split, views)
        overviews = self.overviews(split)
        return overview.WithOverview(source, overviews) if overviews else source

    def open_windows(
        self, split: str, *, views: Sequence[view_lib.View]
    ) -> pipeline.RandomWindows:
        """Opens random windows of a split, with `overview` if the run has overviews."""
        return pipeline.RandomWindows(
            self.open_scenes(split), self.tile, tuple(views), self.overviews(split)
        )

    def open_grid(self, split: str, *, views: Sequence[view_lib.View]) -> grid.Grid:
        """Opens the patches of a split scene by scene, stored ones or cut ones."""
        if self.patches_dir is not None:
            return grid.StoredGrid(self._open_patches(split, views))
        return grid.CutGrid(
            self.open_scenes(split), self.tile, self.stride, tuple(views), self.spacing
        )

    def overviews(self, split: str) -> overview.OverviewReader | None:
        """Opens the overviews of a split, None if the run has none."""
        self.check_split(split)
        if self.overview_dir is None:
            return None
        return overview.open_overviews(self.overview_dir, split)

    def open_overviews(self, split: str) -> overview.OverviewSource:
        """Opens the overviews of a split as samples of their own."""
        overviews = self.overviews(split)
        if overviews is None:
            raise errors.InputError(
                "this run learns by overviews (data.unit=overviews), but its method "
                "asks for none; choose another data.unit"
            )
        return overview.OverviewSource(overviews)

    def _open_patches(
        self, split: str, views: Sequence[view_lib.View] | None
    ) -> scenes.PatchSource:
        self.check_split(split)
        if self.patches_dir is None:
            raise errors.InputError(
                "this run uses data.layout=scenes, which has no precomputed patches; "
                "set --config.data.layout=patches (or eval.protocol=scene)"
            )
        words = None
        if views is not None:
            words = [prepared.view_word(view, tile=self.tile) for view in views]
        return scenes.open_patches(self.patches_dir, split, views=words)

    def check_split(self, split: str) -> None:
        """Refuses a split that the data set does not have."""
        if not self.info.scenes.get(split):
            found = {name: len(s) for name, s in self.info.scenes.items()}
            raise errors.InputError(
                f"data set {self.info.name!r} has no scenes in split {split!r}; it has "
                f"{found} (set --config.data.split, .val_split or .train_split)"
            )


def open_dataset(
    data_dir: pathlib.Path,
    name: str,
    *,
    tile: prepared.Side,
    stride: prepared.Side,
    views: Sequence[int | view_lib.View],
    patches: bool,
    spacing: str = "shifted",
    overview: tuple[int, int] | None = None,
) -> Dataset:
    """Finds a prepared data set.

    Args:
        data_dir: root of all prepared data sets.
        name: e.g. `synthetic/objects_tiny`.
        tile: side of a patch, or (height, width), px.
        stride: between patches, px.
        views: as the method states them; of all stages, if a run has several.
        patches: whether the precomputed patches are needed beside the scenes.
        spacing: of the patch grid: "shifted", or "even" as in FCtL and GLNet.
        overview: (height, width) of the overviews that samples need, px; None: none.

    Raises:
        FileNotFoundError: something is not prepared; the message holds the command for
            all of it.
        errors.InputError: the layouts were prepared from different splits.
    """
    wanted = {"scenes": prepared.SCENES}
    if patches:
        wanted["patches"] = prepared.patches_config(
            tile=tile, stride=stride, views=views, spacing=spacing
        )
    if overview:
        height, width = overview
        wanted["overview"] = prepared.overview_config(height=height, width=width)
    located = prepared.locate_all(data_dir, name, *wanted.values())
    found = dict(zip(wanted, located, strict=True))
    info = prepared.read_info(found["scenes"])
    for other in located[1:]:
        if prepared.read_info(other).split_hash != info.split_hash:
            raise errors.InputError(
                f"{other} and {found['scenes']} were prepared from different splits; "
                "prepare both again with --overwrite"
            )
    return Dataset(
        info,
        found["scenes"],
        found.get("patches"),
        found.get("overview"),
        tile,
        stride,
        spacing,
    )
