"""The three things one command does: train, evaluate, predict."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import jax
import ml_collections

from uhrjax import (
    coarse,
    errors,
    hosts,
    mask_score,
    methods,
    repair,
    report,
    score,
    sources,
    stages,
    trained,
    update,
)
from uhrjax import config as config_lib
from uhrjax import predict as predict_lib
from uhrjax import train as train_lib
from uhrjax.data import dataset
from uhrjax.evaluate import Evaluator
from uhrjax.methods import base


def train(spec: str | None, overrides: list[str], workdir: str) -> int:
    """Trains and scores, stage by stage; returns the exit code."""
    config = config_lib.from_command(spec, overrides)
    folder = workdir_of(spec, workdir)
    planned = stages.plan(config, folder)
    wanted = stages.chosen(config, planned)
    if len(planned) > 1:
        stages.write_order(folder, planned)
    for number, stage in enumerate(wanted):
        if len(wanted) > 1:
            print(f"\nstage {stage.name} ({number + 1} of {len(wanted)})", flush=True)
        if not _train_stage(spec, stage):
            break
    return 0


def _train_stage(spec: str | None, stage: stages.Planned) -> bool:
    """Trains and scores one stage; returns False if it was asked to stop."""
    config, folder = stage.config, stage.folder
    data = _open_data(config)
    method = methods.build(config)
    hosts.check_shared(folder)
    _print_start(spec, folder, config, method, data)
    maps = coarse.prepare(config, data, folder) if method.reads_labels else None
    scoring, evaluator = _scoring(config, method, data, maps)

    def validate(variables: dict[str, Any]) -> dict[str, float]:
        split = config.data.val_split
        return score.evaluate_with_bar(evaluator, variables, split).summary(config)

    report.write_json(folder / "config.json", config_lib.to_json(config))
    if not train_lib.train(config, method, data, folder, validate, stage.starts, maps):
        return False
    if stage.is_only or not stage.is_done:
        scoring.score_run(trained.load_run(folder), data, folder, evaluator)
    return True


def _open_data(config: ml_collections.ConfigDict) -> dataset.Dataset:
    """Opens the data, in every process; raises InputError unless all have the same."""
    data = hosts.in_turn(lambda: sources.open_data(config))
    hosts.check_same(
        f"the split of {data.info.name}", data.info.split_hash,
        "copy one host's prepared data to the others, or give a --config.data.root on "
        "storage that every host sees",
    )  # fmt: skip
    return data


def _scoring(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    maps: pathlib.Path | None,
    **given: Any,
) -> tuple[Any, Any]:
    """Returns the module that scores such runs, and its evaluator."""
    if method.refines:
        return mask_score, mask_score.MaskEvaluator(config, method, data)
    return score, Evaluator(config, method, data, maps, **given)


def evaluate(source: str | pathlib.Path, overrides: list[str], output: str = "") -> int:
    """Scores a finished run again; returns 0.

    Into `output`, or its own folder, where a score with other settings than it was
    trained with has a folder of its own: no report is lost.
    """
    hosts.check_there(source)
    run = trained.load_run(source, overrides)
    config, method = run.config, run.method
    data = _open_data(config)
    folder = pathlib.Path(output).expanduser() if output else run.score_folder
    hosts.check_shared(folder)
    _print_start(str(run.path), folder, config, method, data)
    maps = coarse.prepare(config, data, folder) if method.reads_labels else None
    if run.refiner is not None:
        print(f"refined by   {run.refiner.path}", flush=True)
    scoring, evaluator = _scoring(
        config, method, data, maps, refiner=run.refiner, tta=config.predict.tta
    )
    scoring.score_run(run, data, folder, evaluator)
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
    hosts.check_there(source)
    run = trained.load_run(source, overrides)
    _print_run(run)
    return _tell(predict_lib.predict_files(run, pattern, folder))


def refine(
    source: str | pathlib.Path,
    overrides: list[str],
    pattern: str,
    images: str,
    folder: str,
) -> int:
    """Refines label maps in files; returns 1 if some failed, else 0."""
    for flag, value in (("input", pattern), ("output", folder)):
        if not value:
            raise errors.InputError(
                f"--mode=refine needs --{flag}; e.g. --checkpoint=runs/refinement "
                "--input='masks/*.png' --output=refined/"
            )
    hosts.check_there(source)
    run = repair.load_refiner(source, overrides)
    _print_run(run)
    if images and run.method.reads_labels:
        print("images       for the overlays only: this network reads labels")
    return _tell(repair.refine_files(run, pattern, images, folder))


def _print_run(run: trained.Trained) -> None:
    print(f"checkpoint   {run.path}, {run.config.method}, {len(run.classes)} classes")
    print(
        f"device       {report.device_name()}, compute {run.config.dtype}", flush=True
    )
    if run.refiner is not None:
        print(f"refined by   {run.refiner.path}", flush=True)


def _tell(failed: dict[pathlib.Path, str]) -> int:
    """Prints what failed; returns the exit code."""
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
    params = method.shapes()["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    splits = ", ".join(f"{name} {len(s)}" for name, s in data.info.scenes.items())
    print(f"config       {origin}")
    print(f"run          {folder}")
    print(f"device       {report.device_name()}, compute {config.dtype}")
    print(f"method       {config.method}, {count / 1e6:.2f} M parameters")
    if method.frozen:
        free = update.trainable(method, params)
        count = sum(leaf.size for leaf in jax.tree.leaves(free))
        print(f"trains       {', '.join(sorted(free))}: {count / 1e6:.2f} M")
        print(f"frozen       {', '.join(method.frozen)}")
    print(f"data         {data.info.name}, {method.num_classes} classes, {splits}")
    print(f"             from {data.scenes_dir}")
    sides = [min(s.height, s.width) for part in data.info.scenes.values() for s in part]
    wide = [(round(v.scale * config.tile), "black") for v in method.views[1:]]
    if method.whole_scenes:
        beyond = {"zero": "the mean colour", "reflect": "its mirror image"}
        module = method.module
        wide = [(side, beyond[module.border]) for side in module.bank]
    for side, colour in wide:
        if side > min(sides):
            print(
                f"note         a context is {side} px wide, the smallest scene "
                f"{min(sides)} px: what lies beyond a scene is {colour}"
            )
    sys.stdout.flush()
