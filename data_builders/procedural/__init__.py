"""Procedural scenes of ultra-high resolution: deterministic, drawn with numpy alone.

What is evident at which scale is known, so the claims of the papers can be tested on
them: see `landcover` and `objects`.
"""

from __future__ import annotations

import numpy as np

from data_builders.procedural import landcover, objects, paint

Scene = paint.Scene

CLASSES = {"landcover": landcover.CLASSES, "objects": objects.CLASSES}
SCENE_SIZE = {"tiny": 512, "many": 512, "few": 512, "full": 2448}  # px, side
SPLITS = {  # scenes per split
    "tiny": {"train": 40, "val": 10, "test": 10},
    # As tiny; with 40 scenes, networks learn by heart what only context tells apart.
    "many": {"train": 128, "val": 12, "test": 24},
    "few": {"train": 8, "val": 2, "test": 2},  # the first ones of tiny: to try a recipe
    "full": {"train": 64, "val": 16, "test": 16},
}
SEEDS_PER_SPLIT = 10**6

_DRAW = {"landcover": landcover.draw, "objects": objects.draw}


def scene_seed(split: str, index: int) -> int:
    """Returns the seed of scene `index` of a split; no two splits share one."""
    names = list(SPLITS["tiny"])
    if split not in names:
        raise ValueError(f"unknown split {split!r}; use one of {', '.join(names)}")
    if not 0 <= index < SEEDS_PER_SPLIT:
        raise ValueError(
            f"scene index {index} is outside 0..{SEEDS_PER_SPLIT - 1}; "
            "a split holds at most a million scenes"
        )
    return SEEDS_PER_SPLIT * names.index(split) + index


def make_scene(kind: str, size: str, *, seed: int) -> Scene:
    """Draws one scene; the same arguments give the same bytes on every machine.

    Args:
        kind: "landcover" (7 classes, as DeepGlobe) or "objects" (16 classes, as iSAID).
        size: "tiny", "many" or "few" (512 px), or "full" (2448 px).
        seed: at least 0; `scene_seed` gives the one of a scene of a split.

    Returns:
        image uint8 [S, S, 3], label uint8 [S, S] with 255 = ignore, and thin uint8
        [S, S]: 0 none, 1 water, 2 road, 3 tree row (all 0 for objects).
    """
    if kind not in _DRAW:
        raise ValueError(
            f"unknown kind of scene {kind!r}; use one of {', '.join(_DRAW)}"
        )
    if size not in SCENE_SIZE:
        raise ValueError(
            f"unknown scene size {size!r}; use one of {', '.join(SCENE_SIZE)}"
        )
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; use 0 or more")
    rng = np.random.Generator(np.random.PCG64(seed))
    return _DRAW[kind](SCENE_SIZE[size], rng)
