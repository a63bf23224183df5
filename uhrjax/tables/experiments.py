"""EXPERIMENTS.md: what was run, where, and what came of it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from uhrjax import metrics
from uhrjax.tables import result, text
from uhrjax.tables import table as table_lib

HEAD = """# Experiments

Made by `python -m uhrjax.tables --experiments=EXPERIMENTS.md` from the reports of
finished runs; do not edit. Cells: paper / ours, mean ± standard deviation over seeds
(number of seeds); [in brackets]: not made as the row says, and why is said below.
Tables without any run are left out: `python -m uhrjax.tables` lists them.
"""


def write(blocks: Sequence[table_lib.Block], folder: pathlib.Path) -> str:
    """Returns the text.

    Args:
        blocks: of all tables.
        folder: of the runs, whose names are relative to it.
    """
    filled = [block for block in blocks if any(line.scores for line in block.lines)]
    parts = [HEAD]
    if not filled:
        parts.append("Nothing has been run yet.\n")
    for block in filled:
        kept = [line for line in block.lines if line.state != "gap"]
        parts.append(
            text.markdown(
                table_lib.with_lines(block, kept),
                lambda one: f"#{_name(one.where, folder)}",
            )
            + f"\n`python -m uhrjax.tables {block.paper.name} {block.table} "
            f"--data={block.dataset} --commands`\n"
        )
    if filled:
        parts += [_runs(filled, folder), _metrics(filled)]
    return "\n".join(parts)


def _runs(blocks: Sequence[table_lib.Block], folder: pathlib.Path) -> str:
    """Returns a line per run: where it is, what it is, and with what it was made."""
    found: dict[pathlib.Path, result.Scored] = {}
    for block in blocks:
        for line in block.lines:
            found.update({one.where: one for one in line.scores})
    lines = [
        "## Runs", "",
        "| run | data, split | seed | step | mIoU % | device | finished | version |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for where, one in sorted(found.items(), key=lambda pair: str(pair[0])):
        own = one.report
        miou = own["scores"].get("miou")
        cells = (
            f'<a id="{(name := _name(where, folder))}"></a>`{name}`',
            f"{own['data']}, {own['split']} ({own['split_hash'][:12]})",
            one.seed, own["step"], "-" if miou is None else f"{100 * miou:.1f}",
            own["device"], own["finished"][:10], own["version"],
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _name(where: pathlib.Path, folder: pathlib.Path) -> str:
    """Returns a run's name; no path of this machine."""
    return str(where.relative_to(folder))


def _metrics(blocks: Sequence[table_lib.Block]) -> str:
    """Returns what the names of the columns mean."""
    found = {}
    for name in (name for block in blocks for name in block.metrics):
        group, _, of_class = name.partition("/")
        found[f"{group}/*" if of_class else name] = metrics.definition(name)
    lines = [
        "## Metrics",
        "",
        "| name | unit | what it is | source |",
        "| " + "--- | " * 4,
    ]
    lines[-1] = lines[-1].rstrip()
    lines += [f"| {n} | {d.unit} | {d.text} | {d.source} |" for n, d in found.items()]
    return "\n".join(lines) + "\n"
