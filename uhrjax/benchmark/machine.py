"""What figures hold for: the device, the host and the versions."""

from __future__ import annotations

import os
import platform
from typing import Any

import jax

from uhrjax import report


def describe() -> dict[str, Any]:
    """Returns device and versions as a JSON tree."""
    return {
        "device": {
            "name": report.device_name(),
            "kind": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "count": jax.device_count(),
            "host_cores": cores(),
            "load": load(),
        },
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "compiled_programs_kept": jax.config.jax_compilation_cache_dir is not None,
    }


def cores() -> int:
    """Returns the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Returns how busy the machine was in the last minute, in cores."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
