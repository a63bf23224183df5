"""The folder builder: every layout it takes, and what it says to what it does not."""

import json
import pathlib
import re
import warnings

import cv2
import folder_layout
import numpy as np
import pytest
from PIL import Image

from data_builders import prepare
from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import window as windows


def build(root, **options):
    """Prepares `root` and returns (info, {split: reader})."""
    info = prepare.prepare(
        "folder",
        data_dir=root.parent / "data",
        dir=root,
        configs=("scenes",),
        **options,
    )
    folder = prepared.locate(root.parent / "data", info.name, "scenes")
    return info, {split: scenes.open_scenes(folder, split) for split in info.scenes}


def whole(reader, index=0):
    """Returns (image, label) of a scene."""
    scene = reader.scenes[index]
    window = windows.Window(0, 0, scene.height, scene.width)
    return reader.read_image(index, window), reader.read_label(index, window)


def ids(info):
    return {
        split: [scene.id for scene in found] for split, found in info.scenes.items()
    }


def refuse(capsys, root, *flags):
    """Runs the command, which must fail; returns what it says."""
    data = root.parent / "refused"
    code = prepare.main(["folder", f"--dir={root}", f"--data_dir={data}", *flags])
    said = capsys.readouterr().err.split("error: ")[-1]
    assert code == 2
    assert "Traceback" not in said
    assert not data.exists() or not any(data.glob("**/*.json"))
    assert not any(data.glob("**/.incomplete*"))
    return said


def test_images_and_masks_side_by_side_are_split_by_fraction(tmp_path):
    sources = folder_layout.write_folder(tmp_path / "raw", [(20, 30)] * 10)
    info, readers = build(tmp_path / "raw")
    assert {split: len(found) for split, found in ids(info).items()} == {
        "train": 8,
        "val": 2,
    }
    for reader in readers.values():
        for index, scene in enumerate(reader.scenes):
            for found, source in zip(
                whole(reader, index), sources[scene.id], strict=True
            ):
                np.testing.assert_array_equal(found, source)
    assert info.classes == ("class_0", "class_1")
    counts = sum(np.bincount(label.ravel()) for _, label in sources.values())
    assert np.sum(list(info.histogram.values()), axis=0).tolist() == [*counts, 0]


def test_fractions_are_drawn_the_same_every_time_and_change_with_the_seed(tmp_path):
    folder_layout.write_folder(tmp_path / "raw", [(4, 4)] * 12)
    first = ids(build(tmp_path / "raw", val=0.25, test="0.25")[0])
    assert [len(first[split]) for split in ("train", "val", "test")] == [6, 3, 3]
    again = build(tmp_path / "raw", val=0.25, test=0.25, overwrite=True)[0]
    assert ids(again) == first
    assert ids(build(tmp_path / "raw", val=0.25, test=0.25, seed=1)[0]) != first


def test_flat_pairs_are_split_by_lists(tmp_path):
    root = tmp_path / "raw"
    for name in ("a", "b", "c"):
        image, label = folder_layout.scene(9, 8, seed=ord(name))
        folder_layout.write_png(root / f"{name}_image.png", image)
        folder_layout.write_png(root / f"{name}_mask.png", label)
    assert ids(build(root, train="a,c", test="b")[0]) == {
        "train": ["a", "c"],
        "test": ["b"],
    }
    (tmp_path / "held.txt").write_text("c_image\nb\n")
    found = ids(build(root, val=str(tmp_path / "held.txt"))[0])
    assert found == {"train": ["a"], "val": ["b", "c"]}
    info = build(root, train=["a"], val=["b"])[0]
    assert info.notes == ("in no split and left out: c",)


def test_split_files_are_read(tmp_path):
    root = tmp_path / "raw"
    folder_layout.write_folder(root, [(4, 4)] * 3)
    (root / "splits.json").write_text(json.dumps({"train": ["s1"], "test": ["s0"]}))
    assert ids(build(root)[0]) == {"train": ["s1"], "test": ["s0"]}
    (root / "splits.json").unlink()
    (root / "splits.toml").write_text('train = ["s2"]\nval = 0.3\n')
    found = ids(build(root)[0])
    assert found["train"] == ["s2"] and len(found["val"]) == 1


