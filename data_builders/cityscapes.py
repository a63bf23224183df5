"""Cityscapes: street scenes of 50 cities, finely labelled.

2975 training and 500 validation images of 2048 x 1024 px with public labels, 19 classes
scored of 34 labelled. Licence: non-commercial research, no redistribution. Page:
https://www.cityscapes-dataset.com

Layout under --manual_dir (both archives as published, or what they unpack to):

    leftImg8bit_trainvaltest.zip: leftImg8bit/train/aachen/*_leftImg8bit.png
    gtFine_trainvaltest.zip:      gtFine/train/aachen/*_gtFine_labelIds.png

Split (`official`): the folders train and val. The labels of test are dummies; test is
left out. Labels: the raw ids 0 to 33 become the 19 train ids; ids that have none are
ignored.
Pyramids: Foveation's five fields of view 512 to 1024 px, bilinear without antialiasing
as in its code (write p for b to have them antialiased), on a grid of one patch;
MagNet's crops of 128 x 256 px (height x width) and its scales by averaging.
"""

from typing import ClassVar

from data_builders import label as labels
from data_builders import published

CLASSES = (  # raw id, name, colour; in label (train id) order
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic_light", (250, 170, 30)),
    (20, "traffic_sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
RAW_IDS = range(34)


class Cityscapes(published.Published):
    """The fine annotations."""

    name = "cityscapes"
    about = "Cityscapes (fine): 19 classes, street scenes"
    page = "https://www.cityscapes-dataset.com"
    licence = "non-commercial research, no redistribution"
    getting = "by hand, after registration; --manual_dir=PATH"
    size = "2048 x 1024 px"
    layout = (
        "leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and "
        "gtFine/{train,val}/CITY/*_gtFine_labelIds.png"
    )
    image = r"(?P<split>train|val)/[^/]+/(?P<id>[^/]+)_leftImg8bit\.png"
    mask = r"(?P<split>train|val)/[^/]+/(?P<id>[^/]+)_gtFine_labelIds\.png"
    image_name = "{id}_leftImg8bit.png"
    mask_name = "{id}_gtFine_labelIds.png"
    counts: ClassVar = {"official": {"train": 2975, "val": 500}}
    default_tile = 512
    default_stride = 512
    pyramids: ClassVar = {
        "foveation": ("patches_512_512_v1-b640px-b768px-b896px-b2",),
        "magnet": ("patches_128x256_128x256_v1-2-4-8", "overview_128x256"),
    }

    def make_table(self) -> labels.ClassTable:
        raw, names, colours = zip(*CLASSES, strict=True)
        ids = dict.fromkeys(RAW_IDS, labels.IGNORE)
        ids |= {value: label for label, value in enumerate(raw)}
        return labels.ClassTable(names, colours, ids)
