"""1x1 convolution whose gradient a CPU takes as a product of matrices.

XLA:CPU runs the gradient of a 1x1 kernel as a convolution whose window is a whole map,
at a third of the speed that it has for products of matrices.
"""

import jax


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Maps every pixel by itself; differentiable backwards only.

    Args:
        x: [B, H, W, C] floating point.
        kernel: [1, 1, C, D], of the same dtype.

    Returns:
        [B, H, W, D], dtype of x.
    """
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return convolve(x, kernel), (x, kernel)


def _backward(
    kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    back = convolve(slope, kernel.swapaxes(2, 3))
    pixels = (0, 1, 2)
    product = jax.lax.dot_general(x, slope, ((pixels, pixels), ((), ())))
    return back, product[None, None]


convolve.defvjp(_forward, _backward)
