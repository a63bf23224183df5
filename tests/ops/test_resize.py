"""Resizing against a direct, per-pixel restatement of PyTorch's definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import resize

SIZES = [((5, 7), (9, 13)), ((8, 8), (3, 5)), ((1, 4), (6, 1)), ((6, 6), (6, 12))]


def lerp(x, size, *, align_corners):
    """Interpolates one output pixel after the other, in float64."""

    def source(i, n, m):
        if align_corners:
            return i * (n - 1) / (m - 1) if m > 1 else 0.0
        return max((i + 0.5) * n / m - 0.5, 0.0)

    out = np.zeros((x.shape[0], *size, x.shape[3]))
    for i in range(size[0]):
        for j in range(size[1]):
            y = source(i, x.shape[1], size[0])
            z = source(j, x.shape[2], size[1])
            for row, row_weight in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
                for column, weight in ((int(z), 1 - z % 1), (int(z) + 1, z % 1)):
                    row = min(row, x.shape[1] - 1)
                    column = min(column, x.shape[2] - 1)
                    out[:, i, j] += row_weight * weight * x[:, row, column]
    return out


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_bilinear_equals_the_pixelwise_definition(before, after, align_corners):
    x = np.random.default_rng(0).normal(size=(2, *before, 3)).astype(np.float32)
    out = resize.bilinear(jnp.asarray(x), after, align_corners=align_corners)
    expected = lerp(x, after, align_corners=align_corners)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_bilinear_gradient_is_the_transpose_of_the_forward_pass(
    before, after, align_corners
):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, *before, 2)).astype(np.float32)
    g = rng.normal(size=(1, *after, 2)).astype(np.float32)

    def run(x):
        return resize.bilinear(x, after, align_corners=align_corners)

    gradient = jax.vjp(run, jnp.asarray(x))[1](jnp.asarray(g))[0]
    # For a linear map A: <A x, g> = <x, A^T g>, whatever x.
    for _ in range(3):
        probe = rng.normal(size=x.shape).astype(np.float32)
        forward = np.sum(lerp(probe, after, align_corners=align_corners) * g)
        np.testing.assert_allclose(np.sum(probe * gradient), forward, rtol=1e-4)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [*SIZES, ((7, 3), (61, 50)), ((40, 31), (6, 9))]
)
def test_gathered_gradient_is_the_product_with_the_matrix(
    before, after, align_corners, monkeypatch
):
    g = np.random.default_rng(2).normal(size=(2, *after, 3)).astype(np.float32)

    def gradient():
        run = functools.partial(
            resize.bilinear, size=after, align_corners=align_corners
        )
        return jax.vjp(run, jnp.zeros((2, *before, 3)))[1](jnp.asarray(g))[0]

    gathered = gradient()
    monkeypatch.setattr(resize, "MOST_READERS", 0)
    np.testing.assert_allclose(gathered, gradient(), atol=1e-5)


def test_bilinear_keeps_bfloat16_and_its_gradient():
    x = jnp.arange(12, dtype=jnp.bfloat16).reshape(1, 3, 4, 1)

    def total(x):
        out = resize.bilinear(x, (5, 8), align_corners=True)
        assert out.dtype == jnp.bfloat16
        return jnp.sum(out.astype(jnp.float32))

    gradient = jax.grad(total)(x)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient.astype(jnp.float32).sum(), 40, rtol=0.01)


def test_nearest_takes_the_floor_of_the_scaled_index():
    x = jnp.arange(5).reshape(1, 1, 5, 1)
    out = resize.nearest(x, (2, 7))
    assert out.shape == (1, 2, 7, 1)
    assert out[0, 1, :, 0].tolist() == [i * 5 // 7 for i in range(7)]


def test_an_empty_size_is_refused():
    with pytest.raises(ValueError, match="at least 1 px"):
        resize.bilinear(jnp.zeros((1, 4, 4, 1)), (0, 3), align_corners=True)


@pytest.mark.parametrize("size", [(9, 13), (3, 5), (8, 6)])
def test_some_pixels_are_those_of_the_whole_resized_map(size):
    x = jax.random.normal(jax.random.key(0), (8, 6, 2))
    whole = resize.bilinear(x[None], size, align_corners=False)[0]
    rows, columns = jnp.arange(1, size[0]), jnp.array([size[1] - 1, 0, 2])
    found = jax.jit(lambda r, c: resize.bilinear_at(x, size, r, c))(rows, columns)
    np.testing.assert_allclose(found, whole[1:][:, [size[1] - 1, 0, 2]], atol=1e-6)
