"""BDD100K semantic segmentation: street scenes of the United States.

7000 training and 1000 validation images of 1280 x 720 px, the 19 classes of Cityscapes
(PFNet, Table 6). The labels of the 2000 test images are not public. Licence: research
and education, see the page after registration. Page: https://bdd-data.berkeley.edu

Layout under --manual_dir (both archives as published, or what they unpack to; the
first release, bdd100k_seg, is taken as well):

    bdd100k/images/10k/train/*.jpg         bdd100k/labels/sem_seg/masks/train/*.png
    bdd100k/seg/images/train/*.jpg         bdd100k/seg/labels/train/*_train_id.png

Split (`official`): the folders train and val. Labels: train ids 0 to 18, 255 ignored.
Not verified on the download: counts and names, which are as its documentation has them.
"""

from typing import ClassVar

from data_builders import cityscapes, published
from data_builders import label as labels


class Bdd100k(published.Published):
    """The 10k images that have segmentation labels."""

    name = "bdd100k"
    about = "BDD100K semantic segmentation: 19 classes, street scenes"
    page = "https://bdd-data.berkeley.edu"
    licence = "research, after registration"
    getting = "by hand: 10K Images + Semantic Segmentation; --manual_dir=PATH"
    size = "1280 x 720 px"
    layout = (
        "images/10k/{train,val}/*.jpg and labels/sem_seg/masks/{train,val}/*.png (or "
        "seg/images/{train,val}/*.jpg and seg/labels/{train,val}/*_train_id.png)"
    )
    image = r"(?:10k|seg/images)/(?P<split>train|val)/(?P<id>[^/]+)\.jpg"
    mask = (
        r"(?:sem_seg/masks|seg/labels)/(?P<split>train|val)/"
        r"(?P<id>[^/]+?)(?:_train_id)?\.png"
    )
    image_name = "{id}.jpg"
    mask_name = "{id}.png"
    counts: ClassVar = {"official": {"train": 7000, "val": 1000}}
    default_tile = 512
    default_stride = 256

    def make_table(self) -> labels.ClassTable:
        _, names, colours = zip(*cityscapes.CLASSES, strict=True)
        ids = {label: label for label in range(len(names))}
        ids[labels.IGNORE] = labels.IGNORE
        return labels.ClassTable(names, colours, ids)
