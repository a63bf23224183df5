"""`benchmark train`, as a user runs it, and the samples that it draws."""

import contextlib
import io
import json

import pytest
from absl.testing import flagsaver

from uhrjax import config as config_lib
from uhrjax import feed, methods, sharding, sources
from uhrjax.benchmark import __main__ as command
from uhrjax.benchmark import network, steps, synthetic, train_table

SMALL = [
    "--config.tile=32", "--config.stride=32", "--config.eval.stride=32",
    "--config.batch_size=4",
]  # fmt: skip
# config, what it trains on, and more words
RECIPES = {
    "patches": ("pfnet", []),
    "overviews": ("fctl", ["--config.stage=pretrain"]),
    "scenes": ("fctl", ["--config.stage=all", "--config.sub_batch=5"]),
    "scenes at once": ("glnet", ["--config.stage=joint", "--config.sub_batch=0"]),
    "masks": ("cascadepsp", []),
    "scales, one network": ("magnet", ["--config.stage=backbone"]),
    "scales, two networks": ("magnet", ["--config.stage=refine"]),
    "resident": ("foveation", ["--config.data.augment.rotate90=0"]),
}


def on_squares(squares, data_root):
    return [
        "--config.data.name=folder", f"--config.data.dir={squares}",
        f"--config.data.root={data_root}", "--config.num_classes=2",
        "--config.data.val_split=val", "--config.data.split=val",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(squares, data_root, tmp_path_factory):
    """A benchmark of small steps: what it printed, its JSON, and its trace."""
    folder = tmp_path_factory.mktemp("benchmark")
    words = [
        "benchmark", "train", "--config=configs/semantic_fpn.py:folder,small",
        *on_squares(squares, data_root), *SMALL, "--config.model.width=4",
        "--config.model.fpn_dim=8", "--config.data.augment.blur=()", "--steps=3",
        f"--json={folder / 'figures.json'}", f"--profile={folder / 'trace'}",
    ]  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), flagsaver.flagsaver():
        assert command.main(words) == 0
    found = json.loads((folder / "figures.json").read_text())
    return printed.getvalue(), found, folder / "trace"


def test_device_part_has_speed_spread_and_arithmetic(finished):
    part = finished[1]["device_part"]
    assert part["images_per_step"] == 4 and part["micro_batches"] == 1
    assert len(part["seconds"]) == 3
    times = part["step_ms"]
    assert 0 < times["lowest"] <= times["median"] <= times["highest"]
    assert part["images_per_s"] == pytest.approx(4e3 / times["median"])
    reached = 2 * part["gmac_per_step"] / times["median"]
    assert part["tflop_per_s"] == pytest.approx(reached)
    assert part["peak_share"] is None  # of a CPU none is known


def test_compilation_is_apart_from_the_first_step(finished):
    part = finished[1]["device_part"]
    assert part["compile_s"] > 0.1 and part["first_s"] < part["compile_s"]
    assert part["temporary_mb"] > 0.1 and part["arguments_mb"] > 0.1


def test_whole_part_is_fed_by_the_data_set(finished):
    whole = finished[1]["whole"]
    assert whole["data"].startswith("folder") and whole["images_per_step"] == 4
    assert len(whole["seconds"]) == 3
    assert 0 <= whole["data_wait_share"] < 1 and 0 <= whole["host_wait_share"] < 1
    assert whole["data_wait_ok"] == (whole["data_wait_share"] <= 0.05)


def test_printed_table_has_both_parts_and_the_trace(finished):
    printed, _, trace = finished
    assert "device alone" in printed and "with the pipeline" in printed
    assert "no share claimed" in printed and str(trace) in printed
    assert list(trace.rglob("*.xplane.pb"))


def test_data_that_are_not_there_are_named(finished):
    found = {**finished[1], "whole": {"missing": "isaid is not prepared"}}
    line = train_table._lines(found)["with the pipeline"]
    assert line == "not measured: isaid is not prepared"


@pytest.mark.parametrize("name", RECIPES)
def test_drawn_samples_have_the_form_of_real_ones(name, squares, data_root):
    recipe, more = RECIPES[name]
    spec = f"configs/{recipe}.py:synthetic,smoke"
    overrides = [*on_squares(squares, data_root), *more]
    if name in ("patches", "masks", "scenes", "scenes at once"):
        overrides += [*SMALL[:3], "--config.batch_size=2"]
    given = config_lib.from_command(spec, overrides)
    config = network.chosen_stage(given).config
    if name == "resident":
        with config.unlocked():
            config.model.bank, config.tile = (32, 48), 32
            config.locations.per_step, config.locations.per_iteration = 2, 4
    method, data = methods.build(config), sources.open_data(config)
    drawn = synthetic.draw_step(config, method, scene=(64, 96))
    read = list(
        next(feed.open_feed(config, method, data, sharding.make_mesh()).steps(0))
    )
    assert [form(micro) for micro in drawn] == [form(micro) for micro in read]
    count = sum(map(feed.count_samples, drawn))
    assert count == sum(map(feed.count_samples, read)) > 0


def form(micro):
    return {
        name: (array.shape, str(array.dtype))
        for name, array in micro.items()
        if array.dtype.kind not in "USO"
    }


def test_refiners_of_label_maps_get_wide_ones():
    config = config_lib.from_command("configs/refinement.py:synthetic,smoke", [])
    method = methods.build(config)
    for micro in synthetic.draw_step(config, method, scene=(200, 200)):
        side = round(method.views[-1].scale * config.tile)
        assert micro["coarse"].shape[1:] == (side, side)
        assert len(micro["coarse"]) == len(micro["label"]) == len(micro["valid"])


def test_first_step_does_not_count_and_waiting_is_measured(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(steps.time, "perf_counter", lambda: next(now))

    def take_step(state, micros):
        return state + len(list(micros)), {}

    stream = iter([iter([1, 2]), iter([1]), iter([1]), iter([1])])
    state, taken = steps.run(take_step, 0, stream, count=2)
    assert state == 4 and len(taken.seconds) == 2
    assert taken.waited_s == 2 and taken.total_s == sum(taken.seconds)
