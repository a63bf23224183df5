"""The iSAID builder on a miniature of the official layout, with every colour."""

import cv2
import folder_layout
import numpy as np
import pytest

from data_builders import isaid, prepare
from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import window as windows

MASK_SUFFIX = "_instance_color_RGB.png"
COLOURS = np.array([colour for _, colour in isaid.CLASSES], np.uint8)


def write_scene(root, split, name, height, width, *, masks="images"):
    """Writes one image and its colour mask; returns (image, label)."""
    image, label = folder_layout.scene(height, width, classes=16, seed=height + width)
    folder_layout.write_png(root / split / "images" / f"{name}.png", image)
    mask = root / split / masks / f"{name}{MASK_SUFFIX}"
    folder_layout.write_png(mask, COLOURS[label])
    return image, label


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """Writes both splits; returns (root, {id: (image, label)})."""
    counts = {"train": 3, "val": 1}  # of 1411 and 458
    monkeypatch.setattr(isaid.Isaid, "counts", {"": counts})
    root = tmp_path / "iSAID"
    sources = {"P0002": write_scene(root, "train", "P0002", 50, 70)}
    sources["P0010"] = write_scene(root, "train", "P0010", 20, 70)
    write_scene(root, "train", "P1527", 40, 40)  # left out, as by the authors
    sources["P0003"] = write_scene(
        root, "val", "P0003", 48, 32, masks="Semantic_masks/images"
    )
    return root, sources


def test_every_colour_becomes_its_class(mini, tmp_path):
    root, sources = mini
    info = prepare.prepare(
        "isaid", data_dir=tmp_path / "data", manual_dir=root, tile=32, stride=16
    )
    assert len(info.classes) == 16 and info.classes[14] == "plane"
    found = {split: [s.id for s in listed] for split, listed in info.scenes.items()}
    assert found == {"train": ["P0002", "P0010"], "val": ["P0003"]}
    folder = prepared.locate(tmp_path / "data", "isaid", "scenes")
    for split, ids in found.items():
        reader = scenes.open_scenes(folder, split)
        for index, scene_id in enumerate(ids):
            image, label = sources[scene_id]
            window = windows.Window(0, 0, *label.shape)
            np.testing.assert_array_equal(reader.read_image(index, window), image)
            np.testing.assert_array_equal(reader.read_label(index, window), label)
    assert all(count > 0 for count in info.histogram["train"][:16])
    assert info.histogram["val"][16] == 0 and info.notes == ()


def test_patches_follow_the_authors_windows_and_stretch_small_images(mini, tmp_path):
    root, sources = mini
    prepare.prepare(
        "isaid",
        data_dir=tmp_path / "data",
        manual_dir=root,
        tile=32,
        stride=16,
        configs=("patches",),
    )
    folder = prepared.locate(tmp_path / "data", "isaid", "patches_32_16")
    source = scenes.open_patches(folder, "train")
    samples = [source[index] for index in range(len(source))]
    cut = [s["position"].tolist() for s in samples if s["scene_id"] == "P0002"]
    assert cut == [[y, x] for y in (0, 16, 18) for x in (0, 16, 32, 38)]
    (small,) = [sample for sample in samples if sample["scene_id"] == "P0010"]
    image, label = sources["P0010"]
    stretched = cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(small["views"][0], stretched)
    stretched = cv2.resize(label, (32, 32), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(small["label"], stretched)
    assert small["scene_size"].tolist() == [20, 70]
    # One side of exactly a patch is "not larger": stretched, too.
    assert len(scenes.open_patches(folder, "val")) == 1


def test_unknown_colours_become_background_and_are_counted(mini, tmp_path):
    root, _ = mini
    mask = np.zeros((20, 70, 3), np.uint8)
    mask[3, :5] = (9, 9, 9)
    folder_layout.write_png(root / "train" / "images" / f"P0010{MASK_SUFFIX}", mask)
    info = prepare.prepare(
        "isaid", data_dir=tmp_path / "data", manual_dir=root, tile=32
    )
    assert info.notes == ("5 px of unknown mask value (9, 9, 9) taken as 'background'",)


def test_missing_files_are_listed(mini, tmp_path):
    root, _ = mini
    (root / "train" / "images" / "P0002.png").unlink()
    (root / "train" / "images" / f"P0010{MASK_SUFFIX}").unlink()
    with pytest.raises(errors.InputError) as caught:
        prepare.prepare("isaid", data_dir=tmp_path / "data", manual_dir=root)
    message = str(caught.value)
    assert f"P0010{MASK_SUFFIX} (split train" in message
    assert "P0002.png (split train" in message
    assert "split train has 1 scenes of 3" in message


@pytest.mark.parametrize("manual_dir", [None, "absent", "."])
def test_without_the_download_one_reads_what_to_get(tmp_path, capsys, manual_dir):
    flags = [] if manual_dir is None else [f"--manual_dir={tmp_path / manual_dir}"]
    assert prepare.main(["isaid", f"--data_dir={tmp_path / 'data'}", *flags]) == 2
    said = capsys.readouterr().err
    assert "https://captain-whu.github.io/iSAID/" in said
    assert "python -m data_builders.prepare isaid --manual_dir=PATH" in said


def test_wider_views_of_stretched_images_are_refused(mini, tmp_path):
    with pytest.raises(errors.InputError, match="--views=1"):
        prepare.prepare(
            "isaid", data_dir=tmp_path / "data", manual_dir=mini[0], views=(1, 2)
        )
