"""Benchmarks of methods without windows, streams of their data, and all in a row."""

import contextlib
import io
import json
import pathlib
import types

import pytest
from absl.testing import flagsaver

from uhrjax.benchmark import __main__ as command
from uhrjax.benchmark import suite, suite_table


def run(*words):
    """Returns the exit code and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), flagsaver.flagsaver():
        code = command.main(["benchmark", *words])
    return code, printed.getvalue()


@pytest.fixture(scope="module", params=["foveation", "refinement"])
def labelled(request, tmp_path_factory):
    """A scene of a method that labels it as a whole, a map that is refined."""
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    spec = {"foveation": "foveation.py:synthetic,smoke,patch1"}
    spec = spec.get(request.param, f"{request.param}.py:synthetic,smoke")
    code, printed = run(
        "predict", f"--config=configs/{spec}", "--rows=64", "--columns=96",
        "--repeats=2", f"--json={path}",
    )  # fmt: skip
    assert code == 0
    return printed, json.loads(path.read_text())


def test_scenes_have_speeds_and_their_first_run_apart(labelled):
    printed, found = labelled
    (scene,) = found["scenes"]
    assert (scene["rows"], scene["columns"]) == (64, 96)
    for speed in scene["speed"].values():
        assert len(speed["seconds"]) == 2 and speed["pixels"] == 64 * 96
    seconds = next(iter(scene["speed"].values()))["seconds"]
    assert scene["scenes_per_s"] == pytest.approx(2 / sum(seconds))
    assert scene["first_s"] > max(seconds)  # compiles
    assert "scenes  " in printed and found["host_peak_mb"] > 50


def test_labelled_scenes_count_patches_and_arithmetic(labelled):
    (scene,) = labelled[1]["scenes"]
    if labelled[1]["method"] == "refinement":
        assert "label map in memory" in scene["speed"]
        return
    assert set(scene["speed"]) == {"scene in memory", "file to mask"}
    assert scene["patches"] > 1 and scene["gmac_per_scene"] > 0


@pytest.mark.parametrize("recipe, unit", [("magnet", "scales"), ("glnet", "scenes")])
def test_streams_of_other_units_are_measured(
    recipe, unit, squares, data_root, tmp_path
):
    path = tmp_path / "figures.json"
    code, printed = run(
        "data", f"--config=configs/{recipe}.py:synthetic,smoke",
        "--config.data.name=folder", f"--config.data.dir={squares}",
        f"--config.data.root={data_root}", "--config.num_classes=2",
        "--config.data.split=val", "--config.data.val_split=val",
        "--repeats=2", "--repeat_s=0", "--threads=1,2", f"--json={path}",
    )  # fmt: skip
    found = json.loads(path.read_text())
    assert code == 0 and found["unit"] == unit and set(found["stream"]) == {"1", "2"}
    for speed in found["stream"].values():
        assert speed["patches_per_s"] > 0 and len(speed["by_clock"]["seconds"]) == 2
    assert f"{unit}: MPix/s" in printed and "pipeline, 2 threads" in printed


@pytest.fixture
def processes(monkeypatch):
    """Stands in for other processes: those that `data` starts fail."""
    lines = []

    def start(words, **_):
        lines.append(words)
        if "-c" in words:
            return types.SimpleNamespace(stdout="cpu\n")
        if "data" in words:
            return types.SimpleNamespace(returncode=2, stderr="a\nnot prepared\n")
        target = pathlib.Path(words[-1].removeprefix("--json="))
        name = words[3]
        part = {"images_per_s": 8.0, "step_ms": {"median": 5.0}, "temporary_mb": 1.0,
                "arguments_mb": 2.0, "tflop_per_s": 0.5, "peak_share": 0.4}  # fmt: skip
        scene = {"rows": 9, "columns": 9, "scenes_per_s": 4.0,
                 "speed": {"scene": {"megapixels_per_s": 1.5}}}  # fmt: skip
        result = {
            "benchmark": name, "config": words[4].removeprefix("--config="),
            "stage": "main", "device_part": part, "whole": {"missing": "x"},
            "scenes": [scene], "device_peak_mb": None, "host_peak_mb": 70.0,
        }  # fmt: skip
        target.write_text(json.dumps(result))
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(suite.subprocess, "run", start)
    return lines


def test_all_runs_every_benchmark_of_one_config_and_lists_what_failed(processes):
    code, printed = run("all", "--config=configs/pfnet.py", "--config.tile=64")
    assert code == 1 and "failed       data configs/pfnet.py: it ended" in printed
    assert "said: not prepared" in printed
    assert "8 images/s" in printed and "40.0%" in printed and "4 scenes/s" in printed
    train, predict, _ = processes
    assert "--steps=20" in train and "--repeats=5" not in train
    assert "--repeats=5" in predict and "--config.tile=64" in predict


def test_all_without_a_config_takes_small_recipes_on_a_cpu(processes):
    run("all")
    commands = [words[3] for words in processes if "-m" in words]
    assert len(commands) == 3 * len(suite.SMALL) and set(commands) == set(
        suite.COMMANDS
    )


def test_papers_recipes_of_the_suite_exist():
    for name, spec, words in suite.PAPERS:
        assert name in suite.COMMANDS
        overrides = [word for word in words if word.startswith("--config.")]
        assert command.config_lib.from_command(spec, overrides).method


def test_a_row_says_what_was_not_measured():
    speed = {"patches_per_s": 30.0}
    result = {
        "benchmark": "data", "config": "configs/magnet.py", "layouts": {},
        "unit": "scales", "stream": {"2": speed},
    }  # fmt: skip
    (row,) = suite_table.rows(result)
    assert row[:3] == ("magnet.py", "data as scales, 2 threads", "30 patches/s")
    assert set(row[3:]) == {"-"} and len(row) == len(suite_table.COLUMNS)
