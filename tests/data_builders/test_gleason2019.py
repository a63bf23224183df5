"""Gleason2019: several raters, their fusion, grades to classes, central crops."""

import sys

import miniature
import numpy as np
import pytest

from data_builders import gleason2019, prepare
from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import window as windows

IDS = ("slide001_core003", "slide001_core008")  # of train, of val
SHAPE = (40, 60)


@pytest.fixture
def raters(tmp_path):
    """Two cores with three raters each; returns (root, raw maps [3, h, w])."""
    rng = np.random.default_rng(0)
    maps = np.repeat(rng.choice([0, 1, 3, 4, 5, 6], (5, 6)), 8, 0).repeat(10, 1)
    maps = np.stack([maps] * 3).astype(np.uint8)
    maps[2, :4] = 5  # one of three disagrees
    for scene_id in IDS:
        image = rng.integers(0, 256, (*SHAPE, 3), np.uint8)
        miniature.save(tmp_path / f"raw/Train Imgs/{scene_id}.jpg", image)
        for rater, ids in enumerate(maps):
            place = f"raw/Maps{rater + 1}_T/Maps{rater + 1}_T/{scene_id}"
            miniature.save(tmp_path / f"{place}_classimg_nonconvex.png", ids)
    return tmp_path / "raw", maps


def run(root, data, **options):
    options = {"partial": "yes", "fusion": "majority", **options}
    return prepare.prepare(
        "gleason2019", data_dir=data, manual_dir=root, configs=("scenes",), **options
    )


def read_label(data, info):
    reader = scenes.open_scenes(prepared.locate(data, info.name, "scenes"), "train")
    height, width = reader.scenes[0].height, reader.scenes[0].width
    return reader.read_label(0, windows.Window(0, 0, height, width))


@pytest.mark.parametrize("fusion", ["staple", "majority"])
def test_raters_are_fused_and_grades_become_classes(raters, tmp_path, fusion):
    if fusion == "staple":
        pytest.importorskip("SimpleITK")
    root, maps = raters
    info = run(root, tmp_path / "data", fusion=fusion)
    expected = np.array([0, 0, 0, 1, 2, 3, 0])[maps[0]]
    np.testing.assert_array_equal(read_label(tmp_path / "data", info), expected)
    assert info.classes == ("benign", "grade3", "grade4", "grade5")


@pytest.mark.parametrize(
    ("mapping", "lut"),
    [
        ("grade5_benign", [0, 0, 0, 1, 2, 0, 0]),
        ("grade4", [0, 0, 0, 0, 1, 0, 0]),
        ("cancer", [0, 0, 0, 1, 1, 1, 0]),
    ],
)
def test_other_mappings_follow_their_tables(raters, tmp_path, mapping, lut):
    root, maps = raters
    info = run(root, tmp_path / "data", mapping=mapping)
    found = read_label(tmp_path / "data", info)
    np.testing.assert_array_equal(found, np.array(lut)[maps[0]])
    assert f"mapping_{mapping}" in info.name and "fusion_majority" in info.name


def test_ties_of_a_majority_are_ignored():
    ratings = np.array([[[0, 1, 2]], [[0, 1, 3]], [[1, 1, 1]]], np.uint8)
    assert gleason2019.fuse(ratings, how="majority").tolist() == [[0, 1, 255]]


def test_staple_trusts_the_raters_who_agree():
    pytest.importorskip("SimpleITK")
    truth = np.kron([[0, 1], [2, 3]], np.ones((8, 8), int)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, truth.shape, np.uint8)
    fused = gleason2019.fuse(np.stack([truth, truth, noise]), how="staple")
    np.testing.assert_array_equal(fused, truth)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((5120, 5000), (360, 300, 4400, 4400)),
        ((4401, 4400), (0, 0, 4400, 4400)),
        ((40, 5000), (0, 300, 40, 4400)),
    ],
)
def test_the_crop_is_central_and_never_larger_than_the_core(size, place):
    assert gleason2019.central(*size, 4400) == place


def test_a_crop_moves_image_and_label_alike(raters, monkeypatch, tmp_path):
    root, maps = raters
    builder = gleason2019.Gleason2019
    choices = {**builder.choices, "crop": ("20", "none")}
    monkeypatch.setattr(builder, "choices", choices)
    info = run(root, tmp_path / "data")
    scene = info.scenes["train"][0]
    assert (scene.height, scene.width) == (20, 20)
    found = read_label(tmp_path / "data", info)
    expected = np.array([0, 0, 0, 1, 2, 3, 0])[maps[0]][10:30, 20:40]
    np.testing.assert_array_equal(found, expected)


def test_a_value_that_is_no_grade_is_named(raters, tmp_path):
    root, maps = raters
    wrong = maps[1].copy()
    wrong[3, 4] = 9
    path = root / f"Maps2_T/Maps2_T/{IDS[0]}_classimg_nonconvex.png"
    miniature.save(path, wrong)
    with pytest.raises(errors.InputError, match=r"value 9 is no grade \(1 px, the"):
        run(root, tmp_path / "data")


def test_without_simpleitk_one_reads_what_to_do(raters, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(errors.InputError, match=r"uhrjax\[staple\].*--fusion=majority"):
        run(raters[0], tmp_path / "data", fusion="staple")


def test_as_many_cores_as_are_public_will_do_with_a_note(raters, tmp_path, monkeypatch):
    root, _ = raters
    monkeypatch.setattr(gleason2019.Gleason2019, "smaller", {2: "as public"})
    info = run(root, tmp_path / "data", partial="no")
    assert info.name == "gleason2019/foveation-fusion_majority"
    said = "as public (split train has 1 scenes of 238; split val has 1 scenes of 30)"
    assert said in info.notes
    builder = prepare.make_builder("gleason2019", {"manual_dir": str(root)})
    builder.scenes()
    assert builder.checked() == said


def test_another_number_of_cores_names_what_is_missing(raters, tmp_path):
    with pytest.raises(errors.InputError, match="split train has 1 scenes of 238"):
        run(raters[0], tmp_path / "data", partial="no")
    assert list(gleason2019.Gleason2019.smaller) == [244]
