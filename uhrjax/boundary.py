"""Targets of an edge map, drawn from a label map.

`boundary_target` is exact and runs on the host, where OpenCV is; `boundary_on_device`
is its approximation for labels that reach the loss without a target.
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np

RULES = ("foreground", "all_classes")


def boundary_target(
    label: np.ndarray, *, thickness: int = 8, rule: str = "foreground"
) -> np.ndarray:
    """Draws the outlines of the labelled regions with a pen.

    Outlines run along the image border where a region touches it.

    Args:
        label: [H, W] uint8.
        thickness: of the pen, px.
        rule: "foreground" outlines the union of all non-zero labels, 255 included, so
            no edge separates two classes that touch; "all_classes" outlines every
            non-zero value by itself.

    Returns:
        [H, W] uint8, 1 on outlines.
    """
    label = np.asarray(label).astype(np.uint8, copy=False)
    canvas = np.zeros(label.shape, np.uint8)
    if rule == "foreground":
        masks = [label != 0]
    else:
        masks = [label == value for value in np.unique(label) if value != 0]
    for mask in masks:
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE
        )
        cv2.drawContours(canvas, contours, -1, 1, thickness)
    return canvas


def boundary_on_device(
    label: jax.Array, *, thickness: int = 8, rule: str = "foreground"
) -> jax.Array:
    """Approximates `boundary_target` by distance.

    An outline pixel is a foreground pixel with another value among its eight neighbours
    (beyond the image lies background); all within half the thickness of one is 1.

    Args:
        label: [B, H, W] integers.
        thickness: px.
        rule: as for `boundary_target`.

    Returns:
        [B, H, W] uint8.
    """
    height, width = label.shape[1:]
    values = label.astype(jnp.int32)
    if rule == "foreground":
        values = (values != 0).astype(jnp.int32)
    padded = jnp.pad(values, ((0, 0), (1, 1), (1, 1)))
    differs = jnp.zeros(values.shape, bool)
    for dy in range(3):
        for dx in range(3):
            differs |= padded[:, dy : dy + height, dx : dx + width] != values
    outline = (differs & (values != 0)).astype(jnp.float32)
    reach = thickness // 2
    offset = np.arange(-reach, reach + 1)
    disk = offset[:, None] ** 2 + offset[None, :] ** 2 <= (thickness / 2) ** 2
    touched = jax.lax.conv_general_dilated(
        outline[..., None],
        jnp.asarray(disk[:, :, None, None], jnp.float32),
        window_strides=(1, 1),
        padding=((reach, reach), (reach, reach)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return (touched[..., 0] > 0.5).astype(jnp.uint8)


# (y, x) of the eight neighbours, in steps of 45 degrees.
DIRECTIONS = np.array(
    [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)], np.int32
)
INTERIOR, IGNORED = 254, 255  # of a direction target


def direction_target(label: np.ndarray, *, reach: float = 5.0) -> np.ndarray:
    """Says which way lies the interior of each boundary pixel's region.

    Args:
        label: [H, W] uint8, 255 = ignore.
        reach: px from another class that count as boundary.

    Returns:
        [H, W] uint8: index into DIRECTIONS at boundary pixels, INTERIOR elsewhere,
        IGNORED where the label is.
    """
    label = np.asarray(label).astype(np.uint8, copy=False)
    found = np.full(label.shape, INTERIOR, np.uint8)
    across, down = _gradient_kernels(5)
    for value in np.unique(label):
        mask = label == value
        if mask.all():
            break
        depth = cv2.distanceTransform(
            mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        slopes = [
            cv2.filter2D(depth, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
            for kernel in (down, across)
        ]
        angle = np.arctan2(*slopes)
        index = np.round(angle / (np.pi / 4)).astype(np.int32) % len(DIRECTIONS)
        found = np.where(mask & (depth <= reach), index, found).astype(np.uint8)
    return np.where(label == 255, IGNORED, found).astype(np.uint8)


def _gradient_kernels(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernels of the gradient along x and y that weigh by nearness."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    square = np.maximum(x**2 + y**2, 1.0)
    return x / square, y / square
