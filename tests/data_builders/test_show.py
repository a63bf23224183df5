"""The contact sheet, as a user asks for it."""

import cv2
import folder_layout
import numpy as np
import pytest

from data_builders import contact_sheet, prepare, show
from uhrjax import errors
from uhrjax.data import overview, prepared, scenes
from uhrjax.tiling import window as windows

SIZES = [(70, 40), (30, 90), (33, 33), (1, 1), (64, 64)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set: its root, its name."""
    root = tmp_path_factory.mktemp("show")
    folder_layout.write_folder(root / "raw", SIZES)
    for index in range(5):  # few patches hold the second class
        mask = np.zeros(SIZES[index], np.uint8)
        mask[-3:, -3:] = index < 3 or index == 4
        folder_layout.write_png(root / f"raw/masks/s{index}_mask.png", mask)
    info = prepare.prepare(
        "folder", data_dir=root / "data", dir=root / "raw", val=0.4,
        tile=16, stride=8, views=(1, 2),
    )  # fmt: skip
    return root / "data", info.name


def run(data, *flags, name="folder"):
    return show.main([name, f"--data_dir={data[0]}", *flags])


def test_the_sheet_is_written_where_the_user_said(data, tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert run(data, f"--output={path}", "--split=val") == 0
    sheet = cv2.imread(str(path))
    assert f"{sheet.shape[1]} x {sheet.shape[0]} px" in capsys.readouterr().out
    assert sheet.shape[0] > 2 * contact_sheet.CELL


def test_the_sheet_shows_every_class_colour(data):
    root, name = data
    sheet = show.show(name, data_dir=root, split="train", count=9)
    info = prepared.read_info(prepared.locate(root, name, "scenes"))
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in info.colours} <= colours


def test_a_patch_shows_all_its_views_its_overview_and_its_label(data):
    root, name = data
    config = prepared.patches_config(tile=16, stride=8, views=(1, 2))
    source = scenes.open_patches(prepared.locate(root, name, config), "train")
    patch = {**source[0], "overview": source[1]["views"][1]}
    drawn = contact_sheet.draw_patch(patch, source.info)
    top = contact_sheet.LINE + contact_sheet.GAP + contact_sheet.BAR
    zoom, wide = contact_sheet.CELL // 16, contact_sheet.CELL + contact_sheet.GAP
    label = contact_sheet.palette(source.info)[patch["label"]]
    for index, picture in enumerate([*patch["views"], patch["overview"], label]):
        shown = drawn[top::zoom, index * wide :: zoom][:16, :16]
        np.testing.assert_array_equal(shown, picture)


def test_the_patch_with_the_most_classes_is_shown(data, monkeypatch):
    root, name = data
    chosen = []
    monkeypatch.setattr(
        contact_sheet, "draw_patch",
        lambda patch, info: chosen.append(patch) or np.zeros((5, 5, 3), np.uint8),
    )  # fmt: skip
    show.show(name, data_dir=root, split="val")
    config = prepared.patches_config(tile=16, stride=8, views=(1, 2))
    source = scenes.open_patches(prepared.locate(root, name, config), "val")
    counts = [len(np.unique(source[i]["label"])) for i in range(len(source))]
    assert len(np.unique(chosen[0]["label"])) == max(counts) > min(counts)


def test_labels_of_a_large_scene_are_thinned_out_by_bands(data, monkeypatch):
    root, name = data
    reader = scenes.open_scenes(prepared.locate(root, name, "scenes"), "train")
    for index, scene in enumerate(reader.scenes):
        whole = windows.Window(0, 0, scene.height, scene.width)
        label = reader.read_label(index, whole)
        monkeypatch.setattr(contact_sheet, "BAND_PIXELS", 200)
        thin = contact_sheet._thin_out(reader, index, 3)
        assert thin.shape == (-(-scene.height // 3), -(-scene.width // 3))
        inside = label[1::3, 1::3]
        rows, columns = inside.shape
        np.testing.assert_array_equal(thin[:rows, :columns], inside)


def test_the_legend_draws_the_share_of_each_class(data):
    root, name = data
    info = prepared.read_info(prepared.locate(root, name, "scenes"))
    legend = contact_sheet.draw_legend(info, "train")
    shares = np.array(info.histogram["train"]) / sum(info.histogram["train"])
    lines = legend[contact_sheet.LINE * 4 + 2 :]  # below four lines of text
    for index, share in enumerate(shares):
        row = lines[index * contact_sheet.LINE + 8]
        length = (row[300:] == contact_sheet.GREY).all(axis=1).sum()
        expected = share / shares.max() * (contact_sheet.LEGEND_WIDTH - 310)
        assert abs(length - expected) < 2


def test_patches_that_are_not_prepared_are_no_obstacle(tmp_path):
    folder_layout.write_folder(tmp_path / "raw", SIZES)
    prepare.prepare(
        "folder", data_dir=tmp_path, dir=tmp_path / "raw", configs=("scenes",)
    )
    assert show.show("folder", data_dir=tmp_path).ndim == 3


def test_overviews_stand_for_scenes_that_are_not_prepared(tmp_path):
    folder_layout.write_folder(tmp_path / "raw", SIZES)
    given = {"data_dir": tmp_path, "dir": tmp_path / "raw"}
    info = prepare.prepare("folder", configs=("patches_16_16_even_v1-p2",), **given)
    assert show.show("folder", data_dir=tmp_path).ndim == 3
    prepare.prepare("folder", configs=("overview_20x30",), **given)
    sheet = show.show("folder", data_dir=tmp_path, count=1, split="train")
    folder = prepared.locate(tmp_path, info.name, "overview_20x30")
    reader = overview.open_overviews(folder, "train")
    drawn = contact_sheet.draw_overview(reader, 0, split="train")
    assert holds(sheet, drawn[contact_sheet.BAR :, : contact_sheet.CELL])
    label = contact_sheet.palette(info)[reader.read_label(reader.scenes[0].id)]
    zoom = contact_sheet.CELL // 30
    left = contact_sheet.CELL + contact_sheet.GAP
    shown = drawn[contact_sheet.BAR :: zoom, left::zoom][:20, :30]
    np.testing.assert_array_equal(shown, label)


def holds(sheet, picture):
    """Says whether a picture lies in the corner of a sheet."""
    top, left = contact_sheet.GAP + contact_sheet.BAR, contact_sheet.GAP
    height, width = picture.shape[:2]
    return (sheet[top : top + height, left : left + width] == picture).all()


@pytest.mark.parametrize(
    "name, flags, said",
    (
        ("nothing", (), "no data set 'nothing' is prepared in"),
        ("folder", ("--split=test",), "has no split 'test'; it has: train, val"),
        ("folder", ("--patches=patches_5_5",), "it is as patches_16_8_v1-2"),
        ("folder", ("--count=0",), "show 1 scene or more"),
        ("folder", ("--output=/nowhere/a.png",), "in a folder that exists"),
        ("folder", ("--output=a.jpg",), "give a file *.png"),
    ),
)
def test_mistakes_are_sentences_with_exit_code_2(data, name, flags, said, capsys):
    assert run(data, *flags, name=name) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_a_name_that_fits_several_lists_them(data, tmp_path):
    for index in range(2):
        folder_layout.write_folder(tmp_path / f"raw{index}", SIZES)
        prepare.prepare(
            "folder", data_dir=tmp_path, dir=tmp_path / f"raw{index}",
            configs=("scenes",),
        )  # fmt: skip
    with pytest.raises(errors.InputError, match=r"which 'folder'\? There are .*raw1"):
        show.show("folder", data_dir=tmp_path)
    assert show.show("folder/raw1", data_dir=tmp_path).ndim == 3


def test_an_unknown_flag_is_one_line(data, capsys):
    with pytest.raises(SystemExit) as caught:
        run(data, "--colour=red")
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
