"""iSAID: instance segmentation in aerial images, used as semantic segmentation.

Images of DOTA v1.0 (Google Earth and satellites, 0.1 to 4.5 m/px, 800 to 13 000 px a
side), 655 451 instances of 15 classes; with the background 16 classes, all trained and
scored. Licence: academic use only. Page: https://captain-whu.github.io/iSAID/

Layout under --manual_dir (what the two downloads unpack to, or the archives; where the
masks lie within their split does not matter):

    train/images/P0000.png                        images: DOTA v1.0, from its page
    train/.../P0000_instance_color_RGB.png        masks: iSAID, "semantic masks"
    val/images/..., val/...

Splits: train 1411, val 458 (labels of test are not public). P1527 and P1530 are left
out, as by the authors of PFNet (not verified: whether those numbers hold them).
Labels: RGB colours; others become background, as there, and are counted.
Patches: 896 px at a stride of 512, the last window of a row or column shifted inward;
an image with a side of at most 896 px is not cut but stretched to 896 x 896 (bicubic,
labels nearest), as they do.
"""

from typing import ClassVar

from data_builders import label as labels
from data_builders import published

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


class Isaid(published.Published):
    """The train and val splits."""

    name = "isaid"
    about = "iSAID: 16 classes on DOTA's aerial images, 0.1 to 4.5 m/px"
    page = (
        "https://captain-whu.github.io/iSAID/ (masks) and "
        "https://captain-whu.github.io/DOTA/ (DOTA v1.0 images)"
    )
    licence = "academic use only"
    getting = "by hand: DOTA v1.0 images + iSAID masks; --manual_dir=PATH"
    size = "800 to 13 000 px a side"
    layout = (
        "{train,val}/images/P0000.png and {train,val}/.../P0000_instance_color_RGB.png"
    )
    image = r"(?P<split>train|val)/(?:.*/)?(?P<id>P\d+)\.png"
    mask = r"(?P<split>train|val)/(?:.*/)?(?P<id>P\d+)_instance_color_RGB\.png"
    image_name = "{id}.png"
    mask_name = "{id}_instance_color_RGB.png"
    counts: ClassVar = {"": {"train": 1411, "val": 458}}
    skipped = frozenset({"P1527", "P1530"})
    default_tile = 896
    default_stride = 512
    small = "resize"
    pyramids: ClassVar = {"pfnet": ("patches_896_512",)}

    def make_table(self) -> labels.ClassTable:
        names, colours = zip(*CLASSES, strict=True)
        return labels.table(names, colours, unknown=0)
