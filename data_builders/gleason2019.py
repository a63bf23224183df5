"""Gleason2019: prostate cancer tissue, graded by up to six pathologists.

Cores of tissue microarrays, H&E, 40x, about 5000 x 5000 px. Licence: research, after
registration at the challenge. Page: https://gleason2019.grand-challenge.org

Layout under --manual_dir (the archives as published, or what they unpack to):

    Train_imgs/slide001_core003.jpg
    Maps1_T/slide001_core003_classimg_nonconvex.png     ... Maps6_T/: one per rater

Split: `foveation` (238 / 30), Foveation's lists. MagNet's (195 / 49) is not public.
Labels: the raters' maps hold 0, 1, 2, 6 (benign and unused) and the grades 3, 4, 5.
They are fused over the classes benign, 3, 4, 5, then mapped:
    --mapping=grades         benign, 3, 4, 5 (default; Foveation scores the first three)
    --mapping=grade5_benign  benign and 5 together, 3, 4
    --mapping=grade3         grade3, grade4 or grade5: that grade against the rest
    --mapping=cancer         any grade against benign
Fusion: --fusion=staple (SimpleITK, extra `staple`) as in the papers, estimated on the
whole core (6 s for four raters on one CPU core); pixels that it leaves undecided are
ignored. --fusion=majority: the class of most raters; ties are ignored.
Crops: the central 4400 x 4400 px of a core, which Foveation's largest field of view
needs (its text says 2448); a smaller core is kept whole. --crop=none: whole cores.
Pyramid: Foveation's five fields of view 1100 to 4400 px, bilinear without antialiasing
as in its code; write p for b to have them antialiased.
The lists name 268 cores (238 / 30); the public training part is usually said to have
244. Exactly 244 of the listed cores are accepted, too, and a note says so: the split
hash tells such figures from those on 268. --partial=yes takes what is there.
Not verified on the download: the names of the archives, and which cores they lack.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from data_builders import base, files, published, raster
from data_builders import label as labels
from uhrjax import errors
from uhrjax.tiling import window as windows

CLASSES = (  # name, drawing colour; as they are fused
    ("benign", (0, 160, 0)),
    ("grade3", (0, 0, 255)),
    ("grade4", (255, 255, 0)),
    ("grade5", (255, 0, 0)),
)
RAW = {0: 0, 1: 0, 2: 0, 6: 0, 3: 1, 4: 2, 5: 3}  # value in a map -> class above
MAPPINGS = {  # final label of each class above, and the names
    "grades": ((0, 1, 2, 3), ("benign", "grade3", "grade4", "grade5")),
    "grade5_benign": ((0, 1, 2, 0), ("benign", "grade3", "grade4")),
    "grade3": ((0, 1, 0, 0), ("rest", "grade3")),
    "grade4": ((0, 0, 1, 0), ("rest", "grade4")),
    "grade5": ((0, 0, 0, 1), ("rest", "grade5")),
    "cancer": ((0, 1, 1, 1), ("benign", "cancer")),
}
COLOURS = dict(CLASSES) | {"rest": (0, 160, 0), "cancer": (255, 0, 0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Core(base.RawScene):
    """One core with the maps of its raters; `height` and `width` are the crop's."""

    image_path: files.File
    rating_paths: tuple[files.File, ...]
    crop: windows.Window
    fusion: str
    mapping: tuple[int, ...]

    def open(self) -> base.Pixels:
        with files.local(self.image_path) as path, raster.open_image(path) as image:
            pixels = image.read(self.crop)
        ratings = [_read_rating(path) for path in self.rating_paths]
        fused = fuse(np.stack(ratings), how=self.fusion)
        final = np.full(256, labels.IGNORE, np.uint8)
        final[: len(self.mapping)] = self.mapping
        label = final[windows.cut(fused, self.crop, fill=labels.IGNORE)]
        return base.Pixels(pixels, label, {})


