"""The engine that a config describes, for evaluation and prediction alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from uhrjax import (
    cascade,
    dense_crf,
    errors,
    foveal,
    host_memory,
    inference,
    output,
    refine,
    stepwise,
)
from uhrjax import config as config_lib
from uhrjax.methods import base
from uhrjax.tiling import plan

CPU_PIXELS = 1 << 20  # per program call
OUTPUT_FIELDS = tuple(field.name for field in dataclasses.fields(output.OutputOptions))


def output_options(config: ml_collections.ConfigDict) -> output.OutputOptions:
    """Returns which files `config.predict` asks for."""
    settings = config.predict.to_dict()
    return output.OutputOptions(**{name: settings[name] for name in OUTPUT_FIELDS})


def windows_per_call(config: ml_collections.ConfigDict) -> int:
    """Returns how many windows one program call labels, before devices round it up."""
    if config.eval.batch_size:
        return config.eval.batch_size
    wanted = config.batch_size
    if config.data.unit == "resident":
        wanted *= config.locations.per_step
    elif config.data.unit != "patches":  # a batch counts scenes
        wanted = config.sub_batch or CPU_PIXELS // config.tile**2
    if jax.default_backend() == "cpu":
        # More pixels at once make a CPU no faster and cost memory.
        wanted = min(wanted, CPU_PIXELS // config.tile**2)
    return max(wanted, 1)


def refuse_probabilities(refiner: Any) -> None:
    """Raises the InputError of who asks for what CascadePSP does not have."""
    raise errors.InputError(
        f"{refiner.path} refines labels, of which there are no probabilities; "
        "leave config.predict.probabilities and .uncertainty empty, or set "
        "--config.refine=none"
    )


Engine = (
    inference.Engine
    | foveal.FovealEngine
    | stepwise.StepwiseEngine
    | refine.RefinedEngine
    | refine.CascadedEngine
    | refine.TwoPassEngine
)


def make_engine(
    method: base.Method,
    config: ml_collections.ConfigDict,
    *,
    refiner: Any = None,
    **changes: Any,
) -> Engine:
    """Returns the engine that a config describes (eval.stride, .blend, ...).

    Args:
        method: built from the config.
        config: of the run.
        refiner: a `trained.Trained` that refines the labels, or None.
        **changes: fields of `plan.Tiling` that differ; for methods that label whole
            scenes of `foveal.Options`, or `progressive.Options` and "fast".

    Raises:
        errors.InputError: the refiner does not go with the config.
    """
    host_memory.return_freed_arrays()
    if method.whole_scenes:
        return _make_foveal(method, config, refiner, changes)
    if method.progressive:
        return _make_stepwise(method, config, refiner, changes)
    tiling, space = _tiling(config, changes), config_lib.space(config)
    if refiner is None:
        return inference.Engine(method, tiling, space)
    own = refiner.config
    if refiner.method.refines:
        if tiling.probabilities:
            refuse_probabilities(refiner)
        return _cascade(inference.Engine(method, tiling, space), config, refiner)
    if own.tile != tiling.tile:
        raise errors.InputError(
            f"{refiner.path} refines windows of {own.tile} px, the scenes are labelled "
            f"in windows of {tiling.tile} px; use a refiner trained with --config.tile="
            f"{tiling.tile}, or --config.refine=none"
        )
    first = dataclasses.replace(tiling, probabilities=False)
    second = dataclasses.replace(
        tiling, blend=own.eval.blend, score=own.eval.score, tta=False
    )
    return refine.RefinedEngine(
        inference.Engine(method, first, space),
        inference.Engine(refiner.method, second, space),
        refiner.variables,
    )


def _tiling(config: ml_collections.ConfigDict, changes: dict[str, Any]) -> plan.Tiling:
    """Returns how windows cover a scene, a batch for every device alike."""
    fields = {
        "tile": config.tile,
        "stride": config.eval.stride,
        "batch_size": windows_per_call(config),
        "blend": config.eval.blend,
        "score": config.eval.score,
        "grid": config.grid,
        "border": config.predict.border,
        "tta": config.predict.tta,
        "probabilities": output_options(config).needs_probabilities,
        **changes,
    }
    devices = jax.local_device_count() // config_lib.space(config)
    fields["batch_size"] = math.ceil(fields["batch_size"] / devices) * devices
    return plan.Tiling(**fields)


def _cascade(
    first: inference.Engine | foveal.FovealEngine,
    config: ml_collections.ConfigDict,
    refiner: Any,
) -> refine.CascadedEngine:
    """Returns an engine with CascadePSP behind it."""
    side = config.coarse.side or refiner.config.coarse.side or cascade.SIDE
    return refine.CascadedEngine(first, refiner.method, refiner.variables, side=side)


def _make_foveal(
    method: base.Method,
    config: ml_collections.ConfigDict,
    refiner: Any,
    changes: dict[str, Any],
) -> foveal.FovealEngine | refine.TwoPassEngine | refine.CascadedEngine:
    """Returns the engine of a method that labels whole scenes."""
    _refuse_tta(config, changes, "Foveation")
    fields = {
        "rate": config.eval.rate,
        "aggregation": config.eval.aggregation,
        "cover": config.eval.cover,
        "batch_size": windows_per_call(config),
        "seed": config.seed,
        "probabilities": output_options(config).needs_probabilities,
    }
    if unknown := sorted(set(changes) - set(fields)):
        raise errors.InputError(
            f"{unknown[0]} has no meaning where a scene is labelled location by "
            f"location; use any of {', '.join(fields)}"
        )
    options = foveal.Options(**{**fields, **changes})

    def make(probabilities: bool) -> foveal.FovealEngine:
        asked = dataclasses.replace(options, probabilities=probabilities)
        return foveal.FovealEngine(method, asked)

    return _refined(make, config, refiner, probabilities=options.probabilities)


def _make_stepwise(
    method: base.Method,
    config: ml_collections.ConfigDict,
    refiner: Any,
    changes: dict[str, Any],
) -> stepwise.StepwiseEngine | refine.TwoPassEngine | refine.CascadedEngine:
    """Returns MagNet's engine."""
    _refuse_tta(config, changes, "MagNet")
    changes.pop("batch_size", None)  # of windows
    asked = changes.pop("probabilities", output_options(config).needs_probabilities)
    options = stepwise.read_options(config, **changes)
    base.check_choice("config.magnet.crf", config.magnet.crf, dense_crf.KINDS)

    def make(probabilities: bool) -> stepwise.StepwiseEngine:
        return stepwise.StepwiseEngine(
            method, options, probabilities=probabilities,
            memory_mb=config.magnet.memory_mb, crf=config.magnet.crf,
        )  # fmt: skip

    return _refined(make, config, refiner, probabilities=asked)


def _refuse_tta(
    config: ml_collections.ConfigDict, changes: dict[str, Any], name: str
) -> None:
    if changes.pop("tta", config.predict.tta):
        raise errors.InputError(
            f"config.predict.tta turns windows, but {name} labels a scene as a "
            "whole; leave it false"
        )


def _refined(
    make: Callable[[bool], Any],
    config: ml_collections.ConfigDict,
    refiner: Any,
    *,
    probabilities: bool,
) -> Any:
    """Returns an engine that labels whole scenes, with a refiner behind it if any."""
    if refiner is None:
        return make(probabilities)
    if refiner.method.refines:
        if probabilities:
            refuse_probabilities(refiner)
        return _cascade(make(False), config, refiner)
    second = make_engine(
        refiner.method, refiner.config, tta=False, probabilities=probabilities
    )
    return refine.TwoPassEngine(make(False), second, refiner.variables)
