"""Tables as one HTML file that opens from the disk: bars, pictures, nothing to load."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from uhrjax import metrics
from uhrjax.output import overlay
from uhrjax.tables import panels, result, text
from uhrjax.tables import table as table_lib

SIDE = 640  # px, of a picture on the page
SCENES = 2  # shown of a table
MORE = ("maps", "pictures")  # folders of a run with further pictures to look at
TEMPLATE = pathlib.Path(__file__).with_name("page.html")


class Pictures:
    """The pictures of a page, each kept once."""

    def __init__(self) -> None:
        """Starts with none."""
        self.data: dict[str, str] = {}

    def add(self, picture: np.ndarray) -> str:
        """Keeps [H, W, 3] uint8 BGR; returns its key."""
        small = overlay.reduce_picture(picture, side=SIDE)
        coded = cv2.imencode(".png", small)[1].tobytes()
        key = hashlib.sha256(coded).hexdigest()[:16]
        self.data[key] = f"data:image/png;base64,{base64.b64encode(coded).decode()}"
        return key


def write(path: pathlib.Path, blocks: Sequence[table_lib.Block]) -> None:
    """Writes the page; its links to runs are relative to it."""
    pictures = Pictures()
    parts = [_section(block, path, pictures) for block in blocks]
    page = TEMPLATE.read_text()
    page = page.replace("<!-- tables -->", "\n".join(parts))
    page = page.replace("<!-- hint -->", html.escape(text.HINT))
    path.write_text(page.replace("/* pictures */", json.dumps(pictures.data)))


def _section(block: table_lib.Block, path: pathlib.Path, pictures: Pictures) -> str:
    """Returns a table with what is said below it and its pictures."""
    numbers = text.remarks(block)
    tops = {name: _top(block, name) for name in block.metrics}
    heads = "".join(
        f'<th title="{html.escape(metrics.definition(name).text)}">'
        f"{html.escape(name)}</th>"
        for name in block.metrics
    )
    rows = []
    for line in block.lines:
        cells = "".join(
            f"<td>{_cell(line, name, tops[name], path)}</td>" for name in block.metrics
        )
        marks = html.escape(text.state(line, numbers))
        rows.append(f"<tr><th>{html.escape(line.row)}</th>{cells}<td>{marks}</td></tr>")
    notes = [f"[{k}] {remark}" for remark, k in numbers.items()]
    notes = [block.trouble, *notes] if block.trouble else notes
    below = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f"<section><h2>{html.escape(block.title)}</h2><table><thead><tr><th></th>"
        f"{heads}<th>state</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<ul class="notes">{below}</ul>{_scenes(block, pictures)}'
        f"{_more(block, pictures)}</section>"
    )


def _top(block: table_lib.Block, name: str) -> float:
    """Returns what a full bar means."""
    cells = [line.cells[name] for line in block.lines if name in line.cells]
    values = [float(cell.printed) for cell in cells if cell.printed]
    values += [cell.ours.mean for cell in cells if cell.ours]
    return max([*values, 1e-9])


def _cell(line: table_lib.Line, name: str, top: float, path: pathlib.Path) -> str:
    """Returns a cell: both figures, each with its bar; ours links to its run."""
    cell = line.cells.get(name)
    if cell is None:
        return ""
    drawn = ""
    if cell.printed:
        drawn += _bar("paper", float(cell.printed) / top, html.escape(cell.printed))
    if cell.ours:
        said = html.escape(text.ours(cell))
        for one in line.scores[:1]:
            where = os.path.relpath(one.where, path.parent or ".")
            said = f'<a href="{html.escape(where)}/">{said}</a>'
        drawn += _bar("ours" if cell.is_match else "apart", cell.ours.mean / top, said)
    return drawn


def _bar(kind: str, share: float, said: str) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<div class="bar {kind}"><i style="width:{width:.1f}%"></i>'
        f"<span>{said}</span></div>"
    )


def _scenes(block: table_lib.Block, pictures: Pictures) -> str:
    """Returns sliders over what the rows say about the same scenes."""
    by_scene: dict[str, dict[str, str]] = {}
    for line in block.lines:
        for one in line.scores[:1]:
            for file in sorted((one.where / "panels").glob("*.png")):
                if file.stem in by_scene or len(by_scene) < SCENES:
                    own = by_scene.setdefault(file.stem, {})
                    for part, picture in panels.cut(file, one.report).items():
                        shared = part in ("image", "label")
                        title = part if shared else f"{line.row}: {part}"
                        own.setdefault(title, pictures.add(picture))
    return "".join(_slider(name, own) for name, own in by_scene.items() if own)


def _slider(scene: str, own: Mapping[str, str]) -> str:
    """Returns two pictures on top of each other and what divides them."""
    names = list(own)
    last = next((n for n in reversed(names) if n.endswith("prediction")), names[-1])
    choices = []
    for side, chosen in (("left", names[0]), ("right", last)):
        options = "".join(
            f'<option value="{own[name]}"{" selected" * (name == chosen)}>'
            f"{html.escape(name)}</option>"
            for name in names
        )
        choices.append(f'<select class="{side}">{options}</select>')
    return (
        f'<figure class="scene"><figcaption>{html.escape(scene)} {choices[0]} '
        f'{choices[1]}</figcaption><div class="view"><div class="zoom">'
        '<img class="left" alt="left"><img class="right" alt="right"></div></div>'
        '<input type="range" min="0" max="100" value="50"></figure>'
    )


def _more(block: table_lib.Block, pictures: Pictures) -> str:
    """Returns further pictures of the runs: foveation maps, attention, points."""
    found = []
    for line in block.lines:
        for one in line.scores[:1]:
            for file in _files(one):
                picture = cv2.imread(str(file))
                if picture is not None:
                    title = html.escape(f"{line.row}: {file.stem}")
                    found.append(
                        f'<figure class="more"><img data-key="{pictures.add(picture)}" '
                        f'alt="{title}"><figcaption>{title}</figcaption></figure>'
                    )
    return f'<div class="gallery">{"".join(found)}</div>' if found else ""


def _files(one: result.Scored) -> list[pathlib.Path]:
    places = dict.fromkeys((one.folder, one.where))
    return [
        file
        for place in places
        for name in MORE
        for file in sorted((place / name).glob("*.png"))[:SCENES]
    ]
