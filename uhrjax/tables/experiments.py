"""EXPERIMENTS.md: what was run, where, and what came of it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from uhrjax import metrics
from uhrjax.tables import earlier, panels, result, text
from uhrjax.tables import table as table_lib

HEAD = """# Experiments

Made by `python -m uhrjax.tables --experiments=EXPERIMENTS.md` from the reports of
finished runs; do not edit. Cells: paper / ours, mean ± standard deviation over seeds
(number of seeds); [in brackets]: not made as the row says, and why is said below.
Tables without any run are left out: `python -m uhrjax.tables` lists them. Rows whose
runs are not on the machine, or fewer of them, stay as they were in the file, and so do
tables of which only some rows or seeds were run again. Pictures: one scene as the
first run of every row labels it, of the rows that were on one machine last.
"""
RUNS, METRICS = "## Runs", "## Metrics"


def write(
    target: pathlib.Path, blocks: Sequence[table_lib.Block], folder: pathlib.Path
) -> None:
    """Writes the file, and beside it a folder with a picture per table.

    Args:
        target: the file; what it tells of runs that are elsewhere is kept.
        blocks: of all tables.
        folder: of the runs, whose names are relative to it.
    """
    old = earlier.read(target.read_text() if target.is_file() else "")
    filled = [block for block in blocks if any(line.scores for line in block.lines)]
    made = []
    for block in filled:
        before = old.get(f"### {block.title}")
        seeds = {line.row: len(line.scores) for line in block.lines if line.scores}
        shown = _picture(target, block)
        if not earlier.is_less(seeds, before):
            made.append(_table(block, folder, shown))
        elif shown and shown not in before.below:  # rows of one time compare best
            before.below.append(shown)
    if filled:
        made += [_runs(filled, folder), _metrics(filled)]
    target.write_text(_merged(earlier.read("\n".join(made)), old))


def _merged(
    new: Mapping[str, earlier.Section], old: Mapping[str, earlier.Section]
) -> str:
    """Returns what stands in the file."""
    if not (new or old):
        return f"{HEAD}\nNothing has been run yet.\n"
    found = {**old, **new}
    for title in new.keys() & old.keys():
        merge = earlier.union if title in (RUNS, METRICS) else earlier.carry_over
        found[title] = merge(new[title], old[title])
    last = [(title, found.pop(title)) for title in (RUNS, METRICS)]
    tables = sorted(found.items(), key=lambda pair: pair[0].split()[1])  # by paper
    return "\n".join([HEAD, *(own.text(title) for title, own in (*tables, *last))])


def _picture(target: pathlib.Path, block: table_lib.Block) -> str:
    """Draws a table's picture; returns the line that shows it, "" if there is none."""
    beside = target.with_name(f"{target.stem}-pictures")
    file = panels.write_sheet(beside, block)
    return f"![{block.title}]({beside.name}/{file.name})" if file.is_file() else ""


def _table(block: table_lib.Block, folder: pathlib.Path, picture: str) -> str:
    """Returns a table whose figures link to the list of runs."""
    kept = [line for line in block.lines if line.state != "gap"]
    drawn = text.markdown(
        table_lib.with_lines(block, kept), lambda one: f"#{_name(one.where, folder)}"
    )
    shown = picture and f"\n{picture}\n"
    return (
        f"{drawn}\n`python -m uhrjax.tables {block.paper.name} {block.table} "
        f"--data={block.dataset} --commands`\n{shown}"
    )


def _runs(blocks: Sequence[table_lib.Block], folder: pathlib.Path) -> str:
    """Returns a line per run: where it is, what it is, and with what it was made."""
    found: dict[pathlib.Path, result.Scored] = {}
    for block in blocks:
        for line in block.lines:
            found.update({one.where: one for one in line.scores})
    lines = [
        RUNS, "",
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
        METRICS,
        "",
        "| name | unit | what it is | source |",
        "| " + "--- | " * 4,
    ]
    lines[-1] = lines[-1].rstrip()
    lines += [f"| {n} | {d.unit} | {d.text} | {d.source} |" for n, d in found.items()]
    return "\n".join(lines) + "\n"
