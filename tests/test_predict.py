"""Labelling files with a finished run, as a user does."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tiny_run import draw_scene

import uhrjax
from uhrjax import errors, main, predict, trained


@pytest.fixture(scope="module")
def run(runs):
    return trained.load_run(runs / "upernet")


@pytest.fixture
def scenes(tmp_path):
    """Three images of awkward sizes and no labels."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for i, size in enumerate([(70, 101), (1, 40), (32, 33)]):
        image, _ = draw_scene(50 + i, *size)
        cv2.imwrite(str(folder / f"s{i}.png"), image[..., ::-1])
    return folder


def command(runs, *more):
    return ["main", "--mode=predict", f"--checkpoint={runs / 'upernet'}", *more]


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_predict_writes_a_mask_for_every_scene(runs, run, scenes, tmp_path, capsys):
    out = tmp_path / "masks"
    argv = command(runs, f"--input={scenes}/*.png", f"--output={out}")
    assert main.main(argv) == 0
    printed = capsys.readouterr().out
    for path in sorted(scenes.iterdir()):
        image, mask = read(path)[..., ::-1], read(out / path.name)
        assert mask.shape == image.shape[:2] and mask.max() <= 1
        np.testing.assert_array_equal(
            mask, uhrjax.segment(run, np.ascontiguousarray(image))
        )
        assert f"{path}: {mask.shape[1]} x {mask.shape[0]} px" in printed
    assert (out / "s0_overlay.png").exists()
    assert json.loads((out / "s0.json").read_text())["classes"][1]["name"] == "square"


def test_prediction_finds_what_the_run_learned(runs, run, data_root):
    report = json.loads((runs / "upernet/report.json").read_text())
    image, label = draw_scene(99, 96, 96)
    accuracy = (uhrjax.segment(run, image) == label).mean()
    assert accuracy > 0.5 and report["scores"]["accuracy"] > 0.5


def test_mask_equals_the_one_of_the_evaluation(runs, squares, tmp_path):
    argv = command(
        runs, f"--input={squares}/val/images", f"--output={tmp_path}",
        "--config.eval.batch_size=4",
    )  # fmt: skip
    assert main.main(argv) == 0
    for path in (runs / "upernet/masks").glob("*.png"):
        same = read(path) == read(tmp_path / path.name)
        assert same.mean() > 0.995  # another batch size, other rounding


def test_eight_devices_split_the_windows_of_a_scene(runs, run, scenes, tmp_path):
    argv = command(runs, f"--input={scenes / 's0.png'}", f"--output={tmp_path / 'm'}")
    done = subprocess.run(
        [sys.executable, "-m", "uhrjax.main", *argv[1:]],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "8 x cpu" in done.stdout, done.stderr
    image = np.ascontiguousarray(read(scenes / "s0.png")[..., ::-1])
    same = read(tmp_path / "m/s0.png") == uhrjax.segment(run, image)
    assert same.mean() > 0.999  # rounding


def test_evaluate_needs_nothing_but_the_checkpoint(runs, squares):
    before = json.loads((runs / "semantic_fpn/report.json").read_text())
    argv = ["main", "--mode=evaluate", f"--checkpoint={runs / 'semantic_fpn'}"]
    assert main.main([*argv, "--config.eval.panels=0"]) == 0
    after = json.loads((runs / "semantic_fpn/report.json").read_text())
    assert after["confusion"] == before["confusion"]


def test_second_run_passes_over_complete_scenes(runs, scenes, tmp_path, capsys):
    argv = command(runs, f"--input={scenes}", f"--output={tmp_path / 'm'}")
    main.main(argv)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "m").iterdir()}
    capsys.readouterr()
    main.main(argv)
    assert capsys.readouterr().out.count("complete already") == 3
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "m").iterdir()} == stamps


