"""The papers' tables: all figures, and every row a config that loads or a named gap."""

import csv
import pathlib

import pytest

import uhrjax
from uhrjax import config as config_lib
from uhrjax import errors, methods, metrics
from uhrjax.tables import cost, table, text
from uhrjax.tables import paper as paper_lib
from uhrjax.tables import recipe as recipe_lib

FOLDER = pathlib.Path("configs/tables")
FIGURES = {"pfnet": 193, "fctl": 100, "foveation": 433, "magnet": 180}


def papers():
    return [paper_lib.load(name) for name in FIGURES]


def rows(paper):
    return [(name, row) for name, own in paper.rows.items() for row in own]


@pytest.mark.parametrize("name", FIGURES)
def test_every_printed_figure_has_one_cell(name):
    paper = paper_lib.load(name)
    assert len(paper.values) == FIGURES[name]
    assert len({v[:4] for v in paper.values}) == FIGURES[name]  # none stands twice
    shown = 0
    for own in paper.rows:
        for block in table.blocks(paper, own, [], paper.datasets):
            cells = [cell for line in block.lines for cell in line.cells.values()]
            shown += sum(bool(cell.printed) for cell in cells)
    assert shown == FIGURES[name]
    assert all(metrics.definition(value.metric).text for value in paper.values)


@pytest.mark.parametrize("name", FIGURES)
def test_rows_of_figures_and_rows_that_are_run_are_the_same(name):
    paper = paper_lib.load(name)
    assert set(rows(paper)) == {(value.table, value.row) for value in paper.values}
    assert set(paper.titles) == set(paper.rows)
    noted = {key.partition("/")[0] for key in paper.notes}
    assert noted <= set(paper.rows)
    full = {key for key in paper.notes if "/" in key and "/@" not in key}
    assert full <= {f"{own}/{row}" for own, row in rows(paper)}


def trainings():
    """Every training of every row, once, with the row that needs it."""
    found = {}
    for paper in papers():
        for name, row in rows(paper):
            data = (*paper.datasets_of(name), *paper.procedural)
            for dataset in data:
                if dataset in paper.datasets and not paper.printed(name, row, dataset):
                    continue
                recipe = recipe_lib.of_row(paper, name, row, dataset)
                if recipe is None:
                    continue
                own = [recipe.training, recipe.refine]
                for training in (*own, *recipe.ensemble, *recipe.maps):
                    if training is not None:
                        where = f"{paper.name}-{name}-{row}-{dataset}"
                        found.setdefault(training, where)
    return [pytest.param(training, id=where) for training, where in found.items()]


@pytest.mark.parametrize("training", trainings())
def test_every_row_with_a_config_has_one_that_loads_and_builds(training):
    config = training.config()
    assert training.plan
    for step in training.plan:
        flat = {k: v for k, v in step.flat.items() if k.startswith("model.")}
        assert flat or step.name == "pretrain"
    built = methods.build(config)
    assert built.num_classes == config.num_classes
    for key, _ in training.needs:
        assert key in config_lib.flatten(config.to_dict())


@pytest.mark.parametrize("name", FIGURES)
def test_a_row_without_a_config_says_what_is_missing(name):
    paper = paper_lib.load(name)
    for own, row in rows(paper):
        given = paper.rows[own][row]
        assert ("gap" in given) != bool({"config", "ensemble"} & set(given)), row
        assert "config" not in given or "gap" not in given
        if "gap" in given:
            assert len(given["gap"]) > 15


def test_scores_of_a_row_name_keys_that_its_config_has():
    for paper in papers():
        for name, row in rows(paper):
            recipe = recipe_lib.of_row(paper, name, row, paper_lib.SYNTHETIC)
            if recipe is not None and recipe.score:
                config = recipe.training.config()
                flags = [f"--config.{key}={value}" for key, value in recipe.score]
                config_lib.override(config, flags)  # an unknown key raises


def test_the_same_network_is_one_training_whatever_the_table():
    pfnet = paper_lib.load("pfnet")
    places = (
        ("2a", "+PPM+salient+boundary"),
        ("2c", "propagation: PFM"),
        ("4", "PFNet"),
    )
    found = {recipe_lib.of_row(pfnet, *place, "isaid").training for place in places}
    assert len(found) == 1
    assert found.pop().name == "pfnet-isaid"


