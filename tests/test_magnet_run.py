"""MagNet as a user runs it: trained, stopped, scored, and files labelled with it."""

import json
import os
import shutil
import subprocess
import sys
import types

import cv2
import jax
import ml_collections
import numpy as np
import pytest
from tiny_run import draw_scene

import uhrjax
from uhrjax import (
    checkpoint,
    errors,
    explain,
    metrics,
    repair,
    session,
    trained,
    update,
)
from uhrjax import engine as engine_lib
from uhrjax.data import raster

SPEC = "configs/magnet.py:folder,small"
VALUES = {
    "tile": 32, "stride": 32, "eval.stride": 32, "model.scales": "(0.5,1.0)",
    "model.crop": "(32,32)", "model.input_size": "(32,32)", "model.width": 4,
    "segmenter.model.width": 4, "segmenter.model.fpn_dim": 8, "batch_size": 4,
    "stages.backbone.batch_size": 4, "epochs": 3, "stages.backbone.epochs": 2,
    "eval.every": 3, "stages.backbone.eval.every": 2, "log_every": 1,
    "checkpoint_every": 1, "eval.panels": 1, "magnet.kernel": 3,
    "magnet.fast_patches": 2, "loss.ohem_min_kept": 1000, "magnet.patches_at_once": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder data set: 4 scenes to train, 2 of one other size to validate."""
    root = tmp_path_factory.mktemp("scenes")
    for split, count, size in (("train", 4, (64, 96)), ("val", 2, (75, 50))):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            image, label = draw_scene(10 * count + i, *size)
            cv2.imwrite(str(root / split / f"images/{i}.png"), image[..., ::-1])
            cv2.imwrite(str(root / split / f"masks/{i}.png"), label)
    names = [{"name": "ground", "id": 0}, {"name": "square", "id": 1}]
    (root / "classes.json").write_text(json.dumps({"classes": names}))
    return root


@pytest.fixture(scope="module")
def words(scenes, data_root):
    values = {**VALUES, "data.dir": scenes, "data.root": data_root / "magnet"}
    return [f"--config.{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def steps():
    """The compiled steps of the run below."""
    return []


@pytest.fixture(scope="module")
def run(words, steps, tmp_path_factory):
    """A finished run: two steps of the backbone, three of the refinement network."""
    folder, make = tmp_path_factory.mktemp("run"), update.Update

    def noted(*given):
        steps.append(make(*given))
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "Update", noted)
        assert session.train(SPEC, words, str(folder)) == 0
    return folder


def lines_of(folder):
    timing = ("patches_per_s", "data_wait_share", "megapixels_per_s")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in timing} for line in lines]


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def restarted(run, folder):
    """Returns a folder in which only the backbone is trained."""
    shutil.copytree(run / "backbone", folder / "backbone")
    return folder


def test_one_command_trains_the_backbone_then_what_refines_it(run, steps):
    for stage, count in (("backbone", 2), ("refine", 3)):
        lines = [x for x in lines_of(run / stage) if x["part"] == "train"]
        assert len(lines) == count and np.isfinite([x["total"] for x in lines]).all()
    assert [step._step._cache_size() for step in steps] == [1, 1]
    before, after = (
        trained.load_run(run / stage).variables for stage in ("backbone", "refine")
    )
    for kind, tree in before.items():
        jax.tree.map(
            np.testing.assert_array_equal, tree["segmenter"], after[kind]["segmenter"]
        )
    moved = jax.tree.map(
        lambda a, b: abs(a - b).max(),
        before["params"]["refiner_0"], after["params"]["refiner_0"],
    )  # fmt: skip
    assert min(jax.tree.leaves(moved)) > 0


def test_reports_hold_the_scores_of_the_papers_tables(run):
    small, full = (report_of(run / stage) for stage in ("backbone", "refine"))
    assert [r["cost"]["patches_per_image"] for r in (small, full)] == [1, 1 + 6]
    assert small["cost"]["gmac_per_image"] < full["cost"]["gmac_per_image"] / 6.9
    for found in (small, full):
        counts = np.array(found["confusion"])
        assert counts.sum() == 2 * 75 * 50
        weighted = metrics.frequency_weighted_iou(counts)
        assert found["scores"]["frequency_weighted_iou"] == pytest.approx(weighted)
        assert 0 <= found["scores"]["mba"] <= 1


def test_labels_without_boundary_are_left_out_of_the_boundary_accuracy(run, capsys):
    flags = ["--config.eval.panels=0", "--config.eval.void=(0,1)"]
    assert session.evaluate(run, flags) == 0
    said = capsys.readouterr().out  # no class is left, so no boundary
    place = run / "refine/scored/void=0+1"
    assert "mBA" not in said and "mba" not in report_of(place)["scores"]
    assert session.evaluate(run, flags[:1]) == 0
    assert "boundary accuracy" in capsys.readouterr().out
    assert "mba" in report_of(run / "refine")["scores"]


def test_a_refinement_that_broke_goes_on_bit_for_bit(run, words, tmp_path, monkeypatch):
    restarted(run, tmp_path)
    take_step, calls = update.Update.__call__, []

    def breaks(self, state, micros):
        calls.append(1)
        if len(calls) == 3:
            raise ConnectionError("power cut")
        return take_step(self, state, micros)

    monkeypatch.setattr(update.Update, "__call__", breaks)
    with pytest.raises(ConnectionError):
        session.train(SPEC, words, str(tmp_path))
    monkeypatch.undo()
    assert session.train(SPEC, words, str(tmp_path)) == 0
    assert lines_of(tmp_path / "refine") == lines_of(run / "refine")
    hashes = [report_of(f / "refine")["weights_hash"] for f in (tmp_path, run)]
    assert hashes[0] == hashes[1]


def test_four_devices_equal_one(run, words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "uhrjax.main", f"--config={SPEC}",
         f"--workdir={tmp_path}", *words],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "4"}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 x cpu" in done.stdout
    one, four = (
        [lines_of(folder / stage)[0]["total"] for stage in ("backbone", "refine")]
        for folder in (run, tmp_path)
    )
    np.testing.assert_allclose(four[0], one[0], rtol=1e-5)
    # The input norm divides by the deviation of an untrained network's answers.
    np.testing.assert_allclose(four[1], one[1], rtol=2e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A scene and what somebody says of it: labels, and probabilities."""
    folder = tmp_path_factory.mktemp("files")
    image, label = draw_scene(1, 75, 50)
    label[:5] = 255
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images/a.png"), image[..., ::-1])
    cv2.imwrite(str(folder / "a.png"), label)
    return types.SimpleNamespace(folder=folder, image=image, label=label)


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_files_are_labelled_fast_or_in_full(run, files, tmp_path):
    found = {}
    for fast in (True, False):
        folder = tmp_path / str(fast)
        flags = [f"--config.magnet.fast={fast}", "--config.predict.probabilities=uint8"]
        images = str(files.folder / "images/a.png")
        assert session.predict(run, flags, images, str(folder)) == 0
        (likely,) = folder.glob("a_probabilities.tif")
        found[fast] = read(likely)
        expected = uhrjax.segment(run, files.image, fast=fast, probabilities=True)
        np.testing.assert_array_equal(read(folder / "a.png"), expected)
    assert (found[True] != found[False]).any()


def test_the_label_map_of_somebody_else_is_refined(run, files, tmp_path):
    images = str(files.folder / "images/*.png")
    maps = str(files.folder / "a.png")
    assert session.refine(run, [], maps, images, str(tmp_path)) == 0
    refined = read(tmp_path / "a.png")
    assert refined.shape == (75, 50)
    assert (refined[:5] == 255).all() and set(np.unique(refined[5:])) <= {0, 1}
    # With no finer scale, what remains is the map, made small and large again.
    flags = ["--config.magnet.stages=0"]
    assert session.refine(run, flags, maps, images, str(tmp_path / "kept")) == 0
    kept = read(tmp_path / "kept/a.png")
    assert (kept[5:] == files.label[5:]).mean() > 0.9


def test_so_are_probabilities_as_a_prediction_writes_them(run, files, tmp_path):
    images = str(files.folder / "images/a.png")
    flags = ["--config.predict.probabilities=float16", "--config.magnet.stages=0"]
    assert session.predict(run, flags, images, str(tmp_path)) == 0
    maps = str(tmp_path / "a_probabilities.tif")
    out = tmp_path / "out"
    assert session.refine(run, flags[1:], maps, images, str(out)) == 0
    (again,) = (path for path in out.glob("*.png") if "overlay" not in path.name)
    assert (read(again) == read(tmp_path / "a.png")).mean() > 0.9


@pytest.mark.parametrize(
    ("images", "bands", "message"),
    [("", 1, "looks at the images, too"), ("images/a.png", 3, "2 bands")],
)
def test_maps_that_cannot_be_refined_say_what_is_missing(
    images, bands, message, run, files, tmp_path
):
    image = str(files.folder / images) if images else ""
    maps = files.folder / "a.png"
    if bands > 1:
        maps = tmp_path / "a.png"
        cv2.imwrite(str(maps), files.image)
    loaded = repair.load_refiner(run, [])
    if not images:
        with pytest.raises(errors.InputError, match=message):
            repair.refine_files(loaded, str(maps), image, tmp_path / "out")
        return
    (said,) = repair.refine_files(loaded, str(maps), image, tmp_path / "out").values()
    assert message in said


def test_every_scale_is_drawn(run, files):
    loaded = trained.load_run(run, ["--config.magnet.fast=true"])
    with raster.open_scene(files.folder / "images/a.png") as scene:
        (name, picture), = explain.draw(loaded, scene, (0, 0)).items()  # fmt: skip
        height, width = 28 + 320, round(320 * 50 / 75)
        assert name == "stages" and picture.shape == (2 * height, 6 * width, 3)
        none = trained.load_run(run, ["--config.magnet.stages=0"])
        with pytest.raises(errors.InputError, match="over no finer scale"):
            explain.draw(none, scene, (0, 0))
        little = trained.load_run(run, ["--config.magnet.memory_mb=1"])
        engine = engine_lib.make_engine(little.method, little.config)
        assert engine.fits(75, 50) and not engine.fits(750, 500)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tta": True}, "MagNet labels a scene as a whole; leave it false"),
        ({"blend": "hann"}, "blend has no meaning.*use any of fast, n_points"),
        ({"kernel": 4}, "config.magnet: kernel 4 has no centre"),
        ({"n_points": 0.0}, "config.magnet: n_points 0.0.*use points above 0"),
        ({"stages": -2}, "stages -2: use -1"),
    ],
)
def test_what_the_pass_cannot_do_is_refused(run, changes, message):
    with pytest.raises(errors.InputError, match=message):
        uhrjax.segment(run, np.zeros((40, 40, 3), np.uint8), **changes)


