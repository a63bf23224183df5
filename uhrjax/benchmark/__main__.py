"""python -m uhrjax.benchmark train --config=configs/pfnet.py --config.dtype=bfloat16
python -m uhrjax.benchmark predict --config=configs/pfnet.py
python -m uhrjax.benchmark data --config=configs/pfnet.py:folder --config.data.dir=PATH
python -m uhrjax.benchmark all --json=bench.json

`train` and `predict` measure this machine with the network of a config and random
weights; no checkpoint is needed, and no data set: where the config's own is prepared,
`train` also measures the steps that it feeds. `data` measures how fast it becomes
training batches. `all` runs these three, each in a process of its own: of one config,
or of all methods. `--config.eval.batch_size` and all other keys as in main.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from absl import flags, logging

from uhrjax import config as config_lib
from uhrjax import errors, report
from uhrjax.benchmark import data, predict, suite, train

flags.DEFINE_string(
    "rows", None, "of predict: heights, px; one pass for the memory at each, or, of "
    "methods that label scenes as a whole, one table; default: 4096,8192, or 2448",
)  # fmt: skip
flags.DEFINE_integer("columns", None, "of predict: width of the scenes, px; default: "
                     "8192, or 2448", lower_bound=1)  # fmt: skip
flags.DEFINE_integer("repeats", 5, "runs of each measurement", lower_bound=1)
flags.DEFINE_float(
    "pass_s", 20.0, "about how long one pass of the real network may take: it gets a "
    "smaller scene for that", lower_bound=0,
)  # fmt: skip
flags.DEFINE_string("threads", None, "of data: 1,2,8; default: 1, 2 and all cores")
flags.DEFINE_float("repeat_s", 1.0, "about how long a repeat of data takes",
                   lower_bound=0)  # fmt: skip
flags.DEFINE_integer("steps", 20, "of train: steps that count", lower_bound=1)
flags.DEFINE_integer(
    "scene", None, "of train: side of drawn scenes, px, for methods that train on "
    "scenes; default: as the data has them, or 2448", lower_bound=1,
)  # fmt: skip
flags.DEFINE_string("profile", None, "of train: folder for a trace of some steps")
flags.DEFINE_string("json", "", "file for the same figures, for machines")
LISTS = {"rows": "4096,8192", "threads": "1,2"}  # flags of numbers, with an example
COMMANDS = {  # what to run, and its flags
    "train": (train.run, ("steps", "scene", "profile")),
    "predict": (predict.run, ("rows", "columns", "repeats", "pass_s")),
    "data": (data.run, ("threads", "repeats", "repeat_s")),
    "all": (suite.run, ("steps", "repeats")),
}


def main(argv: list[str]) -> int:
    """Runs one benchmark; returns the exit code."""
    command = argv[1] if len(argv) > 1 else ""
    if command not in COMMANDS:
        raise errors.InputError(
            f"unknown benchmark {command!r}; use one of {', '.join(COMMANDS)}, e.g. "
            "python -m uhrjax.benchmark predict --config=configs/pfnet.py"
        )
    spec, overrides = config_lib.parse_flags([argv[0], *argv[2:]])
    chosen = flags.FLAGS
    target = pathlib.Path(chosen.json).expanduser() if chosen.json else None
    if target and (target.is_dir() or not target.parent.is_dir()):
        raise errors.InputError(
            f"--json={chosen.json}: give a file in a folder that exists"
        )
    logging.set_verbosity(logging.ERROR)
    run_it, own = COMMANDS[command]
    found = run_it(spec, overrides, **_options(command, own))
    if target:
        report.write_json(target, found)
        print(f"json         {target}")
    return 1 if found.get("failed") else 0


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    try:
        return main(sys.argv)
    except (errors.InputError, OSError) as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _options(command: str, own: tuple[str, ...]) -> dict[str, Any]:
    """Returns a benchmark's own flags; those of another one are refused."""
    for name in {name for _, names in COMMANDS.values() for name in names} - set(own):
        if flags.FLAGS[name].present:
            raise errors.InputError(
                f"--{name} means nothing to {command}; its flags are "
                f"{', '.join('--' + word for word in (*own, 'json'))}"
            )
    values = {name: getattr(flags.FLAGS, name) for name in own}
    return {
        name: _numbers(name, value) if name in LISTS else value
        for name, value in values.items()
    }


def _numbers(name: str, text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise errors.InputError(
            f"--{name}={text}: give whole numbers above 0, joined by commas, e.g. "
            f"--{name}={LISTS[name]}"
        )
    return found


if __name__ == "__main__":
    sys.exit(run())
