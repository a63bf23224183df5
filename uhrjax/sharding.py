"""One mesh for 1..n devices: batches are split, weights are copied.

Its axes are `data`, over which the samples of a batch are split, and `space`, over
which the rows of each of them are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uhrjax import errors

# Entries of a batch that show px, and the axis of their rows.
ROWS = {"views": 2, "label": 1, "boundary": 1, "coarse": 1}


def make_mesh(space: int = 1) -> Mesh:
    """Returns the mesh over the devices of all processes.

    Args:
        space: devices that share one sample; the others share the batch.

    Raises:
        errors.InputError: the devices of a host cannot be grouped so.
    """
    by_host = sorted(
        jax.devices(), key=lambda device: (device.process_index, device.id)
    )
    return _mesh(by_host, space)


def make_local_mesh(space: int = 1) -> Mesh:
    """Returns the mesh over the devices of this process, see `make_mesh`."""
    return _mesh(jax.local_devices(), space)


def _mesh(devices: Sequence[jax.Device], space: int) -> Mesh:
    local = jax.local_device_count()
    if local % space:
        raise errors.InputError(
            f"config.mesh.space={space}: {local} devices of a host cannot be grouped "
            f"by {space}; use a divisor of {local}"
        )
    grid = np.array(devices).reshape(-1, space)
    # Auto: the compiler decides how intermediate arrays are laid out.
    return Mesh(grid, ("data", "space"), axis_types=(AxisType.Auto,) * 2)


def shares(mesh: Mesh) -> int:
    """Returns into how many parts the samples of a batch are split."""
    return mesh.shape["data"]


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly."""
    count = shares(mesh)
    if batch_size % count:
        raise errors.InputError(
            f"batch_size {batch_size} cannot be split over {count} devices; "
            f"use a multiple of {count} (times config.accumulate)"
        )


def check_rows(height: int, mesh: Mesh) -> None:
    """Refuses crops whose rows the devices cannot share evenly."""
    space = mesh.shape["space"]
    if height % space:
        raise errors.InputError(
            f"config.mesh.space={space}: crops of {height} px rows cannot be split "
            f"over {space} devices; use a tile that is a multiple of {space}"
        )


def rows_shared(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Returns the context for programs in which devices share rows, see `ops.rows`."""
    if mesh.shape["space"] == 1:
        return contextlib.nullcontext()
    return jax.set_mesh(mesh)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Devices that share a sample share the first axis, the rows of a canvas."""
    return NamedSharding(mesh, PartitionSpec("space"))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies arrays, the same in every process, to all devices."""
    everywhere = replicated(mesh)
    if mesh.is_multi_process:

        def place(leaf: jax.Array) -> jax.Array:
            host = np.asarray(leaf)
            return jax.make_array_from_callback(
                host.shape, everywhere, host.__getitem__
            )

        return jax.tree.map(place, tree)
    return jax.device_put(tree, everywhere)


def local(tree: Any) -> Any:
    """Returns arrays that every device holds all of, as this process has them."""

    def own(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf.addressable_data(0)
        return leaf

    return jax.tree.map(own, tree)


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts the arrays of a batch on the devices, split along batch and rows.

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
        if name in ROWS and mesh.shape["space"] > 1:
            check_rows(array.shape[ROWS[name]], mesh)
        serves_all = len(array) == 1 < size * shares(mesh)
        spec = PartitionSpec() if serves_all else split(name, mesh)
        placed[name] = jax.make_array_from_process_local_data(
            NamedSharding(mesh, spec), array
        )
    return placed


def split(name: str, mesh: Mesh) -> PartitionSpec:
    """Returns how an entry of a batch is split over the devices."""
    if mesh.shape["space"] == 1 or name not in ROWS:
        return PartitionSpec("data")
    return PartitionSpec("data", *[None] * (ROWS[name] - 1), "space")
