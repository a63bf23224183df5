"""Labelling whole scenes location by location."""

import warnings

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from test_refine import Scene, Vote

from uhrjax import canvas, errors, foveal, inference, refine
from uhrjax.methods import foveation
from uhrjax.tiling import plan


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


def engine_of(method, **options):
    given = {"batch_size": 4} | options
    return foveal.FovealEngine(method, foveal.Options(**given))


def label(method, image, **options):
    engine = engine_of(method, **options)
    return engine.explore(method.init(jax.random.key(0)), image)


def rows_of(engine, shown, **given):
    """Returns the rows that an engine hands out of a scene."""
    return list(engine.label(engine.method.init(jax.random.key(0)), shown, **given))


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


@pytest.mark.parametrize("selection", ["gsm", "random"])
def test_what_is_drawn_does_not_depend_on_how_many_go_at_a_time(selection):
    method, image = build(selection=selection), scene()
    few, many = (label(method, image, batch_size=n).scores for n in (3, 16))
    np.testing.assert_allclose(few, many, atol=1e-5)


def test_rows_are_handed_out_as_by_the_engine_of_windows(monkeypatch):
    monkeypatch.setattr(foveal, "STRIP", 16)
    image, done = scene(), []
    valid = np.ones(image.shape[:2], bool)
    valid[10:20, 30:] = False
    engine = engine_of(build(), rate=8, probabilities=True)
    shown = Scene(image, 0, valid)
    rows = rows_of(engine, shown, on_windows=lambda n, skipped: done.append(n))
    assert [part.top for part in rows] == [0, 16, 32]
    assert sum(done) == engine.count_windows(shown) == 5 * 7
    found = engine.explore(engine.method.init(jax.random.key(0)), image)
    labels = np.concatenate([part.labels for part in rows])
    np.testing.assert_array_equal(labels, np.where(valid, found.labels(), 255))
    likely = np.concatenate([part.probabilities for part in rows])
    np.testing.assert_allclose(
        likely, found.scores / found.counts[..., None], atol=1e-6
    )
    later = rows_of(engine, shown, first_row=20)
    assert [part.top for part in later] == [20, 36]
    np.testing.assert_array_equal(later[0].labels, labels[20:36])


@pytest.mark.parametrize("aggregation", foveal.AGGREGATIONS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_probabilities_are_equal_where_no_patch_was(aggregation):
    engine = engine_of(build(), rate=32, aggregation=aggregation, probabilities=True)
    (rows,) = rows_of(engine, Scene(scene(64, 64), 0))
    np.testing.assert_allclose(rows.probabilities.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(rows.probabilities[20:32], 0.5)
    assert (rows.probabilities[:16, :16] != 0.5).any()


def test_scenes_of_one_size_share_their_programs():
    engine = engine_of(build())
    for seed in range(3):
        rows_of(engine, Scene(scene(seed=seed), 0))
    assert engine.add._cache_size() == engine.look._cache_size() == 1
    rows_of(engine, Scene(scene(41), 0))
    assert engine.add._cache_size() == 2


def test_a_scene_that_does_not_fit_is_told_with_its_size(monkeypatch):
    engine = engine_of(build())

    def full(*given):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(engine, "add", full)
    with pytest.raises(errors.InputError, match="40 x 56 px does not fit on the devic"):
        rows_of(engine, Scene(scene(), 0))

    def broken(*given):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(engine, "add", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        rows_of(engine, Scene(scene(), 0))


def test_the_cost_of_a_scene_is_counted_without_running():
    class Dense(Brightness):
        """Six products per px of a patch."""

        def apply(self, variables, batch, *, train=False, key=None):
            return {"logits": batch["views"][:, 0] @ jnp.ones((3, 2))}

    config = {
        "num_classes": 2, "tile": 16, "mean": (0.5,) * 3, "std": (0.2,) * 3,
        "dtype": "float32", "remat": False, "loss": {},
        "model": {"bank": (16, 24, 48), "scale": 8},
    }  # fmt: skip
    method = foveation.FoveationMethod(ml_collections.ConfigDict(config), Dense())
    locations, gmac = engine_of(method, rate=16).cost(64, 96)
    assert locations == 4 * 6
    once = 8 * 12 * 9 * (3 * 24 + 24 * 24 + 24 * 3)  # three 3x3 convolutions
    assert gmac == pytest.approx((once + 24 * 16 * 16 * 6) / 1e9)


class TwoClasses(Vote):
    num_classes = 2

    def apply(self, variables, batch, *, train):
        return super().apply(variables, batch, train=train)[..., :2]


def test_a_network_that_refines_label_maps_follows_the_whole_scene():
    first = engine_of(build(), rate=8)
    tiling = plan.Tiling(tile=16, stride=12, batch_size=4)
    second = inference.Engine(TwoClasses(), tiling)
    valid = np.ones((40, 56), bool)
    valid[:5] = False
    shown = Scene(scene(), 0, valid)
    engine = refine.TwoPassEngine(first, second, {})
    found = np.concatenate([rows.labels for rows in rows_of(engine, shown)])
    (crude,) = rows_of(first, shown)
    maps = Scene(crude.labels[..., None], canvas.UNSEEN, valid)
    plain = np.concatenate([rows.labels for rows in second.label({}, maps)])
    np.testing.assert_array_equal(found, plain)
    assert (found != crude.labels).any() and (found[:5] == 255).all()
    later = rows_of(engine, shown, first_row=20)
    np.testing.assert_array_equal(
        np.concatenate([rows.labels for rows in later]), found[20:]
    )
    with pytest.raises(errors.InputError, match="trained for 4 classes"):
        refine.TwoPassEngine(first, inference.Engine(Vote(), tiling), {})


def test_unknown_aggregations_are_refused():
    with pytest.raises(ValueError, match="use one of sum, max_score"):
        foveal.FovealEngine(build(), foveal.Options(aggregation="mean"))
