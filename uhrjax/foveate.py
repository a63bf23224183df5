"""python -m uhrjax.foveate map --checkpoint=RUN --runs='runs/*patch?' --output=FOLDER
python -m uhrjax.foveate ensemble --runs='runs/*patch?' --output=FOLDER
python -m uhrjax.foveate study --runs='runs/*patch?' --output=FOLDER
python -m uhrjax.foveate rates --runs=RUN,RUN --rates=64,32,16 --output=FOLDER

What Foveation's tables and figures hold beside the scores of one run. `map`: where a
run looks wide, beside where it should (Table 3). `ensemble`: the mean of the runs'
probabilities, scored. `study`: fixed patches against the IoU of every class (Figures 2
and B.1.1). `rates`: mIoU against the locations and GMAC of an image (Table B.5.1).
`--runs` are runs of one fixed patch each (of `rates` any), patterns or joined by
commas.
"""

from __future__ import annotations

import glob
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags, logging

from uhrjax import (
    chart,
    compilation,
    ensemble,
    errors,
    fov_picture,
    panel,
    report,
    score,
    sources,
    trained,
)
from uhrjax import config as config_lib
from uhrjax.evaluate import Evaluator

flags.DEFINE_string("runs", "", "folders of runs, joined by commas; patterns, too")
flags.DEFINE_string("rates", "", "rates: px per location, e.g. 512,256,128")
flags.DEFINE_enum("gold", "weighted", ("weighted", "argmax"), "map: how wide is right")


def draw_maps(runs: list[pathlib.Path], overrides: list[str], folder: pathlib.Path):
    """Draws where `--checkpoint` looks wide, beside the gold standard of the runs."""
    run = trained.load_run(flags.FLAGS.checkpoint, overrides)
    fixed = [trained.load_run(path) for path in runs]
    data = sources.open_data(run.config)
    found = fov_picture.compare(run, fixed, data, folder, rule=flags.FLAGS.gold)
    report.write_json(folder / "foveation.json", found)
    rows = [
        (name, *(f"{px:.0f}" if np.isfinite(px) else "-" for px in widths.values()))
        for name, widths in found["px_by_class"].items()
    ]
    lines = {"pictures": str(folder)}
    if fixed:
        error = found["mse_mean"], found["mse_std"]
        lines["apart (MSE)"] = f"{error[0]:.3f} +- {error[1]:.3f} over scenes"
    titles = ("field of view, px", *next(iter(found["px_by_class"].values())))
    report.print_table(titles, rows, lines)


def score_ensemble(
    runs: list[pathlib.Path], overrides: list[str], folder: pathlib.Path
) -> None:
    """Scores the mean of the runs' probabilities as a run is scored."""
    together, engine = ensemble.join(
        [trained.load_run(path, overrides) for path in runs]
    )
    data = sources.open_data(together.config)
    print(f"ensemble     {', '.join(map(str, runs))}")
    evaluator = Evaluator(together.config, together.method, data, engine=engine)
    score.score_run(together, data, folder, evaluator)


def draw_study(
    runs: list[pathlib.Path], overrides: list[str], folder: pathlib.Path
) -> None:
    """Draws the IoU of every class against the side of the only patch."""
    by_side: dict[int, list[dict[str, float]]] = {}
    for path in runs:
        result = _report(path)
        model = result["config"]["model"]
        if result["method"] != "foveation" or model["selection"] != "patch":
            raise errors.InputError(
                f"{path} is no run of one fixed patch; `study` compares such runs, "
                "e.g. configs/foveation.py:synthetic,patch3"
            )
        side = model["bank"][model["patch"] - 1]
        found = {name: own["iou"] for name, own in result["classes"].items()}
        found["mean"] = result["scores"]["miou"]
        by_side.setdefault(side, []).append(found)
    sides, names = sorted(by_side), list(next(iter(by_side.values()))[0])
    table = {
        name: {side: _mean([one[name] for one in by_side[side]]) for side in sides}
        for name in names
    }
    table = {
        name: row for name, row in table.items() if np.isfinite([*row.values()]).any()
    }
    best = {
        name: max(row, key=lambda s: np.nan_to_num(row[s]))
        for name, row in table.items()
    }
    report.write_json(folder / "study.json", {"iou": table, "best": best})
    picture = chart.draw(
        {name: [(s, 100 * v) for s, v in row.items()] for name, row in table.items()},
        title="IoU of networks with one patch each", across="side of the patch, px",
        up="IoU, %",
    )  # fmt: skip
    panel.write_png(str(folder / "study.png"), picture)
    rows = [
        (name, *(f"{100 * row[side]:.1f}" for side in sides), f"{best[name]} px")
        for name, row in table.items()
    ]
    titles = ("IoU, %", *(f"{side} px" for side in sides), "best")
    report.print_table(titles, rows, {"pictures": str(folder / "study.png")})


