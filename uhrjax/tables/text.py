"""Tables as text: for a terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

from uhrjax.tables import result
from uhrjax.tables import table as table_lib

WIDEST = 9  # metrics side by side in a terminal
HINT = (
    "paper | ours: mean ± standard deviation over seeds (number of seeds); "
    "[in brackets]: not made as the row says, see below"
)


Link = Callable[[result.Scored], str]


def ours(cell: table_lib.Cell) -> str:
    """Returns our figure as text; in brackets unless it was made as the row says."""
    if cell.ours is None:
        return "-"
    mean, std, seeds = cell.ours
    digits = max(cell.digits, len(cell.printed.partition(".")[2]))
    text = f"{mean:.{digits}f}"
    if not math.isnan(std):
        text += f" ± {std:.{digits}f}"
    if seeds:
        text += f" ({seeds})"
    return text if cell.is_match else f"[{text}]"


def both(cell: table_lib.Cell | None) -> str:
    """Returns the paper's figure and ours."""
    if cell is None:
        return ""
    return f"{cell.printed} | {ours(cell)}" if cell.printed else ours(cell)


def remarks(block: table_lib.Block) -> dict[str, int]:
    """Returns what is to be said below a table -> its number."""
    every = [text for line in block.lines for text in line.remarks]
    return {text: k + 1 for k, text in enumerate(dict.fromkeys(every))}


def state(line: table_lib.Line, numbers: dict[str, int]) -> str:
    """Returns the state of a line with the numbers of its remarks."""
    marks = ",".join(str(numbers[text]) for text in line.remarks)
    return f"{line.state} [{marks}]" if marks else line.state


def plain(block: table_lib.Block) -> str:
    """Returns a table for a terminal, wide ones in parts."""
    numbers, parts = remarks(block), [block.title]
    for first in range(0, max(len(block.metrics), 1), WIDEST):
        names = block.metrics[first : first + WIDEST]
        lines = [["", *names, "state"]]
        for line in block.lines:
            cells = [both(line.cells.get(name)) for name in names]
            lines.append([line.row, *cells, state(line, numbers)])
        parts.append(columns(lines))
    return "\n".join([*parts, *_below(block, numbers), *_runs(block)]) + "\n"


def markdown(block: table_lib.Block, link: Link = lambda one: str(one.where)) -> str:
    """Returns a table in Markdown.

    Args:
        block: the table.
        link: where a figure of ours links to, that of the first seed.
    """

    def linked(line: table_lib.Line, name: str) -> str:
        cell = line.cells.get(name)
        if cell is None or cell.ours is None or not line.scores:
            return both(cell)
        own = f"[{_quiet(ours(cell))}]({link(line.scores[0])})"
        return f"{cell.printed} | {own}" if cell.printed else own

    numbers = remarks(block)
    head = ["row", *block.metrics, "state"]
    lines = [head, ["---"] * len(head)]
    for line in block.lines:
        cells = [linked(line, name) for name in block.metrics]
        lines.append([line.row, *cells, state(line, numbers)])
    drawn = [
        "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
        for cells in lines
    ]
    below = _below(block, numbers)
    return "\n".join([f"### {block.title}", "", *drawn, "", *below]) + "\n"


def latex(block: table_lib.Block) -> str:
    """Returns a table as a LaTeX tabular (booktabs)."""
    numbers = remarks(block)
    head = ["", *block.metrics, "state"]
    lines = [
        [line.row, *(both(line.cells.get(n)) for n in block.metrics),
         state(line, numbers)]
        for line in block.lines
    ]  # fmt: skip
    rows = [" & ".join(map(_escape, cells)) + r" \\" for cells in [head, *lines]]
    below = [f"% {text}" for text in (*_below(block, numbers), *_runs(block))]
    return "\n".join(
        [
            f"% {block.title}",
            rf"\begin{{tabular}}{{l{'r' * len(block.metrics)}l}}",
            r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule",
            r"\end{tabular}", *below,
        ]
    ) + "\n"  # fmt: skip


def _quiet(text: str) -> str:
    """Returns text whose brackets do not end a Markdown link."""
    return text.replace("[", r"\[").replace("]", r"\]")


CSV_HEAD = (
    "paper", "table", "row", "dataset", "metric", "paper_value", "mean", "std", "seeds",
    "is_match", "state", "remarks", "runs",
)  # fmt: skip


def write_csv(blocks: Sequence[table_lib.Block]) -> str:
    """Returns all figures, one per line."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for block in blocks:
        for line in block.lines:
            for name, cell in line.cells.items():
                mean, std, seeds = cell.ours or ("", math.nan, 0)
                writer.writerow(
                    [
                        block.paper.name, block.table, line.row, block.dataset, name,
                        cell.printed, mean, "" if math.isnan(std) else std, seeds,
                        int(cell.is_match), line.state, "; ".join(line.remarks),
                        " ".join(str(one.where) for one in line.scores),
                    ]
                )  # fmt: skip
    return target.getvalue()


def _below(block: table_lib.Block, numbers: dict[str, int]) -> list[str]:
    found = [f"[{number}] {text}" for text, number in numbers.items()]
    return [f"note: {block.trouble}", *found] if block.trouble else found


def _runs(block: table_lib.Block) -> list[str]:
    """Returns which runs the lines of a table are of."""
    return [
        f"{line.row}: {', '.join(str(one.where) for one in line.scores)}"
        for line in block.lines
        if line.scores
    ]


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Returns lines of cells as columns of text."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = []
    for cells in lines:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        drawn.append("  ".join(padded).rstrip())
    drawn.insert(1, "-" * len(max(drawn, key=len)))
    return "\n".join(drawn)


def _escape(text: str) -> str:
    """Returns text for LaTeX."""
    special = {
        "±": r"$\pm$",
        "|": r"$\mid$",
        "\\": r"\textbackslash{}",
    }
    special |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
    return "".join(special.get(letter, letter) for letter in text)