def test_a_crop_that_is_refined_must_stay_in_its_place(run, words, tmp_path):
    restarted(run, tmp_path)
    with pytest.raises(errors.InputError, match=r"augment\.hflip: a crop that a"):
        session.train(SPEC, [*words, "--config.data.augment.hflip=0.5"], str(tmp_path))
    with pytest.raises(errors.InputError, match="'patches' does not go with magnet"):
        session.train(SPEC, [*words, "--config.data.unit=patches"], str(tmp_path))


def test_a_refinement_network_per_scale_trains_after_those_before():
    spec = "configs/magnet.py:synthetic"
    config = uhrjax.load_config(spec)
    config.model.refiners, config.stages = 2, ml_collections.ConfigDict()
    found = uhrjax.methods.find("magnet").stages(config)
    assert [s.name for s in found] == ["backbone", "refine1", "refine2"]
    assert [s.start for s in found[1:]] == [
        (("", "backbone", ""),), (("", "refine1", ""),)
    ]  # fmt: skip
    scales = []
    for stage in found:
        config.model.trained = stage.changes["model.trained"]
        scales.append(uhrjax.build(config).crop_scales)
    assert scales == [(0, 1, 2), (1,), (2,)]
    assert [s.changes.get("magnet.stages") for s in found] == [0, 1, None]


def test_pretraining_reads_scenes_made_small_and_hands_over_every_weight():
    config = uhrjax.load_config("configs/magnet.py:synthetic")
    first, second, _ = uhrjax.methods.find("magnet").stages(config)
    assert first.changes["model.learned"] == (0,)
    assert second.start == (("", "pretrain", ""),)
    assert second.changes == {"model.trained": -1, "magnet.stages": 0}


def test_a_checkpoint_of_the_backbone_alone_labels_scenes_made_small(run, files):
    with checkpoint.open_run(run / "backbone") as store:
        assert store.selected == 2
    small = uhrjax.segment(run / "backbone", files.image)
    coarse = uhrjax.segment(run, files.image, stages=0)
    np.testing.assert_array_equal(small, coarse)
