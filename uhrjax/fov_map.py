"""Foveation maps: how wide a module looks, how wide it should, and how far apart."""

from __future__ import annotations

import numpy as np

GOLD = ("weighted", "argmax")
IGNORE_LABEL = 255


def fov_map(distribution: np.ndarray, bank: tuple[int, ...]) -> np.ndarray:
    """Returns the mean field of view.

    Args:
        distribution: [h, w, D] over the patches.
        bank: their sides, px.

    Returns:
        [h, w] px.
    """
    return np.asarray(distribution) @ np.asarray(bank, np.float32)


def scaled(fov: np.ndarray, bank: tuple[int, ...]) -> np.ndarray:
    """Returns a field of view as 0 (the smallest patch, fine) to 1 (the largest)."""
    return (fov - bank[0]) / max(bank[-1] - bank[0], 1)


def patch_quality(labels: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Returns how well each patch was labelled.

    Args:
        labels: [N, P, P] integers, found.
        label: [N, P, P] integers, true; 255 = ignore.

    Returns:
        [N] float64, the classes' intersections over their unions, both summed; NaN
        where nothing is labelled.
    """
    valid = label != IGNORE_LABEL
    return quality(((labels == label) & valid).sum((1, 2)), valid.sum((1, 2)))


def quality(right: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns intersections over unions, summed over classes.

    Args:
        right: numbers of px labelled as they are.
        known: numbers of px that have a label.

    Returns:
        float64, NaN where nothing is labelled.
    """
    with np.errstate(invalid="ignore"):
        # Each known px that is wrong lies in two unions.
        return right / (2.0 * known - right)


def gold_standard(
    quality: np.ndarray, bank: tuple[int, ...], *, rule: str = "weighted"
) -> np.ndarray:
    """Returns the field of view that fixed patches recommend.

    Args:
        quality: [h, w, D], of the networks trained with one patch each.
        bank: sides of the patches, px.
        rule: "weighted" by quality (the supplement), or "argmax": the best (main text,
            the smallest of equals).

    Returns:
        [h, w] px; NaN where a quality is and, weighted, where all are 0.
    """
    if rule not in GOLD:
        raise ValueError(f"gold rule {rule!r}; use one of {', '.join(GOLD)}")
    sides = np.asarray(bank, np.float64)
    if rule == "argmax":
        best = sides[np.nan_to_num(quality).argmax(-1)]
        return np.where(np.isnan(quality).any(-1), np.nan, best)
    with np.errstate(invalid="ignore", divide="ignore"):
        return quality @ sides / quality.sum(-1)


def map_error(fov: np.ndarray, gold: np.ndarray, bank: tuple[int, ...]) -> float:
    """Returns the mean squared difference of two maps [h, w] px, scaled to 0..1.

    Locations where either is NaN are left out; NaN if none remains.
    """
    apart = (scaled(fov, bank) - scaled(gold, bank)) ** 2
    known = ~np.isnan(apart)
    return float(apart[known].mean()) if known.any() else float("nan")
