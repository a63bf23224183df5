import pathlib
import re

import pytest

import uhrjax
from uhrjax import config as config_lib
from uhrjax import errors, methods

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem != "base")
TWICE = ("synthetic,smoke", "synthetic,landcover,smoke", "folder,small", "folder,smoke")


def words_of(path):
    """Returns the words that a config says it knows."""
    with pytest.raises(errors.InputError) as caught:
        uhrjax.load_config(f"{path}:?")
    return re.search(r"knows: ([\w, ]+) ", str(caught.value))[1].split(", ")


def variants():
    """Yields every config with each of its words, and with some of them together."""
    for path in CONFIGS:
        words = words_of(path)
        joined = [text for text in TWICE if set(text.split(",")) <= set(words)]
        for variant in ("", *words, *joined):
            yield pytest.param(path, variant, id=f"{path.stem}:{variant}")


def command(arguments):
    """Returns the config of a command line, as main does."""
    return config_lib.from_command(*config_lib.parse_flags(["main", *arguments]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_has_a_quick_run_and_one_for_your_own_images(path):
    assert {"smoke", "synthetic", "folder"} <= set(words_of(path))


@pytest.mark.parametrize(("path", "variant"), variants())
def test_every_variant_of_every_config_loads_locked_and_sound(path, variant):
    config = uhrjax.load_config(f"{path}:{variant}")
    config_lib.check(config)
    assert config.is_locked
    assert config.method == path.stem or path.stem == "baseline"
    if "folder" not in variant:
        assert uhrjax.build(config).num_classes == config.num_classes


def test_baseline_has_a_recipe_for_every_network_alone_and_on_whole_scenes():
    words = words_of(ROOT / "configs/baseline.py")
    networks = [word for word in words if word in methods.METHODS]
    assert len(networks) == 22
    for name in networks:
        for data in ("isaid", "deepglobe", "synthetic,smoke", "synthetic,parcels"):
            spec = f"configs/baseline.py:{name},{data}"
            config = uhrjax.load_config(spec)
            assert config.method == name
            whole = uhrjax.load_config(f"{spec},global")
            assert whole.method == "downsample" and whole.data.unit == "overviews"
            assert whole.segmenter.model == config.model
            for found in (config, whole):
                config_lib.check(found)
                uhrjax.build(found)


@pytest.mark.parametrize("recipe", ["foveation", "magnet", "dgf"])
def test_a_networks_name_is_enough_for_a_recipe_with_a_network_inside(recipe):
    spec, rest = config_lib.parse_flags(
        ["main", f"--config=configs/{recipe}.py:smoke", "--config.segmenter=pointrend",
         "--config.segmenter.model.points=9"]
    )  # fmt: skip
    assert spec == f"configs/{recipe}.py:smoke,pointrend"  # the run's folder says it
    built = uhrjax.build(config_lib.from_command(spec, rest))
    assert built.segmenter.module.points == 9
    with pytest.raises(errors.InputError, match="unknown variant 'points'"):
        command([f"--config=configs/{recipe}.py:smoke", "--config.segmenter=points"])


def test_load_config_works_from_another_folder(tmp_path, monkeypatch):
    path = pathlib.Path("configs/pfnet.py").resolve()
    monkeypatch.chdir(tmp_path)
    assert uhrjax.load_config(f"{path}:isaid").tile == 896


def test_overrides_change_values_and_keep_types():
    config = command(
        ["--config=configs/pfnet.py:synthetic", "--config.learning_rate=1",
         "--config.data.augment.scale=(0.5,2.0)", "--config.remat", "true"]
    )  # fmt: skip
    assert config.learning_rate == 1.0 and isinstance(config.learning_rate, float)
    assert config.data.augment.scale == (0.5, 2.0) and config.remat is True


@pytest.mark.parametrize(
    "arguments, match",
    [
        ([], "no --config"),
        (["--config=configs/nope.py"], "no config file.*configs/pfnet.py"),
        (["--config=configs/base.py"], "no function get_config"),
        (["--config=configs/pfnet.py:moon"], "unknown variant 'moon'.*synthetic"),
        (["--config=configs/pfnet.py", "--config.tyle=3"], "did you mean 'tile'"),
        (["--config=configs/pfnet.py", "--config.model.x=3"], "config.model has"),
        (["--config=configs/pfnet.py", "--config.tile=many"], "tile"),
        (["--config=configs/pfnet.py", "--config.data=3"], "is a group"),
        (["--config=configs/pfnet.py", "--nope=3"], "nope"),
        (["--config=configs/pfnet.py", "stray"], "stray"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(arguments, match):
    with pytest.raises(errors.InputError, match=match) as caught:
        command(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key, value, match",
    [
        ("stride", 900, "at most tile = 896"),
        ("eval.stride", 0, "1 or more"),
        ("batch_size", 0, "1 or more"),
        ("accumulate", 3, "divisor of batch_size = 16"),
        ("learning_rate", 0.0, "above 0"),
        ("dtype", "float16", "float32, bfloat16"),
        ("data.augment.scale", (1.0,), "lowest, highest"),
        ("eval.protocol", "tiles", "scene, crops"),
    ],
)
def test_check_says_what_is_allowed(key, value, match):
    config = uhrjax.load_config("configs/pfnet.py")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(errors.InputError, match=f"config.{key}=.*{match}"):
        config_lib.check(config)


def test_syntax_error_in_a_config_names_file_and_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ny = = 2\n")
    with pytest.raises(errors.InputError, match=r"broken.py:2"):
        uhrjax.load_config(str(path))


def test_json_and_back_is_the_same_config():
    config = uhrjax.load_config("configs/pfnet.py:isaid")
    assert config_lib.from_json(config_lib.to_json(config)) == config


def test_differences_leave_out_what_changes_no_weight():
    one = config_lib.to_json(uhrjax.load_config("configs/pfnet.py"))
    other = uhrjax.load_config("configs/pfnet.py")
    other.eval.panels, other.log_every = 9, 7
    assert config_lib.differences(one, config_lib.to_json(other)) == []
    other.learning_rate = 0.5
    assert config_lib.differences(one, config_lib.to_json(other)) == [
        "learning_rate: 0.007 -> 0.5"
    ]
