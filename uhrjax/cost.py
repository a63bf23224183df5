"""Multiply-accumulates of a program, counted from shapes; nothing is compiled or run.

The count of the papers' tables: every tap of every convolution, padding included, and
every product of matrices; nothing else.
"""

from __future__ import annotations

import collections
import fractions
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
    return sum(by_dtype(function, *args).values())


def by_dtype(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """Returns the same, apart for the types of what is multiplied; {"bfloat16": n}.

    Of two types the wider one counts.
    """
    return dict(_count(jax.make_jaxpr(function)(*args).jaxpr))


def _count(jaxpr: core.Jaxpr) -> collections.Counter[str]:
    total: collections.Counter[str] = collections.Counter()
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name in ("conv_general_dilated", "dot_general"):
            both = (operand.aval.dtype for operand in equation.invars[:2])
            wider = max(both, key=lambda dtype: dtype.itemsize)
            products = equation.outvars[0].aval.size * _depth(equation)
            total[str(wider)] += round(products)
        times = params["length"] if name == "scan" else 1
        for inner in _inner(params):
            for dtype, number in _count(inner).items():
                total[dtype] += times * number
    return total


def _depth(equation: core.JaxprEqn) -> int | fractions.Fraction:
    """Returns the products that one output sums, on the average."""
    left, right = (operand.aval.shape for operand in equation.invars[:2])
    dimensions = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = dimensions
        return math.prod(left[axis] for axis in contracted)
    taps = math.prod(right) // right[dimensions.rhs_spec[0]]
    # Zeros between the inputs, as in the gradient of a stride, cost nothing.
    return fractions.Fraction(taps, math.prod(equation.params["lhs_dilation"]))


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    """Returns the programs within an equation; of several branches, all."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            item = getattr(item, "jaxpr", item)
            if isinstance(item, core.Jaxpr):
                found.append(item)
    return found
