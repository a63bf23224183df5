"""The stages of a run: which there are, where each one lies, what it starts from.

A method of one stage trains in the run's folder itself. With several, each has a folder
of its own in there, and `stages.json` tells their order.
"""

from __future__ import annotations

import dataclasses
import pathlib

import ml_collections

from uhrjax import config as config_lib
from uhrjax import errors, initialize, methods, report, trained
from uhrjax.data import prepared
from uhrjax.methods import base

DONE = "report.json"  # a stage that has one is finished


@dataclasses.dataclass(frozen=True)
class Planned:
    """One stage of a run."""

    name: str
    folder: pathlib.Path
    config: ml_collections.ConfigDict
    starts: initialize.Starts
    needed: tuple[str, ...]  # stages that must be finished before
    is_only: bool

    @property
    def is_done(self) -> bool:
        """Whether it was trained and scored to the end."""
        return (self.folder / DONE).is_file()


def plan(config: ml_collections.ConfigDict, folder: pathlib.Path) -> list[Planned]:
    """Returns all stages of a config, in order.

    Args:
        config: of the command line.
        folder: of the run.

    Raises:
        errors.InputError: `config.stage` names none of them.
    """
    method = methods.find(config.method)
    stages = _with_refiner(config, method.stages(config))
    names = [stage.name for stage in stages]
    if config.stage and config.stage not in names:
        raise errors.InputError(
            f"config.stage = {config.stage!r}: this recipe has the stages "
            f"{', '.join(names)}, trained in this order ('' trains all of them)"
        )
    if len(stages) == 1:
        return [Planned(names[0], folder, config, (), (), is_only=True)]
    unknown = set(config.stages) - set(names)
    if unknown:
        raise errors.InputError(
            f"config.stages.{sorted(unknown)[0]} belongs to no stage of this recipe, "
            f"which has {', '.join(names)}"
        )
    views = _stored_views(config, stages)
    planned = []
    for stage in stages:
        changes = {"data.views": views, **stage.changes}
        needed = [earlier for _, earlier, _ in stage.start]
        if stage.masks is not None:
            needed.append(stage.masks.stage)
            changes["coarse.run"] = str(folder / stage.masks.stage)
            changes["coarse.epoch"] = stage.masks.epoch
        planned.append(
            Planned(
                stage.name,
                folder / stage.name,
                config_lib.for_stage(config, stage.name, changes),
                tuple(
                    (ours, folder / earlier, theirs)
                    for ours, earlier, theirs in stage.start
                ),
                tuple(dict.fromkeys(needed)),
                is_only=False,
            )
        )
    return planned


def _with_refiner(
    config: ml_collections.ConfigDict, stages: tuple[base.Stage, ...]
) -> tuple[base.Stage, ...]:
    """Appends the training of a network that refines what the last stage labels."""
    if not config.refiner:
        return stages
    last, epoch = stages[-1], config.coarse.epoch
    kept = {"keep_epochs": (epoch,)} if epoch else {}
    last = dataclasses.replace(last, changes={**last.changes, **kept})
    own = config.refiner.to_dict()
    changes = {"model": own.pop("model"), **config_lib.flatten(own)}
    refine = base.Stage("refine", changes, masks=base.Masks(last.name, epoch))
    return (*stages[:-1], last, refine)


def chosen(config: ml_collections.ConfigDict, planned: list[Planned]) -> list[Planned]:
    """Returns the stages that a command trains: all, or `config.stage`.

    Raises:
        errors.InputError: the stage needs one that is not trained yet.
    """
    if not config.stage:
        return planned
    (wanted,) = [stage for stage in planned if stage.name == config.stage]
    absent = [s.name for s in planned if s.name in wanted.needed and not s.is_done]
    if absent:
        raise errors.InputError(
            f"stage {wanted.name!r} starts from {' and '.join(absent)}, not trained to "
            f"the end in {wanted.folder.parent}; first run the same command with "
            f"--config.stage={absent[0]}, or without --config.stage (all, in order)"
        )
    return [wanted]


def write_order(folder: pathlib.Path, planned: list[Planned]) -> None:
    """Writes the names of a run's stages, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(
        folder / trained.ORDER, {"stages": [stage.name for stage in planned]}
    )


def _stored_views(
    config: ml_collections.ConfigDict, stages: tuple[base.Stage, ...]
) -> tuple[str, ...]:
    """Returns the views of all stages, so that one set of patches serves them all."""
    found = {}
    for stage in stages:
        changed = config_lib.for_stage(config, stage.name, stage.changes)
        method = methods.find(changed.method)
        for view in () if method.reads_labels else method.inputs(changed).views:
            found[str(prepared.view_word(view, tile=changed.tile))] = view.scale
    return tuple(sorted(found, key=found.get))
