"""What an earlier EXPERIMENTS.md tells of runs that are not on this machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

EMPTY = ("-", "not run", "")


@dataclasses.dataclass
class Section:
    """A table as it stands in the file."""

    head: list[str]  # of the columns: "row", metrics, "state"
    rows: dict[str, list[str]]  # by their first cell
    remarks: dict[str, str]  # number -> text
    below: list[str]  # other lines under the table

    def text(self, title: str) -> str:
        """Returns its lines, with the title above."""
        cells = [self.head, ["---"] * len(self.head), *self.rows.values()]
        drawn = [f"| {' | '.join(line)} |" for line in cells]
        remarks = [f"[{number}] {text}" for number, text in self.remarks.items()]
        notes = [line for line in self.below if line.startswith("note: ")]
        others = [line for line in self.below if line not in notes]
        groups = ("\n".join(lines) for lines in (drawn, [*notes, *remarks]) if lines)
        blocks = [title, *groups, *others]
        return "\n\n".join(blocks) + "\n"


def read(text: str) -> dict[str, Section]:
    """Returns title -> table of an EXPERIMENTS.md, {} of an empty text."""
    parts = re.split(r"^(###? .*)$", text, flags=re.MULTILINE)
    return {
        title: _section(body.strip().splitlines())
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def _section(lines: list[str]) -> Section:
    drawn = [line for line in lines if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in drawn]
    found = Section(head, {cells[0]: cells for cells in rows}, {}, [])
    for line in lines:
        if remark := re.match(r"\[(\d+)\] (.*)", line):
            found.remarks[remark[1]] = remark[2]
        elif line and not line.startswith("|"):
            found.below.append(line)
    return found


def is_less(seeds: Mapping[str, int], old: Section | None) -> bool:
    """Returns whether the file has all these rows, and others or more seeds of them.

    Args:
        seeds: row -> number of seeds that it was run with.
        old: the table in the file.
    """
    filled = old.rows.items() if old else ()
    before = {name: _seeds(cells) for name, cells in filled if _is_filled(cells)}
    return seeds != before and all(
        count <= before.get(name, 0) for name, count in seeds.items()
    )


def carry_over(new: Section, old: Section) -> Section:
    """Returns a table with the rows of an earlier one that tell more.

    Those are rows that have no figure in the new one, or fewer seeds.

    Args:
        new: of the runs that are here.
        old: the same table of an earlier file.
    """
    found = dataclasses.replace(new, rows=dict(new.rows), remarks=dict(new.remarks))
    found.head = [*new.head[:-1], *(n for n in old.head if n not in new.head), "state"]
    for name, cells in new.rows.items():
        before = old.rows.get(name)
        source, remarks = new, new.remarks
        if before is not None and _tells_more(before, cells):
            source, remarks, cells = old, old.remarks, before
        by_name = dict(zip(source.head, cells, strict=True))
        by_name["state"] = _renumbered(by_name["state"], remarks, found.remarks)
        found.rows[name] = [by_name.get(column, "-") for column in found.head]
    return found


def union(new: Section, old: Section) -> Section:
    """Returns a list with the lines of both, sorted by name; the new ones count."""
    return dataclasses.replace(new, rows=dict(sorted({**old.rows, **new.rows}.items())))


def _tells_more(before: list[str], cells: list[str]) -> bool:
    """Returns whether a row of the file is better than one of the runs here."""
    if not (_is_filled(before) and _is_filled(cells)):
        return _is_filled(before)
    differs = [row[-1].startswith("differs") for row in (before, cells)]
    if differs[0] != differs[1]:
        return differs[1]
    return _seeds(before) > _seeds(cells)


def _seeds(cells: list[str]) -> int:
    """Returns the number in `differs, 3 seeds [1]`."""
    return int(re.search(r"(\d+) seed", cells[-1])[1])


def _is_filled(cells: list[str]) -> bool:
    return cells[-1] not in EMPTY


def _renumbered(state: str, given: Mapping[str, str], wanted: dict[str, str]) -> str:
    """Returns `3 seeds [1,2]` with the numbers that the texts have in `wanted`.

    A text that is not there is added.
    """
    words, found, numbers = state.partition(" [")
    if not found:
        return state
    known = {text: number for number, text in wanted.items()}
    moved = []
    for number in numbers.rstrip("]").split(","):
        text = given[number]
        if text not in known:
            known[text] = str(len(wanted) + 1)
            wanted[known[text]] = text
        moved.append(known[text])
    return f"{words} [{','.join(moved)}]"
