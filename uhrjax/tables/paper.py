"""The papers' tables as data: `configs/tables/PAPER.csv` and `PAPER.toml`."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from uhrjax import errors

FOLDER = pathlib.Path("configs/tables")
SYNTHETIC, SMOKE = "synthetic", "smoke"  # columns that no paper has
PROCEDURAL = {SYNTHETIC: "synthetic", SMOKE: "synthetic,smoke"}  # words of a config
MERGED = ("set", "score")  # keys of a row that a data set adds to


class Value(NamedTuple):
    """A printed figure."""

    table: str
    row: str
    dataset: str
    metric: str
    text: str  # as it is printed; shares in per cent


@dataclasses.dataclass(frozen=True)
class Paper:
    """All tables of a paper."""

    name: str
    title: str
    link: str
    datasets: tuple[str, ...]
    values: tuple[Value, ...]
    titles: Mapping[str, str]  # of tables
    notes: Mapping[str, str]  # "table", "table/row" -> known trouble
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]  # table -> row -> how it is run
    weights: Mapping[str, str]  # config or config:data -> published weights it needs
    data: Mapping[str, Mapping[str, Any]]  # data set -> facts about it
    procedural: Mapping[str, str]  # columns that no paper has -> words of a config

    def datasets_of(self, table: str) -> tuple[str, ...]:
        """Returns the data sets of a table, in the paper's order."""
        found = {value.dataset for value in self.values if value.table == table}
        return tuple(name for name in self.datasets if name in found)

    def metrics_of(self, table: str, dataset: str) -> tuple[str, ...]:
        """Returns what a table says about a data set, in its order."""
        return tuple(
            dict.fromkeys(
                value.metric
                for value in self.values
                if (value.table, value.dataset) == (table, dataset)
            )
        )

    def printed(self, table: str, row: str, dataset: str) -> dict[str, str]:
        """Returns metric -> figure of a row, {} if the data set is not in it."""
        wanted = (table, row, dataset)
        return {v.metric: v.text for v in self.values if v[:3] == wanted}

    def notes_of(self, table: str) -> dict[str, str]:
        """Returns row -> known trouble; "": of the table, "@DATA": of a column."""
        parted = ((key.partition("/"), text) for key, text in self.notes.items())
        return {row: text for (own, _, row), text in parted if own == table}

    def how(self, table: str, row: str, dataset: str) -> dict[str, Any] | None:
        """Returns how a row is run on a data set, None if it is not."""
        given = dict(self.rows[table][row])
        shared = given.get(SYNTHETIC, {}) if dataset in self.procedural else {}
        own = given.get(dataset, shared)
        if own is False:
            return None
        found = {key: v for key, v in given.items() if key not in self._all_data}
        for key, value in own.items():
            joins = key in MERGED
            found[key] = {**found.get(key, {}), **value} if joins else value
        return found

    @property
    def _all_data(self) -> tuple[str, ...]:
        return (*self.datasets, *self.procedural)

    @property
    def columns(self) -> tuple[str, ...]:
        """Data sets that every table has beside the paper's."""
        return tuple(name for name in self.procedural if name != SMOKE)


def names(folder: pathlib.Path = FOLDER) -> list[str]:
    """Returns the papers that have tables here."""
    found = sorted(path.stem for path in folder.glob("*.toml"))
    if not found:
        raise errors.InputError(
            f"no tables in {folder}; run from the repository's root"
        )
    return found


def load(name: str, folder: pathlib.Path = FOLDER) -> Paper:
    """Reads a paper's tables.

    Raises:
        errors.InputError: there is no such paper.
    """
    known = names(folder)
    if name not in known:
        raise errors.InputError(f"no paper {name!r}; there are {', '.join(known)}")
    with (folder / f"{name}.toml").open("rb") as file:
        own = tomllib.load(file)
    with (folder / f"{name}.csv").open(newline="") as file:
        values = tuple(Value(*line) for line in list(csv.reader(file))[1:])
    return Paper(
        name=name, title=own["title"], link=own["link"],
        datasets=tuple(own["datasets"]), values=values, titles=own["titles"],
        notes=own.get("notes", {}), rows=own["rows"], weights=own.get("weights", {}),
        data=own.get("data", {}), procedural=PROCEDURAL | own.get("procedural", {}),
    )  # fmt: skip


def tables_of(paper: Paper, table: str = "") -> list[str]:
    """Returns the names of a paper's tables, or the one asked for.

    Raises:
        errors.InputError: it has no such table.
    """
    if table and table not in paper.rows:
        raise errors.InputError(
            f"{paper.name} has no table {table!r}; it has {', '.join(paper.rows)}"
        )
    return [table] if table else list(paper.rows)


def one_row(paper: Paper, table: str, row: str) -> Paper:
    """Returns a paper with one row of one table.

    Raises:
        errors.InputError: it has no such row.
    """
    known = paper.rows[tables_of(paper, table)[0]]
    if not table or row not in known:
        listed = ", ".join(map(repr, known)) if table else "those of a table: name it"
        raise errors.InputError(f"--row={row}: use one of {listed}")
    return dataclasses.replace(paper, rows={table: {row: known[row]}})
