"""Finished runs on the disk -> what a row gave, and whether it is the row at all.

A run counts for a row if the configs of all its stages are the row's, whatever folder
it lies in. One with the row's network but another split, protocol, length or the like
is found, too, with what is different.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from uhrjax import config as config_lib
from uhrjax import trained
from uhrjax.tables import recipe as recipe_lib

REPORT, CONFIG, SCORED = "report.json", "config.json", trained.SCORED
# Neither changes what is learned, nor what a score says.
NO_MATTER = (
    "seed", "stage", "stages", "refiner", "checkpoint_every", "log_every", "remat",
    "keep_epochs", "data.root", "data.dir", "data.threads", "data.views", "eval.panels",
    "eval.masks", "eval.at_start", "eval.batch_size", "eval.boundary", "predict.",
    "coarse.run", "coarse.masks", "init_from", "mesh.", "refine",
)  # fmt: skip
NETWORK = ("method", "model", "segmenter", "magnet")
# Of splits that everybody makes the same way; of others the rows are compared.
SPLIT_HASHES = {
    "synthetic/objects_tiny": "9790550db23d",
    "synthetic/landcover_tiny": "2753c8c28922",
    "synthetic/landcover_many": "d17bb84fcb55",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A training on the disk with its finished stages."""

    folder: pathlib.Path
    reports: Mapping[str, Mapping[str, Any]]  # stage -> report.json, "": no stages

    def report(self, planned: recipe_lib.Step) -> Mapping[str, Any] | None:
        """Returns the report of a planned stage, None if it is not finished."""
        return self.reports.get("" if planned.is_only else planned.name)


@dataclasses.dataclass(frozen=True)
class Scored:
    """A score of a run that belongs to a row."""

    seed: int
    folder: pathlib.Path  # of the run
    report: Mapping[str, Any]
    where: pathlib.Path  # of the report
    apart: tuple[str, ...] = ()  # how it differs from the row; none: it is the row


def scan(folder: pathlib.Path) -> list[Run]:
    """Returns all runs below a folder that finished a stage, sorted."""
    found = []
    for place, below, files in os.walk(folder):
        path = pathlib.Path(place)
        if trained.ORDER in files:
            names = trained.stage_order(path)
            reports = {n: read_json(path / n / REPORT) for n in names}
        elif CONFIG in files and REPORT in files:
            reports = {"": read_json(path / REPORT)}
        else:
            below[:] = sorted(set(below) - {SCORED, "checkpoints", "masks", "panels"})
            continue
        below.clear()
        reports = {name: own for name, own in reports.items() if own is not None}
        if reports:
            found.append(Run(path, reports))
    return sorted(found, key=lambda run: str(run.folder))


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns what a file holds, None where there is none or half of one."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def find(recipe: recipe_lib.Recipe, runs: Sequence[Run]) -> list[Scored]:
    """Returns what the runs say about a row, one score per seed and difference."""
    if recipe.ensemble:
        found = _ensembles(recipe, runs)
    elif recipe.training is None:
        return []
    else:
        found = (
            _scored(recipe, base, runs) for base in of_training(recipe.training, runs)
        )
    newest: dict[Any, Scored] = {}
    for one in sorted(
        (one for one in found if one is not None), key=lambda s: s.report["finished"]
    ):
        newest[one.seed, one.apart] = one
    return sorted(newest.values(), key=lambda one: (len(one.apart), one.seed))


def of_training(training: recipe_lib.Training, runs: Sequence[Run]) -> Iterator[Scored]:
    """Yields the runs with a training's network, with their differences."""
    for run in runs:
        apart = differences(training, run, runs)
        if apart is not None:
            last = training.plan[-1]
            report = run.report(last)
            folder = run.folder if last.is_only else run.folder / last.name
            seed = report["config"]["seed"]
            yield Scored(seed, run.folder, report, folder, tuple(apart))


def differences(
    training: recipe_lib.Training, run: Run, runs: Sequence[Run]
) -> list[str] | None:
    """Returns how a run differs from a row's training; None: it has nothing to do."""
    own = {key for key, _ in training.own}
    for planned in training.plan:
        report = run.report(planned)
        if report is None or not _same_network(planned, report, own):
            return None
    apart = []
    for planned in training.plan:
        apart += of_stage(planned, run.report(planned))
    apart += of_weights(training, run)
    last = config_lib.flatten(run.report(training.plan[-1])["config"])
    for key, needed in training.needs:
        if not _is_run_of(needed, last.get(key, ""), runs):
            apart.append(f"{key}: {last.get(key)!r} is no run of {needed.spec}")
    return list(dict.fromkeys(apart))


