"""Miniatures of the official layouts of all downloaded data sets: tiny images, every
label code, official file names. `python tests/data_builders/miniature.py NAME FOLDER`
"""

import json
import pathlib
import shutil
import sys

import cv2
import numpy as np
from PIL import Image

from data_builders import ade20k, cityscapes, deepglobe, isaid, isprs, published

SIDE = (12, 16)  # px, of a scene
FEW = {"train": 3, "val": 2}  # scenes where the folders are the splits
IGNORE = 255
BLACK = (0, 0, 0)


def codes(name):
    """Returns the value in a mask for each label, as {label: id or colour}."""
    if name == "isaid":
        return {i: colour for i, (_, colour) in enumerate(isaid.CLASSES)}
    if name in ("vaihingen", "potsdam"):
        return {i: colour for i, (_, colour) in enumerate(isprs.CLASSES)}
    if name == "deepglobe":
        colours = {i: colour for i, (_, colour) in enumerate(deepglobe.CLASSES)}
        return {**colours, IGNORE: BLACK}
    if name == "inria":
        return {0: 0, 1: 255}
    if name == "cityscapes":
        return {i: raw for i, (raw, *_) in enumerate(cityscapes.CLASSES)} | {IGNORE: 4}
    if name == "gleason2019":
        return {0: 1, 1: 3, 2: 4, 3: 5}
    if name == "ade20k":
        return {i: i + 1 for i in range(len(ade20k.CLASSES))} | {IGNORE: 0}
    return {i: i for i in range(19)} | {IGNORE: IGNORE}  # bdd100k


def places(name, split, scene_id):
    """Returns the official places of an image and its mask."""
    if name == "isaid":
        mask = f"{split}/Semantic_masks/images/{scene_id}_instance_color_RGB.png"
        return f"{split}/images/{scene_id}.png", mask
    if name == "vaihingen":
        file = f"top_mosaic_09cm_{scene_id}.tif"
        return f"Vaihingen/top/{file}", f"ground_truth_COMPLETE/{file}"
    if name == "potsdam":
        file = f"top_potsdam_{scene_id}"
        return f"2_Ortho_RGB/{file}_RGB.tif", f"5_Labels_all/{file}_label.tif"
    if name == "deepglobe":
        return f"land-train/{scene_id}_sat.jpg", f"land-train/{scene_id}_mask.png"
    if name == "inria":
        root = "AerialImageDataset/train"
        return f"{root}/images/{scene_id}.tif", f"{root}/gt/{scene_id}.tif"
    if name == "cityscapes":
        place = f"{split}/aachen/{scene_id}"
        return (
            f"leftImg8bit/{place}_leftImg8bit.png",
            f"gtFine/{place}_gtFine_labelIds.png",
        )
    if name == "gleason2019":
        mask = f"Maps1_T/{scene_id}_classimg_nonconvex.png"
        return f"Train_imgs/{scene_id}.jpg", mask
    if name == "ade20k":
        part = {"train": "training", "val": "validation"}[split]
        root = "ADEChallengeData2016"
        return (
            f"{root}/images/{part}/{scene_id}.jpg",
            f"{root}/annotations/{part}/{scene_id}.png",
        )
    return (
        f"bdd100k/images/10k/{split}/{scene_id}.jpg",
        f"bdd100k/labels/sem_seg/masks/{split}/{scene_id}.png",
    )


def scene_ids(name, protocol):
    """Returns the ids by split: the protocol's, or a few where folders tell."""
    listed = published.SPLITS / f"{name}_{protocol}.json"
    if listed.is_file():
        return json.loads(listed.read_text())
    form = {
        "isaid": "P{0:04d}",
        "cityscapes": "aachen_{0:06d}_000019",
        "ade20k": "ADE_{1}_{0:08d}",
        "bdd100k": "{1}{0:04x}-38e4b52e",
    }[name]
    return {
        split: [form.format(i, split) for i in range(count)]
        for split, count in FEW.items()
    }


def write(name, root, *, protocol="", side=SIDE, packed=False):
    """Writes a miniature.

    Args:
        name: of the data set.
        root: folder to write into.
        protocol: whose scenes to write.
        side: (height, width) of a scene, px.
        packed: into one archive for each top folder, which must not be unpacked.

    Returns:
        {(split, id): (image, label)}, as they must be read.
    """
    root, table = pathlib.Path(root), codes(name)
    values = np.zeros((256, 3), np.uint8)
    for label, code in table.items():
        values[label] = code
    coloured = isinstance(next(iter(table.values())), tuple)
    expected, index = {}, 0
    for split, ids in scene_ids(name, protocol).items():
        for scene_id in ids:
            rng = np.random.default_rng(index)
            index += 1
            image = rng.integers(0, 256, (*side, 3), np.uint8)
            label = rng.choice(np.array(list(table), np.uint8), side)
            label.ravel()[: len(table)] = list(table)[: label.size]
            mask = values[label] if coloured else values[label][..., 0]
            image_place, mask_place = places(name, split, scene_id)
            stored = save(root / image_place, image)
            save(root / mask_place, mask)
            expected[split, scene_id] = (stored, label)
    if packed:
        for number, folder in enumerate(sorted(root.iterdir())):
            kind = ("zip", "tar")[number % 2]
            shutil.make_archive(str(folder), kind, root, folder.name)
            shutil.rmtree(folder)
    return expected


def save(path, pixels):
    """Writes an image file; returns the pixels it holds."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    swapped = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    assert cv2.imwrite(str(path), swapped)
    if path.suffix == ".jpg":
        with Image.open(path) as image:
            return np.array(image)
    return pixels


if __name__ == "__main__":
    written = write(sys.argv[1], sys.argv[2], protocol="".join(sys.argv[3:]))
    print(f"{len(written)} scenes in {sys.argv[2]}")
