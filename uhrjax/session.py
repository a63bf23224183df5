"""The three things one command does: train, evaluate, predict."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import ml_collections

from uhrjax import config as config_lib
from uhrjax import errors, methods, report, score, sources, trained
from uhrjax import predict as predict_lib
from uhrjax import train as train_lib
from uhrjax.data import dataset
from uhrjax.evaluate import Evaluator
from uhrjax.methods import base


def train(spec: str | None, overrides: list[str], workdir: str) -> int:
    """Trains and scores; returns the exit code."""
    config = config_lib.from_command(spec, overrides)
    folder = workdir_of(spec, workdir)
    data = sources.open_data(config)
    method = methods.build(config)
    folder.mkdir(parents=True, exist_ok=True)
    _print_start(spec, folder, config, method, data)
    evaluator = Evaluator(config, method, data)

    def validate(variables: dict[str, Any]) -> dict[str, float]:
        split = config.data.val_split
        return score.evaluate_with_bar(evaluator, variables, split).summary(config)

    report.write_json(folder / "config.json", config_lib.to_json(config))
    if train_lib.train(config, method, data, folder, validate):
        score.score_run(trained.load_run(folder), data, folder, evaluator)
    return 0


def evaluate(source: str | pathlib.Path, overrides: list[str]) -> int:
    """Scores a finished run again; returns the exit code."""
    run = trained.load_run(source, overrides)
    data = sources.open_data(run.config)
    folder = run.path.parent.parent
    _print_start(str(run.path), folder, run.config, run.method, data)
    evaluator = Evaluator(run.config, run.method, data)
    score.score_run(run, data, folder, evaluator)
    return 0


def predict(
    source: str | pathlib.Path, overrides: list[str], pattern: str, folder: str
) -> int:
    """Labels scene files; returns 1 if some failed, else 0."""
    for flag, value in (("input", pattern), ("output", folder)):
        if not value:
            raise errors.InputError(
                f"--mode=predict needs --{flag}; e.g. --checkpoint=runs/pfnet "
                "--input='scenes/*.tif' --output=masks/"
            )
    run = trained.load_run(source, overrides)
    print(f"checkpoint   {run.path}, {run.config.method}, {len(run.classes)} classes")
    print(
        f"device       {report.device_name()}, compute {run.config.dtype}", flush=True
    )
    failed = predict_lib.predict_files(run, pattern, folder)
    if failed:
        print(f"\n{len(failed)} scenes failed:")
        for path, reason in failed.items():
            print(f"  {path}: {reason}")
    return 1 if failed else 0


def workdir_of(spec: str | None, workdir: str) -> pathlib.Path:
    """Returns the folder of a run: the one given, or `runs/<config>-<variant>`."""
    if workdir:
        return pathlib.Path(workdir).expanduser()
    if spec is None:
        raise errors.InputError(
            "which run? give --checkpoint=FOLDER (or --workdir, or --config)"
        )
    name, _, variant = spec.partition(":")
    words = [pathlib.Path(name).stem, *variant.replace(",", " ").split()]
    return pathlib.Path("runs") / "-".join(words)


def _print_start(
    origin: str | None,
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
) -> None:
    count = sum(leaf.size for leaf in jax.tree.leaves(method.shapes()["params"]))
    splits = ", ".join(f"{name} {len(s)}" for name, s in data.info.scenes.items())
    print(f"config       {origin}")
    print(f"run          {folder}")
    print(f"device       {report.device_name()}, compute {config.dtype}")
    print(f"method       {config.method}, {count / 1e6:.2f} M parameters")
    print(f"data         {data.info.name}, {method.num_classes} classes, {splits}")
    print(f"             from {data.scenes_dir}", flush=True)
