"""Names of output files; no input and no stranger's file is ever overwritten."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Sequence

from uhrjax import errors
from uhrjax.data import prepared
from uhrjax.output import options as options_lib


def distinct_names(paths: Sequence[str | os.PathLike]) -> list[str]:
    """Returns one scene id per input file, no two of which share output names.

    The id is the file's stem; where stems meet (`a.tif`, `a.png`) it keeps the ending
    (`a_tif`), where whole names meet, the folders that tell them apart.
    """
    files = [pathlib.Path(path) for path in paths]
    names = [file.stem for file in files]
    deepest = max((len(file.parts) for file in files), default=0)
    for parts in range(1, deepest + 3):
        seen = collections.Counter(name.casefold() for name in names)
        shared = [seen[name.casefold()] > 1 for name in names]
        if not any(shared):
            return names
        names = [
            _with_folders(file, parts) if is_shared else name
            for file, name, is_shared in zip(files, names, shared, strict=True)
        ]
    raise errors.InputError(
        f"the inputs hold {files[shared.index(True)]} twice, or another file whose "
        "outputs would have the same names; give each its own output folder"
    )


def _with_folders(file: pathlib.Path, parts: int) -> str:
    kept = [part for part in file.parts[-parts:] if part != file.anchor]
    kept[-1] = f"{file.stem}_{file.suffix.removeprefix('.')}".rstrip("_")
    return "_".join(kept)


def stem_of(scene: prepared.SceneInfo) -> str:
    """Returns the common beginning of a scene's file names."""
    stem = prepared.file_stem(scene.id)
    if not stem or stem.startswith("."):
        raise errors.InputError(
            f"scene id {scene.id!r} gives no file name; use one that is not empty and "
            "does not start with a dot"
        )
    return stem


def plan_files(
    scene: prepared.SceneInfo, options: options_lib.OutputOptions
) -> dict[str, str]:
    """Returns the file names of a scene by kind; `labels` comes first."""
    stem = stem_of(scene)
    ending = ".tif" if options_lib.writes_tiff(scene, options) else ".png"
    files = {"labels": stem + ending}
    if options.probabilities:
        files["probabilities"] = f"{stem}_probabilities.tif"
    if options.uncertainty:
        files["uncertainty"] = f"{stem}_uncertainty.tif"
    if options.overlay:
        files["overlay"] = f"{stem}_overlay.png"
    if options.polygons:
        files["polygons"] = f"{stem}.{options.polygons}"
    return files


def refuse_input(paths: Sequence[pathlib.Path], source: pathlib.Path | None) -> None:
    """Raises if one of the files to write is the input itself, links followed."""
    if source is None:
        return
    for path in paths:
        same = os.path.realpath(path) == os.path.realpath(source)
        if not same and path.exists() and source.exists():
            same = os.path.samefile(path, source)  # hard links, case-blind disks
        if same:
            raise errors.InputError(
                f"the output {path} would overwrite the input; choose another output "
                "folder"
            )
