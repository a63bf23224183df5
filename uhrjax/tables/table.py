"""A table as it is shown: the paper's figures, and beside them what runs gave."""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from uhrjax import metrics
from uhrjax.tables import paper as paper_lib
from uhrjax.tables import recipe as recipe_lib
from uhrjax.tables import result

COUNTED = ("params_m", "gflops_512")  # of the network, without a run
DIGITS = {"": 3, "s": 2}  # by unit
LABELLED = "labelled"  # the mean over classes that the split's labels have
COSTS = (*COUNTED, "seconds_per_megapixel", "memory_mb")
Count = Callable[[recipe_lib.Recipe], dict[str, float]]


class Ours(NamedTuple):
    """One figure over seeds."""

    mean: float
    std: float  # standard deviation over seeds (n - 1), NaN of one
    seeds: int


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure of a row."""

    printed: str = ""  # the paper's
    ours: Ours | None = None
    is_match: bool = False  # it was made as the row says
    digits: int = 1  # behind the point, where the paper has none


@dataclasses.dataclass(frozen=True)
class Line:
    """A row on one data set."""

    row: str
    recipe: recipe_lib.Recipe | None
    cells: Mapping[str, Cell]  # metric ->
    state: str  # "3 seeds", "not run", "differs", "gap"
    remarks: tuple[str, ...] = ()  # gap, differences, known troubles
    scores: tuple[result.Scored, ...] = ()  # what the figures are of


@dataclasses.dataclass(frozen=True)
class Block:
    """A table on one data set."""

    paper: paper_lib.Paper
    table: str
    dataset: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What stands above it."""
        name = f"{self.paper.name} {self.table}: {self.paper.titles[self.table]}"
        return f"{name}, {self.dataset}"

    @property
    def trouble(self) -> str:
        """What is to be known about the whole table."""
        notes = self.paper.notes_of(self.table)
        own = "" if self.dataset in self.paper.datasets else f"@{self.dataset}"
        return notes.get(own, "")


def with_lines(block: Block, lines: Sequence[Line]) -> Block:
    """Returns a table with these lines only."""
    return dataclasses.replace(block, lines=tuple(lines))


def blocks(
    paper: paper_lib.Paper,
    table: str,
    runs: Sequence[result.Run],
    datasets: Sequence[str] = (),
    count: Count | None = None,
    costs: bool = False,
) -> list[Block]:
    """Returns a table, one block per data set.

    Args:
        paper: that has it.
        table: its name.
        runs: that are finished.
        datasets: words of configs; (): those of the paper and the synthetic ones.
        count: returns what can be counted without a run; None: nothing is.
        costs: also show what rows cost, where the paper does not.
    """
    wanted = tuple(datasets) or (*paper.datasets_of(table), *paper.columns)
    found = []
    for dataset in wanted:
        column = _Column(paper, table, dataset, runs, count, costs)
        lines = [column.line(row) for row in paper.rows[table]]
        lines = _same_split([line for line in lines if line is not None])
        names = paper.metrics_of(table, dataset) or _of_lines(lines)
        if costs:
            names = (*(name for name in names if name not in COSTS), *COSTS)
        if lines:
            found.append(Block(paper, table, dataset, names, tuple(lines)))
    return found


