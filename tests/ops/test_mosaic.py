"""Patches on a map: overlaps, gaps, interiors, windows."""

import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import mosaic, resize

CORNERS = np.array([(0, 0), (0, 20), (14, 7)], np.int32)
SIZE, BOX = (50, 60), (30, 26)


def assembled(rule="mean", margin=None, side=(9, 11)):
    patches = np.random.default_rng(0).normal(size=(3, *side, 2)).astype(np.float32)
    canvas = mosaic.assemble(
        jnp.asarray(patches), jnp.asarray(CORNERS), box=BOX, size=SIZE, rule=rule,
        margin=margin,
    )  # fmt: skip
    return canvas, patches


def counted(inside):
    counts = np.zeros(SIZE)
    for top, left in CORNERS:
        counts[
            top + inside : top + BOX[0] - inside, left + inside : left + BOX[1] - inside
        ] += 1
    return counts


def test_overlapping_patches_are_averaged_and_gaps_are_0():
    canvas, patches = assembled()
    found, mask = mosaic.read(canvas, *map(jnp.arange, SIZE))
    assert mask is None
    large = np.asarray(resize.bilinear(jnp.asarray(patches), BOX, align_corners=False))
    total = np.zeros((*SIZE, 2))
    for patch, (top, left) in zip(large, CORNERS, strict=True):
        total[top : top + BOX[0], left : left + BOX[1]] += patch
    expected = total / np.maximum(counted(0), 1)[..., None]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (counted(0) > 1).any() and (counted(0) == 0).any()


@pytest.mark.parametrize("margin", [0, 10, 13])
def test_interiors_leave_a_frame_of_every_patch_out(margin):
    canvas, _ = assembled(margin=margin)
    np.testing.assert_array_equal(canvas.inner, counted(margin))
    np.testing.assert_array_equal(canvas.divisor, counted(0))


def test_the_released_rule_divides_the_last_patch():
    canvas, patches = assembled("released")
    found, mask = mosaic.read(canvas, *map(jnp.arange, SIZE))
    inner = counted(mosaic.RELEASED_MARGIN)
    np.testing.assert_array_equal(mask, inner > 0)
    last = resize.bilinear(jnp.asarray(patches[2:]), BOX, align_corners=False)[0]
    top, left = CORNERS[2]
    place = (slice(top, top + BOX[0]), slice(left, left + BOX[1]))
    expected = last / np.maximum(inner, 1)[place][..., None]
    np.testing.assert_allclose(found[place], expected, atol=1e-6)


def test_rows_are_those_of_the_whole():
    canvas, _ = assembled(margin=5)
    whole, mask = mosaic.read(canvas, *map(jnp.arange, SIZE))
    rows, inside = mosaic.read_rows(canvas, jnp.int32(13), 21)
    np.testing.assert_array_equal(rows, whole[13:34])
    np.testing.assert_array_equal(inside, mask[13:34])
