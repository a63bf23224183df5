"""Random parameters drawn on the host.

They have the distributions that the modules declare. But to compile a random kernel for
each of a network's hundred shapes takes ten times as long as to draw all its numbers.
"""

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.nn import conv

# Regular expression on a parameter's path and the kind of numbers it starts with.
Rules = Iterable[tuple[str, str]]
KINDS = (
    "constant <value>", "normal <std>", "uniform <low> <high>", "he_in", "he_out",
    "centred", "torch",
)  # fmt: skip


def draw(
    shapes: Mapping[str, Any], key: jax.Array, *, rules: Rules = ()
) -> dict[str, Any]:
    """Returns random variables of the given shapes.

    Without a rule, convolutions of the backbone are drawn by He's rule, all others by
    PyTorch's default; a norm starts as the identity, with statistics of mean 0 and
    variance 1.

    Args:
        shapes: {"params", "batch_stats"} of shapes and dtypes.
        key: every parameter's numbers depend on it and on the parameter's name only.
        rules: (pattern, kind) pairs; the first pattern that is found in a path such as
            "params/head/fc6/kernel" decides. Kinds: "constant 0", "normal 0.01",
            "uniform -1 0", "he_in" and "he_out" (normal, gain sqrt 2, by fan in or
            out), "centred" (`conv.centred_init`), "torch".
    """
    seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
    rules = list(rules)

    def leaf(path, shape):
        names = [entry.key for entry in path]
        name = "/".join(names)
        generator = np.random.default_rng([*seed, zlib.crc32(name.encode())])
        beside = _siblings(shapes, names)
        fans = beside["kernel"].shape if "kernel" in beside else shape.shape
        found = (kind for pattern, kind in rules if re.search(pattern, name))
        kind = next(found, None) or _default(names, beside)
        values = _draw(generator, shape.shape, kind=kind, fans=fans, name=name)
        return jnp.asarray(values, shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _draw(
    generator: np.random.Generator,
    shape: tuple[int, ...],
    *,
    kind: str,
    fans: tuple[int, ...],
    name: str,
) -> np.ndarray:
    """Draws one array; `fans` is the shape of the kernel it belongs to."""
    word, *number = kind.split()
    if word == "constant":
        return np.full(shape, float(*number))
    if word == "normal":
        return generator.standard_normal(shape) * float(*number)
    if word == "uniform":
        return generator.uniform(*map(float, number), shape)
    if word == "he_in":
        return generator.standard_normal(shape) * math.sqrt(2 / math.prod(fans[:-1]))
    if word == "he_out":
        fan_out = math.prod(fans) // fans[-2]
        return generator.standard_normal(shape) * math.sqrt(2 / fan_out)
    if word == "centred":
        values = generator.standard_normal(shape) * conv.centred_std(fans)
        return values - values.mean(axis=tuple(range(len(shape) - 1)))
    if word == "torch":
        bound = 1 / math.sqrt(math.prod(fans[:-1]))
        return generator.uniform(-bound, bound, shape)
    raise ValueError(
        f"no rule to draw {name} ({kind!r}); give the method an initial rule of one of "
        f"the kinds {', '.join(KINDS)}"
    )


def _default(names: list[str], beside: Mapping[str, Any]) -> str:
    last = names[-1]
    if last == "kernel":
        return "he_out" if "backbone" in names else "torch"
    if last == "bias" and "kernel" in beside:
        return "torch"
    if last in ("bias", "mean"):
        return "constant 0"
    if last in ("scale", "var"):
        return "constant 1"
    return "unknown"


def _siblings(tree: Mapping[str, Any], names: list[str]) -> Mapping[str, Any]:
    for name in names[:-1]:
        tree = tree[name]
    return tree