def test_a_row_differs_by_data_set_where_the_paper_does():
    fctl = paper_lib.load("fctl")
    found = {
        dataset: recipe_lib.of_row(fctl, "3", "contexts: medium", dataset).training.own
        for dataset in ("deepglobe", "inria", "synthetic", "smoke")
    }
    contexts = {dataset: dict(own)["model.contexts"] for dataset, own in found.items()}
    assert contexts == {
        "deepglobe": "('3',)", "inria": "('2',)", "synthetic": "('4',)",
        "smoke": "('4',)",
    }  # fmt: skip


@pytest.mark.parametrize(
    "spec, side, gmac, weights",
    [
        ("configs/pfnet.py:isaid", 512, 85.7, 33.0),  # PFNet, Table 6
        ("configs/foveation.py:deepglobe", 512, 243.5, 64.1),  # UPerNet of its own
        ("configs/foveation.py:cityscapes", 512, 103.9, 66.5),  # HRNetV2-W48 + C1
        ("configs/magnet.py:deepglobe", 508, 42.8, 28.06),  # ResNet-50 FPN
        ("configs/fctl.py:deepglobe,crude", 508, 501.0, 170.0),
    ],
)
def test_cost_is_that_of_the_published_networks(spec, side, gmac, weights):
    found = cost.of_config(uhrjax.load_config(spec), side=side)
    assert found["gflops_512"] == pytest.approx(gmac, rel=1e-3)
    assert found["params_m"] == pytest.approx(weights, rel=2e-3)


@pytest.mark.parametrize(
    "network, decoder, gmac, weights",
    [
        ("pspnet", "", 120.4, 31.1),  # Table 6
        ("deeplabv3plus", "", 189.8, 40.5),
        ("ocnet", "", 290.4, 64.7),
        ("deeplabv3", "none", 168.4, None),  # Table 2g
        ("deeplabv3", "pf", 185.2, None),
        ("ccnet", "fpn", 220.8, None),
    ],
)
def test_cost_of_the_networks_pfnet_is_compared_with_is_what_its_tables_print(
    network, decoder, gmac, weights
):
    config = uhrjax.load_config(f"configs/baseline.py:{network},isaid")
    if decoder:
        config.model.decoder = decoder
    found = cost.of_config(config)
    assert found["gflops_512"] == pytest.approx(gmac, rel=0.014)
    assert weights is None or found["params_m"] == pytest.approx(weights, rel=0.005)


def test_counted_figures_stand_in_the_table_without_any_run():
    pfnet = paper_lib.load("pfnet")
    counted = lambda recipe: {"params_m": 33.0, "gflops_512": 85.7}  # noqa: E731
    found = table.blocks(pfnet, "6", [], ("cityscapes",), counted)
    line = found[0].lines[-1]
    assert line.row == "PFNet" and line.state == "not run"
    assert text.both(line.cells["gflops_512"]) == "85.8 | 85.7"
    assert text.both(line.cells["miou"]) == "80.3 | -"


def test_files_are_read_from_the_repository_only():
    with pytest.raises(errors.InputError, match="run from the repository's root"):
        paper_lib.names(pathlib.Path("nowhere"))
    with pytest.raises(errors.InputError, match=r"no paper 'unet'.*pfnet"):
        paper_lib.load("unet")
    with pytest.raises(errors.InputError, match=r"no table '9'.*2a"):
        paper_lib.tables_of(paper_lib.load("pfnet"), "9")
    with (FOLDER / "pfnet.csv").open() as file:
        assert next(csv.reader(file)) == ["table", "row", "dataset", "metric", "value"]


def test_a_further_procedural_column_has_the_synthetic_rows_on_other_scenes():
    magnet = paper_lib.load("magnet")
    data = {
        row: [
            recipe_lib.of_row(magnet, "S2", row, column).training.config().data.name
            for column in magnet.columns
        ]
        for row in ("Downsample", "DGF", "MagNet")
    }
    expected = ["synthetic/landcover_many", "synthetic/objects_tiny"]
    assert data == dict.fromkeys(data, expected)
    training = recipe_lib.of_row(magnet, "S2", "MagNet", "synthetic-objects").training
    assert training.name == "magnet-synthetic-objects" and not training.weights
    assert magnet.columns == ("synthetic", "synthetic-objects")
    fctl = paper_lib.load("fctl")
    assert fctl.columns == ("synthetic",)
