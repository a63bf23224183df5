"""Foveation as a user runs it: trained, stopped, scored, and files labelled with it."""

import json
import os
import shutil
import subprocess
import sys
import types

import cv2
import jax
import numpy as np
import pytest
from tiny_run import draw_scene, foveation_flags

import uhrjax
from uhrjax import config as config_lib
from uhrjax import engine as engine_lib
from uhrjax import (
    errors,
    foveal,
    predict,
    refine,
    session,
    sources,
    trained,
    update,
)

SPEC = "configs/foveation.py:folder,small"


@pytest.fixture(scope="module")
def words(squares, data_root):
    return foveation_flags(squares, data_root)


@pytest.fixture(scope="module")
def programs():
    """The compiled step of the run below, and its engines."""
    return {"steps": [], "engines": []}


@pytest.fixture(scope="module")
def run(words, programs, tmp_path_factory):
    """A finished run, six steps in two iterations."""
    folder = tmp_path_factory.mktemp("foveation")
    make_update, make_engine = update.Update, foveal.FovealEngine

    def noted_update(*given):
        programs["steps"].append(make_update(*given))
        return programs["steps"][-1]

    def noted_engine(*given):
        programs["engines"].append(make_engine(*given))
        return programs["engines"][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "Update", noted_update)
        patch.setattr(foveal, "FovealEngine", noted_engine)
        assert session.train(SPEC, words, str(folder)) == 0
    return folder


def lines_of(folder):
    timing = ("patches_per_s", "data_wait_share", "megapixels_per_s")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in timing} for line in lines]


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_one_command_trains_scores_and_reports(run, squares):
    losses = [line["total"] for line in lines_of(run) if line["part"] == "train"]
    assert len(losses) == 6 and np.isfinite(losses).all()
    found = report_of(run)
    assert found["method"] == "foveation" and found["step"] == 6
    labelled = 0
    for path in (squares / "val/masks").iterdir():
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        ours = cv2.imread(str(run / "masks" / path.name), cv2.IMREAD_UNCHANGED)
        assert ours.shape == label.shape
        labelled += label.size
    counts = np.array(found["confusion"])
    assert counts.sum() == labelled
    for k, own in enumerate(found["classes"].values()):  # as in Table B.2.3
        assert own["pixel_accuracy"] == pytest.approx(counts[k, k] / counts[k].sum())
    # Scenes of 75 x 50, 33 x 90 and 1 x 1 px at a location every 24 px.
    mean = (3 * 2 + 1 * 4 + 1) / 3
    assert found["cost"]["locations_per_image"] == pytest.approx(mean)
    assert found["cost"]["gmac_per_image"] > 0
    assert len(list((run / "panels").glob("*.png"))) == 1


def test_patches_wider_than_a_scene_are_told_at_the_start(words, tmp_path, capsys):
    others = [word for word in words if "model.bank" not in word]
    wide = [*others, "--config.model.bank=(32,64,200)"]
    config = config_lib.from_command(SPEC, wide)
    data = sources.open_data(config)
    session._print_start(SPEC, tmp_path, config, uhrjax.build(config), data)
    said = capsys.readouterr().out
    assert "200 px wide, the smallest scene 1 px" in said
    assert "beyond a scene is the mean colour" in said


def test_nothing_is_compiled_per_step_or_twice_per_size(run, programs):
    (step,) = programs["steps"]
    assert step._step._cache_size() == 1
    (engine,) = programs["engines"]
    # Scenes of three sizes, scored twice.
    assert engine.add._cache_size() == engine.look._cache_size() == 3


def test_a_run_that_broke_within_an_iteration_goes_on_bit_for_bit(
    run, words, tmp_path, monkeypatch
):
    take_step, calls = update.Update.__call__, []

    def breaks(self, state, micros):
        calls.append(1)
        if len(calls) == 5:
            raise ConnectionError("power cut")
        return take_step(self, state, micros)

    monkeypatch.setattr(update.Update, "__call__", breaks)
    with pytest.raises(ConnectionError):
        session.train(SPEC, words, str(tmp_path))
    monkeypatch.undo()
    assert len(lines_of(tmp_path)) == 4
    assert session.train(SPEC, words, str(tmp_path)) == 0
    assert lines_of(tmp_path) == lines_of(run)
    hashes = [report_of(folder)["weights_hash"] for folder in (tmp_path, run)]
    assert hashes[0] == hashes[1]


