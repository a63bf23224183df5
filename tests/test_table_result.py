"""Which finished runs count for a row, and with which figures."""

import dataclasses
import json
import re

import pytest
from table_runs import recipe_of, write_report, write_run

from uhrjax.tables import paper as paper_lib
from uhrjax.tables import result, table, text


def line_of(folder, paper, name, row, dataset="synthetic"):
    """Returns a row as it is shown, from the runs below a folder."""
    own = paper_lib.one_row(paper_lib.load(paper), name, row)
    (block,) = table.blocks(own, name, result.scan(folder), (dataset,))
    return block.lines[0]


def shown(line, metric="miou"):
    return text.ours(line.cells[metric])


def test_figures_are_mean_and_spread_over_seeds(tmp_path):
    training = recipe_of("pfnet", "2a", "+PPM").training
    for seed, miou in ((0, 0.40), (1, 0.44), (2, 0.48)):
        folder = tmp_path / f"any-name/{seed}"
        write_run(folder, training, seed=seed, scores={"miou": miou})
    for place in (("2a", "+PPM"), ("2b", "insertion: none"), ("4", "UPerNet")):
        line = line_of(tmp_path, "pfnet", *place)
        assert shown(line) == "44.0 ± 4.0 (3)"
        assert (line.state, line.remarks) == ("3 seeds", ())
        assert [one.seed for one in line.scores] == [0, 1, 2]


def test_of_two_runs_with_one_seed_the_newer_counts(tmp_path):
    training = recipe_of("pfnet", "2a", "+PPM").training
    for name, miou, day in (("new", 0.3, "02"), ("old", 0.2, "01")):
        when = f"2026-01-{day}T00:00:00Z"
        write_run(tmp_path / name, training, scores={"miou": miou}, finished=when)
    line = line_of(tmp_path, "pfnet", "2a", "+PPM")
    assert shown(line) == "30.0 (1)"
    assert line.scores[0].where == tmp_path / "new"


@pytest.mark.parametrize(
    "changes, report, remark",
    [
        ({"epochs": 2}, {}, "epochs: 8 -> 2"),
        ({"max_steps": 5}, {}, "max_steps: 0 -> 5"),
        ({"eval.protocol": "crops"}, {}, "eval.protocol: 'scene' -> 'crops'"),
        ({"data.split": "val"}, {}, "data.split: 'test' -> 'val'"),
        ({"data.name": "synthetic/objects_full"}, {}, "data.name: .*objects_full"),
        ({"init_from": "some/where.pth"}, {}, "from weights of where.pth"),
        ({}, {"split_hash": "f" * 64}, "another split of synthetic/objects_tiny: ffff"),
        ({}, {"trained_steps": [3, 8]}, "stopped after 3 of 8 steps"),
    ],
)
def test_a_run_under_other_conditions_is_shown_as_such(
    tmp_path, changes, report, remark
):
    training = recipe_of("pfnet", "2a", "+PPM").training
    write_run(tmp_path / "run", training, changes=changes, **report)
    line = line_of(tmp_path, "pfnet", "2a", "+PPM")
    assert shown(line) == "[50.0 (1)]" and not line.cells["miou"].is_match
    assert line.state == "differs, 1 seed"
    (said,) = line.remarks
    assert re.search(remark, said)


def test_what_changes_no_score_does_not_matter(tmp_path):
    training = recipe_of("pfnet", "2a", "+PPM").training
    changes = {"log_every": 3, "eval.panels": 9, "data.threads": 1, "seed": 7}
    write_run(tmp_path / "run", training, seed=7, changes=changes)
    assert shown(line_of(tmp_path, "pfnet", "2a", "+PPM")) == "50.0 (1)"


def test_a_match_is_preferred_to_a_run_that_differs(tmp_path):
    training = recipe_of("pfnet", "2a", "+PPM").training
    for seed in (0, 1):
        write_run(tmp_path / f"x{seed}", training, seed=seed, changes={"epochs": 2})
    write_run(tmp_path / "y", training, seed=5, scores={"miou": 0.25})
    assert shown(line_of(tmp_path, "pfnet", "2a", "+PPM")) == "25.0 (1)"


