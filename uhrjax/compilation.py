"""Compiled programs are kept between processes."""

from __future__ import annotations

import os
import pathlib

import jax


def keep_compiled() -> None:
    """Turns on JAX's persistent compilation cache, unless the user placed it already.

    It lies in $XDG_CACHE_HOME/uhrjax (~/.cache/uhrjax); JAX_COMPILATION_CACHE_DIR moves
    it.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = pathlib.Path(home).expanduser() / "uhrjax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
