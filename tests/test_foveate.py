"""What is drawn and scored of several runs of Foveation."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver
from tiny_run import foveation_flags

import uhrjax
from uhrjax import (
    chart,
    checkpoint,
    errors,
    fov_map,
    fov_picture,
    fov_quality,
    foveal,
    foveate,
    metrics,
    sources,
    trained,
)
from uhrjax import config as config_lib

RULES = ("mean", "patch1", "patch2", "patch3")


@pytest.fixture(scope="module")
def runs(squares, data_root, tmp_path_factory):
    """Runs with random weights: one that looks, and one of each patch."""
    folder = tmp_path_factory.mktemp("runs")
    for number, rule in enumerate(RULES):
        save_run(
            folder / rule, rule, number, foveation_flags(squares, data_root, "fcn8")
        )
    return folder


def save_run(folder, rule, seed, flags):
    """Stores what a training of no step would leave."""
    config = config_lib.override(
        uhrjax.load_config(f"configs/foveation.py:folder,small,fcn8,{rule}"), flags
    )
    data = sources.open_data(config)
    variables = uhrjax.build(config).init(jax.random.key(seed))
    meta = {
        "config": config_lib.to_json(config),
        "classes": list(data.info.classes),
        "colours": [list(colour) for colour in data.info.colours],
    }
    state = checkpoint.TrainState(
        jnp.int32(1), variables["params"], variables.get("batch_stats", {}), {}
    )
    folder.mkdir()
    with checkpoint.CheckpointStore(folder) as store:
        store.save(state, meta, 0.5)


def command(capsys, *words):
    """Runs a command as a process would; returns its code and what it printed."""
    before, sys.argv = sys.argv, ["foveate", *words]
    try:
        with flagsaver.flagsaver():  # its flags are not for the tests of other files
            code = foveate.main(sys.argv)
    except (errors.InputError, OSError) as error:
        return 2, str(error)
    finally:
        sys.argv = before
    return code, capsys.readouterr().out


@pytest.fixture(scope="module", autouse=True)
def flag_names():
    """The two flags that `foveate.run` defines, which main.py has, too."""
    from uhrjax import main  # noqa: F401


def test_the_ensemble_is_the_mean_of_the_probabilities(runs, tmp_path, capsys):
    code, said = command(
        capsys, "ensemble", f"--runs={runs}/patch?", f"--output={tmp_path}",
        "--config.eval.panels=0",
    )  # fmt: skip
    assert code == 0, said
    assert "patch1" in said and "mIoU" in said
    found = json.loads((tmp_path / "report.json").read_text())
    loaded = [trained.load_run(runs / f"patch{k}") for k in (1, 2, 3)]
    data = sources.open_data(loaded[0].config)
    reader, counts = data.open_scenes("val"), np.zeros((2, 2), np.int64)
    for index, scene in enumerate(reader.scenes):
        place = (0, 0, scene.height, scene.width)
        image, label = (
            read(index, uhrjax.predict.window.Window(*place))
            for read in (reader.read_image, reader.read_label)
        )
        total = 0
        for run in loaded:
            options = foveal.Options(rate=24, batch_size=4)
            one = foveal.FovealEngine(run.method, options).explore(run.variables, image)
            total = total + one.scores / np.maximum(one.counts, 1)[..., None]
        counts += metrics.confusion(label, total.argmax(-1), 2)
    np.testing.assert_array_equal(found["confusion"], counts)
    one = foveal.FovealEngine(loaded[0].method, foveal.Options(rate=24))
    single = np.mean([one.cost(s.height, s.width) for s in reader.scenes], axis=0)
    cost = found["cost"]
    assert cost["locations_per_image"] == pytest.approx(3 * single[0])
    assert cost["gmac_per_image"] == pytest.approx(3 * single[1])


def test_maps_are_drawn_beside_the_gold_standard(runs, tmp_path, capsys):
    words = (f"--checkpoint={runs / 'mean'}", f"--output={tmp_path}")
    code, _ = command(capsys, "map", *words, "--runs=")
    assert code == 0
    alone = json.loads((tmp_path / "foveation.json").read_text())
    assert "mse" not in alone and set(alone["px_by_class"]["ground"]) == {"map"}
    code, said = command(capsys, "map", *words, f"--runs={runs}/patch?")
    assert code == 0 and "apart (MSE)" in said
    found = json.loads((tmp_path / "foveation.json").read_text())
    assert [path.name for path in tmp_path.glob("*.png")] == ["val0_foveation.png"]
    assert found["bank"] == [32, 48, 96] and set(found["mse"]) == {
        "val0",
        "val1",
        "val2",
    }

    # Again, of the first scene, from its parts.
    run = trained.load_run(runs / "mean")
    fixed = [trained.load_run(runs / f"patch{k}") for k in (1, 2, 3)]
    data = sources.open_data(run.config)
    reader = data.open_scenes("val")
    quality = [fov_quality.of_split(one, reader, "val")["val0"] for one in fixed]
    assert quality[0].shape == (9, 6)
    assert (runs / "patch1/quality_val.npz").is_file()
    place = uhrjax.predict.window.Window(0, 0, 75, 50)
    engine = foveal.FovealEngine(run.method, foveal.Options(batch_size=4))
    found_map = engine.explore(run.variables, reader.read_image(0, place)).fov
    ours = fov_map.fov_map(found_map, (32, 48, 96))
    gold = fov_map.gold_standard(np.stack(quality, -1), (32, 48, 96))
    apart = fov_map.map_error(ours, gold, (32, 48, 96))
    assert found["mse"]["val0"] == pytest.approx(apart)
    assert found["mse_mean"] == pytest.approx(np.mean([*found["mse"].values()]))
    assert found["mse_std"] == pytest.approx(np.std([*found["mse"].values()]))
    by_class = [row["map"] for row in found["px_by_class"].values()]
    assert all(32 <= px <= 96 for px in by_class)


def test_quality_of_a_place_is_that_of_its_smallest_patch(runs):
    run = trained.load_run(runs / "patch2")
    reader = sources.open_data(run.config).open_scenes("val")
    kept = fov_quality.of_split(run, reader, "val")
    place = uhrjax.predict.window.Window(0, 0, 33, 90)
    image, label = reader.read_image(1, place), reader.read_label(1, place)
    at = np.array([[1, 7]], np.int32)
    batch = {"scene": image[None], "locations": at[None]}
    outputs = run.method.apply(run.variables, batch)
    ours = np.asarray(run.method.logits(outputs)).argmax(-1)
    true = np.full((1, 32, 32), 255, np.uint8)
    true[0, :25] = label[8:33, 56:88]
    np.testing.assert_allclose(
        kept["val1"][1, 7], fov_map.patch_quality(ours, true)[0], atol=0.02
    )


def test_quality_is_kept_until_the_weights_change(runs, monkeypatch):
    run = trained.load_run(runs / "patch1")
    reader = sources.open_data(run.config).open_scenes("val")
    first = fov_quality.of_split(run, reader, "val")
    path = runs / "patch1/quality_val.npz"
    written = path.stat().st_mtime_ns
    again = fov_quality.of_split(run, reader, "val")
    assert path.stat().st_mtime_ns == written
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    np.savez(path, weights="others", **first)
    fov_quality.of_split(run, reader, "val")
    with np.load(path) as kept:
        assert str(kept["weights"]) == run.weights_hash


def test_runs_that_cut_other_patches_make_no_gold_standard(runs):
    run = trained.load_run(runs / "mean")
    other = ["--config.model.anchor=center"]
    fixed = [trained.load_run(runs / f"patch{k}", other) for k in (1, 2, 3)]
    with pytest.raises(errors.InputError, match="cuts other patches than"):
        fov_picture.compare(run, fixed, sources.open_data(run.config), runs)


def study_run(folder, patch, ious, *, bank=(10, 20, 40), selection="patch"):
    (folder / "checkpoints").mkdir(parents=True)
    classes = {name: {"iou": iou} for name, iou in zip("ab", ious, strict=True)}
    classes["never"] = {"iou": None}
    model = {"bank": bank, "patch": patch, "selection": selection}
    report = {
        "method": "foveation", "config": {"model": model}, "classes": classes,
        "scores": {"miou": sum(ious) / 2},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))


def test_the_study_finds_the_best_patch_of_every_class(tmp_path, capsys):
    study_run(tmp_path / "run_1", 1, (0.9, 0.1))
    study_run(tmp_path / "run_2", 2, (0.5, 0.5))
    study_run(tmp_path / "run_2b", 2, (0.7, 0.7))  # another seed
    study_run(tmp_path / "run_4", 3, (0.2, 0.8), bank=(10, 20, 80))
    code, said = command(
        capsys, "study", f"--runs={tmp_path}/run_*", f"--output={tmp_path}/study"
    )
    assert code == 0 and "80 px" in said
    found = json.loads((tmp_path / "study/study.json").read_text())
    assert found["best"] == {"a": 10, "b": 80, "mean": 20}
    assert found["iou"]["a"] == pytest.approx({"10": 0.9, "20": 0.6, "80": 0.2})
    assert "never" not in found["iou"]
    assert (tmp_path / "study/study.png").stat().st_size > 1000


def test_rates_are_scored_with_their_cost(runs, tmp_path, capsys):
    code, said = command(
        capsys, "rates", f"--runs={runs}/patch1", "--rates=32,16",
        f"--output={tmp_path}",
    )  # fmt: skip
    assert code == 0 and "px per location" in said
    (rows,) = json.loads((tmp_path / "rates.json").read_text()).values()
    assert [row["rate"] for row in rows] == [32, 16]
    # Scenes of 75 x 50, 33 x 90 and 1 x 1 px.
    assert rows[0]["locations_per_image"] == pytest.approx((2 * 2 + 1 * 3 + 1) / 3)
    assert rows[1]["locations_per_image"] == pytest.approx((5 * 3 + 2 * 6 + 1) / 3)
    assert 0 < rows[0]["gmac_per_image"] < rows[1]["gmac_per_image"]
    assert all(0 <= row["miou"] <= 1 for row in rows)
    assert (tmp_path / "rates.png").is_file()


def test_rates_halve_the_patch_down_to_the_scale(runs):
    foveate.flags.FLAGS.rates = ""
    assert foveate._rates(trained.load_run(runs / "mean")) == [32, 16, 8]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paint"], "unknown command 'paint'; use one of map, ensemble, study, rates"),
        (["study", "--output=x"], "study: give --runs=... --output=FOLDER"),
        (["map", "--output=x"], "give --checkpoint=... --output=FOLDER .--runs=FIXED"),
        (["study", "--runs=/no/such/*", "--output={tmp}"], "no run in /no/such/"),
        (["study", "--runs={runs}/mean", "--output={tmp}"], "not trained to the end"),
        (["rates", "--runs={runs}/mean", "--rates=a", "--output={tmp}"], "whole numb"),
        (
            ["map", "--checkpoint={runs}/patch1", "--output={tmp}"],
            "has no foveation module to look into",
        ),
        (
            ["map", "--checkpoint={runs}/mean", "--runs={runs}/patch1,{runs}/patch3",
             "--output={tmp}"],
            r"run of every patch; missing: patch2 \(48 px\)",
        ),
        (
            ["map", "--checkpoint={runs}/mean", "--runs={runs}/mean", "--output={tmp}"],
            "is no run of one fixed patch",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_told(runs, tmp_path, capsys, words, message):
    foveate.flags.FLAGS.unparse_flags()
    for name in ("runs", "rates", "checkpoint", "output"):
        setattr(foveate.flags.FLAGS, name, "")
    filled = [word.format(runs=runs, tmp=tmp_path) for word in words]
    code, text = command(capsys, *filled)
    assert code == 2
    import re

    assert re.search(message, text), text


def test_runs_of_a_study_must_have_one_patch(tmp_path, capsys):
    study_run(tmp_path / "a", 1, (0.9, 0.1), selection="mean")
    code, text = command(
        capsys, "study", f"--runs={tmp_path}/a", f"--output={tmp_path}/b"
    )
    assert code == 2 and "`study` compares such runs" in text


def test_other_methods_have_no_ensemble_here(runs, monkeypatch):
    from uhrjax import ensemble

    run = trained.load_run(runs / "patch1")
    monkeypatch.setattr(type(run.method), "whole_scenes", False)
    with pytest.raises(errors.InputError, match="made of runs of foveation"):
        ensemble.join([run])


def test_a_chart_has_its_points_where_they_belong():
    lines = {"up": [(1, 0), (10, 50), (100, 100)], "gap": [(1, np.nan), (10, 20)]}
    picture = chart.draw(lines, title="t", across="x", up="y", log=True)
    assert picture.shape == (*chart.SIZE, 3) and picture.dtype == np.uint8
    above, below, left, right = chart.MARGIN
    red = (picture == chart.COLOURS[0]).all(-1)
    rows, columns = np.nonzero(red[:, : chart.SIZE[1] - right + 8])
    assert columns.min() == pytest.approx(left, abs=6)
    assert columns.max() == pytest.approx(chart.SIZE[1] - right, abs=6)
    assert rows.min() == pytest.approx(above, abs=6)
    assert rows.max() == pytest.approx(chart.SIZE[0] - below, abs=6)
    chart.draw({"flat": [(3, 7)]}, title="", across="", up="")
    chart.draw({"none": []}, title="", across="", up="")
