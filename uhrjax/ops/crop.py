"""Feature maps of a whole scene and of windows in it: cutting out and putting together.

A window covers a rectangle of the scene's map: it starts at round(position * map /
scene) and is round(window * map / scene) map px long, halves rounded to even. To crop
is to resize that rectangle bilinearly to the window's own map; to paste is to resize
the window's map to it. Either is one matrix per axis. The matrices are built from
integers, without rounding, out of positions that may be traced: one program serves all
scenes.
"""

import jax
import jax.numpy as jnp


def crop_matrix(
    start: jax.Array, scene: jax.Array, *, window: int, before: int, after: int
) -> jax.Array:
    """Returns what crops windows out of a scene's map, along one axis.

    Args:
        start: [B] int, of the windows, scene px.
        scene: [B] int, length of the scene, px.
        window: length of a window, px.
        before: length of the scene's map.
        after: length of a window's map.

    Returns:
        [B, after, before] float32; rows sum to 1. Beyond the scene its border repeats.
    """
    first, count = _rectangle(start, scene, window, before)
    low, high, share = _taps(jnp.arange(after), count[:, None], after)
    low, high = (jnp.minimum(first[:, None] + tap, before - 1) for tap in (low, high))
    return _matrix(low, high, share, before)


def resize_matrix(
    start: jax.Array, scene: jax.Array, *, window: int, before: int
) -> jax.Array:
    """Returns what cuts windows out of a map that is resized to its scene, one axis.

    Unlike `crop_matrix` it looks beyond the window's rectangle: windows fit together.

    Args:
        start: [B] int, of the windows, scene px.
        scene: [B] int, length of the scene, px.
        window: length of a window, px.
        before: length of the scene's map.

    Returns:
        [B, window, before] float32; rows sum to 1. Beyond the scene its border repeats.
    """
    place = jnp.maximum(start[:, None] + jnp.arange(window), 0)
    return _matrix(*_taps(place, before, scene[:, None]), before)


def windows(
    maps: jax.Array, start: jax.Array, scene: jax.Array, *, size: tuple[int, int]
) -> jax.Array:
    """Cuts windows out of maps that are resized to their scenes.

    Args:
        maps: [B, h, w, C], or [1, h, w, C] if all windows are of one scene.
        start: [B, 2] int, (top, left) of the windows, scene px.
        scene: [B, 2] int, (height, width) of the scenes, px.
        size: (height, width) of a window, px.

    Returns:
        [B, *size, C], dtype of maps.
    """
    rows, columns = (
        resize_matrix(
            start[:, k], scene[:, k], window=size[k], before=maps.shape[1 + k]
        )
        for k in (0, 1)
    )
    return crop(maps, rows, columns)


def paste_matrix(
    start: jax.Array, scene: jax.Array, *, window: int, before: int, after: int
) -> jax.Array:
    """Returns what pastes windows into a scene's map, along one axis.

    Args:
        start: [B] int, of the windows, scene px.
        scene: [B] int, length of the scene, px.
        window: length of a window, px.
        before: length of a window's map.
        after: length of the scene's map.

    Returns:
        [B, after, before] float32; rows outside of a window's rectangle are 0.
    """
    first, count = _rectangle(start, scene, window, after)
    place = jnp.arange(after) - first[:, None]  # within the rectangle, [B, after]
    inside = (place >= 0) & (place < count[:, None])
    low, high, share = _taps(place, before, count[:, None])
    return jnp.where(inside[..., None], _matrix(low, high, share, before), 0.0)


def coverage(
    start: jax.Array, scene: jax.Array, *, window: int, after: int
) -> jax.Array:
    """Returns how much of every map px a window covers, along one axis.

    It is the window's indicator in scene px, bilinearly resized to the map.

    Args:
        start: [B] int, of the windows, scene px.
        scene: [B] int, length of the scene, px.
        window: length of a window, px.
        after: length of the scene's map.

    Returns:
        [B, after] float32.
    """
    low, high, share = _taps(jnp.arange(after), scene[:, None], after)
    below, above = (
        (tap >= start[:, None]) & (tap < start[:, None] + window) for tap in (low, high)
    )
    return (1 - share) * below + share * above


