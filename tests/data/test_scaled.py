"""Crops of several scales: what they show, and where they say it lies."""

import pickle
import types

import numpy as np
import pytest

from uhrjax.data import scaled
from uhrjax.tiling import bilinear, pyramid
from uhrjax.tiling import window as windows

SIZES = ((61, 83), (20, 9))


class Reader:
    """Scenes in memory, read as prepared ones are."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.images = [rng.integers(0, 256, (*s, 3), np.uint8) for s in SIZES]
        self.labels = [rng.integers(0, 5, s, np.uint8) for s in SIZES]
        self.scenes = [
            types.SimpleNamespace(id=str(i), height=h, width=w)
            for i, (h, w) in enumerate(SIZES)
        ]
        self.read = []  # px of the images

    def __len__(self):
        return len(self.scenes)

    def read_image(self, index, window):
        self.read.append(window.height * window.width)
        return windows.cut(self.images[index], window, fill=0)

    def read_label(self, index, window):
        return windows.cut(self.labels[index], window, fill=255)


def crops_of(reader, among, *, with_overview):
    return scaled.ScaledCrops(
        reader, (0.3, 0.5, 1.0), (16, 18), (12, 14), among, with_overview
    )


@pytest.mark.parametrize("scene", [0, 1])
def test_a_crop_is_the_box_of_the_resized_scene_that_it_says(scene):
    reader = Reader()
    crops = crops_of(reader, (1, 2), with_overview=True)
    height, width = SIZES[scene]
    scales = pyramid.plan_scales(height, width, scales=(0.3, 0.5, 1.0), crop=(16, 18))
    seen = set()
    for seed in range(12):
        sample = crops(scene, np.random.default_rng(seed))
        drawn = pyramid.draw_crop(scales, np.random.default_rng(seed), among=(1, 2))
        seen.add(drawn.scale)
        scale, corner = scales[drawn.scale], (drawn.top, drawn.left)
        image, label = reader.images[scene], reader.labels[scene]
        large = bilinear.resample(image, height=scale.height, width=scale.width)
        box = np.s_[
            corner[0] : corner[0] + scale.box_height,
            corner[1] : corner[1] + scale.box_width,
        ]
        expected = bilinear.resample(large[box], height=12, width=14)
        np.testing.assert_array_equal(sample["views"], expected[None])
        rows, columns = (
            np.arange(n) * side // n + first
            for n, side, first in zip((12, 14), scale.box, corner, strict=True)
        )
        nearest = label[rows * height // scale.height][
            :, columns * width // scale.width
        ]
        np.testing.assert_array_equal(sample["label"], nearest)
        np.testing.assert_allclose(
            sample["box"] * np.array(scale.size * 2),
            [*corner, *np.add(corner, scale.box)],
        )
        small = bilinear.resample(image, height=12, width=14)
        np.testing.assert_array_equal(sample["overview"], small)
    assert seen == {1, 2}


def test_without_the_whole_scene_only_the_crop_is_read():
    reader = Reader()
    sample = crops_of(reader, (2,), with_overview=False)(0, np.random.default_rng(0))
    assert set(sample) == {"views", "label", "scene_id"}
    assert max(reader.read) <= 18 * 20


def test_an_epoch_has_one_crop_of_every_scene():
    crops = crops_of(Reader(), (0,), with_overview=False)
    np.testing.assert_array_equal(crops.counts(), [1, 1])


def test_a_scene_made_small_is_kept_and_changes_no_sample():
    reader, plain = Reader(), Reader()
    crops = crops_of(reader, (2,), with_overview=True)
    for seed in (0, 1):  # the second time only the crop is read
        sample = crops(0, np.random.default_rng(seed))
        anew = crops_of(plain, (2,), with_overview=True)
        fresh = anew(0, np.random.default_rng(seed))
        assert sample.keys() == fresh.keys()
        for name, value in fresh.items():
            np.testing.assert_array_equal(sample[name], value)
    whole = SIZES[0][0] * SIZES[0][1]
    assert reader.read[0] == whole and reader.read[1] < whole
    assert plain.read == [whole, whole]
    with pytest.raises(ValueError, match="read-only"):
        sample["overview"][0] = 0


def test_kept_scenes_stay_within_their_bytes_and_are_not_pickled():
    kept, small = scaled.KeptScenes(250), np.zeros((10, 10), np.uint8)
    for scene in range(4):
        kept.add(scene, small.copy())
    assert [kept.get(scene) is not None for scene in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    copied = pickle.loads(pickle.dumps(kept))
    assert copied.get(0) is None
    for scene in range(4):
        copied.add(scene, small.copy())
    assert copied.get(1) is not None and copied.get(2) is None
