"""A run of several stages: FCtL's, with its refinement network, on tiny scenes."""

import json

import jax
import numpy as np
import pytest
import rasterio

from uhrjax import config as config_lib
from uhrjax import errors, explain, initialize, predict, session, stages, trained

SPEC = "configs/fctl.py:folder"


def flags_of(squares, data_root):
    values = {
        "data.dir": squares, "data.root": data_root, "tile": 32, "stride": 24,
        "eval.stride": 24, "batch_size": 2, "sub_batch": 4, "stages.fcn.sub_batch": 4,
        "stages.pretrain.epochs": 1,
        "epochs": 2, "eval.every": 2, "eval.batch_size": 4, "learning_rate": 0.003,
        "log_every": 1, "model.contexts": "('2','local')", "model.width": 2,
        "model.fc_features": 4, "model.wide_border": False, "model.gamma_init": 1.0,
        "coarse.epoch": 1, "refiner.model.width": 2, "refiner.epochs": 1,
        "refiner.batch_size": 2, "eval.panels": 1,
    }  # fmt: skip
    return [f"--config.{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def words(squares, data_root):
    return flags_of(squares, data_root)


@pytest.fixture(scope="module")
def fctl(words, tmp_path_factory):
    """A finished run of all stages."""
    folder = tmp_path_factory.mktemp("fctl")
    assert session.train(SPEC, words, str(folder)) == 0
    return folder


def params_of(run):
    return initialize.read_run(run)["params"]


def test_stages_follow_each_other_and_start_from_one_another(fctl):
    order = json.loads((fctl / "stages.json").read_text())["stages"]
    assert order == ["pretrain", "fcn", "medium", "all", "refine"]
    for name in order:
        assert (fctl / name / "report.json").is_file()
    medium, last = params_of(fctl / "medium"), params_of(fctl / "all")
    assert "attention" not in params_of(fctl / "fcn")
    # The frozen encoder of the context is still the one of the stage before ...
    jax.tree.map(np.testing.assert_array_equal, last["context_0"], medium["backbone"])
    # ... which the patch's own started from, too, and left.
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), last["backbone"], medium["backbone"]
    )
    assert any(jax.tree.leaves(moved))


def test_refinement_learned_from_maps_of_an_early_checkpoint(fctl):
    steps = [int(p.name) for p in (fctl / "all" / "checkpoints").glob("[0-9]*")]
    assert len(steps) == 2  # epoch 1, kept for this, and the last
    origin = {
        split: json.loads(
            (fctl / "refine" / "coarse" / split / "origin.json").read_text()
        )
        for split in ("train", "val")
    }
    assert origin["train"]["weights"] != origin["val"]["weights"]
    early = trained.load_run(fctl / "all" / "checkpoints" / str(min(steps)))
    assert origin["train"]["weights"] == early.weights_hash


def test_finished_stages_are_not_trained_again(fctl, words, capsys):
    before = (fctl / "all" / "report.json").stat().st_mtime_ns
    assert session.train(SPEC, [*words, "--config.stage=all"], str(fctl)) == 0
    assert "resumed from" in capsys.readouterr().out
    assert (fctl / "all" / "report.json").stat().st_mtime_ns == before


def test_prediction_segments_and_refines(fctl, squares, tmp_path):
    scene = squares / "val" / "images" / "val0.png"
    assert session.predict(fctl, [], str(scene), str(tmp_path / "refined")) == 0
    crude = ["--config.refine=none"]
    assert session.predict(fctl, crude, str(scene), str(tmp_path / "crude")) == 0
    maps = []
    for kind in ("refined", "crude"):
        found = tmp_path / kind / "val0.png"
        with rasterio.open(found) as opened:
            maps.append(opened.read(1))
    assert maps[0].shape == maps[1].shape and maps[0].max() <= 1


def test_refinement_goes_behind_another_method(fctl, runs, squares, tmp_path):
    run = trained.load_run(
        runs / "semantic_fpn", [f"--config.refine={fctl / 'refine'}"]
    )
    assert run.refiner.config.method == "refinement"


@pytest.mark.parametrize(
    "more, said",
    [
        (["--config.stage=large"], "has the stages pretrain, fcn, medium, all, refine"),
        (["--config.stage=all"], "starts from medium, not trained to the end"),
        (["--config.stages.huge.epochs=1"], "stages.huge belongs to no stage"),
    ],
)
def test_wrong_stages_are_told_in_a_sentence(words, tmp_path, more, said):
    with pytest.raises(errors.InputError, match=said):
        session.train(SPEC, [*words, *more], str(tmp_path / "run"))


def test_half_trained_run_names_the_missing_stage(fctl, tmp_path):
    (tmp_path / "stages.json").write_text('{"stages": ["fcn", "medium"]}')
    with pytest.raises(FileNotFoundError, match="fcn is not trained yet"):
        trained.load_run(tmp_path)


def test_run_that_labels_images_is_no_refiner(fctl):
    flag = [f"--config.refine={fctl / 'fcn'}"]
    with pytest.raises(errors.InputError, match="which labels images"):
        trained.load_run(fctl, flag)


def test_explaining_draws_attention_and_fusion_and_seams(fctl, squares, tmp_path):
    run = trained.load_run(fctl)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    scene = predict.ArrayScene(image)
    pictures = explain.draw(run, scene, (35, 45))
    assert set(pictures) == {"attention", "fusion", "seams"}
    assert all(p.dtype == np.uint8 and p.ndim == 3 for p in pictures.values())
    with pytest.raises(errors.InputError, match="outside of the scene of 70 rows"):
        explain.draw(run, scene, (70, 0))
    with pytest.raises(errors.InputError, match="has no contexts"):
        explain.draw(trained.load_run(fctl / "fcn"), scene, (0, 0))


@pytest.mark.parametrize(
    "variant", ["deepglobe", "inria", "synthetic", "deepglobe,code"]
)
def test_every_recipe_plans_its_stages(variant, tmp_path):
    config = config_lib.load_config(f"configs/fctl.py:{variant}")
    planned = stages.plan(config, tmp_path)
    names = [stage.name for stage in planned]
    first = ["pretrain"] if variant == "synthetic" else []
    assert names == [*first, "fcn", "medium", "large", "all", "refine"]
    assert all(
        stage.config.data.views == planned[0].config.data.views for stage in planned
    )


def test_context_wider_than_a_scene_is_told(fctl, words, capsys):
    session.evaluate(fctl / "medium", ["--config.eval.panels=0"])
    said = capsys.readouterr().out
    assert "a context is 64 px wide, the smallest scene 1 px" in said