def crop(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Crops windows out of maps of scenes.

    Args:
        x: [B, H, W, C], or [1, H, W, C] if all windows are of one scene.
        rows: [B, h, H] of `crop_matrix`.
        columns: [B, w, W].

    Returns:
        [B, h, w, C], dtype of x.
    """
    rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
    highest = jax.lax.Precision.HIGHEST
    if x.shape[0] == 1:
        cut = jnp.einsum("bih,hwc->biwc", rows, x[0], precision=highest)
    else:
        cut = jnp.einsum("bih,bhwc->biwc", rows, x, precision=highest)
    return jnp.einsum("bjw,biwc->bijc", columns, cut, precision=highest)


def paste(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Pastes maps of windows into one map of their scene, where they add up.

    Args:
        x: [B, h, w, C].
        rows: [B, H, h] of `paste_matrix`.
        columns: [B, W, w].

    Returns:
        [1, H, W, C] float32.
    """
    highest = jax.lax.Precision.HIGHEST
    wide = jnp.einsum(
        "bjw,bhwc->bhjc", columns, x.astype(jnp.float32), precision=highest
    )
    return jnp.einsum("bih,bhjc->ijc", rows, wide, precision=highest)[None]


def nearest_crop(
    x: jax.Array, position: jax.Array, scene: jax.Array, *, window: tuple[int, int]
) -> jax.Array:
    """Crops windows out of a map that is resized to its scene by nearest neighbours.

    Args:
        x: [B or 1, H, W, C].
        position: [B, 2] int, (top, left) of the windows, scene px.
        scene: [B, 2] int, (height, width), px.
        window: (height, width), px.

    Returns:
        [B, *window, C], dtype of x. Beyond the scene its border repeats.
    """
    index = []
    for axis, length in enumerate(window):
        size = x.shape[1 + axis]
        place = position[:, axis, None] + jnp.arange(length)  # [B, length]
        index.append(jnp.clip(place * size // scene[:, axis, None], 0, size - 1))
    x = jnp.broadcast_to(x, (len(position), *x.shape[1:]))
    return jax.vmap(lambda one, i, j: one[i][:, j])(x, *index)


def nearest_paste(
    x: jax.Array,
    position: jax.Array,
    scene: jax.Array,
    *,
    between: tuple[int, int],
    size: tuple[int, int],
    fill: int,
) -> jax.Array:
    """Puts windows of one scene together, resized by nearest neighbours.

    Args:
        x: [B, P, Q] int, at full resolution; windows that overlap agree, or one of
            them holds `fill`.
        position: [B, 2] int, (top, left) of the windows, scene px.
        scene: [B, 2] int, (height, width), px, all the same.
        between: (height, width), px, to which the scene is resized first.
        size: (height, width) of the result, to which that is resized, px.
        fill: what is nowhere; larger than all else.

    Returns:
        [1, *size], dtype of x.
    """
    index = []
    for axis, (small, middle) in enumerate(zip(size, between, strict=True)):
        point = jnp.arange(small) * middle // small * scene[0, axis] // middle
        index.append(point - position[:, axis, None])  # [B, small], in the window

    def one(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        height, width = x.shape
        inside = ((rows >= 0) & (rows < height))[:, None]
        inside &= (columns >= 0) & (columns < width)
        found = x[jnp.clip(rows, 0, height - 1)][:, jnp.clip(columns, 0, width - 1)]
        return jnp.where(inside, found, fill)

    return jnp.min(jax.vmap(one)(x, *index), axis=0)[None].astype(x.dtype)


def _rectangle(
    start: jax.Array, scene: jax.Array, window: int, size: int
) -> tuple[jax.Array, jax.Array]:
    """First px and length [B] of windows in a map; at least one px of it."""
    first = jnp.minimum(_divide_half_even(start * size, scene), size - 1)
    return first, jnp.maximum(_divide_half_even(window * size, scene), 1)


def _divide_half_even(number: jax.Array, by: jax.Array) -> jax.Array:
    down, rest = number // by, number % by
    up = (2 * rest > by) | ((2 * rest == by) & (down % 2 == 1))
    return down + up


def _taps(index: jax.Array, before: jax.Array, after: jax.Array):
    """Lower and upper source index of output samples, and the weight of the upper.

    Half-pixel centres: sample i lies at (i + 1/2) before / after - 1/2.
    """
    number = jnp.maximum((2 * index + 1) * before - after, 0)
    low = jnp.minimum(number // (2 * after), before - 1)
    share = (number % (2 * after)).astype(jnp.float32) / (2 * after)
    return low, jnp.minimum(low + 1, before - 1), share


def _matrix(
    low: jax.Array, high: jax.Array, share: jax.Array, before: int
) -> jax.Array:
    """[..., after] taps -> [..., after, before]."""
    source = jnp.arange(before)
    lower = jnp.where(low[..., None] == source, 1 - share[..., None], 0.0)
    return lower + jnp.where(high[..., None] == source, share[..., None], 0.0)
