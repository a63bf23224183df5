"""Devices that share the rows of a crop: the same numbers, and less memory on each."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from uhrjax import errors, main, methods, sharding

HERE = pathlib.Path(__file__).parent
SCORE_MAP = 8 * 8 * 8  # px of all samples' maps at 1/8 of 64 px


def spawn(*argv):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = f"{HERE}{os.pathsep}{HERE.parent}"
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, *argv], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def figures():
    """What tests/shared_rows.py finds."""
    out = spawn(str(HERE / "shared_rows.py"))
    (line,) = [line for line in out.splitlines() if line.startswith("FOUND ")]
    return json.loads(line.removeprefix("FOUND "))


@pytest.mark.parametrize("mesh", ("both", "data"))
def test_a_step_on_eight_devices_is_that_of_one(figures, mesh):
    losses, params, statistics = figures["distance"][mesh]
    assert losses < 1e-5 and params < 1e-5 and statistics < 1e-5


def test_split_batches_need_sums_of_gradients_only(figures):
    kinds = figures["collectives"]["data"]
    assert set(kinds) <= {"all-reduce", "all-gather"}
    assert max(kinds.get("all-gather", [0])) <= SCORE_MAP  # of the points' scores


def test_split_rows_are_never_gathered(figures):
    kinds = figures["collectives"]["both"]
    assert kinds["collective-permute"]  # rows that a neighbour lends
    assert max(kinds.get("all-gather", [0])) <= SCORE_MAP
    assert max(kinds.get("all-to-all", [0])) <= SCORE_MAP


def test_memory_of_a_device_falls_with_its_rows(figures):
    assert figures["temporary"]["space"] < figures["temporary"]["one"] / 4


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_a_run_with_shared_rows_is_that_of_one_device(squares, data_root, tmp_path):
    flags = [
        "--config=tests/pixel.py", f"--config.data.dir={squares}",
        f"--config.data.root={data_root}",
    ]  # fmt: skip
    shared = [*flags, f"--workdir={tmp_path / 'shared'}", "--config.mesh.space=4"]
    out = spawn(str(HERE / "several.py"), "run", *shared)
    assert "8 x cpu (cpu)" in out
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.setitem(methods.METHODS, "pixel", "pixel.PixelMethod")
        main.main(["main", *flags, f"--workdir={tmp_path / 'one'}"])
        # Restored and scored by other devices than it was trained and scored on.
        again = [
            f"--checkpoint={tmp_path / 'shared'}",
            f"--output={tmp_path / 'again'}",
        ]
        main.main(["main", "--mode=evaluate", *again, "--config.mesh.space=1"])
    ours, theirs, again = (
        report_of(tmp_path / name) for name in ("shared", "one", "again")
    )
    assert ours["scores"]["miou"] == pytest.approx(theirs["scores"]["miou"], abs=1e-3)
    assert again["weights_hash"] == ours["weights_hash"]
    different = np.abs(np.subtract(again["confusion"], ours["confusion"])).sum()
    assert different <= 4  # px between two classes


def test_devices_that_cannot_be_grouped_are_refused():
    with pytest.raises(errors.InputError, match="cannot be grouped"):
        sharding.make_mesh(jax.device_count() * 3)


class FourShareRows:
    shape = {"data": 1, "space": 4}  # noqa: RUF012


def test_rows_that_cannot_be_split_are_refused():
    sharding.check_rows(32, FourShareRows())
    with pytest.raises(errors.InputError, match="use a tile that is a multiple of 4"):
        sharding.check_rows(30, FourShareRows())
