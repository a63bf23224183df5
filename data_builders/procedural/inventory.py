"""What `objects` is made of: its classes, zones, painted parts and kinds of objects.

Tables only. Lengths are px of a full scene; `objects` multiplies them by its object
scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_builders.procedural import paint, shapes

CLASSES = (  # the order and the colours of iSAID
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


class Zone(NamedTuple):
    """A kind of ground."""

    share: float  # of the zones
    colour: tuple[int, int, int]
    texture: paint.Texture


ZONES = {
    "field": Zone(0.30, (98, 116, 74), paint.Texture(canopy=8, mottle=14, white=14)),
    "sea": Zone(0.20, (44, 72, 84), paint.Texture(mottle=5, white=6)),
    "town": Zone(0.18, (104, 112, 84), paint.Texture(canopy=6, mottle=16, white=14)),
    "works": Zone(0.11, (140, 134, 122), paint.Texture(mottle=10, white=14)),
    "airport": Zone(0.07, (150, 150, 146), paint.Texture(mottle=8, white=10)),
    "sport": Zone(0.06, (92, 124, 72), paint.Texture(canopy=4, mottle=10, white=10)),
    "parking": Zone(0.08, (112, 112, 114), paint.Texture(mottle=8, white=12)),
}
COLOUR_JITTER = 9  # per zone and channel


class Part(NamedTuple):
    """Something that is painted, with as many ids as it has colours."""

    label: str
    colours: tuple[tuple[int, int, int], ...]
    texture: paint.Texture = paint.Texture(white=6)


_BODIES = (
    (228, 228, 224),
    (190, 190, 186),
    (66, 70, 80),
    (150, 70, 48),
    (52, 74, 118),
    (196, 128, 56),
)
_COURTS = ((176, 92, 70), (86, 134, 84), (178, 118, 96), (70, 112, 124))
_ROOFS = ((160, 84, 62), (208, 200, 190), (128, 88, 84), (98, 98, 110), (176, 142, 110))
_WATER = ((86, 158, 190), (74, 178, 172), (98, 176, 206))
_LINE = ((224, 222, 214),)
PARTS = {
    "canal": Part("background", ((38, 78, 78),), paint.Texture(white=5)),
    "road": Part("background", ((96, 98, 106),), paint.Texture(white=8)),
    "bridge": Part("bridge", ((172, 168, 160),), paint.Texture(white=8)),
    "asphalt": Part("roundabout", ((92, 94, 102),), paint.Texture(white=8)),
    "island": Part("roundabout", ((92, 126, 70),), paint.Texture(canopy=6, white=8)),
    "shadow": Part("background", ((52, 54, 50),)),
    "pier": Part("harbor", ((164, 134, 112), (178, 156, 138), (150, 128, 112))),
    "hull": Part(
        "ship", ((220, 218, 210), (160, 76, 52), (132, 138, 144), (62, 84, 120))
    ),
    "bridge_deck": Part("ship", ((240, 238, 230), (84, 66, 52))),
    "tank_rim": Part("storage_tank", ((84, 86, 90),)),
    "tank_top": Part(
        "storage_tank", ((226, 226, 222), (172, 174, 176), (142, 146, 150))
    ),
    "clay": Part("baseball_diamond", ((166, 126, 88),)),
    "infield": Part("baseball_diamond", ((98, 142, 76),)),
    "tennis_ground": Part("tennis_court", _COURTS),
    "tennis_line": Part("tennis_court", _LINE),
    "basket_ground": Part("basketball_court", _COURTS),
    "basket_line": Part("basketball_court", _LINE),
    "track_lane": Part("ground_track_field", ((164, 80, 60), (178, 96, 76))),
    "track_green": Part("ground_track_field", ((92, 134, 74),)),
    "soccer_grass": Part("soccer_ball_field", ((84, 140, 72), (104, 142, 84))),
    "soccer_line": Part("soccer_ball_field", _LINE),
    "truck_load": Part("large_vehicle", _BODIES),
    "truck_cab": Part("large_vehicle", ((238, 238, 236), (44, 60, 96), (150, 60, 44))),
    "car_body": Part("small_vehicle", _BODIES),
    "car_window": Part("small_vehicle", ((40, 44, 50),)),
    "helicopter": Part("helicopter", ((206, 206, 200), (150, 74, 50), (74, 84, 70))),
    "pool_water": Part("swimming_pool", _WATER),
    "plane": Part("plane", ((236, 236, 234), (214, 218, 222))),
    "tree": Part("background", ((52, 76, 50), (62, 88, 56)), paint.Texture(canopy=10)),
    "roof": Part("background", _ROOFS),
    "roof_box": Part("background", ((224, 222, 216), (70, 72, 80))),
    "concrete": Part("background", ((168, 166, 160), (132, 130, 126))),
    "plain_court": Part("background", (*_COURTS, (84, 140, 72))),
    "container": Part("background", _BODIES),
    "barge_hull": Part("background", ((160, 76, 52), (132, 138, 144), (206, 202, 192))),
    "barge_deck": Part("background", ((84, 66, 52), (240, 238, 230))),
    "round_roof": Part("background", ((226, 226, 222), (166, 168, 170))),
    "rock": Part("background", ((126, 122, 114), (104, 102, 96))),
    "foam": Part("background", ((196, 206, 208),)),
    "tarp": Part("background", _WATER),
}
FIRST_PART = 25  # below it: the zones of a scene


class Kind(NamedTuple):
    """Objects that are strewn over the ground of some zones, on a jittered grid."""

    zones: str
    half: tuple[float, float]  # px, half length
    aspect: tuple[float, float]  # half width / half length
    pitch: float  # px
    keep: float  # probability at a point of the grid, where it is crowded
    shape: Callable[[np.ndarray, np.ndarray], shapes.Masks]
    parts: tuple[str, ...]
    is_aligned: bool = False  # all of a zone point the same way
    has_shadow: bool = False


ROUND, LONG = (1.0, 1.0), (0.30, 0.36)
TRACK = Kind(
    "sport", (16, 20), (0.5, 0.5), 90, 0.40, shapes.track, ("track_lane", "track_green")
)
SOCCER = Kind(
    "sport",
    (15, 20),
    (0.62, 0.68),
    70,
    0.30,
    shapes.soccer_field,
    ("soccer_grass", "soccer_line"),
)
BASEBALL = Kind("sport", (13, 18), ROUND, 70, 0.40, shapes.diamond, ("clay", "infield"))
PLANE = Kind("airport", (13, 20), ROUND, 60, 0.80, shapes.plane, ("plane",))
TANK = Kind(
    "works",
    (5, 17),
    ROUND,
    46,
    0.60,
    shapes.rimmed_disc,
    ("tank_rim", "tank_top"),
    has_shadow=True,
)
HALL = Kind(
    "works",
    (16, 24),
    (0.5, 0.8),
    78,
    0.70,
    shapes.house,
    ("roof", "roof_box"),
    is_aligned=True,
    has_shadow=True,
)
HOUSE = HALL._replace(
    zones="town", half=(9, 14), aspect=(0.6, 0.85), pitch=46, keep=0.75
)
TENNIS = Kind(
    "sport",
    (9, 12),
    (0.5, 0.5),
    40,
    0.30,
    shapes.tennis_court,
    ("tennis_ground", "tennis_line"),
    is_aligned=True,
)
BASKET = Kind(
    "sport",
    (8, 11),
    (0.58, 0.58),
    38,
    0.30,
    shapes.basketball_court,
    ("basket_ground", "basket_line"),
    is_aligned=True,
)
TRUCK = Kind(
    "parking works",
    (9, 13),
    LONG,
    32,
    0.20,
    shapes.truck,
    ("truck_load", "truck_cab"),
    is_aligned=True,
)
CAR = Kind(
    "parking",
    (4, 6),
    (0.42, 0.50),
    15,
    0.55,
    shapes.car,
    ("car_body", "car_window"),
    is_aligned=True,
)
POOL = Kind("town", (4.5, 8), (0.5, 0.75), 22, 0.30, shapes.pool, ("pool_water",))
SHIP = Kind(
    "sea", (5, 18), (0.24, 0.32), 40, 0.45, shapes.ship, ("hull", "bridge_deck")
)
HELICOPTER = Kind(
    "airport town",
    (10, 15),
    (0.25, 0.31),
    44,
    0.14,
    shapes.helicopter,
    ("helicopter",),
)

# Look-alikes, label 0: each lacks what makes the class.
CROSS = Kind("airport works", (10, 16), ROUND, 90, 0.35, shapes.cross, ("concrete",))
PLAIN = Kind("sport town", (8, 17), (0.5, 0.66), 48, 0.25, shapes.box, ("plain_court",))
CONTAINER = TRUCK._replace(pitch=52, keep=0.10, shape=shapes.box, parts=("container",))
BARGE = SHIP._replace(
    half=(8, 18),
    pitch=52,
    keep=0.10,
    shape=shapes.barge,
    parts=("barge_hull", "barge_deck"),
)
ROUND_ROOF = Kind("works", (5, 15), ROUND, 44, 0.16, shapes.disc, ("round_roof",))
ROCK = Kind("sea", (4, 9), (0.45, 0.9), 46, 0.20, shapes.disc, ("rock",))
FOAM = ROCK._replace(aspect=(0.3, 0.6), keep=0.10, parts=("foam",))
TARP = POOL._replace(zones="field works parking", pitch=40, keep=0.10, parts=("tarp",))
TREE = Kind(
    "field town sport", (3.5, 6.5), (0.85, 1.0), 17, 0.28, shapes.disc, ("tree",)
)

STREWN = (  # in the order of painting: what comes later keeps off what came before
    *(TRACK, SOCCER, BASEBALL, PLANE, TANK, HALL, HOUSE, TENNIS, BASKET),
    *(
        TENNIS._replace(zones="town", keep=0.15),
        BASKET._replace(zones="town", keep=0.15),
    ),
    *(TRUCK, CAR, ROCK, FOAM, BARGE, SHIP, TREE, POOL, HELICOPTER),
    *(CROSS, PLAIN, CONTAINER, ROUND_ROOF, TARP),
)
