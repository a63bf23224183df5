"""python -m uhrjax.main --config=configs/pfnet.py:synthetic

Trains (or goes on), scores the best checkpoint and reports; `--mode=evaluate` scores a
finished run again, `--mode=predict` labels scene files with it, `--mode=refine` repairs
label maps that somebody has with the run of a refining network.
"""

from __future__ import annotations

import sys

from absl import flags, logging

from uhrjax import compilation, errors, hosts, session
from uhrjax import config as config_lib

MODES = ("train", "evaluate", "predict", "refine")
flags.DEFINE_enum("mode", "train", MODES, "train (then evaluate), or one of the others")
flags.DEFINE_string("workdir", "", "folder of the run; default runs/<config>-<variant>")
flags.DEFINE_string("checkpoint", "", "all but train: folder of a finished run")
flags.DEFINE_string("input", "", "predict, refine: a file, a folder, or 'scenes/*.tif'")
flags.DEFINE_string("images", "", "refine: what the label maps of --input label")
flags.DEFINE_string("output", "", "folder for what is made; evaluate: in the run")
flags.DEFINE_integer("devices", 0, "of this host, 0: all; a CPU makes virtual ones")
flags.DEFINE_string("coordinator", "", "several hosts: HOST:PORT of process 0, or auto")
flags.DEFINE_integer("processes", 0, "several hosts: how many processes there are")
flags.DEFINE_integer("process", -1, "several hosts: which one this is, from 0")


def main(argv: list[str]) -> int:
    """Runs what the command line asks for; returns the exit code."""
    spec, overrides = config_lib.parse_flags(argv)
    compilation.keep_compiled()
    logging.set_verbosity(logging.ERROR)  # orbax and TFDS tell a lot
    given = flags.FLAGS
    hosts.start(
        devices=given.devices, coordinator=given.coordinator,
        processes=given.processes, process=given.process,
    )  # fmt: skip
    if given.mode == "train":
        return session.train(spec, overrides, given.workdir)
    source = given.checkpoint or session.workdir_of(spec, given.workdir)
    if given.mode == "evaluate":
        return session.evaluate(source, overrides, given.output)
    if given.mode == "predict":
        return session.predict(source, overrides, given.input, given.output)
    return session.refine(source, overrides, given.input, given.images, given.output)


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    try:
        return main(sys.argv)
    except (errors.InputError, OSError, errors.Diverged) as error:
        print(f"{hosts.name()}: {error}", file=sys.stderr)
        code = 1 if isinstance(error, errors.Diverged) else 2
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if not hosts.is_one_of_several():
            raise
        hosts.print_failure(error)  # and leave: the others must not wait for this one
        code = 1
    hosts.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(run())
