"""Reads every import and compares it with the layers that the project has."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LIBRARY_ONLY = {"uhrjax/ops": {"jax", "numpy"}, "uhrjax/tiling": {"numpy"}}
# layer -> what of ours it may import, besides itself and uhrjax.errors
MAY_IMPORT = {
    "uhrjax/ops": set(),
    "uhrjax/tiling": set(),
    "uhrjax/losses.py": {"uhrjax.ops"},
    "uhrjax/boundary.py": {"uhrjax.ops"},
    "uhrjax/metrics.py": {"uhrjax.ops"},
    "uhrjax/edges.py": {"uhrjax.ops", "uhrjax.losses", "uhrjax.boundary"},
    "uhrjax/weights.py": set(),
    "uhrjax/nn": {"uhrjax.ops"},
    "uhrjax/backbones": {"uhrjax.nn", "uhrjax.ops"},
    "uhrjax/methods": {
        "uhrjax.ops", "uhrjax.tiling", "uhrjax.losses", "uhrjax.boundary", "uhrjax.nn",
        "uhrjax.edges", "uhrjax.backbones", "uhrjax.weights",
    },
    "uhrjax/networks": {
        "uhrjax.ops", "uhrjax.losses", "uhrjax.edges", "uhrjax.nn",
        "uhrjax.backbones", "uhrjax.weights", "uhrjax.methods.base",
    },
    "uhrjax/data": {"uhrjax.tiling"},
    "uhrjax/config.py": set(),
    "uhrjax/checkpoint.py": set(),
    "uhrjax/optimizer.py": set(),
    "uhrjax/sharding.py": set(),
    "uhrjax/report.py": {"uhrjax.metrics"},
    "uhrjax/subtree.py": set(),
    "uhrjax/canvas.py": {"uhrjax.tiling"},
    "uhrjax/output": {"uhrjax.data"},
    "data_builders": {"uhrjax.tiling", "uhrjax.data"},
    "configs": set(),
}  # fmt: skip
NO_JAX = ("uhrjax/tiling", "uhrjax/data", "uhrjax/output", "data_builders")


def layer_files(layer: str) -> list[pathlib.Path]:
    path = ROOT / layer
    return [path] if path.suffix else sorted(path.rglob("*.py"))


def imports_of(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_ours(name: str) -> bool:
    return name.split(".")[0] in ("uhrjax", "data_builders", "configs")


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layer_imports_only_from_layers_above(layer):
    own = layer.removesuffix(".py").replace("/", ".")
    allowed = MAY_IMPORT[layer] | {own, "uhrjax.errors"}
    files = layer_files(layer)
    assert files
    for path in files:
        wrong = {
            name
            for name in imports_of(path)
            if is_ours(name)
            and not any(f"{name}.".startswith(f"{layer}.") for layer in allowed)
        }
        assert not wrong, f"{path.relative_to(ROOT)} must not import {sorted(wrong)}"


@pytest.mark.parametrize("layer", LIBRARY_ONLY)
def test_pure_layers_import_no_other_library(layer):
    for path in layer_files(layer):
        tops = {n.split(".")[0] for n in imports_of(path) if not is_ours(n)}
        assert tops <= LIBRARY_ONLY[layer] | sys.stdlib_module_names, path


@pytest.mark.parametrize("layer", NO_JAX)
def test_host_layers_never_import_jax(layer):
    # Worker processes that import jax would start the accelerator.
    for path in layer_files(layer):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & {"jax", "flax", "optax", "orbax"}, path


def test_methods_never_import_each_other():
    files = [p for p in layer_files("uhrjax/methods") if p.stem not in ("__init__",)]
    names = {p.stem for p in files} - {"base", "wrapper"}
    for path in files:
        for name in imports_of(path):
            if name.startswith("uhrjax.methods."):
                assert name.split(".")[2] not in names, (path, name)


def test_no_module_imports_the_configs():
    for path in layer_files("uhrjax"):
        assert not any(n.split(".")[0] == "configs" for n in imports_of(path)), path


def test_main_stays_short():
    assert len((ROOT / "uhrjax/main.py").read_text().splitlines()) < 80
