"""Multiply-accumulates of a network, counted from shapes; nothing is compiled or run.

The count of the papers' tables: every tap of every convolution, padding included, and
every product of matrices; nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def multiply_accumulates(function: Callable[..., Any], *args: Any) -> int:
    """Returns how many multiply-accumulates a call takes.

    Args:
        function: of arrays (or trees of them).
        args: its arguments, or their shapes.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            kernel, layout = equation.invars[1].aval.shape, params["dimension_numbers"]
            taps = math.prod(kernel) // kernel[layout.rhs_spec[0]]  # of one output
            total += equation.outvars[0].aval.size * taps
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = math.prod(left[axis] for axis in contracted)
            total += equation.outvars[0].aval.size * depth
        times = params["length"] if name == "scan" else 1
        total += times * sum(_count(inner) for inner in _inner(params))
    return total


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    """Returns the programs within an equation; of several branches, all."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            item = getattr(item, "jaxpr", item)
            if isinstance(item, core.Jaxpr):
                found.append(item)
    return found
