"""Semantic segmentation of ultra-high-resolution images in JAX/Flax.

The public API: `load_config`, `build` and the methods that it returns; `load_run` and
`segment` for runs that are trained.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["build", "load_config", "load_run", "segment"]

# Imported on first use: data builders and their worker processes need no JAX.
_HOME = {
    "load_config": "uhrjax.config",
    "build": "uhrjax.methods",
    "load_run": "uhrjax.trained",
    "segment": "uhrjax.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'uhrjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
