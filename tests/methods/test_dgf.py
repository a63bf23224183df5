"""The deep guided filter: windows of one answer, sharpened by the image."""

import jax
import numpy as np
import pytest
import small

from uhrjax import methods
from uhrjax.errors import InputError

REACH = 4  # twice the filter's radius, px


def build(**model):
    return methods.build(small.config("dgf", model={"size": (32, 64), **model}))


def test_windows_fit_together_but_for_the_filters_reach():
    method = build()
    variables = method.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (96, 96, 3), np.uint8)
    overview = rng.integers(0, 256, (1, 32, 64, 3), np.uint8)
    maps = np.asarray(method.context(variables, overview))

    def label(corner, side):
        (top, left), size = corner, np.array([[96, 96]], np.int32)
        views = scene[None, None, top : top + side, left : left + side]
        batch = {"views": views, "position": np.array([corner], np.int32)}
        given = {**batch, "scene_size": size, "context": maps}
        return method.apply(variables, given)["logits"][0]

    whole = label((0, 0), 96)
    part = label((20, 32), 64)
    inner = np.s_[REACH : 64 - REACH, REACH : 64 - REACH]
    expected = whole[20:84, 32:][inner]
    np.testing.assert_allclose(part[inner], expected, atol=1e-4)
    assert abs(part - whole[20:84, 32:]).max() > 1e-3  # at the border


def test_mistakes_in_a_config_say_what_is_allowed():
    with pytest.raises(InputError, match="radius = 0; use 1 or more"):
        build(radius=0)
    with pytest.raises(InputError, match="no published weights"):
        build().import_torch({})