def test_split_folders_are_splits(tmp_path):
    root = tmp_path / "raw"
    folder_layout.write_folder(root / "train", [(4, 4)] * 2)
    folder_layout.write_folder(root / "test", [(5, 4)])
    (root / "test" / "masks").rename(root / "test" / "labels")
    assert ids(build(root)[0]) == {"train": ["s0", "s1"], "test": ["s0"]}


def test_split_folders_and_split_flags_exclude_each_other(tmp_path, capsys):
    folder_layout.write_folder(tmp_path / "raw" / "train", [(4, 4)] * 2)
    assert "leave out --val" in refuse(capsys, tmp_path / "raw", "--val=0.5")


def test_one_image_in_two_split_folders_is_refused(tmp_path, capsys):
    for split in ("train", "val"):
        folder_layout.write_folder(tmp_path / "raw" / split, [(4, 4)])
    said = refuse(capsys, tmp_path / "raw")
    assert "s0.png: the same image as" in said and "another split" in said


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "jpeg"])
def test_grey_alpha_palette_and_jpeg_images_become_rgb(tmp_path, mode):
    root = tmp_path / "raw"
    image, label = folder_layout.scene(24, 24)
    for name in ("a", "b"):
        folder_layout.write_png(root / f"{name}_mask.png", label)
        if mode == "jpeg":
            saved = root / f"{name}.jpg"
            Image.fromarray(image).save(saved, quality=95)
        else:
            saved = root / f"{name}.png"
            Image.fromarray(image).convert(mode).save(saved)
    found, _ = whole(build(root)[1]["train"])
    expected = np.asarray(Image.open(saved).convert("RGB"))
    np.testing.assert_array_equal(found, expected)


def test_the_ending_of_a_file_does_not_matter(tmp_path):
    root = tmp_path / "raw"
    sources = folder_layout.write_folder(root, [(6, 7)] * 2)
    for path in list((root / "images").iterdir()):
        path.rename(path.with_suffix(".jpg"))  # still PNG inside
    reader = build(root)[1]["train"]
    np.testing.assert_array_equal(whole(reader)[0], sources[reader.scenes[0].id][0])


def test_a_class_table_maps_ids_and_ignores_others(tmp_path):
    root = tmp_path / "raw"
    for name in ("a", "b"):
        image, _ = folder_layout.scene(2, 4)
        folder_layout.write_png(root / f"{name}.png", image)
        mask = np.array([[0, 1, 7, 9], [255, 7, 7, 0]], np.uint8)
        folder_layout.write_png(root / f"{name}_gt.png", mask)
    (root / "classes.toml").write_text(
        "ignore = [0]\n"
        '[[classes]]\nname = "roof"\nid = 7\ncolour = "#ff0000"\n'
        '[[classes]]\nname = "road"\nid = 1\ncolor = [1, 2, 3]\n'
        '[[classes]]\nname = "lake"\nid = 9\ncolour = [0, 0, 255]\n'
    )
    info, readers = build(root)
    assert info.classes == ("roof", "road", "lake")
    assert info.colours == ((255, 0, 0), (1, 2, 3), (0, 0, 255))
    expected = [[255, 1, 0, 2], [255, 0, 0, 255]]
    assert whole(readers["train"])[1].tolist() == expected
    assert info.histogram["train"] == [3, 1, 1, 3]


@pytest.mark.parametrize(
    "classes",
    ["ground=#000000,roof=#ff0000", ["ground=#000000", "roof=#ff0000"]],
)
def test_colour_masks_are_decoded(tmp_path, classes):
    root = tmp_path / "raw"
    for name in ("a", "b"):
        folder_layout.write_png(root / f"{name}.png", folder_layout.scene(1, 2)[0])
        mask = np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8)
        folder_layout.write_png(root / f"{name}_mask.png", mask)
    info, readers = build(root, classes=classes)
    assert whole(readers["train"])[1].tolist() == [[1, 0]]
    assert info.colours == ((0, 0, 0), (255, 0, 0))


