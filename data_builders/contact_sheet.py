"""Draws a prepared data set on one sheet: scenes, labels, classes and a patch."""

from __future__ import annotations

import cv2
import numpy as np

from uhrjax.data import overview, prepared, scenes
from uhrjax.tiling import window as windows

CELL = 320  # px: longest side of a picture
BAR = 24  # px above every picture, for its title
GAP = 8  # px between pictures
PAPER, INK, GREY = (255, 255, 255), (20, 20, 20), (96, 96, 96)
LEGEND_WIDTH = 460  # px
LINE = 22  # px, of text
BAND_PIXELS = 2**22  # of a label map, read at a time


def draw_scene(reader: scenes.SceneReader, index: int, *, split: str) -> np.ndarray:
    """Draws one scene made small, and its labels beside it.

    Of the labels, the middle one of every square is shown.

    Args:
        reader: of the scene.
        index: of the scene.
        split: to name.

    Returns:
        [h, w, 3] uint8.
    """
    scene = reader.scenes[index]
    step = max(1, -(-max(scene.height, scene.width) // CELL))
    height, width = -(-scene.height // step), -(-scene.width // step)
    image = overview.make(
        lambda window: reader.read_image(index, window),
        scene, height=height, width=width,
    )  # fmt: skip
    label = _thin_out(reader, index, step)
    shown = f"1 : {step}" if step > 1 else f"{_zoom(image)} : 1"
    place = ", with a place on earth" if scene.crs else ""
    coloured = palette(reader.info)[label]
    return beside(
        titled(f"{split}  {scene.id}", image),
        titled(f"{scene.width} x {scene.height} px, {shown}{place}", coloured),
    )


def draw_overview(
    reader: overview.OverviewReader, index: int, *, split: str
) -> np.ndarray:
    """Draws the overview of one scene and its labels beside it, see `draw_scene`."""
    scene = reader.scenes[index]
    image, label = reader.read(scene.id), reader.read_label(scene.id)
    height, width = label.shape
    coloured = palette(reader.info)[label]
    size = f"{scene.width} x {scene.height} px, as {width} x {height}"
    return beside(
        titled(f"{split}  {scene.id}", _fit(image, how=cv2.INTER_AREA)),
        titled(size, _fit(coloured, how=cv2.INTER_NEAREST)),
    )


def draw_patch(patch: dict[str, np.ndarray], info: prepared.DataInfo) -> np.ndarray:
    """Draws all views of one patch, its label, and the overview if it has one.

    Args:
        patch: a sample of `scenes.open_patches`, perhaps with `overview`.
        info: of the patches.

    Returns:
        [h, w, 3] uint8.
    """
    top, left = (int(n) for n in patch["position"])
    pictures = {
        f"view {word}, {prepared.side_word(info.tile)} px": view
        for word, view in zip(info.views, patch["views"], strict=True)
    }
    if "overview" in patch:
        pictures["overview"] = patch["overview"]
    row = [titled(name, _fit(p, how=cv2.INTER_AREA)) for name, p in pictures.items()]
    label = _fit(palette(info)[patch["label"]], how=cv2.INTER_NEAREST)
    row = beside(*row, titled("label of view 1", label))
    where = f"{info.config}: patch at row {top}, column {left} of {patch['scene_id']}"
    return below(write([where], width=max(row.shape[1], 10 * len(where))), row)


def draw_legend(info: prepared.DataInfo, split: str) -> np.ndarray:
    """Draws the classes with their colours and their share of the split's pixels."""
    counts = np.array(info.histogram[split], np.float64)
    shares = counts / max(counts.sum(), 1)
    names = [*info.classes, "(ignored)"]
    colours = [*info.colours, GREY]
    lines = [
        f"{info.name}",
        f"{split}: {len(info.scenes[split])} scenes, {counts.sum() / 1e6:.1f} MPix",
        "all: " + ", ".join(f"{name} {len(s)}" for name, s in info.scenes.items()),
        f"split hash {info.split_hash[:12]}",
    ]
    sheet = write(lines, width=LEGEND_WIDTH)
    for name, colour, share in zip(names, colours, shares, strict=True):
        sheet = below(sheet, _draw_class(name, colour, share, shares.max()), gap=2)
    notes = [line for note in info.notes for line in _wrap(f"note: {note}")]
    return below(sheet, write(notes, width=LEGEND_WIDTH)) if notes else sheet


def palette(info: prepared.DataInfo) -> np.ndarray:
    """Returns [256, 3] uint8, the colour of each label; ignored ones are grey."""
    table = np.full((256, 3), GREY, np.uint8)
    table[: len(info.colours)] = np.array(info.colours, np.uint8)
    return table


def titled(title: str, picture: np.ndarray) -> np.ndarray:
    """Puts a title over a picture, which is enlarged if it is small."""
    zoom = _zoom(picture)
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    bar = np.full((BAR, max(picture.shape[1], CELL), 3), PAPER, np.uint8)
    _put(bar, title, x=0, y=BAR - 7, size=0.42)
    return below(bar, picture, gap=0)


def write(lines: list[str], *, width: int) -> np.ndarray:
    """Draws lines of text."""
    sheet = np.full((LINE * len(lines), width, 3), PAPER, np.uint8)
    for index, line in enumerate(lines):
        _put(sheet, line, x=0, y=LINE * index + 15, size=0.5)
    return sheet


def beside(*pictures: np.ndarray) -> np.ndarray:
    """Puts pictures side by side, tops aligned."""
    height = max(picture.shape[0] for picture in pictures)
    wide = [_extend(each, height, each.shape[1] + GAP) for each in pictures]
    return np.concatenate(wide, axis=1)


def below(*pictures: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Puts pictures below each other, left sides aligned."""
    width = max(picture.shape[1] for picture in pictures)
    high = [_extend(each, each.shape[0] + gap, width) for each in pictures]
    return np.concatenate(high, axis=0)


def framed(picture: np.ndarray) -> np.ndarray:
    """Puts a margin around a finished sheet."""
    return cv2.copyMakeBorder(picture, *[GAP] * 4, cv2.BORDER_CONSTANT, value=PAPER)


def _extend(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def _thin_out(reader: scenes.SceneReader, index: int, step: int) -> np.ndarray:
    """Returns [h, w] uint8, the middle label of every step x step px, by bands."""
    scene = reader.scenes[index]
    rows = max(BAND_PIXELS // (scene.width * step), 1) * step
    bands = []
    for top in range(0, scene.height, rows):
        height = min(rows, scene.height - top)
        band = reader.read_label(index, windows.Window(top, 0, height, scene.width))
        ys, xs = (
            np.minimum(np.arange(0, side, step) + step // 2, side - 1)
            for side in band.shape
        )
        bands.append(band[np.ix_(ys, xs)])
    return np.concatenate(bands)


def _fit(picture: np.ndarray, *, how: int) -> np.ndarray:
    """Reduces a picture that is larger than a cell."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    if longest <= CELL:
        return picture
    size = (max(1, width * CELL // longest), max(1, height * CELL // longest))
    return cv2.resize(picture, size, interpolation=how)


def _zoom(picture: np.ndarray) -> int:
    return max(1, CELL // max(picture.shape[:2]))


def _draw_class(
    name: str, colour: tuple[int, int, int], share: float, highest: float
) -> np.ndarray:
    line = np.full((LINE - 4, LEGEND_WIDTH, 3), PAPER, np.uint8)
    cv2.rectangle(line, (0, 2), (26, LINE - 7), tuple(map(int, colour)), -1)
    cv2.rectangle(line, (0, 2), (26, LINE - 7), GREY, 1)
    _put(line, name[:24], x=34, y=13, size=0.45)
    _put(line, f"{share:7.2%}", x=230, y=13, size=0.45)
    length = round((LEGEND_WIDTH - 310) * share / max(highest, 1e-9))
    if share > 0:
        cv2.rectangle(line, (300, 4), (300 + length, LINE - 9), GREY, -1)
    return line


def _put(sheet: np.ndarray, text: str, *, x: int, y: int, size: float) -> None:
    plain = text.encode("ascii", "replace").decode()  # all that the font has
    cv2.putText(
        sheet, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA
    )


def _wrap(text: str, wide: int = 52) -> list[str]:
    return [text[start : start + wide] for start in range(0, len(text), wide)]
