"""Convolution and normalisation with PyTorch's defaults."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.ops import normalise, pointwise

# PyTorch's default for convolutions: uniform within +-1 / sqrt(fan in).
torch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Usual for residual networks trained from scratch.
he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Of the heads of UPerNet's authors and of Foveation's code.
he_in_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
SHIFT = 1e-4  # where the biases of these heads' norms start
ORIGINAL_START = {"kernel_init": he_in_init, "shift": SHIFT}
# Variance of a normal variable's positive part.
_RECTIFIED = 0.5 - 0.5 / math.pi


def centred_std(shape: tuple[int, ...]) -> float:
    """Returns the standard deviation that keeps a rectified normal input's variance."""
    return 1 / math.sqrt(_RECTIFIED * math.prod(shape[:-1]))


def centred_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
    """Draws normal kernels [..., in, out] that ignore what all inputs have in common.

    In a deep network with ReLU and without batch norm the features' mean grows at the
    cost of what tells pixels apart; a kernel whose weights sum to 0 does not see it.
    """
    values = centred_std(shape) * jax.random.normal(key, shape, dtype)
    return values - jnp.mean(values, axis=range(len(shape) - 1))


class Conv(nn.Module):
    """Convolution, padded so that stride 1 keeps the size; float32 parameters."""

    features: int
    kernel: int = 1  # side of the square, px
    stride: int = 1
    dilation: int = 1
    bias: bool = False
    padding: int | None = None  # zeros at every side, px; None: see above
    kernel_init: Callable = torch_init
    bias_init: Callable | None = None  # None: PyTorch's default
    dtype: Dtype = jnp.float32  # of the computation and the result

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        reach = self.padding
        if reach is None:
            reach = self.dilation * (self.kernel // 2)
        x, weights = x.astype(self.dtype), kernel.astype(self.dtype)
        is_pointwise = self.kernel == 1 and reach == 0
        if is_pointwise and jax.default_backend() == "cpu":  # not measured elsewhere
            y = pointwise.convolve(x[:, :: self.stride, :: self.stride], weights)
        else:
            y = jax.lax.conv_general_dilated(
                x,
                weights,
                window_strides=(self.stride, self.stride),
                padding=((reach, reach), (reach, reach)),
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.bias:
            bound = 1 / math.sqrt(math.prod(shape[:3]))
            init = self.bias_init or functools.partial(_uniform, bound=bound)
            bias = self.param("bias", init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """Batch norm over the global batch; statistics and parameters in float32."""

    use_running_average: bool
    momentum: float = 0.9  # of the running statistics, in Flax' terms
    bias_init: Callable = nn.initializers.zeros
    unbiased: bool = False  # store the unbiased variance of a batch, as PyTorch does
    dtype: Dtype = jnp.float32  # of the result

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to the same shape."""
        shape = (x.shape[-1],)
        means = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variances = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, shape, jnp.float32)
        if self.use_running_average:
            statistics = means.value, variances.value
            y = normalise.by_statistics(x, scale, bias, *statistics)
            return y.astype(self.dtype)
        y, mean, variance = normalise.by_batch(x, scale, bias)
        if not self.is_initializing():
            if self.unbiased:
                count = x.size // x.shape[-1]
                variance = variance * (count / max(count - 1, 1))
            keep, add = self.momentum, 1 - self.momentum
            means.value = keep * means.value + add * mean
            variances.value = keep * variances.value + add * variance
        return y.astype(self.dtype)


def batch_norm(
    *,
    train: bool,
    dtype: Dtype,
    name: str,
    shift: float = 0.0,
    unbiased: bool = False,
    momentum: float = 0.9,
) -> BatchNorm:
    """Returns batch norm whose bias starts at `shift`.

    Flax counts its momentum from the other side: 0.9 is PyTorch's default of 0.1.
    """
    return BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        bias_init=nn.initializers.constant(shift),
        unbiased=unbiased,
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
    kernel_init: Callable = torch_init
    shift: float = 0.0  # where the norm's bias starts
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
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x)
        norm = batch_norm(train=train, dtype=self.dtype, name="norm", shift=self.shift)
        x = norm(x)
        return nn.relu(x) if self.relu else x


class Enlarge(nn.Module):
    """Transposed 2x2 convolution of stride 2: each pixel becomes four."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, 2 * h, 2 * w, features]."""
        batch, height, width, _ = x.shape
        x = Conv(
            features=4 * self.features,
            kernel_init=he_in_init,
            dtype=self.dtype,
            name="spread",
        )(x)
        x = x.reshape(batch, height, width, 2, 2, self.features)
        x = x.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, self.features)
        zeros = nn.initializers.zeros
        return x + self.param("bias", zeros, (self.features,)).astype(self.dtype)


def _uniform(
    key: jax.Array, shape: tuple[int, ...], dtype: Dtype, *, bound: float
) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)
