"""Random parameters drawn on the host.

They have the distributions that the modules declare. But to compile a random kernel for
each of a network's hundred shapes takes ten times as long as to draw all its numbers.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def draw(shapes: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
    """Returns random variables of the given shapes.

    Convolutions of the backbone are drawn by He's rule, all others by PyTorch's
    default; a norm starts as the identity, with statistics of mean 0 and variance 1.

    Args:
        shapes: {"params", "batch_stats"} of shapes and dtypes.
        key: every parameter's numbers depend on it and on the parameter's name only.
    """
    seed = np.asarray(jax.random.key_data(key)).ravel().tolist()

    def leaf(path, shape):
        names = [entry.key for entry in path]
        generator = np.random.default_rng([*seed, zlib.crc32("/".join(names).encode())])
        if names[-1] == "kernel" and "backbone" in names:
            fan_out = math.prod(shape.shape) // shape.shape[-2]
            values = generator.standard_normal(shape.shape) * math.sqrt(2 / fan_out)
        elif names[-1] == "kernel":
            bound = 1 / math.sqrt(math.prod(shape.shape[:-1]))
            values = generator.uniform(-bound, bound, shape.shape)
        elif names[-1] == "bias" and "kernel" in _siblings(shapes, names):
            kernel = _siblings(shapes, names)["kernel"]
            bound = 1 / math.sqrt(math.prod(kernel.shape[:-1]))
            values = generator.uniform(-bound, bound, shape.shape)
        elif names[-1] in ("bias", "mean"):
            values = np.zeros(shape.shape)
        elif names[-1] in ("scale", "var"):
            values = np.ones(shape.shape)
        else:
            raise ValueError(
                f"no rule to draw {'/'.join(names)}; add one to this module"
            )
        return jnp.asarray(values, shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _siblings(tree: Mapping[str, Any], names: list[str]) -> Mapping[str, Any]:
    for name in names[:-1]:
        tree = tree[name]
    return tree