def draw_rates(
    runs: list[pathlib.Path], overrides: list[str], folder: pathlib.Path
) -> None:
    """Scores runs at several rates; draws mIoU against cost."""
    found: dict[str, list[dict[str, float]]] = {}
    for path in runs:
        for rate in _rates(trained.load_run(path, overrides)):
            given = [*overrides, f"--config.eval.rate={rate}"]
            run = trained.load_run(path, given)
            config, split = run.config, run.config.data.split
            data = sources.open_data(config)
            evaluator = Evaluator(config, run.method, data)
            scores = score.evaluate_with_bar(evaluator, run.variables, split)
            one = {
                "rate": rate,
                "miou": scores.summary(config)["miou"],
                **evaluator.cost(split),
            }
            found.setdefault(str(path), []).append(one)
    report.write_json(folder / "rates.json", found)
    names = dict(zip(found, _short(list(found)), strict=True))
    picture = chart.draw(
        {names[path]: [(o["gmac_per_image"], 100 * o["miou"]) for o in rows]
         for path, rows in found.items()},
        title="mIoU and the cost of an image", across="GMAC per image", up="mIoU, %",
        log=True,
    )  # fmt: skip
    panel.write_png(str(folder / "rates.png"), picture)
    rows = [
        (names[path], o["rate"], f"{o['locations_per_image']:.0f}",
         f"{o['gmac_per_image']:.1f}", f"{100 * o['miou']:.1f}")
        for path, ones in found.items()
        for o in ones
    ]  # fmt: skip
    titles = ("run", "px per location", "locations", "GMAC", "mIoU, %")
    report.print_table(titles, rows, {"pictures": str(folder / "rates.png")})


Command = Callable[[list[pathlib.Path], list[str], pathlib.Path], None]
COMMANDS: dict[str, Command] = {
    "map": draw_maps,
    "ensemble": score_ensemble,
    "study": draw_study,
    "rates": draw_rates,
}


def find_runs(text: str) -> list[pathlib.Path]:
    """Returns the folders that a list of paths and patterns names, sorted.

    Raises:
        FileNotFoundError: a path or pattern names none.
    """
    found: list[pathlib.Path] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        pattern = str(pathlib.Path(word).expanduser())
        matching = [
            path
            for path in map(pathlib.Path, sorted(glob.glob(pattern)))
            if (path / "checkpoints").is_dir()
        ]
        if not matching:
            raise FileNotFoundError(
                f"--runs: no run in {word}; train it first, e.g. "
                "./launch.sh configs/foveation.py:synthetic,patch1"
            )
        found += [path for path in matching if path not in found]
    return found


def main(argv: list[str]) -> int:
    """Runs what the command line asks for; returns the exit code."""
    command = argv[1] if len(argv) > 1 else ""
    if command not in COMMANDS:
        raise errors.InputError(
            f"unknown command {command!r}; use one of {', '.join(COMMANDS)}, e.g. "
            "python -m uhrjax.foveate study --runs='runs/*patch?' --output=study/"
        )
    spec, overrides = config_lib.parse_flags([argv[0], *argv[2:]])
    chosen = flags.FLAGS
    needed = "checkpoint" if command == "map" else "runs"
    if spec or not (chosen[needed].value and chosen.output):
        more = " [--runs=FIXED,...]" if command == "map" else ""
        raise errors.InputError(f"{command}: give --{needed}=... --output=FOLDER{more}")
    compilation.keep_compiled()
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(chosen.output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    COMMANDS[command](find_runs(chosen.runs), overrides, folder)
    return 0


def _report(path: pathlib.Path) -> dict[str, Any]:
    file = path / "report.json"
    if not file.is_file():
        raise errors.InputError(
            f"{path} has no report.json: it is not trained to the end, run its command "
            "again"
        )
    return json.loads(file.read_text())


def _rates(run: trained.Trained) -> list[int]:
    """Returns the rates of `--rates`, or the patch's side halved down to the scale."""
    if not run.method.whole_scenes:
        raise errors.InputError(
            f"{run.path} is a run of {run.config.method}; `rates` takes runs of "
            "foveation"
        )
    if flags.FLAGS.rates:
        try:
            return [int(word) for word in flags.FLAGS.rates.split(",")]
        except ValueError:
            raise errors.InputError(
                f"--rates={flags.FLAGS.rates}: give whole numbers joined by commas, "
                "e.g. --rates=512,256,128"
            ) from None
    rates = [run.config.tile]
    while rates[-1] // 2 > run.method.module.scale:
        rates.append(rates[-1] // 2)
    return [*rates, run.method.module.scale]


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _short(paths: list[str]) -> list[str]:
    """Returns the last parts of paths."""
    return [pathlib.Path(path).name for path in paths]


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    flags.DEFINE_string("checkpoint", "", "map: folder of a finished run")
    flags.DEFINE_string("output", "", "folder for what is made")
    try:
        return main(sys.argv)
    except (errors.InputError, OSError) as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run())
