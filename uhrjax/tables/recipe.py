"""A row of a table -> what is trained for it and how that is scored."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from uhrjax import config as config_lib
from uhrjax import stages
from uhrjax.tables import paper as paper_lib

Settings = tuple[tuple[str, str], ...]  # config key -> value, as on a command line


class Step(NamedTuple):
    """A stage of a training."""

    name: str
    is_only: bool
    flat: Mapping[str, Any]  # its config, dotted keys, as report.json has it


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained, whatever the seed."""

    spec: str  # configs/pfnet.py:isaid
    own: Settings = ()  # keys that the row changes
    needs: tuple[tuple[str, Training], ...] = ()  # key -> the run whose folder it names
    stage: str = ""  # that is scored, "": the last
    weights: str = ""  # published ones to start from, "": none

    @property
    def path(self) -> pathlib.Path:
        """The config file."""
        return pathlib.Path(self.spec.partition(":")[0])

    @property
    def name(self) -> str:
        """The name of its folder but for the seed."""
        file, _, words = self.spec.partition(":")
        parts = [pathlib.Path(file).stem, *words.split(",")]
        return "-".join([*parts, *config_lib.slug(self.own)])

    def config(self) -> ml_collections.ConfigDict:
        """Returns the config, checked; raises InputError."""
        flags = [f"--config.{key}={value}" for key, value in self.own]
        return config_lib.from_command(self.spec, flags)

    @property
    def plan(self) -> tuple[Step, ...]:
        """What is trained, in order, up to the stage that is scored."""
        return _plan(self)


@functools.cache
def _plan(training: Training) -> tuple[Step, ...]:
    folder = pathlib.Path("runs") / training.name
    planned = stages.plan(training.config(), folder)
    by_name = {stage.name: stage for stage in planned}
    wanted = [training.stage or planned[-1].name]
    needed: set[str] = set()
    while wanted:
        needed.add(name := wanted.pop())
        wanted += by_name[name].needed
    return tuple(
        Step(own.name, own.is_only, config_lib.flatten(config_lib.to_json(own.config)))
        for own in planned
        if own.name in needed
    )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A row on one data set."""

    training: Training | None = None
    gap: str = ""  # or: what is missing for it
    score: Settings = ()  # keys with which the run is scored once more
    refine: Training | None = None  # whose network refines what it is scored on
    ensemble: tuple[Training, ...] = ()  # or: runs whose mean is scored
    maps: tuple[Training, ...] = ()  # runs of fixed patches that say how wide is right

    @property
    def score_name(self) -> str:
        """The folder, in that of the run, where it is scored once more."""
        words = config_lib.slug(self.score)
        if self.refine is not None:
            words.append(f"refine={self.refine.name}")
        return "-".join(words)


def of_row(paper: paper_lib.Paper, table: str, row: str, dataset: str) -> Recipe | None:
    """Returns how a row is run on a data set, None if it is not."""
    given = paper.how(table, row, dataset)
    if given is None:
        return None
    if "gap" in given:
        return Recipe(gap=given["gap"])
    make = functools.partial(_training, paper, dataset)
    if "ensemble" in given:
        return Recipe(ensemble=tuple(make(name) for name in given["ensemble"]))
    training = make(given["config"], given.get("set", {}), given.get("stage", ""))
    score = dict(given.get("score", {}))
    refine = score.pop("refine", None)
    return _with_file(
        Recipe(
            training,
            score=tuple((key, text_of(value)) for key, value in score.items()),
            refine=refine and make(refine.removeprefix("@")),
            maps=tuple(make(name) for name in given.get("maps", ())),
        )
    )


def _with_file(found: Recipe) -> Recipe:
    """Returns the recipe, or what is missing if its config is."""
    path = found.training.path
    return found if path.is_file() else Recipe(gap=f"{path} does not exist yet")


def _training(
    paper: paper_lib.Paper,
    dataset: str,
    name: str,
    changes: Mapping[str, Any] | None = None,
    stage: str = "",
) -> Training:
    """Returns a training on a data set.

    Args:
        paper: has it in a table.
        dataset: a word of the config.
        name: of the config, with further words: `foveation:gsm`.
        changes: config key -> value, "@NAME" for the run of another config.
        stage: that is scored.
    """
    config, _, words = name.partition(":")
    data = paper.procedural.get(dataset, dataset)
    own, needs = [], []
    for key, value in (changes or {}).items():
        if isinstance(value, str) and value.startswith("@"):
            needs.append((key, _training(paper, dataset, value[1:])))
        else:
            own.append((key, text_of(value)))
    real = dataset not in paper.procedural
    keys = [f"{config}:{word}" for word in (*words.split(","), dataset)] + [config]
    weights = next((paper.weights[key] for key in keys if key in paper.weights), "")
    spec = f"configs/{config}.py:{','.join(filter(None, (data, words)))}"
    return Training(spec, tuple(own), tuple(needs), stage, weights if real else "")


def text_of(value: Any) -> str:
    """Returns a value as it stands on a command line; lists are tuples there."""
    return repr(tuple(value)) if isinstance(value, list) else str(value)