def test_four_devices_equal_one(run, words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "uhrjax.main", f"--config={SPEC}",
         f"--workdir={tmp_path}", *words],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "4"}, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 x cpu" in done.stdout
    one, four = lines_of(run), lines_of(tmp_path)
    np.testing.assert_allclose(four[0]["total"], one[0]["total"], rtol=1e-5)
    np.testing.assert_allclose(four[5]["total"], one[5]["total"], rtol=0.02)


def test_evaluate_repeats_the_report(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = report_of(run)
    assert session.evaluate(copy, ["--config.eval.panels=0"]) == 0
    assert report_of(copy)["confusion"] == before["confusion"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Scenes of two sizes in files."""
    folder = tmp_path_factory.mktemp("files")
    for name, size in (("a", (75, 50)), ("b", (75, 50)), ("c", (20, 31))):
        image, _ = draw_scene(len(name), *size)
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    return folder


def test_files_are_labelled_with_all_that_prediction_writes(run, files, tmp_path):
    flags = [
        "--config.predict.probabilities=float16", "--config.predict.uncertainty=margin",
        "--config.predict.tiff=true",
    ]  # fmt: skip
    assert session.predict(run, flags, str(files / "*.png"), str(tmp_path)) == 0
    for name, size in (("a", (75, 50)), ("c", (20, 31))):
        image = cv2.imread(str(files / f"{name}.png"))[..., ::-1]
        labels = uhrjax.segment(run, image)
        assert labels.shape == size and labels.dtype == np.uint8
        import rasterio

        with rasterio.open(tmp_path / f"{name}.tif") as file:
            np.testing.assert_array_equal(file.read(1), labels)
        (likely,) = tmp_path.glob(f"{name}*prob*.tif")
        with rasterio.open(likely) as file:
            shares = file.read().astype(np.float32)
        np.testing.assert_allclose(shares.sum(0), 1, atol=0.01)
        # Two classes may round to the same float16: the label is one of the largest.
        ours = np.take_along_axis(shares, labels[None].astype(int), axis=0)[0]
        np.testing.assert_array_equal(ours, shares.max(0))


def test_a_started_scene_goes_on_from_any_row(run):
    loaded = trained.load_run(run)
    engine = engine_lib.make_engine(loaded.method, loaded.config)
    image, _ = draw_scene(1, 75, 50)
    scene = predict.ArrayScene(image)
    (whole,) = engine.label(loaded.variables, scene)
    (rest,) = engine.label(loaded.variables, scene, first_row=30)
    assert rest.top == 30
    np.testing.assert_array_equal(rest.labels, whole.labels[30:])
    other = uhrjax.segment(loaded, image, rate=8)
    assert (other != whole.labels).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tta": True}, "labels a scene as a whole; leave it false"),
        ({"blend": "hann"}, "blend has no meaning.*use any of rate, aggregation"),
    ],
)
def test_what_means_nothing_to_whole_scenes_is_refused(run, changes, message):
    with pytest.raises(errors.InputError, match=message):
        uhrjax.segment(run, np.zeros((40, 40, 3), np.uint8), **changes)


def refiner_of(spec, *more):
    """Returns a refining network with random weights, as a run would bring it."""
    flags = ["num_classes=2", "tile=32", "stride=32", "eval.stride=32", *more]
    config = config_lib.override(
        uhrjax.load_config(spec), [f"--config.{flag}" for flag in flags]
    )
    method = uhrjax.build(config)
    weights = method.init(jax.random.key(0)) if method.reads_labels else {}
    return types.SimpleNamespace(
        config=config, method=method, variables=weights, path="runs/refiner"
    )


def test_refining_networks_follow_it(run):
    loaded = trained.load_run(run)
    refiner = refiner_of("configs/refinement.py:folder,small", "model.width=2")
    engine = engine_lib.make_engine(loaded.method, loaded.config, refiner=refiner)
    scene = predict.ArrayScene(draw_scene(1, 75, 50)[0])
    rows = list(engine.label(loaded.variables, scene))
    labels = np.concatenate([part.labels for part in rows])
    assert labels.shape == (75, 50) and set(np.unique(labels)) <= {0, 1}
    cascade = refiner_of("configs/cascadepsp.py:folder")
    engine = engine_lib.make_engine(loaded.method, loaded.config, refiner=cascade)
    assert isinstance(engine, refine.CascadedEngine)
    with pytest.raises(errors.InputError, match="of which there are no probabilities"):
        engine_lib.make_engine(
            loaded.method, loaded.config, refiner=cascade, probabilities=True
        )
