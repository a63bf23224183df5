"""The commands that make rows, in order, and running those that are not done."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from uhrjax import errors
from uhrjax.tables import paper as paper_lib
from uhrjax.tables import recipe as recipe_lib
from uhrjax.tables import result, share

WEIGHT_FILES = (".safetensors", ".npz", ".pth")


class Job(NamedTuple):
    """One command."""

    module: str
    arguments: tuple[str, ...]
    makes: pathlib.Path  # there when it is done
    trains: tuple[recipe_lib.Training, int, pathlib.Path] | None = None  # seed, folder

    def text(self) -> str:
        """Returns the command as a user types it."""
        given = list(self.arguments)
        if self.module == "uhrjax.main" and given[0].startswith("--config="):
            words = ["./launch.sh", given.pop(0).removeprefix("--config=")]
        else:
            words = ["python", "-m", self.module]
        return shlex.join([*words, *given])


class Planner:
    """Which commands rows still need."""

    def __init__(
        self,
        runs: Sequence[result.Run],
        folder: pathlib.Path,
        *,
        weights: str = "",
        extra: Sequence[str] = (),
    ):
        """Plans nothing yet.

        Args:
            runs: that are finished.
            folder: where new ones go.
            weights: folder of published weights, "": none.
            extra: `--config.key=value` arguments for every training.
        """
        self._runs, self._folder = runs, folder
        self._weights, self._extra = weights, tuple(extra)
        self._jobs: dict[tuple[str, ...], Job] = {}  # by its words, each once
        self.lacking: dict[str, None] = {}  # published weights that none are given for

    @property
    def jobs(self) -> list[Job]:
        """What was added, in order."""
        return list(self._jobs.values())

    def add(self, recipe: recipe_lib.Recipe, seed: int) -> None:
        """Adds what a row needs with one seed and is not done."""
        if recipe.ensemble:
            places = [self._train_last(own, seed) for own in recipe.ensemble]
            made = places[0] / result.SCORED / "ensemble"
            given = f"--runs={','.join(map(str, places))}"
            self._add("uhrjax.foveate", ("ensemble", given, f"--output={made}"), made)
        if recipe.training is None:
            return
        place = self._train(recipe.training, seed)
        if recipe.score_name:
            self._score(recipe, seed)
        if recipe.maps:
            fixed = [self._train_last(training, seed) for training in recipe.maps]
            made = place / "maps"
            given = (f"--checkpoint={place}", f"--runs={','.join(map(str, fixed))}")
            self._add(
                "uhrjax.foveate", ("map", *given, f"--output={made}"), made,
                made / "foveation.json",
            )  # fmt: skip

    def _train(self, training: recipe_lib.Training, seed: int) -> pathlib.Path:
        """Adds a training unless there is such a run; returns its folder."""
        for one in result.of_training(training, self._runs):
            if one.seed == seed and not one.apart and not self._extra:
                return one.folder
        place = self._folder / f"{training.name}-seed{seed}"
        given = [f"--config={training.spec}", f"--workdir={place}"]
        given += [f"--config.seed={seed}"]
        given += [f"--config.{key}={value}" for key, value in training.own]
        for key, needed in training.needs:
            given.append(f"--config.{key}={self._train(needed, seed)}")
        if training.stage:
            given.append(f"--config.stage={training.stage}")
        if training.weights and self._weights:
            given.append(f"--config.init_from={self._find(training.weights)}")
        elif training.weights:
            self.lacking[training.weights] = None
        last = training.plan[-1]
        made = place if last.is_only else place / last.name
        # With further keys a stage is not what the row says.
        trains = None if self._extra else (training, seed, place)
        self._add("uhrjax.main", (*given, *self._extra), made, trains=trains)
        return place

    def _train_last(self, training: recipe_lib.Training, seed: int) -> pathlib.Path:
        """Adds a training if there is none; returns the folder of its last stage."""
        place, last = self._train(training, seed), training.plan[-1]
        return place if last.is_only else place / last.name

    def _score(self, recipe: recipe_lib.Recipe, seed: int) -> None:
        """Adds one more scoring of a run, kept in a folder of its own."""
        source = self._train_last(recipe.training, seed)
        made = source / result.SCORED / recipe.score_name
        given = ["--mode=evaluate", f"--checkpoint={source}", f"--output={made}"]
        given += [f"--config.{key}={value}" for key, value in recipe.score]
        if recipe.refine is not None:
            given.append(f"--config.refine={self._train(recipe.refine, seed)}")
        self._add("uhrjax.main", tuple(given), made)

    def _add(
        self,
        module: str,
        arguments: tuple[str, ...],
        made: pathlib.Path,
        file: pathlib.Path | None = None,
        trains: tuple[recipe_lib.Training, int, pathlib.Path] | None = None,
    ) -> None:
        file = file or made / result.REPORT
        if not file.is_file():
            job = Job(module, arguments, file, trains)
            self._jobs.setdefault((module, *arguments), job)

    def _find(self, name: str) -> pathlib.Path:
        """Returns the file of published weights."""
        folder = pathlib.Path(self._weights).expanduser()
        for ending in WEIGHT_FILES:
            if (path := folder / f"{name}{ending}").is_file():
                return path
        raise errors.InputError(
            f"--weights={self._weights} has no {name} with one of "
            f"{', '.join(WEIGHT_FILES)}; put the file there, or leave --weights out to "
            "start from random weights (then no row equals the paper's)"
        )


def plan(
    papers: Sequence[tuple[paper_lib.Paper, str]],
    datasets: Sequence[str],
    seeds: Sequence[int],
    planner: Planner,
) -> list[Job]:
    """Returns the commands of tables that are not done, each once, in order.

    Args:
        papers: (paper, table) pairs.
        datasets: words of configs; (): the tables' own, or else the procedural ones.
        seeds: of the runs.
        planner: knows what is done.
    """
    for paper, table in papers:
        for dataset in datasets or paper.datasets_of(table) or paper.columns:
            for row in paper.rows[table]:
                printed = paper.printed(table, row, dataset)
                if dataset in paper.datasets and not printed:
                    continue
                recipe = recipe_lib.of_row(paper, table, row, dataset)
                for seed in seeds if recipe else ():
                    planner.add(recipe, seed)
    return planner.jobs


def run(jobs: Sequence[Job], folder: pathlib.Path) -> int:
    """Runs commands one after the other; returns 1 if some failed, else 0.

    A command that fails does not keep the others from running; one that was asked to
    stop does. Stages that a run in the folder has finished are not trained again.
    """
    failed = []
    for number, job in enumerate(jobs):
        if job.makes.is_file():  # an earlier one made it, too
            continue
        print(f"\n[{number + 1} of {len(jobs)}] {job.text()}", flush=True)
        if job.trains:
            share.take(*job.trains, result.scan(folder))
        argv = [sys.executable, "-m", job.module, *job.arguments]
        code = subprocess.run(argv, check=False).returncode
        if code in (130, -2, -15) or (code == 0 and not job.makes.is_file()):
            print("\nstopped; the same command goes on")
            return 1
        if code:
            failed.append(job)
    for job in failed:
        print(f"failed: {job.text()}")
    return 1 if failed else 0