def of_stage(planned: recipe_lib.Step, report: Mapping[str, Any]) -> list[str]:
    """Returns how a finished stage differs from a planned one."""
    return [
        *_of_configs(planned.flat, config_lib.flatten(report["config"])),
        *_of_split(report),
        *_of_steps(report),
    ]


def _same_network(
    planned: recipe_lib.Step, report: Mapping[str, Any], own: set[str]
) -> bool:
    """Whether a stage has the network, the row's own keys and the data of a row."""
    ours, theirs = planned.flat, config_lib.flatten(report["config"])
    if _kind(ours["data.name"]) != _kind(theirs["data.name"]):
        return False
    return all(
        theirs.get(key, value) == value
        for key, value in ours.items()
        if key.split(".")[0] in NETWORK or key in own
    )


def _kind(name: str) -> str:
    """Returns what a prepared data set shows, whatever its protocol or size."""
    if name.startswith("synthetic/"):
        return name.partition("_")[0]
    return name.replace("/", "-").partition("-")[0]


def _of_configs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns `key: the row's -> the run's`, of keys that the run's version knows."""
    return [
        f"{key}: {value!r} -> {theirs[key]!r}"
        for key, value in sorted(ours.items())
        if key in theirs and theirs[key] != value and not key.startswith(NO_MATTER)
    ]


def _of_split(report: Mapping[str, Any]) -> list[str]:
    found = report["split_hash"][:12]
    known = SPLIT_HASHES.get(report["data"], found)
    return [] if found == known else [f"another split of {report['data']}: {found}"]


def _of_steps(report: Mapping[str, Any]) -> list[str]:
    done, of = report.get("trained_steps", (0, 0))
    return [f"stopped after {done} of {of} steps"] if done < of else []


def of_weights(training: recipe_lib.Training, run: Run) -> list[str]:
    """Compares where the first stage's weights come from."""
    first = run.report(training.plan[0])["config"].get("init_from", "")
    if training.weights and not first:
        return [f"from random weights, not {training.weights}"]
    if first and not training.weights:
        return [f"from weights of {pathlib.Path(first).name}"]
    return []


def _is_run_of(training: recipe_lib.Training, folder: str, runs: Sequence[Run]) -> bool:
    """Whether a folder holds a run of a training, or of its scored stage."""
    place = pathlib.Path(folder).resolve()
    return any(
        place in (one.folder.resolve(), one.where.resolve()) and not one.apart
        for one in of_training(training, runs)
    )


def _scored(
    recipe: recipe_lib.Recipe, base: Scored, runs: Sequence[Run]
) -> Scored | None:
    """Returns the score of a run that the row is about, None if it has none yet."""
    if recipe.maps:
        found = read_json(base.folder / "maps" / "foveation.json")
        if found is None:
            return None
        return dataclasses.replace(base, report={**base.report, "maps": found})
    if not recipe.score_name:
        return base
    where = base.where / SCORED / recipe.score_name
    report = read_json(where / REPORT)
    if report is None or report["weights_hash"][:8] != base.report["weights_hash"][:8]:
        return None
    flat = config_lib.flatten(report["config"])
    apart = [
        f"{key}: {value} -> {flat.get(key)!r}"
        for key, value in recipe.score
        if recipe_lib.text_of(flat.get(key)) != value
    ]
    if recipe.refine and not _is_run_of(recipe.refine, flat["refine"], runs):
        apart.append(f"refine: {flat['refine']!r} is no run of {recipe.refine.spec}")
    return dataclasses.replace(
        base, report=report, where=where, apart=(*base.apart, *apart)
    )


def _ensembles(
    recipe: recipe_lib.Recipe, runs: Sequence[Run]
) -> Iterator[Scored | None]:
    """Yields ensembles beside the first of their runs, where all runs are the row's."""
    members = [
        {one.seed: one for one in of_training(training, runs) if not one.apart}
        for training in recipe.ensemble
    ]
    for seed, first in members[0].items():
        where = first.where / SCORED / "ensemble"
        report = read_json(where / REPORT)
        if report is not None and all(seed in own for own in members):
            yield Scored(seed, first.folder, report, where)
