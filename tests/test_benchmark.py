"""The benchmark, as a user runs it, on scenes of a few windows."""

import contextlib
import io
import json

import numpy as np
import pytest
from absl.testing import flagsaver

from uhrjax import errors
from uhrjax.benchmark import __main__ as command
from uhrjax.benchmark import memory, peak, predict, table, texture, timing
from uhrjax.data import raster
from uhrjax.tiling import plan, window

CONFIG = "--config=configs/semantic_fpn.py:synthetic,smoke"
STAGES = ("read", "overview", "cut, blend, argmax", "write", "file to mask")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A benchmark of 128 px scenes: what it printed and its JSON."""
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    words = [
        "benchmark", "predict", CONFIG, "--config.model.width=8",
        "--config.model.fpn_dim=8", "--config.eval.stride=48", "--rows=128,192",
        "--columns=128", "--repeats=2", "--pass_s=0", f"--json={path}",
    ]  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), flagsaver.flagsaver():
        assert command.main(words) == 0
    return printed.getvalue(), json.loads(path.read_text())


def test_every_stage_has_a_median_and_its_spread(finished):
    speeds = finished[1]["stages"]["speed"]
    assert tuple(speeds) == STAGES
    for speed in speeds.values():
        assert 0 < speed["lowest"] <= speed["megapixels_per_s"] <= speed["highest"]
        assert len(speed["seconds"]) == 2 and speed["pixels"] == 128 * 128


def test_network_is_measured_alone_and_from_file_to_mask(finished):
    network = finished[1]["network"]
    assert (network["rows"], network["columns"]) == (64 + 48, 128)
    speed = network["speed"]
    assert set(speed) == {"alone, window px", "alone, scene px", "file to mask"}
    # 64 px windows every 48 px: 2 rows of 3.
    assert network["windows"] == 2 * 3
    windows, scene = (speed[f"alone, {what} px"] for what in ("window", "scene"))
    ratio = windows["megapixels_per_s"] / scene["megapixels_per_s"]
    assert ratio == pytest.approx(6 * 64**2 / (112 * 128))
    pairs = zip(scene["seconds"], speed["file to mask"]["seconds"], strict=True)
    shares = [1 - alone / whole for alone, whole in pairs]
    assert network["engine_share"] == pytest.approx(np.median(shares))
    assert network["engine_share_ok"] == (np.median(shares) <= 0.15)
    assert network["gmac_per_window"] > 1e-4 and network["compile_s"] > 0


def test_no_share_of_the_peak_is_claimed_for_an_unknown_device(finished):
    assert finished[1]["network"]["peak_share"] is None
    assert "no share claimed" in finished[0]


def test_every_height_has_its_peak(finished):
    memory = finished[1]["memory"]
    assert [each["rows"] for each in memory["passes"]] == [128, 192]
    assert all(each["host_peak_mb"] > 50 for each in memory["passes"])
    assert all(each["device_peak_mb"] is None for each in memory["passes"])
    assert memory["host_growth_ok"] in (True, False)


def test_printed_table_names_device_and_stages(finished):
    printed, found = finished
    assert printed.index(found["device"]["name"]) < printed.index("file to mask")
    for stage in STAGES:
        assert stage in printed
    assert "engine's share" in printed and "growth with the rows" in printed


def test_verdict_says_fail_where_a_target_is_missed():
    passes = [
        {"rows": rows, "columns": 9, "seconds": 1.0, "host_peak_mb": mb,
         "device_peak_mb": 7.0}
        for rows, mb in ((100, 1000.0), (200, 2500.0))
    ]  # fmt: skip
    judged = predict._judge_memory(passes)
    assert judged["host_growth"] == pytest.approx(1.5)
    lines = " ".join(table._memory_lines(judged).values())
    assert lines.count("FAIL") == 2


def test_one_height_says_nothing_about_growth():
    one = {"rows": 5, "columns": 9, "seconds": 1.0, "host_peak_mb": 1.0}
    assert predict._judge_memory([one])["host_growth_ok"] is None


def test_speed_is_the_median_with_the_extremes():
    found = timing.Timing((1.0, 4.0, 2.0), 4e6)
    assert found.speeds() == (2.0, 1.0, 4.0)


def test_warm_up_does_not_count():
    calls = []
    found = timing.measure(lambda: calls.append(1), pixels=1, repeats=3)
    assert len(calls) == 4 and len(found.seconds) == 3


def test_peak_is_known_for_bfloat16_only():
    assert peak.tflops("NVIDIA H200", "bfloat16", 2) == pytest.approx(2 * 989.4)
    assert peak.tflops("NVIDIA H200", "float32", 1) is None
    assert peak.tflops("cpu", "bfloat16", 1) is None


@pytest.mark.parametrize("windows", (0, 1, 7, 40, 10**6))
def test_real_scene_holds_full_calls_and_two_rows_of_windows(windows):
    tiling = plan.Tiling(tile=64, stride=48, batch_size=4)
    height, width = predict._fit((5000, 3000), tiling, windows=windows)
    down, across = (
        len(window.plan_starts(side, tile=64, stride=48)) for side in (height, width)
    )
    assert down >= 2
    if windows < 10**6:
        assert across % 4 == 0 and down * across <= max(windows, 8)
    else:
        assert (height, width) == (5000, 3000)


def test_scene_of_any_height_is_written(tmp_path):
    path = tmp_path / "scene.tif"
    texture.write(path, rows=texture.BLOCK + 3, columns=70)
    with raster.open_scene(path) as scene:
        assert (scene.info.height, scene.info.width) == (texture.BLOCK + 3, 70)
        assert scene.info.crs and scene.info.transform == texture.PLACE
        last = scene.read(window.Window(texture.BLOCK, 0, 3, 70))
    assert last.std() > 5  # no empty strip


def test_scene_that_does_not_fit_the_disk_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="set TMPDIR to another disk"):
        texture.write(tmp_path / "a.tif", rows=10**9, columns=10**9)


def test_labels_hold_all_classes_in_patches():
    labels = texture.draw_labels(97, 130, classes=5, seed=0)
    assert labels.shape == (97, 130) and set(np.unique(labels)) == set(range(5))
    assert (labels[:, 1:] == labels[:, :-1]).mean() > 0.5


def test_memory_scene_hands_out_as_many_rows_as_wanted():
    scene = texture.MemoryScene(50, 20)
    for rows in (3, 70, 8):
        assert scene.read(window.Window(-9, 0, rows, 20)).shape == (rows, 20, 3)


@pytest.mark.parametrize(
    "words, said",
    (
        ([], "unknown benchmark ''; use one of train, predict, data, all"),
        (["trian", CONFIG], "unknown benchmark 'trian'"),
        (["train", CONFIG, "--rows=64"], "--rows means nothing to train"),
        (["predict"], "no --config"),
        (["predict", CONFIG, "--rows=4096,much"], "--rows=4096,much: give whole"),
        (["predict", CONFIG, "--rows=0"], "whole numbers above 0"),
        (["predict", CONFIG, "--columns=0"], "columns"),
        (["predict", CONFIG, "--json=/nowhere/x.json"], "a folder that exists"),
        (["predict", CONFIG, "--config.tile=63", "--rows=64"], "tile"),
    ),
)
def test_mistakes_are_sentences_with_exit_code_2(words, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    with flagsaver.flagsaver():
        assert command.run() == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_memory_scene_and_mask_hand_out_crops():
    scene = texture.MemoryMask(40, 30, classes=3)
    crop = window.Window(2, 10, 8, 12)
    assert scene.image.read(crop).shape == (8, 12, 3)
    labels = scene.read(crop)
    assert labels.shape == (8, 12, 1) and set(np.unique(labels)) <= {0, 1, 2}
    assert (scene.read(window.Window(38, 0, 4, 5))[2:] == 255).all()


def test_pass_that_fails_says_why(tmp_path):
    with pytest.raises(OSError, match=r"64 x 32 px ended with code 1.*no config file"):
        memory.measure("none.py", [], rows=32, columns=64, folder=tmp_path)
    assert not list(tmp_path.iterdir())
