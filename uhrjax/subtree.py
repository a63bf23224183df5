"""Parts of a tree of weights, named by paths such as `encoder/conv1`; "" is all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Tree = dict[str, Any]


def take(tree: Mapping[str, Any], path: str) -> Any:
    """Returns the subtree at `path`; raises KeyError with the path if it is absent."""
    for name in filter(None, path.split("/")):
        if not isinstance(tree, Mapping) or name not in tree:
            raise KeyError(path)
        tree = tree[name]
    return tree


def put(tree: Mapping[str, Any], path: str, value: Any) -> Any:
    """Returns the tree with another subtree at `path`."""
    first, _, rest = path.partition("/")
    if not first:
        return value
    return {**tree, first: put(tree.get(first, {}), rest, value)}


def split(tree: Mapping[str, Any], paths: Iterable[str]) -> tuple[Tree, Tree]:
    """Returns the tree without the subtrees at `paths`, and these alone."""
    left, taken = dict(tree), {}
    for path in paths:
        taken = put(taken, path, take(tree, path))
        left = _drop(left, path)
    return left, taken


def merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> Tree:
    """Returns both trees as one: undoes `split`."""
    merged = dict(one)
    for name, value in other.items():
        both = isinstance(value, Mapping) and name in merged
        merged[name] = merge(merged[name], value) if both else value
    return merged


def _drop(tree: Mapping[str, Any], path: str) -> Tree:
    first, _, rest = path.partition("/")
    if not rest:
        return {name: value for name, value in tree.items() if name != first}
    return {**tree, first: _drop(tree[first], rest)}
