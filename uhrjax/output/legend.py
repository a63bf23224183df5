"""The classes of a label map: names and colours by id."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Legend(NamedTuple):
    """What the values of a label map mean."""

    classes: tuple[str, ...]  # the position is the id
    colours: tuple[tuple[int, int, int], ...]  # RGB
    nodata: int = 255  # the id of pixels without a class

    def table(self) -> np.ndarray:
        """Returns the colours by id: [256, 3] uint8, black where there is no class."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = np.array(self.colours, np.uint8)
        return table

    def tags(self) -> dict[str, str]:
        """Returns the names as a file stores them: class_0 -> name."""
        return {f"class_{i}": name for i, name in enumerate(self.classes)}
