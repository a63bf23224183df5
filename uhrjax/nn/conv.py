"""Convolution and normalisation with PyTorch's defaults."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

# PyTorch's default for convolutions: uniform within +-1 / sqrt(fan in).
torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Usual for residual networks trained from scratch.
he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution padded so that stride 1 keeps the size; float32 parameters."""

    features: int
    kernel: int = 1  # side of the square, px
    stride: int = 1
    dilation: int = 1
    bias: bool = False
    kernel_init: Callable = torch_init
    dtype: Dtype = jnp.float32  # of the computation and the result

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        reach = self.dilation * (self.kernel // 2)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=((reach, reach), (reach, reach)),
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.bias:
            bound = 1 / math.sqrt(math.prod(shape[:3]))
            init = functools.partial(_uniform, bound=bound)
            bias = self.param("bias", init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


def batch_norm(*, train: bool, dtype: Dtype, name: str) -> nn.BatchNorm:
    """Batch norm over the global batch; statistics and parameters in float32.

    Flax counts its momentum from the other side: 0.9 is PyTorch's default of 0.1.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        name=name,
    )


class ConvNorm(nn.Module):
    """Convolution, batch norm and, unless told otherwise, ReLU."""

    features: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    bias: bool = False
    relu: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        x = Conv(
            features=self.features,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            bias=self.bias,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = batch_norm(train=train, dtype=self.dtype, name="norm")(x)
        return nn.relu(x) if self.relu else x


def _uniform(
    key: jax.Array, shape: tuple[int, ...], dtype: Dtype, *, bound: float
) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)
