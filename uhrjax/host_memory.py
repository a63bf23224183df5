"""What glibc does with freed arrays; other C libraries are left as they are."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 1 << 24
TOP_BYTES = 1 << 28
MOST_BYTES = (1 << 31) - 1  # a C int
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of its malloc.h


def return_freed_arrays() -> None:
    """Hands freed arrays of 16 MB and more back to the system at once.

    Left alone glibc raises that size to 32 MB by and by, and the holes between the
    arrays of a wide scene add up: labelling 20 000 px took 1.5 instead of 1.8 GB.
    """
    _mallopt({M_MMAP_THRESHOLD: LARGE_BYTES, M_TRIM_THRESHOLD: LARGE_BYTES})


def keep_freed_arrays() -> None:
    """Keeps freed memory for the next array, as a stream of equal batches wants it.

    Otherwise every batch pays for fresh pages.
    """
    _mallopt(
        {
            M_MMAP_THRESHOLD: MOST_BYTES,
            M_TRIM_THRESHOLD: MOST_BYTES,
            M_TOP_PAD: TOP_BYTES,
        }
    )


def _mallopt(settings: dict[int, int]) -> None:
    try:
        libc = ctypes.CDLL("libc.so.6")
        for name, value in settings.items():
            libc.mallopt(name, value)
    except (OSError, AttributeError):
        return
