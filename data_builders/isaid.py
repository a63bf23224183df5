"""iSAID: instance segmentation in aerial images, used as semantic segmentation.

Images of DOTA v1.0 (Google Earth and satellites, 0.1 to 4.5 m/px, 800 to 13 000 px a
side), 655 451 instances of 15 classes; with the background 16 classes, all trained and
scored. Licence: academic use only. Page: https://captain-whu.github.io/iSAID/

Layout under --manual_dir (what the two downloads unpack to; where the masks lie within
their split does not matter):

    train/images/P0000.png                        images: DOTA v1.0, from its page
    train/.../P0000_instance_color_RGB.png        masks: iSAID, "semantic masks"
    val/images/..., val/...

The labels of the test split are not public, so the splits are train and val. Images
P1527 and P1530 are left out, as by the authors of PFNet. Patches: 896 px at a stride
of 512, the last window of a row or column shifted inward; an image with a side of at
most 896 px is not cut but stretched to 896 x 896 (bicubic, labels nearest), as they do.
"""

import argparse
import pathlib
import re
import sys

from data_builders import base
from data_builders import label as labels
from uhrjax import errors

CLASSES = (  # name, colour in the masks; in label order
    ("background", (0, 0, 0)),
    ("ship", (0, 0, 63)),
    ("storage_tank", (0, 63, 63)),
    ("baseball_diamond", (0, 63, 0)),
    ("tennis_court", (0, 63, 127)),
    ("basketball_court", (0, 63, 191)),
    ("ground_track_field", (0, 63, 255)),
    ("bridge", (0, 127, 63)),
    ("large_vehicle", (0, 127, 127)),
    ("small_vehicle", (0, 0, 127)),
    ("helicopter", (0, 0, 191)),
    ("swimming_pool", (0, 0, 255)),
    ("roundabout", (0, 191, 127)),
    ("soccer_ball_field", (0, 127, 191)),
    ("plane", (0, 127, 255)),
    ("harbor", (0, 100, 155)),
)
SKIPPED = ("P1527", "P1530")
PUBLISHED = {"train": 1411, "val": 458}  # images per split
IMAGE = re.compile(r"P\d+\.png")
MASK_SUFFIX = "_instance_color_RGB.png"


class Isaid(base.Builder):
    """The train and val splits."""

    name = "isaid"
    about = "iSAID: 16 classes on DOTA's aerial images, 0.1 to 4.5 m/px"
    page = "https://captain-whu.github.io/iSAID/"
    licence = "academic use only"
    getting = "by hand: DOTA v1.0 images + iSAID masks; --manual_dir=PATH"
    default_tile = 896
    default_stride = 512
    small = "resize"

    def __init__(self, *, manual_dir: str | None = None) -> None:
        names, colours = zip(*CLASSES, strict=True)
        self.table = labels.table(names, colours, unknown=0)
        self._folder = pathlib.Path(manual_dir).expanduser() if manual_dir else None
        self.source = f"{self.page} with DOTA v1.0 images"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--manual_dir", help="folder with train/ and val/")

    def scenes(self) -> dict[str, list[base.RawScene]]:
        if self._folder is None or not self._folder.is_dir():
            where = (
                f"{self._folder} is no folder" if self._folder else "no --manual_dir"
            )
            raise FileNotFoundError(f"{where}. {_instructions()}")
        pairs = {split: _pairs(self._folder / split) for split in PUBLISHED}
        for split, found in pairs.items():
            if len(found) != PUBLISHED[split]:
                print(
                    f"warning: {len(found)} images in {self._folder / split}; the "
                    f"published split has {PUBLISHED[split]}",
                    file=sys.stderr,
                )
        return base.open_pairs(pairs, self.table)


def _pairs(folder: pathlib.Path) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
    """Returns (id, image, mask) of a split, sorted; nothing may be missing."""
    images = {p.stem: p for p in folder.rglob("P*.png") if IMAGE.fullmatch(p.name)}
    masks = {
        p.name.removesuffix(MASK_SUFFIX): p for p in folder.rglob(f"P*{MASK_SUFFIX}")
    }
    for skipped in SKIPPED:
        images.pop(skipped, None)
        masks.pop(skipped, None)
    if not images and not masks:
        raise FileNotFoundError(f"no image P*.png in {folder}. {_instructions()}")
    missing = [f"mask {name}{MASK_SUFFIX}" for name in sorted(images.keys() - masks)]
    missing += [f"image {name}.png" for name in sorted(masks.keys() - images)]
    if missing:
        raise errors.InputError(
            base.list_problems(f"{len(missing)} files are missing in {folder}", missing)
        )
    return [(name, images[name], masks[name]) for name in sorted(images)]


def _instructions() -> str:
    return (
        f"iSAID is downloaded by hand: the masks from {Isaid.page}, the images "
        "(DOTA v1.0, train and val) from https://captain-whu.github.io/DOTA/; unpack "
        "them to PATH/{train,val}/images/P0000.png and "
        f"PATH/{{train,val}}/images/P0000{MASK_SUFFIX}, then run: "
        "python -m data_builders.prepare isaid --manual_dir=PATH"
    )
