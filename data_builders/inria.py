"""Inria Aerial Image Labeling: buildings in aerial images of five cities.

180 labelled tiles of 5000 x 5000 px, 0.3 m/px, RGB GeoTIFF: 36 each of Austin, Chicago,
Kitsap, West Tyrol and Vienna. The 180 test tiles of other cities have no public labels
and are left out. Licence: research, after registration; cite Maggiori et al., IGARSS
2017. Page: https://project.inria.fr/aerialimagelabeling/

Layout under --manual_dir (the download is a 7z archive in parts: unpack it; zip files
of its folders are read in place):

    AerialImageDataset/train/images/austin1.tif
    AerialImageDataset/train/gt/austin1.tif

Splits: `glnet` (126 / 27 / 27), which mixes all cities in all parts, used by GLNet,
FCtL and MagNet; `official`, the data set's own advice: tiles 1 to 5 of every city
validate (train 155, val 25).
Labels: two classes, mask value at least 128 is building (255 in the published masks).
Papers report the building IoU (FCtL's mIoU) or the mean of both classes: reports name
them apart.
Pyramids: FCtL's 508 / 1016 / 1524 on its even grid of at least 50 px overlap (121
patches a tile). MagNet published no geometry for Inria; 1250 px and scales 1, 2, 4 are
our choice.
"""

from typing import ClassVar

from data_builders import label as labels
from data_builders import published

CLASSES = (("background", (0, 0, 0)), ("building", (255, 255, 255)))
CITIES = ("austin", "chicago", "kitsap", "tyrol-w", "vienna")


class Inria(published.Published):
    """The 180 labelled tiles."""

    name = "inria"
    about = "Inria Aerial: buildings, 5 cities, 0.3 m/px"
    page = "https://project.inria.fr/aerialimagelabeling/"
    licence = "research, after registration"
    getting = "by hand, after registration; --manual_dir=PATH"
    size = "5000 x 5000 px"
    layout = "train/images/austin1.tif and train/gt/austin1.tif (AerialImageDataset)"
    image = rf"images/(?P<id>(?:{'|'.join(CITIES)})\d+)\.tif"
    mask = rf"gt/(?P<id>(?:{'|'.join(CITIES)})\d+)\.tif"
    image_name = "images/{id}.tif"
    mask_name = "gt/{id}.tif"
    counts: ClassVar = {
        "glnet": {"train": 126, "val": 27, "test": 27},
        "official": {"train": 155, "val": 25},
    }
    default_tile = 508
    default_stride = 458
    pyramids: ClassVar = {
        "fctl": ("patches_508_458_even_v1-p2-p3",),
        "glnet": ("patches_508_458_even", "overview_508x508"),
        "magnet": ("patches_1250_1250_v1-2-4",),
    }

    def make_table(self) -> labels.ClassTable:
        names, colours = zip(*CLASSES, strict=True)
        return labels.ClassTable(names, colours, {0: 0, 255: 1}, threshold=128)
