"""One mesh for 1..n devices: batches are split, weights are copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uhrjax import errors


def make_mesh() -> Mesh:
    """Returns the mesh over all devices, one axis `data`."""
    # Auto: the compiler decides how intermediate arrays are laid out.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly."""
    if batch_size % mesh.size:
        raise errors.InputError(
            f"batch_size {batch_size} cannot be split over {mesh.size} devices; "
            f"use a multiple of {mesh.size} (times config.accumulate)"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts the arrays of a batch on the devices, split along the batch axis.

    Args:
        batch: arrays [B, ...] (this process's share); text entries stay behind. An
            array of one element in a larger batch serves all of it: every device gets
            it. What is on the devices already stays as it is.
        mesh: from `make_mesh`.

    Returns:
        The same names with global arrays.
    """
    size = max((len(a) for a in batch.values() if np.ndim(a)), default=1)
    placed = {}
    for name, array in batch.items():
        if isinstance(array, jax.Array):
            placed[name] = array
            continue
        array = np.asarray(array)
        if array.dtype.kind in "USO":
            continue  # scene ids are for people
        serves_all = len(array) == 1 < size * mesh.size
        spec = PartitionSpec() if serves_all else PartitionSpec("data")
        placed[name] = jax.make_array_from_process_local_data(
            NamedSharding(mesh, spec), array
        )
    return placed
