"""`benchmark data`, as a user runs it, on a data set of a few patches."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
from absl.testing import flagsaver

from uhrjax.benchmark import __main__ as command
from uhrjax.benchmark import data, data_pass, data_table


def words(squares, data_root, *more):
    return [
        "benchmark", "data", "--config=configs/pfnet.py:folder",
        f"--config.data.dir={squares}", f"--config.data.root={data_root}",
        "--config.tile=32", "--config.stride=32", "--config.eval.stride=32",
        "--config.batch_size=4",
        "--repeats=2", "--repeat_s=0", "--threads=1,2", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(squares, data_root, tmp_path_factory):
    """What a benchmark printed, and its JSON."""
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    printed = io.StringIO()
    cv2.setNumThreads(2)
    with contextlib.redirect_stdout(printed), flagsaver.flagsaver():
        given = words(squares, data_root, "--config.data.augment.blur=(0.2,1.3)")
        assert command.main([*given, f"--json={path}"]) == 0
    return printed.getvalue(), json.loads(path.read_text())


@pytest.mark.parametrize("layout", data.LAYOUTS)
def test_every_layout_has_its_stages_and_speeds(finished, layout):
    measured = finished[1]["layouts"][layout]
    for state in ("warm", "cold"):
        each = measured[state]
        assert set(each["stages"]) == set(data_pass.STAGES)
        shares = [stage["share"] for stage in each["stages"].values()]
        assert sum(shares) == pytest.approx(1) and min(shares) >= 0
        milliseconds = sum(stage["ms"] for stage in each["stages"].values())
        walls = [s / each["samples"] * 1e3 for s in each["by_clock"]["seconds"]]
        assert min(walls) <= milliseconds * 1.0001 and len(walls) == 2
        assert each["by_clock"]["pixels"] == each["samples"] * 32**2
    assert set(measured["pipeline"]) == {"1", "2"}
    for speed in measured["pipeline"].values():
        clock = speed["by_clock"]
        assert 0 < clock["lowest"] <= clock["megapixels_per_s"] <= clock["highest"]
    assert "target" not in measured  # it is about patches of 896 px


def test_a_patch_and_a_window_read_every_record_once(finished):
    layouts = finished[1]["layouts"]
    assert layouts["patches"]["warm"]["records_per_patch"] == 1
    # Scenes of 64 x 96 px are one stored tile, read once for image and label.
    assert layouts["scenes"]["warm"]["records_per_patch"] == 1
    for measured in layouts.values():
        assert measured["warm"]["stored_bytes_per_patch"] > 0
        assert measured["warm"]["decoded_bytes_per_patch"] == 32 * 32 * 4


def test_printed_tables_name_the_data_the_stages_and_the_runs(finished):
    printed, found = finished
    assert found["data"] in printed and found["host"]["cpu"] in printed
    for text in (*data_pass.STAGES, "1 thread, cold", "pipeline, 2 threads"):
        assert printed.count(text) >= 2  # once for each layout


def test_threads_of_opencv_are_given_back(finished):
    assert cv2.getNumThreads() == 2  # as before the run


def test_verdict_says_fail_where_the_target_is_missed(finished):
    measured = finished[1]["layouts"]["patches"]
    for is_ok, verdict in ((True, ": pass"), (False, ": FAIL")):
        judged = {**measured, "target": 75.0, "target_ok": is_ok}
        assert verdict in data_table._layout_lines(judged)["one core"]


def test_a_layout_that_is_not_prepared_is_named_with_its_command(
    squares, data_root, capsys
):
    given = words(squares, data_root)
    with flagsaver.flagsaver():
        command.main(given)
    name = capsys.readouterr().out.split("data         ")[1].split()[0]
    with flagsaver.flagsaver():
        command.main([*given, f"--config.data.name={name}", "--config.stride=16"])
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "no patches" in line)
    assert "--configs=patches_32_16" in line and "scenes: one thread" in printed


@pytest.mark.parametrize(
    "more, said",
    (
        (["--threads=0"], "whole numbers above 0"),
        (["--rows=64"], "--rows means nothing to data"),
        (["--config.data.name=isaid", "--config.num_classes=16"], "is not prepared"),
        (["--config.data.dir=/nowhere"], "no such folder"),
    ),
)
def test_mistakes_are_sentences_with_exit_code_2(
    more, said, squares, data_root, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", words(squares, data_root, *more))
    with flagsaver.flagsaver():
        assert command.run() == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_counted_records_are_the_records():
    kept = [{"image": b"12345", "more": {"x1": b"123"}, "side": np.int32(4)}] * 3
    counted = data_pass.CountedRecords(kept)
    assert len(counted) == 3 and counted[1] is kept[1]
    assert (counted.count, counted.stored_bytes) == (1, 8) and counted.seconds > 0


def test_files_are_forgotten_where_the_system_can(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")
    data_pass.forget(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"abc"
    monkeypatch.delattr(data_pass.os, "posix_fadvise", raising=False)
    assert data_pass.forget(tmp_path) is False