@dataclasses.dataclass(frozen=True)
class _Column:
    """A table on one data set, while it is made."""

    paper: paper_lib.Paper
    table: str
    dataset: str
    runs: Sequence[result.Run]
    count: Count | None
    costs: bool

    def line(self, row: str) -> Line | None:
        """Returns a row, None where it has no place."""
        printed = self.paper.printed(self.table, row, self.dataset)
        recipe = recipe_lib.of_row(self.paper, self.table, row, self.dataset)
        is_own = self.dataset in self.paper.datasets
        if (is_own and not printed) or (not is_own and (recipe is None or recipe.gap)):
            return None
        note = self.paper.notes_of(self.table).get(row, "") if is_own else ""
        if recipe is None or recipe.gap:
            cells = {name: Cell(text) for name, text in printed.items()}
            remarks = (recipe.gap, note) if recipe else (note,)
            return Line(row, recipe, cells, "gap", tuple(filter(None, remarks)))
        scores = _chosen(result.find(recipe, self.runs))
        names = printed or self._borrowed(scores)
        cells = {name: Cell(printed.get(name, "")) for name in names}
        cells |= dict.fromkeys(COSTS[len(COUNTED) :] if self.costs else (), Cell())
        for name, cell in cells.items():
            ours = _summary([self._value(row, one.report, name) for one in scores])
            is_match = bool(scores) and not scores[0].apart
            is_match &= not metrics.definition(name).is_cost
            digits = DIGITS.get(metrics.definition(name).unit, 1)
            cells[name] = Cell(cell.printed, ours, is_match, digits)
        cells |= self._counted(recipe, printed)
        remarks = [note, *(scores[0].apart if scores else ())]
        remarks += _devices(cells, scores)
        shown = tuple(filter(None, remarks))
        return Line(row, recipe, cells, _state(scores), shown, scores)

    def _value(self, row: str, report: Mapping[str, Any], metric: str) -> float:
        """Returns a figure of a report in the table's unit, NaN where it has none."""
        facts = self.paper.data.get(self.dataset, {})
        own = self.paper.rows[self.table][row]
        definition = metrics.definition(metric)
        read = {**facts.get("read", {}), **own.get("read", {})}
        key = read.get(metric, definition.key)
        if metric == "miou" and "miou_over" in facts:
            names = facts["miou_over"]
            if names == LABELLED:
                classes = report["classes"]
                names = [name for name, own in classes.items() if own["pixels"]]
            each = [_lookup(report, "classes.*.iou", name) for name in names]
            return 100 * statistics.fmean(each)
        found = _lookup(report, key, metric.partition("/")[2])
        if definition.unit == "%":
            return 100 * found
        if metric.startswith("seconds_per_image"):
            return found * facts.get("megapixels", math.nan)
        return found

    def _borrowed(self, scores: Sequence[result.Scored]) -> tuple[str, ...]:
        """Returns the metrics of a table; by class those of the runs' own classes."""
        names = [v.metric for v in self.paper.values if v.table == self.table]
        plain = [
            name
            for name in dict.fromkeys(["miou", *names])
            if "/" not in name
            and name not in COUNTED
            and not metrics.definition(name).is_cost
        ]
        groups = dict.fromkeys(n.partition("/")[0] for n in names if "/" in n)
        classes = scores[0].report.get("classes", {}) if scores else {}
        return (*plain, *(f"{group}/{name}" for group in groups for name in classes))

    def _counted(
        self, recipe: recipe_lib.Recipe, printed: Mapping[str, str]
    ) -> dict[str, Cell]:
        """Returns the cells of what is counted without a run."""
        wanted = [name for name in COUNTED if name in printed or self.costs]
        if not (wanted and self.count):
            return {}
        found = self.count(recipe)
        return {
            name: Cell(printed.get(name, ""), Ours(found[name], math.nan, 0), True)
            for name in wanted
            if name in found
        }


def _chosen(found: Sequence[result.Scored]) -> tuple[result.Scored, ...]:
    """Returns the runs that are the row, or those that differ from it least."""
    by_apart: dict[tuple[str, ...], list[result.Scored]] = {}
    for one in found:
        by_apart.setdefault(one.apart, []).append(one)
    if not by_apart:
        return ()
    return tuple(min(by_apart.values(), key=lambda s: (len(s[0].apart), -len(s))))


def _state(scores: Sequence[result.Scored]) -> str:
    if not scores:
        return "not run"
    seeds = f"{len(scores)} seed{'s' * (len(scores) > 1)}"
    return f"differs, {seeds}" if scores[0].apart else seeds


def _lookup(report: Mapping[str, Any], key: str, of_class: str = "") -> float:
    """Returns the number at a dotted key; `*` is the class, however it is spelled."""
    node: Any = report
    for part in key.split("."):
        if not isinstance(node, Mapping):
            return math.nan
        known = {_plain(name): name for name in node} if part == "*" else {}
        node = node.get(known.get(_plain(of_class)) if part == "*" else part)
    return math.nan if node is None else float(node)


def _plain(name: str) -> str:
    return name.replace("_", "").replace(" ", "").replace("-", "").lower()


def _summary(values: Sequence[float]) -> Ours | None:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    std = statistics.stdev(known) if len(known) > 1 else math.nan
    return Ours(statistics.fmean(known), std, len(known))


def _of_lines(lines: Sequence[Line]) -> tuple[str, ...]:
    """Returns what lines say, where the paper says nothing."""
    cells = [pair for line in lines for pair in line.cells.items()]
    filled = dict.fromkeys(name for name, cell in cells if cell.ours)
    return tuple(filled or dict.fromkeys(name for name, _ in cells))


def _devices(
    cells: Mapping[str, Cell], scores: Sequence[result.Scored]
) -> tuple[str, ...]:
    """Says where times and memory were measured."""
    if not any(
        cell.ours and metrics.definition(n).is_cost for n, cell in cells.items()
    ):
        return ()
    names = dict.fromkeys(one.report["device"] for one in scores)
    return (f"time and memory on {', '.join(names)}",)


def _same_split(lines: Sequence[Line]) -> list[Line]:
    """Marks lines whose scenes were split otherwise than those of most."""
    hashes = collections.Counter(
        one.report["split_hash"] for line in lines for one in line.scores
    )
    if len(hashes) < 2:
        return list(lines)
    usual = hashes.most_common(1)[0][0]
    found = []
    for line in lines:
        others = [s for s in line.scores if s.report["split_hash"] != usual]
        if others:
            cells = {
                name: dataclasses.replace(cell, is_match=False)
                for name, cell in line.cells.items()
            }
            line = dataclasses.replace(
                line, cells=cells, state=f"differs, {len(line.scores)} seeds",
                remarks=(*line.remarks, "another split than the other rows"),
            )  # fmt: skip
        found.append(line)
    return found
