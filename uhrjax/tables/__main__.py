"""python -m uhrjax.tables                       all tables: how many rows have figures
python -m uhrjax.tables pfnet                  the tables of a paper
python -m uhrjax.tables pfnet 2a               one table, ours beside the paper's
python -m uhrjax.tables pfnet 2a --commands    what makes the rows that are not done
./launch.sh table pfnet 2a                     runs that

`--data=synthetic` takes one column (a data set, or `synthetic`, or `smoke`: a minute
each), `--seeds=0,1,2` several runs per row; `--config.key=value` goes into every
training, `--weights=FOLDER` has the published weights that they start from.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

from uhrjax import errors
from uhrjax.tables import command, cost, experiments, page, result, text
from uhrjax.tables import paper as paper_lib
from uhrjax.tables import table as table_lib

PAIRS = list[tuple[paper_lib.Paper, str]]
RANDOM = (
    "note: these start from random weights, the paper's rows from {}: give the folder "
    "of such files, --weights=FOLDER"
)
NOTHING = "nothing to run: every row that can be run is finished"


def main(argv: Sequence[str]) -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = _parser()
    given, rest = parser.parse_known_args(argv)
    for word in rest:
        if not word.startswith("--config."):
            raise errors.InputError(
                f"unknown argument {word!r}; see python -m uhrjax.tables --help"
            )
    papers = [
        paper_lib.load(name)
        for name in ([given.paper] if given.paper else paper_lib.names())
    ]
    if given.row:
        papers = [paper_lib.one_row(papers[0], given.table, given.row)]
    pairs = [
        (p, table) for p in papers for table in paper_lib.tables_of(p, given.table)
    ]
    folder = pathlib.Path(given.runs).expanduser()
    runs = result.scan(folder)
    datasets = tuple(filter(None, given.data.split(",")))
    _check_data(datasets, papers)
    if given.commands or given.run:
        planner = command.Planner(runs, folder, weights=given.weights, extra=rest)
        jobs = command.plan(pairs, datasets, _seeds(given.seeds), planner)
        if planner.lacking:
            print(RANDOM.format(", ".join(planner.lacking)), file=sys.stderr)
        if given.commands or not jobs:
            print("\n".join(job.text() for job in jobs) or NOTHING)
            return 0
        code = command.run(jobs, folder)
        for block in _blocks(pairs, result.scan(folder), datasets):
            print(f"\n{text.plain(block)}", end="")
        return code
    _show(given, papers, _blocks(pairs, runs, datasets, costs=given.cost))
    return 0


def _show(
    given: argparse.Namespace,
    papers: Sequence[paper_lib.Paper],
    blocks: Sequence[table_lib.Block],
) -> None:
    """Prints tables, or writes them to the file that was named."""
    if given.experiments:
        folder = pathlib.Path(given.runs).expanduser()
        experiments.write(pathlib.Path(given.experiments), blocks, folder)
        print(f"written to {given.experiments}")
    elif given.html:
        page.write(pathlib.Path(given.html), blocks)
        print(f"written to {given.html}: open it in a browser")
    elif not given.paper and not given.format:
        print(overview(papers, blocks))
    else:
        print(_formatted(blocks, given.format or "text"), end="")


def overview(
    papers: Sequence[paper_lib.Paper], blocks: Sequence[table_lib.Block]
) -> str:
    """Returns one line per table and data set: how many rows are how far."""
    parts = []
    for paper in papers:
        lines = [["table", "data", "rows", "run", "differ", "not run", "gap", ""]]
        for block in (block for block in blocks if block.paper.name == paper.name):
            states = [line.state for line in block.lines]
            gaps, waiting = states.count("gap"), states.count("not run")
            apart = sum(state.startswith("differs") for state in states)
            counts = len(states), len(states) - gaps - waiting - apart, apart
            numbers = map(str, (*counts, waiting, gaps))
            title = paper.titles[block.table]
            lines.append([block.table, block.dataset, *numbers, title])
        parts.append(
            f"{paper.name}: {paper.title}, {paper.link}\n{text.columns(lines)}"
        )
    parts.append("one table: python -m uhrjax.tables pfnet 2a")
    return "\n\n".join(parts)


def _blocks(
    pairs: PAIRS,
    runs: Sequence[result.Run],
    datasets: Sequence[str],
    *,
    costs: bool = False,
) -> list[table_lib.Block]:
    few = costs or len({paper.name for paper, _ in pairs}) == 1  # it takes seconds
    counted = cost.of_recipe if few else None
    return [
        block
        for paper, table in pairs
        for block in table_lib.blocks(paper, table, runs, datasets, counted, costs)
    ]


def _formatted(blocks: Sequence[table_lib.Block], how: str) -> str:
    """Returns tables as text."""
    if how == "csv":
        return text.write_csv(blocks)
    one: Callable[[table_lib.Block], str] = {
        "text": text.plain, "markdown": text.markdown, "latex": text.latex
    }[how]  # fmt: skip
    drawn = "\n".join(map(one, blocks))
    return drawn if how == "latex" else f"{drawn}\n{text.HINT}\n"


def _check_data(datasets: Sequence[str], papers: Sequence[paper_lib.Paper]) -> None:
    known = {name for paper in papers for name in (*paper.datasets, *paper.procedural)}
    for name in datasets:
        if name not in known:
            raise errors.InputError(
                f"--data={name}: use some of {', '.join(sorted(known))}"
            )


def _seeds(given: str) -> list[int]:
    try:
        return [int(word) for word in given.split(",")]
    except ValueError:
        raise errors.InputError(
            f"--seeds={given}: give whole numbers joined by commas, e.g. --seeds=0,1,2"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m uhrjax.tables", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("paper", nargs="?", default="", help="pfnet, fctl, ...")
    parser.add_argument("table", nargs="?", default="", help="e.g. 2a; none: all")
    parser.add_argument("--row", default="", help="one row only, as it is printed")
    parser.add_argument("--runs", default="runs", help="folder of runs, old and new")
    parser.add_argument("--data", default="", help="data sets, joined by commas")
    parser.add_argument("--seeds", default="0", help="of the runs, joined by commas")
    parser.add_argument("--weights", default="", help="folder of published weights")
    parser.add_argument("--cost", action="store_true", help="also weights, GMAC, speed")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--commands", action="store_true", help="print what is to be run")
    what.add_argument("--run", action="store_true", help="run it")
    for how in ("markdown", "latex", "csv"):
        what.add_argument(f"--{how}", action="store_const", dest="format", const=how)
    what.add_argument("--html", default="", help="file: a page with pictures")
    what.add_argument(
        "--experiments",
        default="",
        help="file.md: all that was run; pictures in a folder beside it",
    )
    return parser


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    try:
        return main(sys.argv[1:])
    except (errors.InputError, OSError) as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
