"""Several networks that label scenes together: the mean of their probabilities.

Foveation's ensemble (Sec. 4.2 of https://arxiv.org/abs/2007.15124) is that of one
network per patch size; each labels the whole scene first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from uhrjax import canvas as canvas_lib
from uhrjax import engine as engine_lib
from uhrjax import errors, foveal, inference, trained
from uhrjax.data import band as band_lib
from uhrjax.tiling import window as window_lib


class EnsembleEngine:
    """Labels scenes as `inference.Engine` does; its variables are those of each."""

    def __init__(self, engines: Mapping[str, foveal.FovealEngine]):
        """Joins engines that know the same classes, name -> engine."""
        self._engines = dict(engines)
        self.settings = {name: engine.settings for name, engine in engines.items()}

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many locations all of them run."""
        return sum(engine.count_windows(scene) for engine in self._engines.values())

    def cost(self, height: int, width: int) -> foveal.Cost:
        """Returns what labelling a scene takes."""
        costs = [engine.cost(height, width) for engine in self._engines.values()]
        return foveal.Cost(*(sum(parts) for parts in zip(*costs, strict=True)))

    def label(
        self,
        variables: Mapping[str, Any],
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields the labels of a scene, see `inference.Engine.label`."""
        total: Any = 0
        for name, engine in self._engines.items():
            rows = engine.label(variables[name], scene, on_windows=on_windows)
            total = total + np.concatenate([part.probabilities for part in rows])
        labels = total[first_row:].argmax(-1).astype(np.uint8)
        place = window_lib.Window(first_row, 0, *labels.shape)
        valid = scene.read_valid(place)
        if valid is not None:
            labels[~valid] = canvas_lib.UNSEEN
        likely = (total[first_row:] / len(self._engines)).astype(np.float32)
        yield inference.Rows(first_row, labels, likely, {})


def join(runs: Sequence[trained.Trained]) -> tuple[trained.Trained, EnsembleEngine]:
    """Returns runs as one, and the engine that takes its variables.

    Args:
        runs: of Foveation, on the same classes.

    Raises:
        errors.InputError: they cannot label together.
    """
    first = runs[0]
    for run in runs:
        if not run.method.whole_scenes:
            raise errors.InputError(
                f"{run.path} is a run of {run.config.method}; an ensemble is made of "
                "runs of foveation"
            )
        if run.classes != first.classes:
            raise errors.InputError(
                f"{run.path} knows other classes than {first.path}; give runs that "
                "were trained on the same data"
            )
    names = [str(run.path) for run in runs]
    engines = {
        name: engine_lib.make_engine(run.method, run.config, probabilities=True)
        for name, run in zip(names, runs, strict=True)
    }
    variables = {name: run.variables for name, run in zip(names, runs, strict=True)}
    config = first.config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.at_start = False  # of several networks, which would that be?
    together = trained.Trained(
        path=first.path.parent, step=first.step, config=config, method=first.method,
        variables=variables, classes=first.classes, colours=first.colours,
    )  # fmt: skip
    return together, EnsembleEngine(engines)
