"""What known devices could do at most, to say which share of it a network reaches."""

from __future__ import annotations

# jax's `device_kind` -> dense bfloat16 TFLOP/s, of one device as jax counts them.
# Nothing is claimed for others, nor for float32, which some devices round in silence.
BFLOAT16_TFLOPS = {
    # NVIDIA data sheets; they print twice as much, "with sparsity".
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
    # https://cloud.google.com/tpu/docs, "Peak compute per chip (bf16)"
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,  # v5e
    "TPU v6 lite": 918.0,  # v6e
}


def tflops(device_kind: str, dtype: str, devices: int) -> float | None:
    """Returns the peak TFLOP/s of all devices, None if it is not known."""
    one = BFLOAT16_TFLOPS.get(device_kind) if dtype == "bfloat16" else None
    return None if one is None else one * devices
