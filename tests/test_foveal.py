"""Labelling whole scenes location by location."""

import warnings

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import foveal
from uhrjax.methods import foveation


class Brightness:
    """A segmentation network without weights: the brighter, the more class 1."""

    views, overview, frozen = (None,), None, ()
    collects = whole_scenes = reads_labels = refines = False

    def shapes(self):
        return {}

    def init(self, key):
        return {}

    def apply(self, variables, batch, *, train=False, key=None):
        bright = batch["views"][:, 0].mean(-1)
        return {"logits": jnp.stack([-bright, bright], axis=-1)}

    def logits(self, outputs):
        return outputs["logits"]


def build(**model):
    config = {
        "num_classes": 2, "tile": 16, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2),
        "dtype": "float32", "remat": False, "loss": {},
        "model": {"bank": (16, 24, 48), "scale": 8} | model,
    }  # fmt: skip
    return foveation.FoveationMethod(ml_collections.ConfigDict(config), Brightness())


def scene(height=40, width=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def label(method, image, **options):
    engine = foveal.FovealEngine(method, foveal.Options(batch_size=4, **options))
    return engine.label(method.init(jax.random.key(0)), image)


@pytest.mark.parametrize("anchor", ["corner", "center"])
def test_probabilities_add_up_to_the_number_of_patches(anchor):
    found = label(build(anchor=anchor), scene(), rate=8)
    np.testing.assert_allclose(found.scores.sum(-1), found.counts, rtol=1e-5)
    assert found.locations == 5 * 7 and found.counts.min() > 0
    assert found.fov.shape == (5, 7, 3)
    np.testing.assert_allclose(found.fov.sum(-1), 1, rtol=1e-5)


def test_one_location_per_smallest_patch_is_the_network_on_a_plain_grid():
    image = scene(32, 48)
    method = build(selection="patch", patch=1)
    found = label(method, image, rate=16)
    bright = (image.astype(np.float32) / 255 - 0.5).mean(-1) / 0.2
    np.testing.assert_array_equal(found.counts, 1)
    np.testing.assert_allclose(
        found.scores[..., 1], 1 / (1 + np.exp(-2 * bright)), atol=1e-5
    )
    np.testing.assert_array_equal(found.labels(), bright > 0)


def test_the_surest_patch_wins_and_earlier_ones_win_ties():
    method = build(selection="average")
    found = label(method, scene(), aggregation="max_score")
    np.testing.assert_allclose(found.scores.sum(-1), 1, rtol=1e-5)
    # All patches of a scene of one colour agree at 0.5: the first stays.
    grey = np.full((32, 32, 3), 0, np.uint8)
    mixed = label(method, grey, aggregation="max_score").scores
    summed = label(method, grey)
    assert mixed.max() >= (summed.scores.max(-1) / summed.counts).max() - 1e-6


def test_strips_that_no_patch_covers_are_told_with_numbers_or_covered():
    method, image = build(), scene(64, 72)
    with pytest.warns(UserWarning, match=r"512 of 64 x 72 px \(11.1%\).*cover=True"):
        found = label(method, image, rate=16)
    assert not found.scores[:, 64:].any() and (found.labels()[:, 64:] == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        covered = label(method, image, rate=16, cover=True)
    assert covered.locations == found.locations + 4 and covered.counts.min() == 1
    np.testing.assert_allclose(covered.scores[:, :64], found.scores[:, :64], atol=1e-6)


def test_gaps_between_patches_say_which_rate_has_none():
    with pytest.warns(UserWarning, match="use a rate of 16 px or less"):
        found = label(build(), scene(64, 64), rate=32)
    assert (found.counts == 0).sum() == 64 * 64 - 4 * 16 * 16


def test_a_scene_smaller_than_the_smallest_patch_is_labelled():
    found = label(build(), scene(9, 5))
    assert found.scores.shape == (9, 5, 2)
    np.testing.assert_allclose(found.scores.sum(-1), found.counts, rtol=1e-5)
    assert found.counts.min() == 1


@pytest.mark.parametrize("selection", ["gsm", "random"])
def test_what_is_drawn_depends_on_the_seed_only(selection):
    method, image = build(selection=selection), scene()
    first, same, other = (label(method, image, seed=seed).scores for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@pytest.mark.parametrize("gsm_eval", ["mean", "mode", "sample"])
def test_gumbel_softmax_labels_at_a_low_rate_by_any_rule(gsm_eval):
    found = label(build(selection="gsm", gsm_eval=gsm_eval), scene(), rate=12)
    np.testing.assert_allclose(found.scores.sum(-1), found.counts, rtol=1e-5)


def test_unknown_aggregations_are_refused():
    with pytest.raises(ValueError, match="use one of sum, max_score"):
        foveal.FovealEngine(build(), foveal.Options(aggregation="mean"))
