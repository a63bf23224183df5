"""DeepGlobe land cover classification: satellite images of 0.5 m/px.

803 labelled images of 2448 x 2448 px, six classes and unknown. The 171 + 172 images of
its validation and test parts have no public labels and are left out. Licence:
DigitalGlobe internal use, non-commercial research, no redistribution. Page:
https://competitions.codalab.org/competitions/18468 (also http://deepglobe.org)

Layout under --manual_dir (land-train.zip as published, or what it unpacks to):

    land-train/119_sat.jpg
    land-train/119_mask.png

Splits: `glnet` (454 / 207 / 142), on which GLNet, FCtL and MagNet report (the papers
print 455); `foveation` (455 / 207 / 141), Foveation's own. Both deal out all 803
images; figures of one must not be compared with the other's.
Labels: RGB colours, channels taken at 128, as the data set says. Unknown is ignored,
and labels 0 to 5 are the classes (Foveation); with --unknown=class it is class 0 and
the others are 1 to 6: trained, and in the confusion matrix, as by GLNet, FCtL and
MagNet, whose mIoU is the mean over 1 to 6.
Pyramids: FCtL's best contexts 508 / 1524 / whole image on its even grid (36 patches,
388 px apart); other sizes of its Table 4 by name (508, 1016, whole:
patches_508_458_even_v1-p2,overview_508x508). Foveation's five fields of view 500 to
2448 px, bilinear without antialiasing as in its code (write p for b to have them
antialiased), on a grid of one patch; MagNet's scales by averaging.
Not verified on the download: name of the folder in the archive.
"""

from typing import ClassVar

from data_builders import label as labels
from data_builders import published

CLASSES = (  # name, colour in the masks; in label order
    ("urban", (0, 255, 255)),
    ("agriculture", (255, 255, 0)),
    ("rangeland", (255, 0, 255)),
    ("forest", (0, 255, 0)),
    ("water", (0, 0, 255)),
    ("barren", (255, 255, 255)),
)
UNKNOWN = ("unknown", (0, 0, 0))


class DeepGlobe(published.Published):
    """The 803 labelled images."""

    name = "deepglobe"
    about = "DeepGlobe land cover: 6 classes and unknown, satellite, 0.5 m/px"
    page = "https://competitions.codalab.org/competitions/18468"
    licence = "non-commercial research, no redistribution"
    getting = "by hand: land-train.zip, after registration; --manual_dir=PATH"
    size = "2448 x 2448 px"
    layout = "119_sat.jpg and 119_mask.png (land-train.zip)"
    image = r"(?P<id>\d+)_sat\.jpg"
    mask = r"(?P<id>\d+)_mask\.png"
    image_name = "{id}_sat.jpg"
    mask_name = "{id}_mask.png"
    counts: ClassVar = {
        "glnet": {"train": 454, "val": 207, "test": 142},
        "foveation": {"train": 455, "val": 207, "test": 141},
    }
    choices: ClassVar = {"unknown": ("ignore", "class")}
    default_tile = 508
    default_stride = 388
    pyramids: ClassVar = {
        "fctl": ("patches_508_458_even_v1-p3", "overview_508x508"),
        "glnet": ("patches_508_458_even", "overview_508x508"),
        "foveation": ("patches_500_500_v1-b2-b3-b4-b2448px",),
        "magnet": ("patches_612_612_v1-2-4", "overview_508x508"),
    }

    def make_table(self) -> labels.ClassTable:
        if self.chosen["unknown"] == "class":
            names, colours = zip(UNKNOWN, *CLASSES, strict=True)
            codes = {colour: label for label, colour in enumerate(colours)}
        else:
            names, colours = zip(*CLASSES, strict=True)
            codes = {colour: label for label, colour in enumerate(colours)}
            codes[UNKNOWN[1]] = labels.IGNORE
        return labels.ClassTable(names, colours, {}, codes, threshold=128)