def test_another_network_has_nothing_to_do_with_a_row(tmp_path):
    write_run(tmp_path / "a", recipe_of("pfnet", "2a", "+PPM+salient").training)
    line = line_of(tmp_path, "pfnet", "2a", "+PPM+salient+boundary")
    assert (line.state, shown(line)) == ("not run", "-")


def test_paper_data_need_published_weights(tmp_path):
    training = recipe_of("pfnet", "2a", "+PPM", "isaid").training
    write_run(tmp_path / "random", training, scores={"miou": 0.7})
    line = line_of(tmp_path, "pfnet", "2a", "+PPM", "isaid")
    assert text.both(line.cells["miou"]) == "63.8 | [70.0 (1)]"
    assert line.remarks == ("from random weights, not resnet50_deep",)
    flags = {"init_from": "resnet50_deep.pth"}
    write_run(tmp_path / "good", training, changes=flags, scores={"miou": 0.6})
    line = line_of(tmp_path, "pfnet", "2a", "+PPM", "isaid")
    assert text.both(line.cells["miou"]) == "63.8 | 60.0 (1)"


def test_a_run_of_stages_counts_for_the_rows_of_its_earlier_stages(tmp_path):
    training = recipe_of("fctl", "3", "contexts: local+medium+large").training
    write_run(tmp_path / "three", training, scores={"miou": 0.75})
    line = line_of(tmp_path, "fctl", "1", "FCN-8s (global inference)")
    assert shown(line) == "10.0 (1)"
    line = line_of(tmp_path, "fctl", "3", "contexts: none")  # that learns for longer
    assert shown(line) == "[10.0 (1)]" and "epochs: 3 -> 1" in line.remarks
    line = line_of(tmp_path, "fctl", "3", "contexts: local+medium+large")
    assert shown(line) == "75.0 (1)"
    assert line.scores[0].where == tmp_path / "three/all"
    assert line_of(tmp_path, "fctl", "3", "contexts: medium+large").state == "not run"
    (tmp_path / "three/all/report.json").unlink()
    line = line_of(tmp_path, "fctl", "3", "contexts: local+medium+large")
    assert line.state == "not run"


def test_an_earlier_stage_under_other_conditions_is_told(tmp_path):
    training = recipe_of("fctl", "3", "contexts: medium").training
    write_run(tmp_path / "run", training, changes={"stages.fcn.epochs": 7})
    line = line_of(tmp_path, "fctl", "3", "contexts: medium")
    assert line.state == "differs, 1 seed" and line.remarks == ("epochs: 1 -> 7",)


def scored_again(tmp_path, recipe, **changes):
    """Scores a run once more, as its row says but for `changes`."""
    write_run(tmp_path / "run", recipe.training)
    last = recipe.training.plan[-1]
    source = tmp_path / "run" / ("" if last.is_only else last.name)
    report = json.loads((source / "report.json").read_text())
    where = source / "scored" / recipe.score_name
    where.mkdir(parents=True)
    report["scores"]["miou"] = 0.9
    report["classes"] = {name: {"iou": 0.9, "pixels": 9} for name in report["classes"]}
    for key, value in changes.pop("config", {}).items():
        group, _, leaf = key.rpartition(".")
        (report["config"][group] if group else report["config"])[leaf] = value
    (where / "report.json").write_text(json.dumps(report | changes))


def test_a_row_that_scores_a_run_once_more_takes_that_score(tmp_path):
    recipe = recipe_of("fctl", "6", "merge: montaging")
    row = "fctl", "6", "merge: montaging"
    write_run(tmp_path / "run", recipe.training)
    assert line_of(tmp_path, *row).state == "not run"
    scored_again(tmp_path, recipe, config={"eval.blend": "montage"})
    assert shown(line_of(tmp_path, *row)) == "90.0 (1)"
    assert shown(line_of(tmp_path, "fctl", "6", "merge: averaging")) == "50.0 (1)"