def test_interrupted_scene_goes_on_and_ends_the_same(
    run, scenes, tmp_path, monkeypatch, capsys
):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert not predict.predict_files(run, str(scenes / "s0.png"), whole)

    class Stop(Exception):
        pass

    label = predict.inference.Engine.label

    def stopping(self, *args, **given):
        for i, rows in enumerate(label(self, *args, **given)):
            if i == 2:
                raise Stop
            yield rows

    with monkeypatch.context() as patch:
        patch.setattr(predict.inference.Engine, "label", stopping)
        with pytest.raises(Stop):
            predict.predict_files(run, str(scenes / "s0.png"), part)
    assert not (part / "s0.png").exists()
    assert not predict.predict_files(run, str(scenes / "s0.png"), part)
    assert "went on from row" in capsys.readouterr().out
    assert (part / "s0.png").read_bytes() == (whole / "s0.png").read_bytes()


def test_damaged_scene_fails_alone_and_is_listed(runs, scenes, tmp_path, capsys):
    (scenes / "broken.png").write_bytes((scenes / "s0.png").read_bytes()[:300])
    (scenes / "empty.png").write_bytes(b"")
    argv = command(runs, f"--input={scenes}", f"--output={tmp_path / 'm'}")
    assert main.main(argv) == 1
    printed = capsys.readouterr().out
    assert "2 scenes failed" in printed and "broken.png" in printed
    written = {p.name for p in (tmp_path / "m").glob("*.png")}
    assert {"s0.png", "s1.png", "s2.png"} <= written
    assert not written & {"broken.png", "empty.png"}


@pytest.mark.parametrize(
    "changes", [{"tta": True}, {"blend": "hann"}, {"grid": "even"}]
)
def test_segment_takes_other_tilings(run, changes):
    image, _ = draw_scene(3, 50, 64)
    plain = uhrjax.segment(run, image)
    other = uhrjax.segment(run, image, **changes)
    assert other.shape == plain.shape and (other == plain).mean() > 0.7


def test_segment_refuses_what_is_no_image(run):
    with pytest.raises(errors.InputError, match="uint8"):
        uhrjax.segment(run, np.zeros((4, 4, 3), np.float32))


def test_georeference_of_the_input_is_kept(run, scenes, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    image = read(scenes / "s0.png")[..., ::-1]
    transform = rasterio.Affine(0.5, 0.1, 30.0, 0.1, -0.5, 60.0)  # rotated
    source = tmp_path / "geo.tif"
    with rasterio.open(
        source, "w", driver="GTiff", height=70, width=101, count=3, dtype="uint8",
        crs="EPSG:32636", transform=transform,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(image, 2, 0))
    assert not predict.predict_files(run, str(source), tmp_path / "m")
    with rasterio.open(tmp_path / "m/geo.tif") as file:
        assert file.crs.to_epsg() == 32636 and file.transform == transform
        assert file.nodata == 255
        np.testing.assert_array_equal(file.read(1), uhrjax.segment(run, image.copy()))


def test_output_over_the_input_is_refused(run, scenes):
    before = (scenes / "s0.png").read_bytes()
    failed = predict.predict_files(run, str(scenes / "s0.png"), scenes)
    assert len(failed) == 1 and (scenes / "s0.png").read_bytes() == before


@pytest.mark.parametrize(
    "arguments, match",
    [
        (["--output=x"], "needs --input"),
        (["--input=x.png"], "needs --output"),
        (["--input=nothing*.tif", "--output=x"], "nothing"),
        (["--input=x", "--output=y", "--config.predict.blub=1"], "unknown config key"),
        (["--input=x", "--output=y", "--checkpoint=/nowhere"], "holds no run"),
    ],
)
def test_mistakes_end_with_one_sentence(runs, capsys, monkeypatch, arguments, match):
    monkeypatch.setattr(sys, "argv", command(runs, "--input=", "--output=", *arguments))
    assert main.run() == 2
    text = capsys.readouterr().err
    assert match in text and "Traceback" not in text


def test_checkpoint_without_class_names_is_refused(runs, tmp_path):
    shutil.copytree(runs / "upernet", tmp_path / "run")
    for path in pathlib.Path(tmp_path / "run/checkpoints").glob("*/meta/metadata"):
        meta = json.loads(path.read_text())
        meta["classes"] = []
        path.write_text(json.dumps(meta))
    with pytest.raises(errors.InputError, match="names no classes"):
        trained.load_run(tmp_path / "run")
