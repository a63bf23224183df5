"""Networks that refine label maps: trained, behind other methods, on files alone."""

import json
import re
import sys

import cv2
import numpy as np
import pytest
from tiny_run import draw_scene

from uhrjax import cascade, engine, errors, main, repair, session, trained

COMMON = {
    "tile": 32, "stride": 32, "eval.stride": 24, "eval.every": 2, "log_every": 1,
    "eval.panels": 2, "batch_size": 2, "learning_rate": 0.003,
}  # fmt: skip
CASCADE = {
    "model.backbone": "resnet18", "model.width": 2, "model.fpn_dim": 8, "max_steps": 2,
    "epochs": 2, "coarse.side": 72, "eval.batch_size": 8,
}  # fmt: skip
REFINEMENT = {"model.width": 2, "epochs": 2, "sub_batch": 4, "eval.batch_size": 4}


def train(name, squares, data_root, folder, values):
    values = {"data.dir": squares, "data.root": data_root, **COMMON, **values}
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    assert session.train(f"configs/{name}.py:folder", flags, str(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def cascaded(squares, data_root, tmp_path_factory):
    """A run of CascadePSP."""
    folder = tmp_path_factory.mktemp("cascadepsp")
    return train("cascadepsp", squares, data_root, folder, CASCADE)


@pytest.fixture(scope="module")
def refining(runs, squares, data_root, tmp_path_factory):
    """A run of the refinement network, behind PFNet."""
    folder = tmp_path_factory.mktemp("refinement")
    values = {**REFINEMENT, "coarse.run": runs / "pfnet"}
    return train("refinement", squares, data_root, folder, values)


@pytest.fixture
def echo(monkeypatch):
    """Replaces CascadePSP's network by the mask it is given."""
    monkeypatch.setattr(
        cascade, "_see_whole", lambda net, v, x, m: ((m[..., 0] + 1) / 2,) * 2
    )
    monkeypatch.setattr(
        cascade, "_see_crops", lambda net, v, x, m, m8: (m[..., 0] + 1) / 2
    )


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def predict(run, scene, folder, *flags):
    assert session.predict(run, list(flags), str(scene), str(folder)) == 0
    return folder


def test_a_run_that_refines_masks_reports_them_before_and_after(cascaded, squares):
    report = json.loads((cascaded / "report.json").read_text())
    scores, classes = report["scores"], report["classes"]
    assert 0.7 < scores["miou_before"] < 1 and 0 <= scores["miou"] <= 1
    assert set(classes) == {"ground", "square"}
    counted = sum(c["masks"] * c["iou_before"] for c in classes.values())
    assert scores["miou_before"] == pytest.approx(counted / scores["masks"])
    # One row of pictures for each of two scenes.
    assert read(cascaded / "panels/masks.png").shape[0] > 2 * 384
    lines = (cascaded / "metrics.jsonl").read_text().splitlines()
    scored = [json.loads(line) for line in lines if '"miou"' in line]
    assert scored[-1]["miou"] == pytest.approx(scores["miou"])  # val is the split


def test_masks_are_made_worse_in_the_same_way_every_time(cascaded, capsys):
    before = json.loads((cascaded / "report.json").read_text())
    assert session.evaluate(cascaded, ["--config.eval.panels=0"]) == 0
    after = json.loads((cascaded / "report.json").read_text())
    assert after["classes"] == before["classes"]
    assert "before refinement" in capsys.readouterr().out


def test_the_given_label_maps_are_scored_beside_the_refined_ones(refining, runs):
    given = json.loads((runs / "pfnet/report.json").read_text())["scores"]
    report = json.loads((refining / "report.json").read_text())
    found = report["baselines"]["label maps as given"]
    assert found["miou"] == pytest.approx(given["miou"], abs=2e-3)  # of another batch


def test_maps_refined_as_files_equal_those_refined_on_the_device(
    runs, refining, squares, tmp_path
):
    scene = squares / "val/images/val0.png"
    run = runs / "pfnet"
    crude = predict(run, scene, tmp_path / "crude")
    whole = predict(run, scene, tmp_path / "whole", f"--config.refine={refining}")
    argv = [
        "main", "--mode=refine", f"--checkpoint={refining}", "--images=",
        f"--input={crude}/*.png", f"--output={tmp_path / 'parts'}",
        "--config.eval.stride=24",
    ]  # fmt: skip
    assert main.main(argv) == 0  # the overlay beside the map is no map
    found = read(tmp_path / "parts/val0.png")
    np.testing.assert_array_equal(found, read(whole / "val0.png"))
    written = {p.name for p in (tmp_path / "parts").glob("*.*")}
    assert written >= {"val0.png", "val0.json", "val0_overlay.png"}
    assert not any("overlay_overlay" in name for name in written)


def test_cascadepsp_behind_a_method_equals_cascadepsp_on_its_files(
    runs, cascaded, squares, tmp_path
):
    images = squares / "val/images"
    run = runs / "pfnet"
    crude = predict(run, images / "val0.png", tmp_path / "crude")
    flag = f"--config.refine={cascaded}"
    whole = predict(run, images / "val0.png", tmp_path / "whole", flag)
    assert session.refine(
        cascaded, [], f"{crude}/val0.png", str(images), str(tmp_path / "parts")
    ) == 0  # fmt: skip
    found = read(tmp_path / "parts/val0.png")
    np.testing.assert_array_equal(found, read(whole / "val0.png"))
    assert (found != read(crude / "val0.png")).any()  # PFNet found squares


def test_evaluation_behind_another_method_refines_every_scene(
    runs, cascaded, squares, data_root, echo, capsys
):
    flags = [f"--config.refine={cascaded}", "--config.eval.panels=0"]
    assert session.evaluate(runs / "pfnet", flags) == 0
    place = trained.load_run(runs / "pfnet", flags).score_folder
    assert place.parent == runs / "pfnet/scored" and place.name.startswith("refine=")
    after = json.loads((place / "report.json").read_text())
    before = json.loads((runs / "pfnet/report.json").read_text())
    assert before["config"]["refine"] == ""
    assert f"refined by   {cascaded}" in capsys.readouterr().out
    assert np.sum(after["confusion"]) == np.sum(before["confusion"])
    # The stand-in repeats what it is given, up to resampling.
    assert after["scores"]["miou"] == pytest.approx(before["scores"]["miou"], abs=0.05)


def test_the_side_of_crops_is_the_refiners_or_the_one_asked_for(runs, cascaded):
    sides = []
    for more in ([], ["--config.coarse.side=80"]):
        flags = [f"--config.refine={cascaded}", *more]
        run = trained.load_run(runs / "pfnet", flags)
        made = engine.make_engine(run.method, run.config, refiner=run.refiner)
        sides.append(made.settings[1])
    assert sides == [72, 80]


def test_refined_labels_have_no_probabilities(runs, cascaded):
    flags = [f"--config.refine={cascaded}", "--config.predict.probabilities=uint8"]
    run = trained.load_run(runs / "pfnet", flags)
    with pytest.raises(errors.InputError, match="there are no probabilities"):
        engine.make_engine(run.method, run.config, refiner=run.refiner)


def test_place_on_earth_and_pixels_without_class_stay(cascaded, echo, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    image, label = draw_scene(5, 80, 70)
    label[:20, :30] = 255
    transform = rasterio.Affine(0.5, 0.0, 30.0, 0.0, -0.5, 60.0)
    place = {"crs": "EPSG:32636", "transform": transform}
    for name, bands in (("image", np.moveaxis(image, 2, 0)), ("mask", label[None])):
        (tmp_path / name).mkdir()
        with rasterio.open(
            tmp_path / name / "a.tif", "w", driver="GTiff", height=80, width=70,
            count=len(bands), dtype="uint8", **place,
        ) as file:  # fmt: skip
            file.write(bands)
    out = tmp_path / "out"
    given = (str(tmp_path / "mask/a.tif"), str(tmp_path / "image/a.tif"), str(out))
    assert session.refine(cascaded, [], *given) == 0
    with rasterio.open(out / "a.tif") as file:
        assert file.crs.to_epsg() == 32636 and file.transform == transform
        found = file.read(1)
    np.testing.assert_array_equal(found == 255, label == 255)
    assert (found == label).mean() > 0.95


@pytest.fixture
def files(tmp_path):
    """A mask, its image, and others that do not fit."""
    for folder in ("masks", "images"):
        (tmp_path / folder).mkdir()
    image, label = draw_scene(1, 40, 50)
    for name, changed in (("a", label), ("b", label[:30]), ("c", label + 7)):
        cv2.imwrite(str(tmp_path / f"masks/{name}.png"), changed)
        cv2.imwrite(str(tmp_path / f"images/{name}.jpg"), image)
    cv2.imwrite(str(tmp_path / "masks/d.png"), image)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("b", r"b.png has 30 x 50 px, its image .*b.jpg 40 x 50"),
        ("c", r"holds the label 8; this run knows the ids 0 to 1 \(ground, square\)"),
    ],
)
def test_a_map_that_does_not_fit_fails_alone(cascaded, echo, files, name, said):
    pair = [files / f"masks/{one}.png" for one in ("a", name)]
    failed = repair.refine_files(
        trained.load_run(cascaded), pair, files / "images", files / "out"
    )
    assert list(failed) == pair[1:] and (files / "out/a.png").exists()
    assert re.search(said, failed[pair[1]])


def test_a_picture_is_no_label_map(refining, files):
    run = trained.load_run(refining)
    failed = repair.refine_files(run, files / "masks/d.png", "", files / "out")
    assert "has 3 bands of uint8; a label map has one" in str(failed)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--input=masks/a.png", "--output=out"], "looks at the images, too"),
        (["--input=masks/*.png", "--images=images", "--output=out"], "1 label maps"),
        (["--input=masks/a.png", "--images=*/a.*", "--output=out"], "both named a"),
        (["--output=out"], "--mode=refine needs --input"),
        (["--input=masks"], "--mode=refine needs --output"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    cascaded, files, monkeypatch, capsys, flags, said
):
    monkeypatch.chdir(files)
    given = ["--input=", "--output=", "--images=", *flags]
    argv = ["main", "--mode=refine", f"--checkpoint={cascaded}", *given]
    monkeypatch.setattr(sys, "argv", argv)
    assert main.run() == 2
    text = capsys.readouterr().err
    assert said in text and "Traceback" not in text


def test_a_run_that_labels_images_refines_no_maps(runs):
    with pytest.raises(errors.InputError, match="which labels images; --mode=refine"):
        repair.load_refiner(runs / "pfnet", [])


def test_maps_of_other_classes_are_refused_before_training(
    runs, squares, data_root, tmp_path
):
    named = {"data.classes": "earth,square", "coarse.run": runs / "pfnet"}
    with pytest.raises(errors.InputError, match="labels ground, square"):
        train("refinement", squares, data_root, tmp_path, {**REFINEMENT, **named})
