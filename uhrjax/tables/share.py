"""Stages that a row has in common with runs on the disk: they are trained once."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Sequence

from uhrjax.tables import recipe as recipe_lib
from uhrjax.tables import result


def take(
    training: recipe_lib.Training,
    seed: int,
    place: pathlib.Path,
    runs: Sequence[result.Run],
) -> tuple[str, ...]:
    """Copies the first stages of a training from a run that has the same ones.

    A stage is the same if its config, split and seed are, and those of all before it.
    One that has begun in `place` is left alone, as are all behind it.

    Args:
        training: of several stages, or of one (then nothing is done).
        seed: of the run.
        place: its folder, new or not.
        runs: that finished a stage.

    Returns:
        The names of the stages that were copied.
    """
    wanted = training.plan[:-1]
    begun = [i for i, step in enumerate(wanted) if (place / step.name).exists()]
    if begun or not wanted or place.exists():
        return ()
    best: tuple[int, pathlib.Path | None] = (0, None)
    for run in runs:
        count = _common(training, seed, run)
        if count > best[0]:
            best = (count, run.folder)
    count, folder = best
    copied = tuple(step.name for step in wanted[:count])
    for name in copied:
        # Under another name until it is whole: half a stage would look finished.
        half = place / f"{name}.partial"
        shutil.copytree(folder / name, half)
        half.rename(place / name)
    if copied:
        print(f"stages       {', '.join(copied)} are those of {folder}")
    return copied


def _common(training: recipe_lib.Training, seed: int, run: result.Run) -> int:
    """Returns how many of the first stages a run has in common with a training."""
    count = 0
    for step in training.plan[:-1]:
        report = run.report(step)
        if report is None or report["config"]["seed"] != seed:
            break
        if result.of_stage(step, report) or result.of_weights(training, run):
            break
        if not (run.folder / step.name / "checkpoints").is_dir():
            break
        count += 1
    return count
