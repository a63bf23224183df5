"""python -m uhrjax.main --config=configs/pfnet.py:synthetic

Prepares the data if it can, trains (or goes on), scores the best checkpoint, reports.
"""

from __future__ import annotations

import pathlib
import sys

import jax
from absl import flags, logging

from uhrjax import compilation, errors, methods, report, score, sources, train
from uhrjax import config as config_lib
from uhrjax.evaluate import Evaluator

MODES = ("train", "evaluate")
flags.DEFINE_string("workdir", "", "folder of the run; default runs/<config>-<variant>")
flags.DEFINE_enum("mode", "train", MODES, "train (then evaluate), or evaluate only")


def main(argv: list[str]) -> None:
    """Runs what the command line asks for."""
    config, spec = config_lib.parse_flags(argv)
    config_lib.check(config)
    compilation.keep_compiled()
    logging.set_verbosity(logging.ERROR)  # orbax and TFDS tell a lot
    name, _, variant = spec.partition(":")
    run = "-".join([pathlib.Path(name).stem, *variant.replace(",", " ").split()])
    workdir = pathlib.Path(flags.FLAGS.workdir or f"runs/{run}")
    workdir.mkdir(parents=True, exist_ok=True)

    data = sources.open_data(config)
    method = methods.build(config)
    _print_start(config, spec, workdir, method, data)
    evaluator = Evaluator(config, method, data)

    def validate(variables: dict) -> dict:
        split = config.data.val_split
        found = score.evaluate_with_bar(evaluator, variables, split)
        return found.summary(config)

    if flags.FLAGS.mode == "train":
        report.write_json(workdir / "config.json", config_lib.to_json(config))
        if not train.train(config, method, data, workdir, validate):
            return  # asked to stop: the same command goes on
    score.score_run(config, method, data, workdir, evaluator)


def _print_start(config, spec, workdir, method, data) -> None:
    shapes = method.shapes()
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    splits = ", ".join(f"{name} {len(s)}" for name, s in data.info.scenes.items())
    print(f"config       {spec}")
    print(f"run          {workdir}")
    print(f"device       {report.device_name()}, compute {config.dtype}")
    print(f"method       {config.method}, {count / 1e6:.2f} M parameters")
    print(f"data         {data.info.name}, {method.num_classes} classes, {splits}")
    print(f"             from {data.scenes_dir}", flush=True)


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    try:
        main(sys.argv)
    except (errors.InputError, OSError) as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 2
    except errors.Diverged as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run())
