"""One prepared data set as a run sees it: its description, scenes and patches."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import view as view_lib


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared data set with the patch grid a run asked for."""

    info: prepared.DataInfo
    scenes_dir: pathlib.Path
    patches_dir: pathlib.Path | None  # None: the run cuts random windows of scenes

    def open_scenes(self, split: str) -> scenes.SceneReader:
        """Opens whole scenes of a split."""
        self.check_split(split)
        return scenes.open_scenes(self.scenes_dir, split)

    def open_patches(self, split: str) -> scenes.PatchSource:
        """Opens the precomputed patches of a split."""
        self.check_split(split)
        if self.patches_dir is None:
            raise errors.InputError(
                "this run uses data.layout=scenes, which has no precomputed patches; "
                "set --config.data.layout=patches (or eval.protocol=scene)"
            )
        return scenes.open_patches(self.patches_dir, split)

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
    tile: int,
    stride: int,
    views: Sequence[int | view_lib.View],
    patches: bool,
) -> Dataset:
    """Finds a prepared data set.

    Args:
        data_dir: root of all prepared data sets.
        name: e.g. `synthetic/objects_tiny`.
        tile: side of a patch, px.
        stride: between patches, px.
        views: as the method states them.
        patches: whether the precomputed patches are needed beside the scenes.

    Raises:
        FileNotFoundError: something is not prepared; the message holds the command.
        errors.InputError: scenes and patches were prepared from different splits.
    """
    wanted = [prepared.SCENES]
    if patches:
        wanted.append(prepared.patches_config(tile=tile, stride=stride, views=views))
    scenes_dir, *rest = prepared.locate_all(data_dir, name, *wanted)
    info, patches_dir = prepared.read_info(scenes_dir), None
    if rest:
        (patches_dir,) = rest
        if prepared.read_info(patches_dir).split_hash != info.split_hash:
            raise errors.InputError(
                f"{patches_dir} and {scenes_dir} were prepared from different splits; "
                "prepare both again with --overwrite"
            )
    return Dataset(info, scenes_dir, patches_dir)
