"""Scenes in parts: the same as on the device at once, whatever the options."""

import jax
import numpy as np
import pytest
import test_scene_pass

from uhrjax import dense_crf, predict, progressive, scene_pass, stepwise, window_pass
from uhrjax.errors import InputError

SIZE = (131, 107)


@pytest.fixture(scope="module")
def built():
    """Returns a method, its variables and a scene."""
    method = test_scene_pass.build(refiners=2)
    return method, method.init(jax.random.key(0)), test_scene_pass.draw_scene()


def both(method, variables, image, first=None, **options):
    """Returns the probabilities of both passes."""
    options = progressive.Options(**{"kernel": 3, "patches_at_once": 2, **options})
    resident = scene_pass.ScenePass(method, options, probabilities=True)
    whole = resident.label(variables, image, first).probabilities
    windowed, told = window_pass.WindowPass(resident), []
    parts = windowed.label(
        variables, predict.ArrayScene(image), first,
        on_windows=lambda done, skipped: told.append(done),
    )  # fmt: skip
    return np.asarray(whole), parts, sum(told)


def test_all_patches_are_refined_as_on_the_device(built, monkeypatch):
    monkeypatch.setattr(progressive, "BLOCK", 40)  # no divisor of the scene's sides
    whole, parts, told = both(*built, n_points=0.6)
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    assert told == 1 + 2 + 6  # 66 x 54 and 131 x 107 px in boxes of 50 x 60


def test_so_are_the_most_uncertain_patches_only(built):
    whole, parts, told = both(*built, n_points=200.0, n_patches=3)
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    assert told == 1 + 2 + 3


def test_so_are_overlaps_as_released_and_a_pass_that_ends_early():
    method = test_scene_pass.build()
    given = method, method.init(jax.random.key(1)), test_scene_pass.draw_scene()
    whole, parts, _ = both(*given, overlap="released", score="uncertainty")
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    whole, parts, told = both(*given, stages=1)
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    assert told == 1 + 2


def test_a_map_from_elsewhere_and_a_scene_that_is_enlarged_only(built):
    first = np.random.default_rng(0).dirichlet(np.ones(5), (20, 30)).astype(np.float32)
    whole, parts, told = both(*built, first=first, n_patches=0)
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    assert told == 0


@pytest.mark.parametrize("how", ["two_steps", "direct"])
def test_the_scene_is_made_small_as_on_the_device(how, built, monkeypatch):
    monkeypatch.setattr(progressive, "BLOCK", 7)
    resident = scene_pass.ScenePass(
        test_scene_pass.build(coarse_resize=how), progressive.Options()
    )
    windowed, scale = window_pass.WindowPass(resident), resident.scales(*SIZE)[0]
    ours = windowed._overview(predict.ArrayScene(built[2]), scale)
    np.testing.assert_array_equal(ours, resident._overview(built[2], scale))


def test_large_maps_lie_on_the_disk(built, monkeypatch):
    monkeypatch.setattr(window_pass, "IN_MEMORY_BYTES", 1000)
    options = progressive.Options(kernel=3, n_patches=0)
    windowed = window_pass.WindowPass(scene_pass.ScenePass(built[0], options))
    found = windowed.label(built[1], predict.ArrayScene(built[2]))
    assert isinstance(found, np.memmap) and found.shape == (*SIZE, 5)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_the_engine_takes_a_scene_in_parts_where_memory_does_not_suffice(built):
    method, variables, image = built
    scene, found = predict.ArrayScene(image), []
    for megabytes in (4096, 0.1):
        engine = stepwise.StepwiseEngine(
            method, progressive.Options(kernel=3), probabilities=True,
            memory_mb=megabytes,
        )  # fmt: skip
        (rows,) = engine.label(variables, scene, first_row=30)
        assert rows.top == 30 and rows.labels.shape == (101, 107)
        np.testing.assert_array_equal(rows.labels, rows.probabilities.argmax(-1))
        found.append((engine.fits(*SIZE), rows.probabilities))
    (fits, whole), (fits_too, parts) = found
    assert fits and not fits_too
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    assert engine.count_windows(scene) == engine.cost(*SIZE).patches == 1 + 2 + 6


def test_a_dense_crf_follows_the_pass(built, monkeypatch):
    method, variables, image = built
    monkeypatch.setattr(dense_crf, "mean_field", lambda image, p, _: p[..., ::-1])
    found = {}
    for crf in ("", "exact"):
        engine = stepwise.StepwiseEngine(
            method, progressive.Options(kernel=3, n_patches=0), crf=crf
        )
        (rows,) = engine.label(variables, predict.ArrayScene(image))
        assert rows.probabilities is None
        found[crf] = engine.settings, rows.labels
    np.testing.assert_array_equal(found["exact"][1], 4 - found[""][1])
    assert found["exact"][0] != found[""][0]


def test_a_scene_whose_px_32_bits_cannot_count_is_refused(built):
    resident = scene_pass.ScenePass(built[0], progressive.Options())
    engine = window_pass.WindowPass(resident)
    with pytest.raises(InputError, match=r"46341 x 46341 px is too large .* cut it"):
        engine.scales(46341, 46341)
    assert engine.scales(46340, 46340)[-1].size == (46340, 46340)