class Gleason2019(published.Published):
    """The cores of Foveation's lists."""

    name = "gleason2019"
    about = "Gleason2019: prostate cancer grades, up to six raters, 40x"
    page = "https://gleason2019.grand-challenge.org"
    licence = "research, after registration"
    getting = "by hand, after registration; --manual_dir=PATH"
    size = "4400 x 4400 px (central crop)"
    layout = (
        "Train_imgs/slide001_core003.jpg and "
        "Maps{1..6}_T/slide001_core003_classimg_nonconvex.png"
    )
    image = r"(?P<id>slide\d+_core\d+)\.jpg"
    mask = (
        r"[^/]*(?P<rater>[Mm]aps\d)[^/]*/(?:[^/]+/)*"
        r"(?P<id>slide\d+_core\d+)_classimg_nonconvex\.png"
    )
    image_name = "{id}.jpg"
    mask_name = "Maps*/{id}_classimg_nonconvex.png"
    counts: ClassVar = {"foveation": {"train": 238, "val": 30}}
    smaller: ClassVar = {
        244: "244 of the 268 cores of Foveation's lists are there, as many as the "
        "public training part has: figures on them are not those of the paper"
    }
    choices: ClassVar = {
        "mapping": tuple(MAPPINGS),
        "fusion": ("staple", "majority"),
        "crop": ("4400", "none"),
    }
    default_tile = 1100
    default_stride = 1100
    pyramids: ClassVar = {
        "foveation": ("patches_1100_1100_v1-b2000px-b2900px-b3800px-b4",),
        "magnet": ("patches_625_625_v1-2-4-8", "overview_625x625"),
    }

    def make_table(self) -> labels.ClassTable:
        _, names = MAPPINGS[self.chosen["mapping"]]
        return labels.table(names, [COLOURS[name] for name in names])

    def scenes(self) -> dict[str, list[base.RawScene]]:
        if self.chosen["fusion"] == "staple":
            _import_sitk()
        return super().scenes()

    def make_scene(
        self, scene_id: str, image: files.File, masks: dict[str, files.File]
    ) -> base.RawScene:
        ratings = tuple(masks[rater] for rater in sorted(masks))
        for rating in ratings:
            header, _ = base.read_headers(image, rating)
        crop = windows.Window(0, 0, header.height, header.width)
        if self.chosen["crop"] != "none":
            crop = central(header.height, header.width, int(self.chosen["crop"]))
        mapping, _ = MAPPINGS[self.chosen["mapping"]]
        return Core(
            id=scene_id,
            height=crop.height,
            width=crop.width,
            image_path=image,
            rating_paths=ratings,
            crop=crop,
            fusion=self.chosen["fusion"],
            mapping=mapping,
        )


def central(height: int, width: int, side: int) -> windows.Window:
    """Returns the central window of at most `side` px a side."""
    tall, wide = min(side, height), min(side, width)
    return windows.Window((height - tall) // 2, (width - wide) // 2, tall, wide)


def fuse(ratings: np.ndarray, *, how: str) -> np.ndarray:
    """Fuses the classes that several raters gave.

    Args:
        ratings: [R, h, w] uint8, classes 0 to 3.
        how: "staple" or "majority".

    Returns:
        [h, w] uint8; 255 where there is no decision.
    """
    if len(ratings) == 1 or (ratings == ratings[:1]).all():
        return ratings[0]
    if how == "majority":
        votes = np.stack([(ratings == k).sum(0) for k in range(len(CLASSES))])
        winner = votes.argmax(0).astype(np.uint8)
        winner[(votes == votes.max(0)).sum(0) > 1] = labels.IGNORE
        return winner
    sitk = _import_sitk()
    images = [sitk.GetImageFromArray(rating) for rating in ratings]
    fused = sitk.MultiLabelSTAPLE(images, labels.IGNORE)
    return sitk.GetArrayFromImage(fused).astype(np.uint8)


def _read_rating(file: files.File) -> np.ndarray:
    """Returns the classes of one rater, [h, w] uint8."""
    table = labels.ClassTable((), (), RAW)
    with files.local(file) as path:
        mask = raster.Mask(path)
        try:
            raw = mask.read(windows.Window(0, 0, *mask.size))
        finally:
            mask.close()
    decoded, unknown = table.decode(raw)
    if unknown:
        first = unknown[0]
        raise errors.InputError(
            f"{file}: value {first.value} is no grade ({first.count} px, the first at "
            f"row {first.row}, column {first.column}); maps hold 0 to 6"
        )
    return decoded


def _import_sitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise errors.InputError(
            "STAPLE needs SimpleITK; run: pip install 'uhrjax[staple]', or take the "
            "majority of the raters: --fusion=majority"
        ) from error
    return SimpleITK
