"""A finished run, ready to use: its config, method, best weights and classes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import ml_collections

from uhrjax import checkpoint, errors, feed, initialize, methods
from uhrjax import config as config_lib
from uhrjax.methods import base

ORDER = "stages.json"  # of a run of several stages: their names, in order
SCORED = "scored"  # folder in a run's: its scores with other settings
OF_MACHINE = (  # settings that change no score
    "data.root", "data.dir", "data.threads", "eval.batch_size", "eval.masks",
    "eval.panels", "mesh.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a checkpoint is, as code can use it."""

    path: pathlib.Path  # of the checkpoint
    step: int
    config: ml_collections.ConfigDict
    method: base.Method
    variables: dict[str, Any]
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    refiner: Trained | None = None  # that refines its label maps
    trained_steps: tuple[int, int] = (0, 0)  # done in its folder, and of how many
    changes: tuple[tuple[str, str], ...] = ()  # settings other than it was trained
    # with, and "checkpoint" -> step if it is not the selected one

    @property
    def score_folder(self) -> pathlib.Path:
        """The run's own folder, or one in it for a score with other settings."""
        told = [pair for pair in self.changes if not pair[0].startswith(OF_MACHINE)]
        folder, name = self.path.parent.parent, "-".join(config_lib.slug(told))
        if len(name) > 100:
            digest = hashlib.sha256(name.encode()).hexdigest()
            name = f"{name[:80]}-{digest[:8]}"
        return folder / SCORED / name if name else folder

    @functools.cached_property
    def weights_hash(self) -> str:
        """16 hex digits that change with any weight."""
        own = initialize.weights_hash(self.variables)
        return own if self.refiner is None else own[:8] + self.refiner.weights_hash[:8]


def load_run(path: str | pathlib.Path, overrides: list[str] | None = None) -> Trained:
    """Loads the best checkpoint of a run, and the network that refines its labels.

    Args:
        path: the run's folder (or one of its checkpoints: then that one); of a run of
            several stages the last one counts, with its refining network if the last
            stage is one.
        overrides: `--config.key=value` arguments, applied to the config it was
            trained with.

    Raises:
        FileNotFoundError: there is no checkpoint.
        errors.InputError: it is damaged, or an override does not fit.
    """
    path = pathlib.Path(path).expanduser()
    order = stage_order(path)
    if not order:
        return _with_refiner(_load(path, overrides))
    absent = [name for name in order if not (path / name / "checkpoints").is_dir()]
    if absent:
        raise FileNotFoundError(
            f"{path} is a run of the stages {', '.join(order)}; {absent[0]} is not "
            "trained yet: run the training command again, or name one stage, e.g. "
            f"--checkpoint={path / order[0]}"
        )
    last = _load(path / order[-1])
    if not last.method.reads_labels:
        return _with_refiner(_load(path / order[-1], overrides))
    return _with_refiner(_load(path / order[-2], overrides), own=last)


def stage_order(folder: pathlib.Path) -> list[str]:
    """Returns the names of a run's stages, none for a run of one."""
    path = folder / ORDER
    return json.loads(path.read_text())["stages"] if path.is_file() else []


def _with_refiner(run: Trained, own: Trained | None = None) -> Trained:
    """Returns the run with what `config.refine` names, by default its own refiner."""
    wanted = run.config.refine
    if wanted == "none" or not (wanted or own):
        return run
    refiner = _load(pathlib.Path(wanted).expanduser()) if wanted else own
    if not (refiner.method.reads_labels or refiner.method.refines):
        raise errors.InputError(
            f"config.refine={wanted!r} is a run of {refiner.config.method}, which "
            "labels images; give a run that refines label maps (see README.md)"
        )
    return dataclasses.replace(run, refiner=refiner)


def _load(path: pathlib.Path, overrides: list[str] | None = None) -> Trained:
    step = None
    if path.parent.name == "checkpoints" and path.name.isdigit():
        path, step = path.parent.parent, int(path.name)
    with checkpoint.open_run(path) as store:
        is_selected = step in (None, store.selected)
        step = store.selected if step is None else step
        meta, found = store.meta(step), store.read_variables(step)
        where, latest = store.path(step), store.latest
    if not meta.get("classes"):
        raise errors.InputError(
            f"checkpoint {where} names no classes, so its output would have no legend; "
            "train with this version of uhrjax"
        )
    given = config_lib.from_json(meta["config"])
    total = feed.total_steps(given, meta.get("epoch_steps", 0))
    before = _settings(given)  # an override changes it in place
    config = config_lib.override(given, list(overrides or []))
    config_lib.check(config)
    method = methods.build(config)
    variables = initialize.fill(method.shapes(), found, only=None, origin=str(where))
    return Trained(
        path=where,
        step=step,
        config=config,
        method=method,
        variables=variables,
        classes=tuple(meta["classes"]),
        colours=tuple(tuple(colour) for colour in meta["colours"]),
        trained_steps=(latest, total),
        changes=(
            *(() if is_selected else (("checkpoint", str(step)),)),
            *(pair for pair in _settings(config).items() if pair not in before.items()),
        ),
    )


def _settings(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns key -> value, as text, sorted."""
    flat = config_lib.flatten(config_lib.to_json(config))
    return {key: str(value) for key, value in sorted(flat.items())}
