"""Blocks of rows on one device: what they hold, and resizing block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import resize, rows


@pytest.fixture
def mesh():
    """A mesh with an axis for rows, of one device."""
    made = jax.make_mesh(
        (1,), (rows.AXIS,), axis_types=(jax.sharding.AxisType.Auto,)
    )  # fmt: skip
    with jax.set_mesh(made):
        yield made


def test_without_a_mesh_there_is_one_block():
    assert rows.blocks(12, 8) == 1


def test_one_device_has_one_block(mesh):
    assert rows.blocks(12, 8) == 1


def test_heights_that_do_not_divide_are_not_split(monkeypatch):
    class FourDevices:
        shape = {rows.AXIS: 4}  # noqa: RUF012

    monkeypatch.setattr(jax.sharding, "get_abstract_mesh", FourDevices)
    assert rows.blocks(12, 8) == 4
    assert rows.blocks(12, 6) == rows.blocks(3, 8) == 1


def test_blocks_hold_their_rows_and_those_of_their_neighbours(mesh):
    x = jnp.arange(12.0).reshape(1, 12, 1, 1)
    parts = jax.jit(lambda x: rows.split(x, 4, before=1, after=2))(x)
    assert parts.shape == (1, 4, 6, 1, 1)
    np.testing.assert_array_equal(parts[0, 1, :, 0, 0], [2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(parts[0, 2, :, 0, 0], [5, 6, 7, 8, 9, 10])
    whole = jax.jit(lambda x: rows.join(rows.split(x, 4, before=0, after=0)))(x)
    np.testing.assert_array_equal(whole, x)


def test_beyond_the_map_a_block_holds_zeros(mesh):
    x = jnp.ones((1, 12, 1, 1))
    parts = jax.jit(lambda x: rows.split(x, 4, before=1, after=2))(x)[0, :, :, 0, 0]
    np.testing.assert_array_equal(parts[0], [0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(parts[3], [1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("align_corners", (True, False))
@pytest.mark.parametrize("before, after", [(8, 64), (64, 16), (12, 20)])
def test_resizing_in_blocks_is_resizing(
    mesh, monkeypatch, before, after, align_corners
):
    x = np.random.default_rng(0).standard_normal((2, before, 5, 3), np.float32)

    def both(x):
        def of(x):
            return resize.bilinear(x, (after, 7), align_corners=align_corners)

        return of(x), jax.grad(lambda x: jnp.sin(of(x)).sum())(x)

    whole = jax.jit(both)(x)
    monkeypatch.setattr(rows, "blocks", lambda *heights: 4)
    parts = jax.jit(lambda x: both(x))(x)
    for ours, expected in zip(parts, whole, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=3e-6 * scale)


@pytest.mark.parametrize("before, after", [(8, 64), (64, 16), (12, 20)])
def test_nearest_in_blocks_is_nearest(mesh, monkeypatch, before, after):
    x = np.random.default_rng(0).integers(0, 9, (2, before, 5), np.int32)
    whole = resize.nearest(x, (after, 7))
    monkeypatch.setattr(rows, "blocks", lambda *heights: 4)
    parts = jax.jit(lambda x: resize.nearest(x, (after, 7)))(x)
    np.testing.assert_array_equal(parts, whole)
