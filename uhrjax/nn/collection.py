"""Maps of windows and of their scene, exchanged by GLNet's two branches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.nn import guided_fpn
from uhrjax.ops import crop as crop_lib


class Place(NamedTuple):
    """Where windows lie."""

    position: jax.Array  # [B, 2] int, (top, left), scene px
    scene_size: jax.Array  # [B, 2] int, (height, width), px


class Collection(NamedTuple):
    """Maps of windows, pasted into those of their scene; float32, leading axis 1."""

    maps: dict[str, tuple[jax.Array, ...]]  # guided_fpn.KINDS -> levels, sums
    coverage: tuple[jax.Array, ...]  # level -> [1, h, w, 1], windows per px

    def mean(self) -> guided_fpn.PyramidMaps:
        """Returns the maps' means over the windows at every px, 0 where none is."""
        share = [jnp.where(n > 0, 1 / jnp.maximum(n, 1e-6), 0.0) for n in self.coverage]
        maps = {
            kind: tuple(x * part for x, part in zip(levels, share, strict=True))
            for kind, levels in self.maps.items()
        }
        return guided_fpn.PyramidMaps(**maps, joined=None)


def empty_collection(guide: guided_fpn.PyramidMaps, *, xp: Any = jnp) -> Collection:
    """Returns the collection of no windows, for the maps (or shapes) of a scene.

    Args:
        guide: see above.
        xp: jax.numpy, or numpy for arrays on the host.
    """

    def zeros(levels: tuple[Any, ...], channels: int | None = None) -> tuple:
        return tuple(
            xp.zeros((1, *x.shape[1:3], channels or x.shape[3]), np.float32)
            for x in levels
        )

    maps = {kind: zeros(getattr(guide, kind)) for kind in guided_fpn.KINDS}
    return Collection(maps, zeros(guide.features, 1))


def add_windows(
    collected: Collection,
    maps: guided_fpn.PyramidMaps,
    place: Place,
    *,
    window: tuple[int, int],
    valid: jax.Array | None = None,
) -> Collection:
    """Adds windows of one scene to its collection.

    Args:
        collected: of the windows so far.
        maps: of the local branch, [B, ...].
        place: of the windows.
        window: (height, width), px.
        valid: [B] bool; the others add nothing.
    """
    counts = jnp.ones(len(place.position)) if valid is None else valid * 1.0
    sums: dict[str, list[jax.Array]] = {kind: [] for kind in guided_fpn.KINDS}
    coverage = []
    for level, old in enumerate(collected.coverage):
        local = maps.features[level].shape[1:3]
        rows, columns = (
            crop_lib.paste_matrix(
                *line,
                window=window[axis],
                before=local[axis],
                after=old.shape[1 + axis],
            )
            for axis, line in enumerate(_lines(place))
        )
        tall, wide = (
            crop_lib.coverage(*line, window=window[axis], after=old.shape[1 + axis])
            for axis, line in enumerate(_lines(place))
        )
        rows, tall = rows * counts[:, None, None], tall * counts[:, None]
        for kind, found in sums.items():
            added = crop_lib.paste(getattr(maps, kind)[level], rows, columns)
            found.append(collected.maps[kind][level] + added)
        highest = jax.lax.Precision.HIGHEST
        number = jnp.einsum("bi,bj->ij", tall, wide, precision=highest)
        coverage.append(old + number[None, ..., None])
    return Collection({k: tuple(v) for k, v in sums.items()}, tuple(coverage))


def crop_maps(
    guide: guided_fpn.PyramidMaps,
    features: tuple[jax.Array, ...],
    place: Place,
    *,
    window: tuple[int, int],
) -> guided_fpn.PyramidMaps:
    """Crops windows out of the maps of their scenes.

    Args:
        guide: maps of the windows' scenes, [B or 1, ...].
        features: of the windows, [B, h, w, C]; the crops get their sizes.
        place: of the windows.
        window: (height, width), px.

    Returns:
        The guide's maps but for `joined`, [B, h, w, C].
    """
    crops: dict[str, list[jax.Array]] = {kind: [] for kind in guided_fpn.KINDS}
    for level, own in enumerate(features):
        shapes = (guide.features[level].shape, own.shape)
        matrices = _crop_matrices(place, window, *shapes)
        for kind, found in crops.items():
            found.append(crop_lib.crop(getattr(guide, kind)[level], *matrices))
    return guided_fpn.PyramidMaps(**crops, joined=None)


def crop_like(
    x: jax.Array, like: jax.Array, place: Place, *, window: tuple[int, int]
) -> jax.Array:
    """Crops windows out of one map [B or 1, H, W, C], to the size of `like`."""
    return crop_lib.crop(x, *_crop_matrices(place, window, x.shape, like.shape))


def in_groups(x: jax.Array, *, size: int, fill: int | None = None) -> jax.Array:
    """Divides windows [N, ...] into groups [ceil(N / size), size, ...].

    What the last one lacks are copies of the last window, or `fill`.
    """
    border = [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1)
    if fill is None:
        x = jnp.pad(x, border, mode="edge")
    else:
        x = jnp.pad(x, border, constant_values=fill)
    return x.reshape(-1, size, *x.shape[1:])


def _lines(place: Place) -> list[tuple[jax.Array, jax.Array]]:
    """Per axis: start of the windows and length of their scenes, [B] each."""
    return [(place.position[:, k], place.scene_size[:, k]) for k in range(2)]


def _crop_matrices(
    place: Place,
    window: tuple[int, int],
    scene_map: tuple[int, ...],
    window_map: tuple[int, ...],
) -> list[jax.Array]:
    return [
        crop_lib.crop_matrix(
            *line, window=window[k], before=scene_map[1 + k], after=window_map[1 + k]
        )
        for k, line in enumerate(_lines(place))
    ]
