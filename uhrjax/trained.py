"""A finished run, ready to use: its config, method, best weights and classes."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import ml_collections

from uhrjax import checkpoint, errors, initialize, methods
from uhrjax import config as config_lib
from uhrjax.methods import base


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

    @functools.cached_property
    def weights_hash(self) -> str:
        """16 hex digits that change with any weight."""
        return initialize.weights_hash(self.variables)


def load_run(path: str | pathlib.Path, overrides: list[str] | None = None) -> Trained:
    """Loads the best checkpoint of a run.

    Args:
        path: the run's folder (or one of its checkpoints: then that one).
        overrides: `--config.key=value` arguments, applied to the config it was
            trained with.

    Raises:
        FileNotFoundError: there is no checkpoint.
        errors.InputError: it is damaged, or an override does not fit.
    """
    path = pathlib.Path(path).expanduser()
    step = None
    if path.parent.name == "checkpoints" and path.name.isdigit():
        path, step = path.parent.parent, int(path.name)
    with checkpoint.open_run(path) as store:
        step = store.best if step is None else step
        meta, found = store.meta(step), store.read_variables(step)
        where = store.path(step)
    if not meta.get("classes"):
        raise errors.InputError(
            f"checkpoint {where} names no classes, so its output would have no legend; "
            "train with this version of uhrjax"
        )
    config = config_lib.override(
        config_lib.from_json(meta["config"]), list(overrides or [])
    )
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
    )
