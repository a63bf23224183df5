"""Scenes on the device: patches cut there, one program per size, several devices."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import methods, progressive, scene_pass
from uhrjax.errors import InputError
from uhrjax.tiling import bilinear, pyramid

MODEL = {"crop": (50, 60), "input_size": (32, 32), "width": 4}
SEGMENTER = {"backbone": "resnet18", "width": 4, "fpn_dim": 8}
OPTIONS = {"kernel": 3, "n_patches": 3, "n_points": 0.9, "patches_at_once": 2}


def build(**model):
    config = {
        "method": "magnet", "num_classes": 5, "tile": 32, "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2), "dtype": "float32", "remat": False, "loss": {},
        "model": MODEL | model,
        "segmenter": {"method": "semantic_fpn", "model": SEGMENTER},
    }  # fmt: skip
    return methods.build(ml_collections.ConfigDict(config))


def draw_scene():
    scene = np.random.default_rng(0).integers(0, 256, (131, 107, 3), np.uint8)
    scene[40:90, 30:80] //= 4
    return scene


@pytest.fixture(scope="module")
def built():
    """Returns a method, its variables and a scene."""
    method = build()
    return method, method.init(jax.random.key(0)), draw_scene()


def by_hand(method, variables, scene, options):
    """The pass on patches that the host cut."""
    scales = pyramid.plan_scales(131, 107, scales=(0.25, 0.5, 1.0), crop=(50, 60))
    where = {"size": (32, 32), "scene": scene.shape[:2]}
    stacks = [
        np.stack([pyramid.cut(scene, s, corner, **where) for corner in s.corners()])
        for s in scales
    ]
    small_scene = bilinear.resample(scene, height=33, width=27)
    small_scene = bilinear.resample(small_scene, height=32, width=32)

    def run(variables, stacks):
        first = method.label_patches(variables, small_scene[None])[0]
        networks = progressive.Networks(
            (32, 32),
            lambda images: method.label_patches(variables, images),
            lambda *given: method.refine(variables, *given),
        )
        return progressive.run(
            networks, first, lambda k, which: stacks[k][which], scales, options
        )

    return jax.jit(run)(variables, [jnp.asarray(s) for s in stacks])


def test_a_scene_is_labelled_as_by_patches_cut_on_the_host(built):
    method, variables, scene = built
    options = progressive.Options(**OPTIONS)
    engine = scene_pass.ScenePass(method, options, probabilities=True)
    found = engine.label(variables, scene)
    expected, records = by_hand(method, variables, scene, options)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(-1))
    assert found.labels.dtype == np.uint8
    for ours, theirs in zip(found.records, records, strict=True):
        np.testing.assert_array_equal(ours.selected, theirs.selected)
    again = engine.label(variables, scene[::-1])
    assert abs(again.probabilities - found.probabilities).max() > 1e-3
    assert engine._run._cache_size() == 1  # one program for scenes of one size


def test_the_scene_is_made_small_in_one_step_or_two(built):
    _, variables, scene = built
    options = progressive.Options(n_patches=0)
    found = []
    for how in ("two_steps", "direct"):
        method = build(coarse_resize=how)
        engine = scene_pass.ScenePass(method, options, probabilities=True)
        found.append(engine.label(variables, scene).probabilities)
    assert abs(found[0] - found[1]).max() > 1e-5
    np.testing.assert_allclose(found[0].sum(-1), 1, rtol=1e-5)


def test_a_map_from_elsewhere_replaces_the_first_one(built):
    method, variables, scene = built
    options = progressive.Options(n_patches=0)
    given = np.zeros((10, 10, 5), np.float32)
    given[:, :5, 2] = given[:, 5:, 4] = 1
    found = scene_pass.ScenePass(method, options).label(variables, scene, given)
    assert found.probabilities is None
    assert set(np.unique(found.labels[:, :50])) == {2}
    assert set(np.unique(found.labels[:, 60:])) == {4}


def test_a_scene_with_a_side_beyond_32_bits_is_refused(built):
    engine = scene_pass.ScenePass(built[0], progressive.Options())
    with pytest.raises(InputError, match=r"32768 x 10 px .* may have 32767 px; cut it"):
        engine.scales(32768, 10)
    assert engine.scales(32767, 10)[-1].size == (32767, 10)


def test_four_devices_share_the_patches_and_answer_the_same(built, tmp_path):
    method, variables, scene = built
    options = progressive.Options(**OPTIONS)
    engine = scene_pass.ScenePass(method, options, probabilities=True)
    path = tmp_path / "expected.npy"
    np.save(path, engine.label(variables, scene).probabilities)
    code = f"""
        import sys
        sys.path.insert(0, "tests")
        import jax, numpy as np, test_scene_pass
        from uhrjax import progressive, scene_pass
        assert jax.device_count() == 4
        method = test_scene_pass.build()
        engine = scene_pass.ScenePass(
            method, progressive.Options(**{OPTIONS}), probabilities=True
        )
        assert engine.options.patches_at_once == 4
        variables = method.init(jax.random.key(0))
        found = engine.label(variables, test_scene_pass.draw_scene())
        expected = np.load({str(path)!r})
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=True,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"},
    )
