"""Vaihingen and Potsdam: the ISPRS 2D semantic labelling benchmark.

Vaihingen: 33 orthophotos of 9 cm/px, infrared-red-green, about 2500 x 2000 px each.
Potsdam: 38 orthophotos of 5 cm/px, 6000 x 6000 px; RGB or, with --bands=irrg,
infrared-red-green. Six classes, clutter included, all trained and scored (PFNet).
Licence: research use, credit ISPRS (Vaihingen: and DGPF). Page:
https://www.isprs.org/education/benchmarks/UrbanSemLab/

Layout under --manual_dir (folders, or the archives of the download beside each other;
the archive that holds them all must be unpacked):

    Vaihingen  ISPRS_semantic_labeling_Vaihingen.zip: top/top_mosaic_09cm_area1.tif
               ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip:
                   top_mosaic_09cm_area1.tif (another folder than top/)
               ..._ground_truth_eroded_COMPLETE.zip: ..._area1_noBoundary.tif
    Potsdam    2_Ortho_RGB.zip: top_potsdam_2_10_RGB.tif (3_Ortho_IRRG.zip: ..._IRRG)
               5_Labels_all.zip: top_potsdam_2_10_label.tif
               5_Labels_all_noBoundary.zip: top_potsdam_2_10_label_noBoundary.tif

Splits (`official`): those of the benchmark, train 16 and test 17 (Vaihingen), train 24
and test 14 (Potsdam); PFNet's own are not public, these fit its text. Labels: RGB
colours, channels taken at 128 since a few pixels are some levels off; --labels=eroded
takes the masks whose object borders are black, which is ignored.
Not verified on the downloads: names and nesting of the archives.
"""

from typing import ClassVar

from data_builders import label as labels
from data_builders import published

CLASSES = (  # name, colour in the masks; in label order
    ("impervious_surface", (255, 255, 255)),
    ("building", (0, 0, 255)),
    ("low_vegetation", (0, 255, 255)),
    ("tree", (0, 255, 0)),
    ("car", (255, 255, 0)),
    ("clutter", (255, 0, 0)),
)
BORDER = (0, 0, 0)  # of eroded masks


class _Isprs(published.Published):
    licence = "research use; credit ISPRS"
    skipped_places = "for_participants"  # the training masks once more
    default_stride = 512

    def make_table(self) -> labels.ClassTable:
        names, colours = zip(*CLASSES, strict=True)
        codes = {colour: label for label, colour in enumerate(colours)}
        if self.chosen["labels"] == "eroded":
            codes[BORDER] = labels.IGNORE
        return labels.ClassTable(names, colours, {}, codes, threshold=128)


class Vaihingen(_Isprs):
    """Infrared-red-green, 9 cm/px."""

    name = "vaihingen"
    about = "ISPRS Vaihingen: 6 classes, 9 cm/px, infrared-red-green"
    page = "https://www.isprs.org/education/benchmarks/UrbanSemLab/"
    getting = "by hand, after registration; --manual_dir=PATH"
    size = "about 2500 x 2000 px"
    layout = (
        "top/top_mosaic_09cm_area1.tif and, in another folder, the full masks "
        "top_mosaic_09cm_area1.tif (--labels=eroded: ..._area1_noBoundary.tif)"
    )
    image = r"top/top_mosaic_09cm_(?P<id>area\d+)\.tif"
    image_name = "top/top_mosaic_09cm_{id}.tif"
    mask_name = "top_mosaic_09cm_{id}.tif (or _noBoundary.tif) as a mask"
    counts: ClassVar = {"official": {"train": 16, "test": 17}}
    choices: ClassVar = {"labels": ("full", "eroded")}
    default_tile = 768
    pyramids: ClassVar = {"pfnet": ("patches_768_512",)}

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        end = "_noBoundary" if self.chosen["labels"] == "eroded" else ""
        self.mask = rf"(?<!top/)top_mosaic_09cm_(?P<id>area\d+){end}\.tif"


class Potsdam(_Isprs):
    """RGB or infrared-red-green, 5 cm/px."""

    name = "potsdam"
    about = "ISPRS Potsdam: 6 classes, 5 cm/px, RGB"
    page = "https://www.isprs.org/education/benchmarks/UrbanSemLab/"
    getting = "by hand, after registration; --manual_dir=PATH"
    size = "6000 x 6000 px"
    layout = (
        "top_potsdam_2_10_RGB.tif and top_potsdam_2_10_label.tif "
        "(--labels=eroded: ..._label_noBoundary.tif)"
    )
    image_name = "top_potsdam_{id}_RGB.tif (or _IRRG.tif)"
    mask_name = "top_potsdam_{id}_label.tif (or _label_noBoundary.tif)"
    counts: ClassVar = {"official": {"train": 24, "test": 14}}
    choices: ClassVar = {"bands": ("rgb", "irrg"), "labels": ("full", "eroded")}
    default_tile = 896
    pyramids: ClassVar = {"pfnet": ("patches_896_512",)}

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        end = "_noBoundary" if self.chosen["labels"] == "eroded" else ""
        bands = self.chosen["bands"].upper()
        self.image = rf"top_potsdam_(?P<id>\d+_\d+)_{bands}\.tif"
        self.mask = rf"top_potsdam_(?P<id>\d+_\d+)_label{end}\.tif"
