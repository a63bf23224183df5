"""Cropping and pasting of maps against slices and resizing."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import crop, resize

# (start, window, scene) px and lengths (scene's map, window's map)
LINES = [
    ((0, 508, 2448), (127, 127)),
    ((1940, 508, 2448), (64, 64)),
    ((31, 96, 190), (24, 24)),
    ((27, 96, 150), (3, 3)),
    ((449, 508, 5000), (16, 20)),
    ((5, 7, 13), (9, 4)),
]


@pytest.mark.parametrize(("line", "sizes"), LINES)
def test_windows_of_a_resized_map_are_slices_of_it(line, sizes):
    (start, window, scene), (before, _) = line, sizes
    x = np.random.default_rng(0).normal(size=(before, 5))
    matrix = crop.resize_matrix(
        jnp.array([start]), jnp.array([scene]), window=window, before=before
    )
    expected = resized(x, scene)[start : start + window]
    np.testing.assert_allclose(matrix[0] @ x, expected, atol=2e-6)


def rectangle(start, window, scene, size):
    """Python rounds fractions half to even."""
    first = round(fractions.Fraction(start * size, scene))
    return first, round(fractions.Fraction(window * size, scene))


def resized(x, length):
    """Resizes [n, C] along its first axis."""
    x = jnp.asarray(x, jnp.float32)[None, :, None]
    return np.array(resize.bilinear(x, (length, 1), align_corners=False))[0, :, 0]


@pytest.mark.parametrize(("line", "sizes"), LINES)
def test_crop_is_slice_and_resize(line, sizes):
    (start, window, scene), (before, after) = line, sizes
    x = np.random.default_rng(0).normal(size=(before, 5))
    first, count = rectangle(start, window, scene, before)
    matrix = crop.crop_matrix(
        jnp.array([start]),
        jnp.array([scene]),
        window=window,
        before=before,
        after=after,
    )
    expected = resized(x[first : first + count], after)
    np.testing.assert_allclose(matrix[0] @ x, expected, atol=2e-6)


@pytest.mark.parametrize(("line", "sizes"), LINES)
def test_paste_is_resize_into_the_slice(line, sizes):
    (start, window, scene), (after, before) = line, sizes
    x = np.random.default_rng(0).normal(size=(before, 5))
    first, count = rectangle(start, window, scene, after)
    matrix = crop.paste_matrix(
        jnp.array([start]),
        jnp.array([scene]),
        window=window,
        before=before,
        after=after,
    )
    expected = np.zeros((after, 5))
    expected[first : first + count] = resized(x, count)
    np.testing.assert_allclose(matrix[0] @ x, expected, atol=2e-6)


@pytest.mark.parametrize(("line", "sizes"), LINES)
def test_coverage_is_the_resized_indicator_of_a_window(line, sizes):
    (start, window, scene), (size, _) = line, sizes
    inside = np.zeros((scene, 1))
    inside[start : start + window] = 1
    found = crop.coverage(
        jnp.array([start]), jnp.array([scene]), window=window, after=size
    )
    np.testing.assert_allclose(found[0], resized(inside, size)[:, 0], atol=1e-4)


def test_halves_are_rounded_to_even():
    # 3, 5 and 7 px of a scene of 8 px are 1.5, 2.5 and 3.5 px of a map of 4 px.
    starts = jnp.array([3, 5, 7])
    matrix = crop.crop_matrix(
        starts, jnp.full(3, 8), window=1, before=4, after=1
    )  # half a px long, which becomes one
    np.testing.assert_array_equal(matrix[:, 0].argmax(-1), [2, 2, 3])


@pytest.mark.parametrize(("start", "window", "scene"), [(0, 508, 100), (90, 5, 100)])
def test_windows_beyond_the_scene_and_below_one_px_read_something(start, window, scene):
    line = (jnp.array([start]), jnp.array([scene]))
    cut = crop.crop_matrix(*line, window=window, before=4, after=6)
    np.testing.assert_allclose(cut.sum(-1), 1, atol=1e-6)
    put = crop.paste_matrix(*line, window=window, before=6, after=4)
    assert put.any() and jnp.isfinite(put).all()


def test_one_program_serves_scenes_of_any_size_and_maps_of_one_or_several():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 11, 3)), jnp.float32)
    size = {"window": 20, "before": 9, "after": 5}

    @jax.jit
    def run(x, start, scene):
        rows = crop.crop_matrix(start[:, 0], scene[:, 0], **size)
        columns = crop.crop_matrix(
            start[:, 1], scene[:, 1], **size | {"before": 11, "after": 4}
        )
        return crop.crop(x, rows, columns)

    starts = jnp.array([[0, 7], [13, 2]])
    for scene in ((50, 60), (41, 200)):
        scenes = jnp.array([scene, scene])
        both = run(x, starts, scenes)
        assert both.shape == (2, 5, 4, 3)
        for k in range(2):
            one = run(x[k : k + 1], starts[k : k + 1], scenes[:1])
            np.testing.assert_allclose(both[k], one[0], atol=1e-6)
            shared = run(x[k : k + 1], starts, scenes)
            np.testing.assert_allclose(both[k], shared[k], atol=1e-6)


def test_nearest_crop_is_a_window_of_the_resized_map():
    x = np.random.default_rng(0).normal(size=(1, 7, 5, 2)).astype(np.float32)
    scene, window = (40, 31), (16, 12)
    whole = np.array(resize.nearest(jnp.asarray(x), scene))
    starts = np.array([[0, 0], [24, 19], [3, 8]])
    found = crop.nearest_crop(
        jnp.asarray(x), jnp.asarray(starts), jnp.array([scene] * 3), window=window
    )
    for (top, left), part in zip(starts, found, strict=True):
        np.testing.assert_array_equal(part, whole[0, top : top + 16, left : left + 12])


def test_nearest_paste_puts_a_scene_together():
    label = np.random.default_rng(0).integers(0, 9, (50, 70), np.uint8)
    starts = [(y, x) for y in (0, 18) for x in (0, 25, 38)]
    windows = np.stack([label[y : y + 32, x : x + 32] for y, x in starts])
    windows = np.concatenate([windows, np.full((1, 32, 32), 255, np.uint8)])
    starts.append((0, 0))  # padding of a batch
    found = crop.nearest_paste(
        jnp.asarray(windows), jnp.array(starts), jnp.array([(50, 70)] * 7),
        between=(24, 20), size=(6, 5), fill=255,
    )  # fmt: skip
    middle = resize.nearest(jnp.asarray(label)[None], (24, 20))
    np.testing.assert_array_equal(found, resize.nearest(middle, (6, 5)))