def test_a_second_score_of_other_weights_or_settings_is_no_match(tmp_path):
    recipe = recipe_of("fctl", "6", "merge: montaging")
    row = "fctl", "6", "merge: montaging"
    scored_again(tmp_path / "a", recipe, config={"eval.blend": "hann"})
    assert line_of(tmp_path / "a", *row).remarks == ("eval.blend: montage -> 'hann'",)
    fine = {"eval.blend": "montage"}
    scored_again(tmp_path / "b", recipe, config=fine, weights_hash="ffffffffffffffff")
    assert line_of(tmp_path / "b", *row).state == "not run"


def test_a_refined_score_needs_the_refiner_of_the_row(tmp_path):
    recipe = recipe_of("fctl", "1", "CascadePSP")
    row = "fctl", "1", "CascadePSP"
    write_run(tmp_path / "psp", recipe.refine)
    scored_again(tmp_path, recipe, config={"refine": str(tmp_path / "psp")})
    assert shown(line_of(tmp_path, *row)) == "90.0 (1)"
    write_run(tmp_path / "psp", recipe.refine, changes={"max_steps": 1})
    assert "is no run of configs/cascadepsp.py" in line_of(tmp_path, *row).remarks[0]


def test_a_run_that_refines_another_one_needs_the_run_of_the_row(tmp_path):
    row = "fctl", "text-4.4", "GLNet + refinement", "deepglobe"
    recipe = recipe_of(*row)
    ((key, needed),) = recipe.training.needs
    own = dataclasses.replace(recipe.training, weights="")
    write_run(tmp_path / "glnet", needed, changes={"init_from": "resnet50.pth"})
    write_run(tmp_path / "fine", own, changes={key: str(tmp_path / "glnet")})
    line = line_of(tmp_path, *row)
    assert text.both(line.cells["miou"]) == "72.6 | 50.0 (1)"
    write_run(tmp_path / "fine", own, changes={key: "elsewhere"})
    assert (
        "'elsewhere' is no run of configs/glnet.py"
        in line_of(tmp_path, *row).remarks[0]
    )


def test_an_ensemble_needs_all_of_its_runs(tmp_path):
    recipe = recipe_of("foveation", "2", "Ensemble")
    for k, training in enumerate(recipe.ensemble):
        write_run(tmp_path / f"patch{k}", training)
    where = tmp_path / "patch0/scored/ensemble"
    write_report(where, recipe.ensemble[0].config(), {"miou": 0.8}, training=False)
    row = "foveation", "2", "Ensemble"
    assert shown(line_of(tmp_path, *row)) == "80.0 (1)"
    # nor is it taken for the run that it lies in
    assert shown(line_of(tmp_path, "foveation", "2", "Baseline-Patch 1")) == "50.0 (1)"
    (tmp_path / "patch3/report.json").unlink()
    assert line_of(tmp_path, *row).state == "not run"


def test_the_distance_of_maps_comes_from_beside_the_report(tmp_path):
    row = "foveation", "3", "Foveation-GSM"
    write_run(tmp_path / "run", recipe_of(*row).training)
    assert line_of(tmp_path, *row).state == "not run"
    (tmp_path / "run/maps").mkdir()
    found = {"mse_mean": 0.125, "mse_std": 0.03}
    (tmp_path / "run/maps/foveation.json").write_text(json.dumps(found))
    line = line_of(tmp_path, *row)
    assert shown(line, "foveation_map_mse") == "0.125 (1)"
    assert shown(line, "foveation_map_mse_std") == "0.030 (1)"


