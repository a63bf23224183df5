"""Class tables, and how the values of a mask become labels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

IGNORE = 255  # label of pixels that count neither in loss nor in score
MAX_CLASSES = 255
ROUNDED = "between two codes"  # stands for the values that a threshold moved

Colour = tuple[int, int, int]


class Unknown(NamedTuple):
    """A value of a mask that the class table does not have."""

    value: int | Colour | str
    count: int  # px
    row: int  # of the first such pixel
    column: int


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """Classes in label order, and the mask values that stand for them."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]  # to draw with
    ids: Mapping[int, int]  # value in a single-band mask -> label
    codes: Mapping[Colour, int] = dataclasses.field(
        default_factory=dict
    )  # RGB -> label
    unknown: int | None = None  # label of all other values; None: they are refused
    threshold: int | None = None  # values below it are taken as 0, others as 255

    def decode(self, raw: np.ndarray) -> tuple[np.ndarray, list[Unknown]]:
        """Turns mask values into labels.

        Args:
            raw: [h, w] of any integer type (ids) or [h, w, 3] uint8 (RGB colours).

        Returns:
            [h, w] uint8 labels, 255 = ignored, and the values that the table lacks
            (their pixels get `unknown`, or 255 where unknown values are refused).
        """
        if self.threshold is None:
            return self._look_up(raw)
        plain = (raw >= self.threshold) * np.uint8(255)
        decoded, found = self._look_up(plain)
        found = [
            one._replace(value=_value_at(raw, one.row, one.column)) for one in found
        ]
        moved = plain != raw
        if moved.any():
            if moved.ndim == 3:
                moved = moved.any(axis=2)
            row, column = divmod(int(moved.argmax()), moved.shape[1])
            found.append(Unknown(ROUNDED, int(moved.sum()), row, column))
        return decoded, found

    def _look_up(self, raw: np.ndarray) -> tuple[np.ndarray, list[Unknown]]:
        if raw.ndim == 3 and self.codes:
            keys = {pack(colour): label for colour, label in self.codes.items()}
            values = pack_pixels(raw)
            labels, known = _look_up(values, keys)
        else:
            values = raw if raw.ndim == 2 else raw[..., 0]
            labels, known = _look_up(values, self.ids)
        if known.all():
            return labels, []
        labels[~known] = IGNORE if self.unknown is None else self.unknown
        found = _list_unknown(values, known)
        if raw.ndim == 3 and self.codes:
            found = [one._replace(value=unpack(one.value)) for one in found]
        return labels, found


def table(
    names: Sequence[str], colours: Sequence[Colour], *, unknown: int | None = None
) -> ClassTable:
    """Returns the plain table: the i-th name has id i and the i-th colour."""
    ids = {label: label for label in range(len(names))} | {IGNORE: IGNORE}
    codes = {tuple(colour): label for label, colour in enumerate(colours)}
    return ClassTable(tuple(names), tuple(colours), ids, codes, unknown)


def pack(colour: Colour) -> int:
    """Returns the colour as one number, 0xRRGGBB."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def unpack(code: int) -> Colour:
    """Inverse of `pack`."""
    return code >> 16, code >> 8 & 255, code & 255


def pack_pixels(raw: np.ndarray) -> np.ndarray:
    """Packs [h, w, 3] uint8 into [h, w] uint32, 0xRRGGBB."""
    wide = raw.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def palette(count: int) -> tuple[Colour, ...]:
    """Returns `count` distinct drawing colours (the Pascal VOC sequence)."""
    colours = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> channel & 1) << (7 - bit)
            index >>= 3
        colours.append(tuple(channels))
    return tuple(colours)


def _value_at(raw: np.ndarray, row: int, column: int) -> int | Colour:
    value = raw[row, column].tolist()
    return tuple(value) if raw.ndim == 3 else value


def _look_up(
    values: np.ndarray, keys: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of values, and where the value is a key."""
    if values.dtype == np.uint8:
        lut = np.full(256, -1, np.int16)
        for key, label in keys.items():
            if 0 <= key <= 255:
                lut[key] = label
        found = lut[values]
        return found.astype(np.uint8), found >= 0
    if not keys:
        return np.zeros(values.shape, np.uint8), np.zeros(values.shape, bool)
    ordered = np.array(sorted(keys), np.int64)
    labels = np.array([keys[key] for key in ordered.tolist()], np.uint8)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return labels[at], ordered[at] == values


def _list_unknown(values: np.ndarray, known: np.ndarray) -> list[Unknown]:
    flat = np.flatnonzero(~known.ravel())
    found, first, counts = np.unique(
        values.ravel()[flat], return_index=True, return_counts=True
    )
    width = values.shape[1]
    return [
        Unknown(int(value), int(count), *divmod(int(flat[at]), width))
        for value, at, count in zip(found, first, counts, strict=True)
    ]
