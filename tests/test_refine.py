"""Two networks in one pass against the second one on the finished maps of the first."""

import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import errors, inference, refine
from uhrjax.data import prepared
from uhrjax.tiling import plan, view, window


class Segmenter:
    """Labels by the grey level and its neighbour on the right."""

    num_classes, overview, frozen = 4, None, ()
    reads_labels = collects = False
    views = (view.View(),)

    def apply(self, variables, batch, *, train):
        grey = batch["views"][:, 0, ..., 0].astype(jnp.float32)
        mixed = (grey + jnp.roll(grey, 1, axis=2)) / 160
        return -((mixed[..., None] - jnp.arange(4.0)) ** 2)

    def logits(self, outputs):
        return outputs

    def points(self, outputs):
        return {}


class Vote(Segmenter):
    """Counts the labels around a pixel, those beyond the scene as a fifth class."""

    reads_labels = True
    views = (view.View(), view.View(2))

    def apply(self, variables, batch, *, train):
        wide = batch["coarse"]
        tile = wide.shape[1] // 2
        known = wide[..., None] == jnp.array([0, 1, 2, 3])
        beyond = wide[..., None] == 255
        votes = known + 0.3 * beyond * jnp.arange(4.0)
        total = sum(
            jnp.roll(votes, (dy, dx), (1, 2)) * (1 + 0.1 * dy + 0.01 * dx)
            for dy in (-3, 0, 2)
            for dx in (-5, 0, 1)
        )
        start = tile // 2
        return total[:, start : start + tile, start : start + tile]


class Scene:
    """Pixels in memory."""

    def __init__(self, pixels, fill, valid=None):
        self.pixels, self.fill, self.valid = pixels, fill, valid
        self.info = prepared.SceneInfo("scene", *pixels.shape[:2])

    def read(self, place):
        return window.cut(self.pixels, place, fill=self.fill)

    def read_valid(self, place):
        if self.valid is None:
            return None
        return window.cut(self.valid, place, fill=False)


def labels_of(engine, scene, **given):
    rows = list(engine.label({}, scene, **given))
    return np.concatenate([r.labels for r in rows])


def engines(**changes):
    tiling = plan.Tiling(**({"tile": 16, "stride": 12, "batch_size": 2} | changes))
    return inference.Engine(Segmenter(), tiling), inference.Engine(Vote(), tiling)


SIZES = [(1, 1), (16, 17), (37, 90), (97, 16), (61, 45)]


@pytest.mark.parametrize("grid", ["shifted", "even"])
def test_one_pass_equals_two(grid):
    first, second = engines(grid=grid)
    both = refine.RefinedEngine(first, second, {})
    for height, width in SIZES:
        rng = np.random.default_rng(height)
        scene = Scene(rng.integers(0, 256, (height, width, 3), np.uint8), 0)
        crude = labels_of(first, scene)
        expected = labels_of(second, Scene(crude[..., None], 255))
        assert crude.shape == expected.shape
        np.testing.assert_array_equal(labels_of(both, scene), expected)
        if height > 12:
            assert (crude != expected).any()
    assert both.write._cache_size() == both.drop._cache_size() == 1


@pytest.mark.parametrize("first_row", [1, 20, 36, 60])
def test_refined_scene_goes_on_from_any_row(first_row):
    first, second = engines()
    both = refine.RefinedEngine(first, second, {})
    pixels = np.random.default_rng(0).integers(0, 256, (61, 45, 3), np.uint8)
    whole = labels_of(both, Scene(pixels, 0))
    rest = labels_of(both, Scene(pixels, 0), first_row=first_row)
    np.testing.assert_array_equal(rest, whole[first_row:])


def test_nodata_stays_unseen_and_counts_as_beyond_the_scene():
    first, second = engines()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    valid = np.ones((50, 60), bool)
    valid[10:40, :33] = False
    scene = Scene(pixels, 0, valid)
    crude = labels_of(first, scene)
    expected = labels_of(second, Scene(crude[..., None], 255))
    found = labels_of(refine.RefinedEngine(first, second, {}), scene)
    np.testing.assert_array_equal(found == 255, ~valid)
    np.testing.assert_array_equal(found[valid], expected[valid])


def test_refiner_of_other_classes_is_refused():
    first, second = engines()
    second.method.num_classes = 3
    with pytest.raises(errors.InputError, match="trained for 3 classes"):
        refine.RefinedEngine(first, second, {})