def test_binary_masks_of_0_and_255_need_a_word_on_255(tmp_path, capsys):
    root = tmp_path / "raw"
    for name in ("a", "b"):
        folder_layout.write_png(root / f"{name}.png", folder_layout.scene(1, 2)[0])
        mask = np.array([[0, 255]], np.uint8)
        folder_layout.write_png(root / f"{name}_mask.png", mask)
    assert '"class_0=0,class_255=255"' in refuse(capsys, root)
    said = refuse(capsys, root, "--classes=ground,roof")
    assert '--classes="ground=0,roof=255"' in said
    info, readers = build(root, classes="ground=0,roof=255")
    assert whole(readers["train"])[1].tolist() == [[0, 1]]
    assert info.classes == ("ground", "roof")


def test_a_class_that_never_occurs_is_noted(tmp_path):
    folder_layout.write_folder(tmp_path / "raw", [(4, 4)] * 2)
    info, _ = build(tmp_path / "raw", classes="a,b,c")
    assert info.notes == ("never in a mask: c",)
    assert info.histogram["train"][2] == 0


def test_ids_with_a_gap_need_a_class_table(tmp_path, capsys):
    root = tmp_path / "raw"
    folder_layout.write_folder(root, [(4, 4)] * 2)
    folder_layout.write_png(root / "masks/s0_mask.png", np.full((4, 4), 5, np.uint8))
    assert "the masks hold the ids [0, 1, 5]" in refuse(capsys, root)


def test_an_unknown_id_is_named_with_file_value_and_first_pixel(tmp_path, capsys):
    root = tmp_path / "raw"
    folder_layout.write_folder(root, [(6, 5)] * 2)
    mask = np.zeros((6, 5), np.uint8)
    mask[3, 2] = mask[4, 0] = 7
    folder_layout.write_png(root / "masks/s1_mask.png", mask)
    said = refuse(capsys, root, "--classes=ground,roof")
    assert "s1_mask.png: id 7 is not in the class table" in said
    assert "(2 px, the first at row 3, column 2)" in said


def test_an_unknown_colour_is_named_with_file_value_and_first_pixel(tmp_path, capsys):
    root = tmp_path / "raw"
    folder_layout.write_folder(root, [(6, 5)] * 2)
    for name in ("s0", "s1"):
        mask = np.zeros((6, 5, 3), np.uint8)
        mask[5, 4] = (1, 2, 3)
        folder_layout.write_png(root / f"masks/{name}_mask.png", mask)
    said = refuse(capsys, root, "--classes=ground=#000000,roof=#ff0000")
    assert "colour (R, G, B) (1, 2, 3) is not in the class table" in said
    assert "(1 px, the first at row 5, column 4)" in said
    assert "2 problems" in said
    assert "has no colours" in refuse(capsys, root, "--classes=ground,roof")


