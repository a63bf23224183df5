"""What is known of a prepared data set without opening it."""

import json

import pytest

from uhrjax import errors
from uhrjax.data import prepared

INFO = prepared.DataInfo(
    name="folder/roofs-1a2b3c4d",
    config="patches_64_32_v1-2",
    classes=("ground", "roof"),
    colours=((0, 0, 0), (255, 0, 0)),
    scenes={
        "train": [
            prepared.SceneInfo("a", 7, 9, "WKT", (0.5, 0.0, 1.0, 0.0, -0.5, 2.0), 0, 1),
            prepared.SceneInfo("b", 1, 1, first_record=1, records=1),
        ]
    },
    histogram={"train": [40, 20, 4]},
    split_hash="0" * 64,
    source="folder roofs",
    tile=64,
    stride=32,
    views=(1, 2),
    notes=("something",),
)


def test_what_is_stored_reads_back_as_it_was(tmp_path):
    text = json.dumps(prepared.info_to_json(INFO))
    (tmp_path / "metadata.json").write_text(text)
    (tmp_path / "dataset_info.json").write_text("{}")
    assert prepared.read_info(tmp_path) == INFO


def test_patches_are_named_by_tile_stride_and_views():
    name = prepared.patches_config
    assert name(tile=896, stride=512) == "patches_896_512"
    assert name(tile=508, stride=388, views=(1, 2, 4)) == "patches_508_388_v1-2-4"


@pytest.mark.parametrize(
    ("name", "config", "command"),
    [
        ("isaid", "scenes", "isaid --manual_dir=PATH --configs=scenes"),
        (
            "synthetic/objects_tiny",
            "patches_64_32",
            "synthetic --subset=objects_tiny --configs=patches_64_32",
        ),
        (
            "folder/x-12345678",
            "patches_64_32_v1-2",
            "folder --dir=PATH --configs=patches_64_32_v1-2",
        ),
    ],
)
def test_absent_data_gives_the_command_to_run(tmp_path, name, config, command):
    with pytest.raises(FileNotFoundError) as caught:
        prepared.locate(tmp_path, name, config)
    expected = f"python -m data_builders.prepare {command} --data_dir={tmp_path}"
    assert expected in str(caught.value)


def test_one_command_prepares_all_that_is_missing(tmp_path):
    wanted = ("scenes", "patches_508_388_v1-p3", "overview_508x508")
    with pytest.raises(FileNotFoundError) as caught:
        prepared.locate_all(tmp_path, "deepglobe/glnet", *wanted)
    assert f"--configs={','.join(wanted)} --data_dir" in str(caught.value)


def test_a_damaged_description_says_to_prepare_again(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    for text in ("{", "{}", '{"scenes": 3}'):
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(errors.InputError, match="--overwrite"):
            prepared.read_info(tmp_path)


def test_a_folder_without_data_is_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m data_builders"):
        prepared.read_info(tmp_path)


def test_the_default_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert prepared.default_data_dir() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert prepared.default_data_dir().name == "tensorflow_datasets"