def test_figures_are_read_as_the_paper_means_them(tmp_path):
    classes = {
        name: {"iou": iou, "pixel_accuracy": iou / 2}
        for name, iou in (("benign", 0.9), ("grade3", 0.6), ("grade4", 0.3))
    } | {"grade5": {"iou": None, "pixel_accuracy": None}}
    training = recipe_of("foveation", "2", "Foveation-Mean", "gleason2019").training
    flags = {"init_from": "hrnetv2_w48.pth"}
    write_run(tmp_path / "a", training, changes=flags, classes=classes)
    line = line_of(tmp_path, "foveation", "2", "Foveation-Mean", "gleason2019")
    assert shown(line) == "60.0 (1)"  # three of four classes
    assert shown(line, "iou/grade 3") == "60.0 (1)"
    line = line_of(tmp_path, "foveation", "B.2.3", "Foveation-Mean", "gleason2019")
    assert shown(line, "pixel_accuracy/grade 4") == "15.0 (1)"

    training = recipe_of("fctl", "1", "FCN-8s (local inference)", "deepglobe").training
    own = {"miou": 0.7, "accuracy": 0.1, "accuracy_of_kept": 0.8, "mean_f1": 0.6}
    write_run(tmp_path / "b", training, changes={"init_from": "vgg16.pth"}, scores=own)
    line = line_of(tmp_path, "fctl", "1", "FCN-8s (local inference)", "deepglobe")
    assert [shown(line, name) for name in ("accuracy", "f1")] == [
        "80.0 (1)",
        "60.0 (1)",
    ]
    line = line_of(tmp_path, "fctl", "text-4.4", "FCN-8s", "deepglobe")
    assert (
        shown(line, "seconds_per_image_1080ti") == "[3.00 (1)]"
    )  # 0.5 s x 6 megapixels
    assert line.remarks == ("time and memory on 1 x cpu (cpu)",)


def test_rows_with_another_split_than_most_are_no_match(tmp_path):
    paper = paper_lib.load("pfnet")
    rows = ("SemanticFPN", "+PPM", "+PPM+salient")
    for row in rows:
        training = recipe_of("pfnet", "2a", row, "isaid").training
        hash_ = "b" * 64 if row == "+PPM" else "a" * 64
        flags = {"init_from": "resnet50_deep.pth"}
        write_run(tmp_path / row, training, changes=flags, split_hash=hash_)
    (block,) = table.blocks(paper, "2a", result.scan(tmp_path), ("isaid",))
    found = {line.row: line.cells["miou"].is_match for line in block.lines}
    assert [found[row] for row in rows] == [True, False, True]
    assert "another split than the other rows" in block.lines[1].remarks


def test_half_a_report_and_foreign_files_are_passed_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.json").write_text("{}")
    (tmp_path / "a/report.json").write_text('{"method": ')
    (tmp_path / "b").mkdir()
    (tmp_path / "b/report.json").write_text("[]")
    assert result.scan(tmp_path) == []
    assert result.scan(tmp_path / "absent") == []


def test_costs_are_shown_beside_any_table(tmp_path):
    training = recipe_of("pfnet", "2a", "+PPM").training
    write_run(tmp_path / "run", training, device_peak_mb=123.0)
    paper = paper_lib.one_row(paper_lib.load("pfnet"), "2a", "+PPM")
    counted = lambda recipe: {"params_m": 31.1, "gflops_512": 82.0}  # noqa: E731
    runs = result.scan(tmp_path)
    (block,) = table.blocks(paper, "2a", runs, ("synthetic",), counted, costs=True)
    assert block.metrics == (
        "miou", "params_m", "gflops_512", "seconds_per_megapixel", "memory_mb"
    )  # fmt: skip
    shown_ = [text.both(block.lines[0].cells[name]) for name in block.metrics]
    assert shown_ == ["50.0 (1)", "31.1", "82.0", "[0.50 (1)]", "[123.0 (1)]"]


def test_a_class_that_no_label_has_is_left_out_of_the_synthetic_mean(tmp_path):
    training = recipe_of("magnet", "S2", "Patching").training
    classes = {name: {"iou": 0.6, "pixels": 5} for name in ("urban", "water")}
    classes["unknown"] = {"iou": 0.0, "pixels": 0}  # predicted somewhere
    write_run(tmp_path / "a", training, classes=classes)
    assert shown(line_of(tmp_path, "magnet", "S2", "Patching")) == "60.0 (1)"


def test_runs_on_objects_are_none_of_landcover(tmp_path):
    write_run(tmp_path / "a", recipe_of("pfnet", "2a", "+PPM").training)
    place = (tmp_path, "pfnet", "2a", "+PPM")
    assert line_of(*place).state == "1 seed"
    assert line_of(*place, "synthetic-landcover").state == "not run"
