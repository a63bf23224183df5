"""How sure a prediction is, and how probabilities are stored."""

from __future__ import annotations

import numpy as np

STEPS = 254  # a byte stores round(254 p); 255 is left for "no data"
MISSING = 255
CHUNK = 1 << 21  # values worked on at a time, so that temporaries stay small


def store_probabilities(
    probabilities: np.ndarray, missing: np.ndarray, dtype: str
) -> np.ndarray:
    """Returns probabilities as they are stored.

    Args:
        probabilities: [h, W, K] float32 in [0, 1].
        missing: [h, W] bool, pixels without a prediction.
        dtype: "uint8" or "float16".

    Returns:
        [h, W, K] uint8 (255 = missing) or float16 (NaN = missing).
    """
    stored = np.empty(probabilities.shape, dtype)
    for part in _parts(probabilities):
        values = probabilities[part]
        stored[part] = _to_byte(values) if dtype == "uint8" else values
    stored[missing] = MISSING if dtype == "uint8" else np.nan
    return stored


def store_uncertainty(
    probabilities: np.ndarray, missing: np.ndarray, kind: str
) -> np.ndarray:
    """Returns the uncertainty of every pixel as it is stored.

    Args:
        probabilities: [h, W, K] float32 in [0, 1].
        missing: [h, W] bool, pixels without a prediction.
        kind: "entropy" or "margin".

    Returns:
        [h, W] uint8, 254 = as unsure as can be, 255 = missing.
    """
    measure = {"entropy": entropy, "margin": margin}[kind]
    stored = np.empty(probabilities.shape[:2], np.uint8)
    for part in _parts(probabilities):
        stored[part] = _to_byte(measure(probabilities[part]))
    stored[missing] = MISSING
    return stored


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy over the last axis in units of its largest value, log K."""
    count = probabilities.shape[-1]
    if count == 1:
        return np.zeros(probabilities.shape[:-1], np.float32)
    logs = np.log(np.maximum(probabilities, 1e-12))
    return -np.einsum("...k,...k->...", probabilities, logs) / np.float32(np.log(count))


def margin(probabilities: np.ndarray) -> np.ndarray:
    """Returns 1 - (best - second best) over the last axis."""
    best = np.zeros(probabilities.shape[:-1], np.float32)
    second = np.zeros_like(best)
    for k in range(probabilities.shape[-1]):  # faster than sorting a short axis
        value = probabilities[..., k]
        second = np.maximum(second, np.minimum(best, value))
        best = np.maximum(best, value)
    return 1 - (best - second)


def _to_byte(values: np.ndarray) -> np.ndarray:
    return np.clip(values * np.float32(STEPS) + np.float32(0.5), 0, STEPS).astype("u1")


def _parts(array: np.ndarray) -> list[slice]:
    step = max(1, CHUNK // max(1, array[0].size))
    return [slice(top, top + step) for top in range(0, len(array), step)]
