"""A bounded, deterministic corpus of damaged files."""

import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

HUGE = (2**31 - 1, 10**6, 65535)


def corruptions(good: bytes, *, seed: int, each: int) -> Iterator[tuple[str, bytes]]:
    """Yields (what was done, damaged bytes): `each` of every kind."""
    rng = np.random.default_rng(seed)
    for index in range(each):
        header = index % 2 == 0  # half of the damage hits the first bytes
        reach = min(len(good), 256) if header else len(good)
        yield f"flips {index}", _flip(good, rng, reach)
        start, stop = np.sort(rng.integers(0, reach, 2))
        zeroed = bytes(int(stop - start) + 1)
        yield f"zeros {index}", good[:start] + zeroed + good[stop + 1 :]
        yield f"truncation {index}", good[: int(rng.integers(0, len(good)))]
        yield f"lie {index}", _lie(good, rng, reach)
        cut = int(rng.integers(0, len(good)))
        noise = rng.integers(0, 256, len(good) - cut, np.uint8).tobytes()
        yield f"noise {index}", good[:cut] + noise
    yield "doubled", good + good
    yield "one byte", good[:1]


def _flip(good: bytes, rng: np.random.Generator, reach: int) -> bytes:
    damaged = bytearray(good)
    for place in rng.integers(0, reach, int(rng.integers(1, 9))):
        damaged[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(damaged)


def _lie(good: bytes, rng: np.random.Generator, reach: int) -> bytes:
    """Writes a gigantic number somewhere, in either byte order."""
    size = HUGE[int(rng.integers(len(HUGE)))]
    order = "big" if rng.integers(2) else "little"
    place = int(rng.integers(0, max(reach - 4, 1)))
    return good[:place] + size.to_bytes(4, order) + good[place + 4 :]


def damaged_copies(
    path: pathlib.Path, folder: pathlib.Path, *, seed: int, each: int
) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields (what was done, a damaged copy of a file, or of one file in a folder)."""
    copy = folder / path.name
    if path.is_file():
        for what, data in corruptions(path.read_bytes(), seed=seed, each=each):
            copy.write_bytes(data)
            yield what, copy
        return
    parts = sorted(part for part in path.rglob("*") if part.is_file())
    texts = [part for part in parts if part.name.startswith((".z", "zarr"))]
    shutil.copytree(path, copy)
    for part in [*texts, parts[0], parts[len(parts) // 2]]:
        good, damaged = part.read_bytes(), copy / part.relative_to(path)
        for what, data in corruptions(good, seed=seed, each=each):
            damaged.write_bytes(data)
            yield f"{part.name}: {what}", copy
        damaged.write_bytes(good)
