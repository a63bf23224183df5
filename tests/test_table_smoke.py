"""A row of every table that has one starts, at the size of seconds."""

import dataclasses

import pytest
from absl.testing import flagsaver

from uhrjax import main
from uhrjax.tables import command, paper
from uhrjax.tables import recipe as recipe_lib

SMALL = ("--config.max_steps=1", "--config.eval.panels=0", "--config.eval.masks=False")


def rows_of_tables():
    """Returns {(paper, table): recipe} with as few trainings as serve all tables."""
    recipes, serves = {}, {}  # by what is trained
    for own in map(paper.load, paper.names()):
        for table in paper.tables_of(own):
            for row in own.rows[table]:
                recipe = recipe_lib.of_row(own, table, row, paper.SMOKE)
                if recipe and recipe.training:
                    trained = repr(recipe.training.plan)
                    recipes.setdefault((own.name, table, trained), recipe)
                    serves.setdefault(trained, set()).add((own.name, table))
    found = {}
    while waiting := set().union(*serves.values()) - set(found):
        best = max(serves, key=lambda trained: len(serves[trained] & waiting))
        for place in serves[best] & waiting:
            found[place] = recipes[*place, best]
    return dict(sorted(found.items()))


ROWS = rows_of_tables()


def first_of(recipe):
    """Returns the recipe with the first training that is the same: it has a run."""
    plan = recipe.training.plan
    training = next(r.training for r in ROWS.values() if r.training.plan == plan)
    return dataclasses.replace(recipe, training=training, maps=())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def test_every_table_has_a_row_that_runs():
    without = [
        (own.name, table)
        for own in map(paper.load, paper.names())
        for table in paper.tables_of(own)
        if (own.name, table) not in ROWS
    ]
    assert without == [("magnet", "S1")]  # rows of other sizes only


@pytest.mark.parametrize("place", ROWS, ids=" ".join)
def test_a_row_of_every_table_starts(place, runs, data_root, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_root))
    recipe = first_of(ROWS[place])
    planner = command.Planner((), runs, extra=SMALL)
    planner.add(recipe, 0)
    for job in planner.jobs:
        with flagsaver.flagsaver():
            assert main.main(["main", *job.arguments]) == 0
        assert job.makes.is_file()
