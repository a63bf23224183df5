"""The one command, as a user runs it, on a tiny folder of images and masks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import jax
import numpy as np
import pytest
from tiny_run import METHODS, arguments

from uhrjax import errors, initialize, main, metrics, trained


def lines_of(workdir, part="train"):
    text = (workdir / "metrics.jsonl").read_text()
    timing = ("patches_per_s", "data_wait_share", "megapixels_per_s")
    found = [json.loads(line) for line in text.splitlines()]
    return [
        {k: v for k, v in line.items() if k not in timing}
        for line in found
        if line["part"] == part
    ]


def spawn(argv, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "uhrjax.main", *argv[1:]],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_nothing_is_compiled_twice(runs, programs):
    # Six steps and three evaluations of scenes of three sizes each.
    assert len(programs) == 2 * len(METHODS)
    assert [program._cache_size() for program in programs] == [1] * len(programs)


@pytest.mark.parametrize("method", METHODS)
def test_one_command_trains_scores_and_reports(runs, squares, method):
    workdir = runs / method
    losses = [line["total"] for line in lines_of(workdir)]
    assert len(losses) == 6 and np.isfinite(losses).all()
    assert len(lines_of(workdir, "val")) == 2
    report = json.loads((workdir / "report.json").read_text())
    assert report["method"] == method and report["step"] in (3, 6)

    counts = np.zeros((2, 2), np.int64)  # again, from the files a user gets
    for path in sorted((squares / "val/masks").iterdir()):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        ours = cv2.imread(str(workdir / "masks" / path.name), cv2.IMREAD_UNCHANGED)
        assert ours.shape == label.shape
        counts += metrics.confusion(label, ours, 2)
    np.testing.assert_array_equal(counts, report["confusion"])
    assert metrics.scores(counts).miou == pytest.approx(report["scores"]["miou"])
    assert len(list((workdir / "panels").glob("*.png"))) == 1


def test_pfnet_reports_where_its_points_fall(runs):
    scores = json.loads((runs / "pfnet/report.json").read_text())["scores"]
    ratios = [scores[f"foreground_point_ratio_{n}"] for n in ("salient", "boundary")]
    assert all(0 <= ratio <= 1 for ratio in ratios)


def test_evaluate_mode_repeats_the_report(runs, squares, data_root):
    before = json.loads((runs / "upernet/report.json").read_text())
    (runs / "upernet/report.json").unlink()
    argv = arguments("upernet", squares, data_root, runs / "upernet", mode="evaluate")
    main.main(argv)
    after = json.loads((runs / "upernet/report.json").read_text())
    assert after["confusion"] == before["confusion"]
    assert after["weights_hash"] == before["weights_hash"]


def test_a_run_scored_elsewhere_keeps_its_own_report(
    runs, squares, data_root, tmp_path
):
    before = (runs / "pfnet/report.json").read_text()
    argv = arguments(
        "pfnet", squares, data_root, runs / "pfnet", "--config.eval.blend=montage",
        f"--output={tmp_path}/scored", mode="evaluate",
    )  # fmt: skip
    main.main(argv)
    assert (runs / "pfnet/report.json").read_text() == before
    report = json.loads((tmp_path / "scored/report.json").read_text())
    assert report["config"]["eval"]["blend"] == "montage"
    assert report["weights_hash"] == json.loads(before)["weights_hash"]
    assert report["trained_steps"] == [6, 6]
    assert not (tmp_path / "scored/config.json").exists()  # it is no training


def test_a_score_of_another_checkpoint_has_a_place_of_its_own(runs, tmp_path):
    shutil.copytree(runs / "upernet", tmp_path / "run")
    whole = trained.load_run(tmp_path / "run")
    assert whole.score_folder == tmp_path / "run"
    shutil.copytree(whole.path, whole.path.with_name("99"))
    selected = trained.load_run(tmp_path / "run").step
    for path in (whole.path, whole.path.with_name("99")):
        name = "" if int(path.name) == selected else f"scored/checkpoint={path.name}"
        assert trained.load_run(path).score_folder == tmp_path / "run" / name
    again = trained.load_run(tmp_path / "run", ["--config.eval.stride=8"])
    assert again.score_folder == tmp_path / "run/scored/stride=8"
    same = trained.load_run(tmp_path / "run", ["--config.eval.panels=7"])
    assert same.score_folder == tmp_path / "run"


def test_crops_protocol_counts_every_patch(runs, squares, data_root):
    argv = arguments(
        "upernet", squares, data_root, runs / "upernet", "--config.eval.protocol=crops",
        mode="evaluate",
    )  # fmt: skip
    before = (runs / "upernet/report.json").read_text()
    main.main(argv)
    # Another way to score than in training has a place of its own.
    assert (runs / "upernet/report.json").read_text() == before
    place = runs / "upernet/scored/protocol=crops"
    assert (place / "masks").is_dir()
    report = json.loads((place / "report.json").read_text())
    # 3 x 2 and 2 x 3 patches of 32 px, shifted inward at borders; and the scene of 1 px
    assert np.sum(report["confusion"]) == 12 * 32 * 32 + 1


def test_kill_in_the_middle_and_the_same_command_give_the_same_run(
    runs, squares, data_root, tmp_path
):
    argv = arguments("pfnet", squares, data_root, tmp_path / "run")
    child = spawn(argv)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run/checkpoints/2").is_dir():
        assert child.poll() is None and time.monotonic() < deadline, child.stdout.read()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert len(lines_of(tmp_path / "run")) < 6  # it was not over yet
    main.main(argv)
    assert lines_of(tmp_path / "run") == lines_of(runs / "pfnet")
    assert lines_of(tmp_path / "run", "val") == lines_of(runs / "pfnet", "val")
    one, two = (
        json.loads((path / "report.json").read_text())["weights_hash"]
        for path in (tmp_path / "run", runs / "pfnet")
    )
    assert one == two


def test_sigterm_saves_and_ends_cleanly(runs, squares, data_root, tmp_path):
    long = (
        "--config.epochs=500", "--config.checkpoint_every=10000",
        "--config.eval.every=10000",
    )  # fmt: skip
    child = spawn(arguments("upernet", squares, data_root, tmp_path, *long))
    deadline = time.monotonic() + 200
    log = tmp_path / "metrics.jsonl"
    while not (log.exists() and log.read_text()):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=100)
    assert child.returncode == 0, out
    assert "the same command goes on" in out
    (saved,) = [p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]
    assert int(saved) >= 1
    main.main(
        arguments("upernet", squares, data_root, tmp_path, *long, mode="evaluate")
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["trained_steps"] == [int(saved), 1500]  # a score, not the run's end


def test_eight_devices_equal_one(runs, squares, data_root, tmp_path):
    argv = arguments("pfnet", squares, data_root, tmp_path)
    child = spawn(argv, JAX_NUM_CPU_DEVICES="8")
    out, _ = child.communicate(timeout=400)
    assert child.returncode == 0, out
    assert "8 x cpu" in out
    one, eight = lines_of(runs / "pfnet"), lines_of(tmp_path)
    # The first step: later ones add up rounding, and points are chosen discontinuously.
    for name in ("total", "seg", "edge_F3", "edge_F4", "edge_F5"):
        np.testing.assert_allclose(eight[0][name], one[0][name], rtol=1e-5)


def test_start_from_another_run_takes_its_weights(runs, squares, data_root, tmp_path):
    import uhrjax
    from uhrjax import config as config_lib

    flags = arguments("upernet", squares, data_root, tmp_path)[4:]
    config = config_lib.override(
        uhrjax.load_config("configs/upernet.py:folder"),
        [*flags, f"--config.init_from={runs / 'pfnet'}", "--config.num_classes=2"],
    )
    method = uhrjax.build(config)
    found = initialize.start_variables(config, method)
    source = initialize.read_run(runs / "pfnet")
    jax.tree.map(
        np.testing.assert_array_equal,
        found["params"]["backbone"],
        source["params"]["backbone"],
    )
    config.init_what = "model"
    with pytest.raises(errors.InputError, match="unknown here: params/flow_F3"):
        initialize.start_variables(config, method)


def failing(capsys, argv):
    """Runs main as a process would and returns (exit code, last line of stderr)."""
    before, sys.argv = sys.argv, argv
    try:
        code = main.run()
    finally:
        sys.argv = before
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    "change, match",
    [
        ("--config.learning_rate=0.5", "run of another recipe.*learning_rate"),
        ("--config.method=nope", "config.method = 'nope' is unknown.*pfnet"),
        ("--config.num_classes=3", "has 2 classes"),
        ("--config.data.dir=/no/such/place", "no such folder"),
        ("--config.data.dir=", "which folder"),
        ("--config.data.split=test", "no scenes in split 'test'"),
        ("--config.data.name=isaid", "python -m data_builders.prepare isaid"),
        ("--config.init_from=nothing.npz", "does not exist"),
        ("--config.tile=40", "multiples of 32"),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_2(
    runs, squares, data_root, tmp_path, capsys, change, match
):
    workdir = runs / "pfnet" if "learning_rate" in change else tmp_path
    argv = arguments("pfnet", squares, data_root, workdir, change)
    code, text = failing(capsys, argv)
    assert code == 2

    assert re.search(match, text), text
    assert "Traceback" not in text


def test_loss_that_is_no_number_stops_with_its_step(
    squares, data_root, tmp_path, capsys
):
    argv = arguments(
        "upernet", squares, data_root, tmp_path, "--config.learning_rate=inf"
    )
    code, text = failing(capsys, argv)
    assert code == 1
    assert "stopped being a number at step" in text and "learning_rate" in text