def test_all_broken_files_are_listed_at_once(tmp_path, capsys):
    root = tmp_path / "raw"
    folder_layout.write_folder(root, [(30, 30)] * 8)
    image = root / "images"
    (image / "s0.png").write_bytes(b"")
    (image / "s1.png").write_text("not an image")
    folder_layout.write_png(image / "s2.png", np.zeros((29, 30, 3), np.uint8))
    (root / "masks" / "s3_mask.png").unlink()
    (image / "s4.png").unlink()
    folder_layout.write_png(image / "s5_image.png", np.zeros((30, 30, 3), np.uint8))
    folder_layout.write_png(root / "masks" / "s5.png", np.zeros((30, 30), np.uint8))
    cv2.imwrite(str(image / "s6.png"), np.zeros((30, 30, 3), np.uint16))
    said = refuse(capsys, root)
    assert "s0.png: the file is empty (0 bytes)" in said
    assert "s1.png: not a readable PNG, JPEG or TIFF" in said
    assert "the mask is 30x30 px (height x width), its image s2.png 29x30" in said
    assert "s3.png: no mask found" in said
    assert "s4_mask.png: no image of that name" in said
    assert "a second image 's5'" in said and "a second mask of 's5'" in said
    assert "s6.png: an image with uint16 values (16 bit per sample)" in said
    assert said.startswith("8 of the files cannot be used")


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_truncated_file_is_refused_and_nothing_is_left(
    tmp_path, capsys, ending, kind
):
    root = tmp_path / "raw"
    for name in ("a", "b"):
        image, label = folder_layout.scene(64, 64)
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / f"{name}.{ending}")
        folder_layout.write_png(root / "masks" / f"{name}.png", label)
    victim = next((root / kind).glob("a.*"))
    victim.write_bytes(victim.read_bytes()[:-200])
    said = refuse(capsys, root)
    assert f"{victim.name}: truncated or damaged" in said
    assert "nothing was prepared, 1 problem" in said


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path, capsys):
    root = tmp_path / "raw"
    folder_layout.write_folder(root, [(2, 2)] * 25)
    for mask in (root / "masks").iterdir():
        mask.write_bytes(b"")
    said = refuse(capsys, root)
    assert said.count("the file is empty") == 20
    assert "and 5 more" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--val=1.5"], "between 0 and 1"),
        (["--val=-.5"], "between 0 and 1"),
        (["--val=nope"], "there is no scene 'nope'"),
        (["--val=s0", "--test=s0"], "'s0' is in val and test"),
        (["--val=s0,s1"], "leave none for train"),
        (["--val=ids.txt"], "no such file"),
        (["--classes=one"], "give 2 to 255"),
        (["--classes=a,a"], "must differ"),
        (["--classes=a=1,b=1"], "one id"),
        (["--classes=a=x,b"], "name=ID or name=#rrggbb"),
        (["--classes=a=#12,b=#000000"], '"#rrggbb"'),
        (["--classes=a=#000000,b"], "to every class or to none"),
        (["--classes=table.toml"], "no such file"),
        (["--tile=0"], "--tile >= 1"),
        (["--tile=8", "--stride=9"], "1 <= stride <= 8"),
        (["--views=2,1"], "rising scales"),
        (["--configs=tiles"], "choose from scenes, patches"),
    ],
)
def test_a_wrong_flag_gets_one_sentence(tmp_path, capsys, flags, message):
    folder_layout.write_folder(tmp_path / "raw", [(4, 4)] * 2)
    assert message in refuse(capsys, tmp_path / "raw", *flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "no valid TOML"),
        ("names = 3", "the keys 'classes'"),
        ('classes = [{id = 1}, "b"]', "needs a name"),
        ('ignore = [1]\nclasses = ["a", "b"]', "both a class and ignored"),
        ('classes = [{name = "a", id = -1}, "b"]', "integers >= 0"),
    ],
)
def test_a_wrong_class_file_gets_one_sentence(tmp_path, capsys, text, message):
    folder_layout.write_folder(tmp_path / "raw", [(4, 4)] * 2)
    (tmp_path / "raw" / "classes.toml").write_text(text)
    assert message in refuse(capsys, tmp_path / "raw")


