"""Procedural scenes: the properties that the experiments on them rely on."""

import hashlib

import numpy as np
import pytest

from data_builders import procedural
from data_builders.procedural import inventory, landcover, objects, paint

COUNT = 12  # tiny scenes of each kind that the statistics are taken over
SHA256 = {  # of image, label and thin of the tiny scene with seed 0
    "landcover": "01c36cb141ac089ed35154c10127fc7e16e7fbaad3bdc55caf6b800f0ab8e967",
    "objects": "619ebe1912780a56c8f7be982165f1b845f5361fba6b7c384e049f980c037ffd",
}


@pytest.fixture(scope="module")
def land() -> list[paint.Scene]:
    return [procedural.make_scene("landcover", "tiny", seed=i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def things() -> list[paint.Scene]:
    return [procedural.make_scene("objects", "tiny", seed=i) for i in range(COUNT)]


def shares(scenes: list[paint.Scene]) -> np.ndarray:
    """Returns the share of each label in each scene, in %, float64 [n, 256]."""
    counts = [np.bincount(scene.label.ravel(), minlength=256) for scene in scenes]
    return 100 * np.array(counts) / scenes[0].label.size


def contrast(scenes: list[paint.Scene], label: int, factor: int) -> float:
    """Returns the mean difference of neighbours inside a class after averaging."""
    total = count = 0
    for scene in scenes:
        side = len(scene.label) // factor
        cut = slice(0, side * factor)
        blocks = (side, factor, side, factor)
        image = scene.image[cut, cut].reshape(*blocks, 3).mean(axis=(1, 3))
        pure = (scene.label[cut, cut] == label) & (scene.thin[cut, cut] == 0)
        pure = pure.reshape(blocks).all(axis=(1, 3))
        pair = pure[:, 1:] & pure[:, :-1]
        total += np.abs(np.diff(image, axis=1)).mean(axis=-1)[pair].sum()
        count += pair.sum()
    return total / count


# ---------------------------------------------------------------- every scene


@pytest.mark.parametrize("kind", procedural.CLASSES)
def test_scenes_are_the_same_bytes_on_every_machine(kind):
    scene = procedural.make_scene(kind, "tiny", seed=0)
    digest = hashlib.sha256(b"".join(part.tobytes() for part in scene)).hexdigest()
    assert digest == SHA256[kind], (
        "the scenes changed: results on them no longer compare"
    )


@pytest.mark.parametrize("kind", procedural.CLASSES)
def test_scenes_have_the_documented_shapes_and_labels(kind, land, things):
    for scene in land if kind == "landcover" else things:
        assert scene.image.shape == (512, 512, 3) and scene.image.dtype == np.uint8
        assert scene.label.shape == scene.thin.shape == (512, 512)
        assert scene.label.dtype == scene.thin.dtype == np.uint8
        labels = set(np.unique(scene.label).tolist())
        assert labels <= {*range(len(procedural.CLASSES[kind])), paint.IGNORE}


@pytest.mark.parametrize("kind", procedural.CLASSES)
def test_full_scenes_hold_every_class(kind):
    scene = procedural.make_scene(kind, "full", seed=0)
    assert scene.image.shape == (2448, 2448, 3)
    names = [name for name, _ in procedural.CLASSES[kind] if name != "unknown"]
    assert set(range(len(names))) <= set(np.unique(scene.label).tolist())


def test_scenes_of_different_seeds_differ(land, things):
    for scenes in (land, things):
        assert len({scene.image.tobytes() for scene in scenes}) == COUNT
        assert len({scene.label.tobytes() for scene in scenes}) == COUNT


def test_splits_share_no_seed():
    seeds = [
        procedural.scene_seed(split, index)
        for split, count in procedural.SPLITS["full"].items()
        for index in (*range(count), procedural.SEEDS_PER_SPLIT - 1)
    ]
    assert len(set(seeds)) == len(seeds)
    assert procedural.scene_seed("val", 3) == 1_000_003


@pytest.mark.parametrize("kind", procedural.CLASSES)
def test_classes_have_distinct_names_and_colours(kind):
    names, colours = zip(*procedural.CLASSES[kind], strict=True)
    assert len(set(names)) == len(set(colours)) == {"landcover": 7, "objects": 16}[kind]


def test_unknown_kind_names_the_allowed_ones():
    with pytest.raises(ValueError, match="'street'; use one of landcover, objects"):
        procedural.make_scene("street", "tiny", seed=0)


def test_unknown_size_names_the_allowed_ones():
    with pytest.raises(ValueError, match="'huge'; use one of tiny, many, few, full"):
        procedural.make_scene("objects", "huge", seed=0)


def test_negative_seed_says_what_to_use():
    with pytest.raises(ValueError, match="-1 is negative; use 0 or more"):
        procedural.make_scene("objects", "tiny", seed=-1)


def test_seed_outside_a_split_is_refused():
    with pytest.raises(ValueError, match="use one of train, val, test"):
        procedural.scene_seed("dev", 0)
    with pytest.raises(ValueError, match=r"index 1000000 is outside 0\.\.999999"):
        procedural.scene_seed("train", 10**6)


# ---------------------------------------------------------------- land cover


def test_landcover_shares_stay_in_range(land):
    mean = shares(land).mean(axis=0)
    expected = {
        landcover.URBAN: (6, 15),
        landcover.AGRICULTURE: (22, 40),
        landcover.RANGELAND: (22, 40),
        landcover.FOREST: (6, 16),
        landcover.WATER: (5, 14),
        landcover.BARREN: (2, 10),
        paint.IGNORE: (0.5, 8),
    }
    for label, (low, high) in expected.items():
        assert low < mean[label] < high, f"label {label} covers {mean[label]:.1f} %"
    assert shares(land)[:, landcover.URBAN : landcover.WATER + 1].min() > 0.5


def test_unknown_pixels_are_black_and_ignored_and_no_others(land):
    for scene in land:
        unknown = scene.label == paint.IGNORE
        assert np.array_equal(unknown, (scene.image == 0).any(axis=-1))
        assert not scene.thin[unknown].any()
        assert not (scene.label == len(landcover.CLASSES) - 1).any()


def test_agriculture_and_rangeland_share_their_colours(land):
    histograms = np.zeros((2, 3, 32))
    for scene in land:
        for i, label in enumerate((landcover.AGRICULTURE, landcover.RANGELAND)):
            values = scene.image[scene.label == label] >> 3
            for channel in range(3):
                histograms[i, channel] += np.bincount(values[:, channel], minlength=32)
    histograms /= histograms.sum(axis=-1, keepdims=True)
    assert histograms.min(axis=0).sum(axis=-1).min() > 0.88  # 1 = the same histogram


def test_agriculture_and_rangeland_share_their_texture(land):
    crops, grass = (
        contrast(land, label, 1)
        for label in (landcover.AGRICULTURE, landcover.RANGELAND)
    )
    assert abs(crops - grass) < 0.05 * crops


def test_strips_of_agriculture_are_light_and_dark_in_turn():
    dy, dx = paint.direction(np.random.Generator(np.random.PCG64(5)))
    strips = landcover._strips(np.random.Generator(np.random.PCG64(5)), 1.0)
    across = (np.arange(12) + 0.5) * landcover.STRIP_WIDTH
    for along in (0.0, 700.0, 2900.0):
        tone = strips(along * dy - across * dx, along * dx + across * dy)
        assert np.array_equal(tone // landcover.SHADES, np.arange(12) & 1)


def test_forest_and_water_differ_in_texture_alone(land):
    def mean_colour(label):
        return np.concatenate([s.image[s.label == label] for s in land]).mean(axis=0)

    difference = mean_colour(landcover.FOREST) - mean_colour(landcover.WATER)
    assert np.abs(difference).max() < 6
    assert contrast(land, landcover.FOREST, 1) > 5 * contrast(land, landcover.WATER, 1)


def test_forest_turns_into_water_when_averaged(land):
    forest = {
        factor: contrast(land, landcover.FOREST, factor) for factor in (1, 2, 4, 8)
    }
    assert forest[2] < 0.30 * forest[1]
    assert forest[4] < 0.09 * forest[1]
    assert forest[8] < 1.5 * contrast(land, landcover.WATER, 8)


def test_thin_structures_carry_the_label_of_their_class(land):
    for scene in land:
        for thin, label in (
            (landcover.THIN_WATER, landcover.WATER),
            (landcover.THIN_ROAD, landcover.URBAN),
            (landcover.THIN_TREES, landcover.FOREST),
        ):
            mask = scene.thin == thin
            assert mask.any() and (scene.label[mask] == label).all()
    assert 0.03 < np.mean([scene.thin > 0 for scene in land]) < 0.08


# ---------------------------------------------------------------- objects


def test_objects_cover_a_few_percent(things):
    foreground = 100 - shares(things)[:, 0]
    assert foreground.min() > 1.5 and foreground.max() < 6
    assert 2.5 < foreground.mean() < 4.5


def test_every_class_of_objects_occurs_in_tiny_scenes(things):
    assert (shares(things)[:, :16].max(axis=0) > 0).all()


def test_object_scenes_have_no_thin_map_and_no_ignored_pixel(things):
    for scene in things:
        assert not scene.thin.any()
        assert scene.label.max() < len(objects.CLASSES)


@pytest.mark.parametrize(
    ("look_alike", "part"),
    [
        ("container", "truck_load"),
        ("tarp", "pool_water"),
        ("plain_court", "tennis_ground"),
        ("barge_hull", "hull"),
    ],
)
def test_look_alikes_share_colours_with_their_class(look_alike, part):
    twin, model = inventory.PARTS[look_alike], inventory.PARTS[part]
    assert set(twin.colours) & set(model.colours)
    assert twin.label == "background" != model.label


def test_zones_leave_no_share_and_all_ids_fit_a_byte():
    assert sum(zone.share for zone in inventory.ZONES.values()) == pytest.approx(1)
    assert sum(share for _, share in landcover.BLOBS) == pytest.approx(1)
    ids = np.concatenate(list(objects.PART_IDS.values()))
    assert len(set(ids.tolist())) == len(ids)
    assert inventory.FIRST_PART + len(ids) <= 256 and landcover.ROAD_ID < 256
    assert objects.LARGE.grid**2 <= inventory.FIRST_PART


def test_kinds_of_objects_name_known_zones_and_parts():
    for kind in inventory.STREWN:
        assert set(kind.zones.split()) <= set(inventory.ZONES)
        assert set(kind.parts) <= set(inventory.PARTS)
        s = np.zeros((1, 3, 3))
        assert len(kind.shape(s, s)) == len(kind.parts)
