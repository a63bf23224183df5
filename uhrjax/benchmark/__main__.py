"""python -m uhrjax.benchmark predict --config=configs/pfnet.py

Measures this machine with the network of a config and random weights; no data set and
no checkpoint are needed. `--config.eval.batch_size` and all other keys as in main.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags, logging

from uhrjax import config as config_lib
from uhrjax import errors, report
from uhrjax.benchmark import predict

flags.DEFINE_string("rows", "4096,8192", "heights, px: one pass for the memory at each")
flags.DEFINE_integer("columns", 8192, "width of the scenes, px", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "runs of each measurement", lower_bound=1)
flags.DEFINE_float(
    "pass_s", 20.0, "about how long one pass of the real network may take: it gets a "
    "smaller scene for that", lower_bound=0,
)  # fmt: skip
flags.DEFINE_string("json", "", "file for the same figures, for machines")
COMMANDS = {"predict": predict.run}


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
    found = COMMANDS[command](
        spec, overrides, rows=_numbers("rows", chosen.rows), columns=chosen.columns,
        repeats=chosen.repeats, pass_s=chosen.pass_s,
    )  # fmt: skip
    if target:
        report.write_json(target, found)
        print(f"json         {target}")
    return 0


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    try:
        return main(sys.argv)
    except (errors.InputError, OSError) as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _numbers(name: str, text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise errors.InputError(
            f"--{name}={text}: give whole numbers above 0, joined by commas, e.g. "
            f"--{name}=4096,8192"
        )
    return found


if __name__ == "__main__":
    sys.exit(run())
