"""The triangle filter against Pillow itself, bit for bit."""

import numpy as np
import pytest
from PIL import Image

from uhrjax.tiling import triangle

RNG = np.random.default_rng(3)
SIDES = [
    (1, 1), (2, 1), (3, 2), (7, 5), (12, 8), (31, 31), (96, 64), (97, 64), (101, 13),
    (160, 64), (192, 64), (254, 127), (256, 64), (331, 7),
]  # fmt: skip


def by_pillow(pixels, side):
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)


@pytest.mark.parametrize(("before", "after"), SIDES)
def test_reduction_equals_pillow(before, after):
    noise = RNG.integers(0, 256, (before, before, 3), np.uint8)
    for pixels in (noise, np.where(noise > 127, 255, 0).astype(np.uint8)):
        found = triangle.reduce(pixels, height=after, width=after)
        np.testing.assert_array_equal(found, by_pillow(pixels, after))


def test_one_axis_alone_equals_pillow():
    pixels = RNG.integers(0, 256, (60, 23, 3), np.uint8)
    found = triangle.reduce(pixels, height=17, width=23)
    expected = Image.fromarray(pixels).resize((23, 17), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, expected)


def test_whole_ratios_have_the_known_weights():
    for ratio, inner in ((2, [1, 3, 3, 1]), (3, [1, 2, 3, 2, 1])):
        places, weights = triangle.taps(8 * ratio, 8)
        middle = weights[:, 4][weights[:, 4] > 0] / 2**triangle.BITS
        np.testing.assert_allclose(middle, np.array(inner) / sum(inner), atol=1e-6)
        assert places.min() >= 0 and places.max() < 8 * ratio


@pytest.mark.parametrize(("before", "after"), SIDES)
def test_no_sum_leaves_31_bits_and_white_stays_white(before, after):
    _, weights = triangle.taps(before, after)
    total = 255 * weights.astype(np.int64).sum(0) + 2 ** (triangle.BITS - 1)
    assert total.max() < 2**31
    white = np.full((before, before, 3), 255, np.uint8)
    assert (triangle.reduce(white, height=after, width=after) == 255).all()
