"""Crops of a resident scene against plain loops, at awkward places and sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import zoom


def as_float(pixels):
    return pixels.astype(jnp.float32) / 100 - 1


def scene(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def slow_crop(image, corner, side, size, border="zero"):
    """Samples by float64 positions from an image that is padded as far as needed."""
    image = image.astype(np.float64) / 100 - 1
    reach = side + max(abs(c) for c in corner) + 2
    padding = ((reach, reach), (reach, reach), (0, 0))
    mode = {"mode": "constant"} if border == "zero" else {"mode": "reflect"}
    padded = np.pad(image, padding, **mode)
    out = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y, x = ((k + 0.5) * side / size - 0.5 for k in (i, j))
            a, b = int(np.floor(y)), int(np.floor(x))
            for dy, wy in ((0, 1 - (y - a)), (1, y - a)):
                for dx, wx in ((0, 1 - (x - b)), (1, x - b)):
                    row, column = a + dy + corner[0] + reach, b + dx + corner[1] + reach
                    out[i, j] += wy * wx * padded[row, column]
    return out


@pytest.mark.parametrize("border", zoom.BORDERS)
@pytest.mark.parametrize("corner", [(0, 0), (-3, 5), (7, -20), (11, 9)])
@pytest.mark.parametrize("side", [4, 5, 9, 24])
def test_a_crop_equals_plain_bilinear_sampling(border, corner, side):
    image = scene(13, 17)
    cut = jax.jit(
        lambda image, corner, side: zoom.crop(
            image, corner, side, size=4, normalise=as_float, border=border
        )
    )
    found = cut(image, np.array(corner), np.int32(side))  # both traced
    expected = slow_crop(image, corner, side, 4, border)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_crop_of_its_own_size_is_the_image_and_zero_beyond_it_behind_normalise():
    image = scene(6, 6)
    found = zoom.crop(image, jnp.array([2, 3]), 5, size=5, normalise=as_float)
    np.testing.assert_allclose(found[:4, :3], as_float(image[2:, 3:]), atol=1e-6)
    assert not found[4:].any() and not found[:, 3:].any()


@pytest.mark.parametrize(("side", "size"), [(12, 4), (10, 4), (4, 4), (7, 3)])
def test_an_antialiased_crop_averages_what_every_sample_covers(side, size):
    image = scene(20, 20, seed=1)
    found = zoom.crop(
        image, jnp.array([3, 2]), side, size=size, normalise=as_float, widest=side + 5
    )
    fine = np.kron(image[3 : 3 + side, 2 : 2 + side], np.ones((size, size, 1)))
    blocks = fine.reshape(size, side, size, side, 3).mean((1, 3)) / 100 - 1
    np.testing.assert_allclose(found, blocks, atol=1e-5)


def test_plain_sampling_at_an_odd_factor_picks_pixels_and_averaging_does_not():
    image = np.zeros((9, 9, 3), np.uint8)
    image[::2] = 200  # stripes
    plain = zoom.crop(image, jnp.array([0, 0]), 9, size=3, normalise=as_float)
    smooth = zoom.crop(
        image, jnp.array([0, 0]), 9, size=3, normalise=as_float, widest=9
    )
    assert np.ptp(plain) == 2.0 and np.ptp(smooth) < 0.7


@pytest.mark.parametrize("size", [(3, 4), (13, 17), (1, 1)])
def test_an_overview_is_half_pixel_bilinear_without_antialiasing(size):
    image = scene(13, 17)
    found = zoom.overview(image, size, normalise=as_float)
    expected = jax.image.resize(as_float(image), (*size, 3), "linear", antialias=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("border", zoom.BORDERS)
@pytest.mark.parametrize("corner", [(0, 0), (-5, 3), (14, 17)])
def test_labels_are_cut_from_the_reduced_label(stride, border, corner):
    label = np.arange(18 * 22, dtype=np.int32).reshape(18, 22)
    found = zoom.label_crop(
        label, jnp.array(corner), side=8, stride=stride, border=border
    )
    reduced = label[stride // 2 :: stride, stride // 2 :: stride]
    start = [(c + 7) // stride - 7 // stride for c in corner]
    reach = 30
    if border == "reflect":
        padded = np.pad(reduced, reach, mode="reflect")
    else:
        padded = np.pad(reduced, reach, constant_values=255)
    rows, columns = (slice(s + reach, s + reach + 8 // stride) for s in start)
    np.testing.assert_array_equal(found, padded[rows, columns])


def test_a_mirrored_scene_of_one_pixel_is_that_pixel_everywhere():
    image = scene(1, 1)
    found = zoom.crop(
        image, jnp.array([-4, 2]), 6, size=3, normalise=as_float, border="reflect"
    )
    np.testing.assert_allclose(found, found * 0 + as_float(image), atol=1e-6)
