import numpy as np
import pytest

from uhrjax.tiling import blend, window


@pytest.mark.parametrize("name", blend.BLENDS)
def test_weights_are_above_zero_and_symmetric(name):
    weights = blend.window_weights(name, 9)
    assert weights.dtype == np.float32 and (weights > 0).all()
    np.testing.assert_array_equal(weights, weights[::-1])
    np.testing.assert_array_equal(weights, weights.T)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 13, 40])
def test_montage_gives_every_pixel_one_owner_with_seams_inside_overlaps(length):
    starts = window.plan_starts(length, tile=8, stride=5)
    spans = blend.owned_spans(starts, tile=8, length=length, blend="montage")
    owners = np.zeros(length, int)
    for start, (first, last) in zip(starts, spans, strict=True):
        assert 0 <= first < last <= 8
        owners[start + first : start + last] += 1
    assert (owners == 1).all()


def test_other_blends_own_all_that_lies_in_the_scene():
    spans = blend.owned_spans([0], tile=8, length=5, blend="hann")
    np.testing.assert_array_equal(spans, [[0, 5]])


def test_unknown_blend_lists_the_known_ones():
    with pytest.raises(ValueError, match="average, hann"):
        blend.window_weights("mean", 4)
