"""ADE20K, as its scene parsing benchmark has it: everyday scenes, 150 classes.

20 210 training and 2000 validation images of about 200 to 4000 px a side (PFNet,
Table 6). Licence: BSD for the labels, research and education for the images. Page:
http://sceneparsing.csail.mit.edu

Layout under --manual_dir (the archive as published, or what it unpacks to):

    ADEChallengeData2016/images/training/ADE_train_00000001.jpg
    ADEChallengeData2016/annotations/training/ADE_train_00000001.png
    ADEChallengeData2016/{images,annotations}/validation/ADE_val_00000001.*

Split (`official`): train and val, its folders training and validation. Labels: the mask
values 1 to 150 become 0 to 149; 0, everything else, is ignored. Names are the first of
the synonyms in the archive's objectInfo150.txt; colours are only to draw with.
Not verified on the download: its counts, which are as its page has them.
"""

from typing import ClassVar

from data_builders import label as labels
from data_builders import published

NAMES = """
    wall building sky floor tree ceiling road bed windowpane grass cabinet sidewalk
    person earth door table mountain plant curtain chair car water painting sofa
    shelf house sea mirror rug field armchair seat fence desk rock wardrobe lamp
    bathtub railing cushion base box column signboard chest_of_drawers counter sand
    sink skyscraper fireplace refrigerator grandstand path stairs runway case
    pool_table pillow screen_door stairway river bridge bookcase blind coffee_table
    toilet flower book hill bench countertop stove palm kitchen_island computer
    swivel_chair boat bar arcade_machine hovel bus towel light truck tower
    chandelier awning streetlight booth television_receiver airplane dirt_track
    apparel pole land bannister escalator ottoman bottle buffet poster stage van
    ship fountain conveyer_belt canopy washer plaything swimming_pool stool barrel
    basket waterfall tent bag minibike cradle oven ball food step tank trade_name
    microwave pot animal bicycle lake dishwasher screen blanket sculpture hood
    sconce vase traffic_light tray ashcan fan pier crt_screen plate monitor
    bulletin_board shower radiator glass clock flag
"""
CLASSES = tuple(NAMES.split())  # in label order


class Ade20k(published.Published):
    """The training and validation images."""

    name = "ade20k"
    about = "ADE20K scene parsing: 150 classes, everyday scenes"
    page = "http://sceneparsing.csail.mit.edu"
    licence = "labels BSD; images research and education only"
    getting = "by hand: ADEChallengeData2016.zip; --manual_dir=PATH"
    size = "about 200 to 4000 px a side"
    layout = (
        "images/training/ADE_train_00000001.jpg, "
        "annotations/training/ADE_train_00000001.png and {images,annotations}/"
        "validation/ADE_val_00000001.*"
    )
    image = r"images/[^/]+/(?P<id>ADE_(?P<split>train|val)_\d+)\.jpg"
    mask = r"annotations/[^/]+/(?P<id>ADE_(?P<split>train|val)_\d+)\.png"
    image_name = "{id}.jpg"
    mask_name = "{id}.png"
    counts: ClassVar = {"official": {"train": 20210, "val": 2000}}
    default_tile = 512
    default_stride = 256

    def make_table(self) -> labels.ClassTable:
        ids = {0: labels.IGNORE}
        ids |= {value + 1: value for value in range(len(CLASSES))}
        return labels.ClassTable(CLASSES, labels.palette(len(CLASSES)), ids)