def test_an_absent_or_empty_folder_says_what_is_expected(tmp_path, capsys):
    assert "no such folder" in refuse(capsys, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "a_image.png with a_mask.png" in refuse(capsys, tmp_path / "empty")
    (tmp_path / "images" / "images").mkdir(parents=True)
    assert "no image in" in refuse(capsys, tmp_path / "images")
    with pytest.raises(errors.InputError, match="--dir=PATH"):
        prepare.prepare("folder", data_dir=tmp_path)


def test_a_changed_folder_gets_another_name(tmp_path):
    root = tmp_path / "my roofs, 2024"
    folder_layout.write_folder(root, [(4, 4)] * 2)
    first = build(root)[0].name
    assert re.fullmatch(r"folder/my_roofs_2024-[0-9a-f]{8}", first)
    assert build(root)[0].name == first
    assert build(root, classes="a,b")[0].name != first
    image, _ = folder_layout.scene(4, 5, seed=9)
    folder_layout.write_png(root / "images" / "s0.png", image)
    folder_layout.write_png(root / "masks" / "s0_mask.png", image[..., 0] % 2)
    assert build(root)[0].name != first


def write_tiff(path, pixels, **profile):
    """Writes [bands, h, w] as a tiled GeoTIFF."""
    rasterio = pytest.importorskip("rasterio")
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", "GTiff", **shape, **tiles, **profile) as file:
            file.write(pixels)


def test_geotiff_keeps_its_place_on_earth_and_streams(tmp_path, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    from data_builders import encode, layout

    monkeypatch.setattr(layout, "STORED_TILE", 16)
    monkeypatch.setattr(encode, "BAND_PIXELS", 32 * 16)
    place = {
        "crs": rasterio.crs.CRS.from_epsg(3857),
        "transform": rasterio.Affine(0.5, 0.0, 100.0, 0.0, -0.5, 200.0),
    }
    root = tmp_path / "raw"
    image, label = folder_layout.scene(70, 41)
    for name in ("a", "b"):
        alpha = np.full((1, 70, 41), 255, np.uint8)
        rgba = np.concatenate([np.moveaxis(image, -1, 0), alpha])
        write_tiff(root / f"{name}_image.tif", rgba, **place)
        write_tiff(root / f"{name}_mask.tif", label[None].astype(np.uint16))
    info = prepare.prepare(
        "folder", data_dir=tmp_path / "data", dir=root, tile=24, stride=20
    )
    scene = info.scenes["train"][0]
    assert rasterio.crs.CRS.from_wkt(scene.crs).to_epsg() == 3857
    assert scene.transform == tuple(place["transform"])[:6]
    folder = prepared.locate(tmp_path / "data", info.name, "scenes")
    found = whole(scenes.open_scenes(folder, "train"))
    np.testing.assert_array_equal(found[0], image)
    np.testing.assert_array_equal(found[1], label)
    config = prepared.patches_config(tile=24, stride=20)
    folder = prepared.locate(tmp_path / "data", info.name, config)
    source = scenes.open_patches(folder, "train")
    planned = windows.plan_windows(70, 41, tile=24, stride=20)
    assert len(source) == len(planned)
    for index, window in enumerate(planned):
        cut = windows.cut(image, window, fill=0)
        np.testing.assert_array_equal(source[index]["views"][0], cut)


@pytest.mark.parametrize(
    ("bands", "dtype", "message"),
    [(5, np.uint8, "5 bands"), (3, np.uint16, "an image with uint16")],
)
def test_tiff_of_other_bands_or_depth_is_refused(
    tmp_path, capsys, bands, dtype, message
):
    root = tmp_path / "raw"
    for name in ("a", "b"):
        write_tiff(root / f"{name}.tif", np.zeros((bands, 20, 20), dtype))
        write_tiff(root / f"{name}_mask.tif", np.zeros((1, 20, 20), np.uint8))
    said = refuse(capsys, root)
    assert message in said and "gdal_translate" in said


def test_a_truncated_tiff_and_a_float_mask_are_refused(tmp_path, capsys):
    root = tmp_path / "raw"
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        noise = rng.integers(0, 256, (3, 64, 64), np.uint8)
        write_tiff(root / f"{name}.tif", noise)
        write_tiff(root / f"{name}_mask.tif", noise[:1] % 2)
    broken = (root / "a.tif").read_bytes()
    (root / "a.tif").write_bytes(broken[: len(broken) // 2])
    assert "a.tif: " in refuse(capsys, root)
    (root / "a.tif").write_bytes(broken)
    write_tiff(root / "b_mask.tif", np.zeros((1, 64, 64), np.float32))
    assert "store class ids as integers" in refuse(capsys, root)


def test_without_rasterio_tiff_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    import sys

    root = tmp_path / "raw"
    for name in ("a", "b"):
        write_tiff(root / f"{name}.tif", np.zeros((3, 20, 20), np.uint8))
        write_tiff(root / f"{name}_mask.tif", np.zeros((1, 20, 20), np.uint8))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert "pip install 'uhrjax[geo]'" in refuse(capsys, root)
