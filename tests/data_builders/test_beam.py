"""Encoding on Apache Beam's direct runner gives the files of the local way."""

import hashlib
import sys

import folder_layout
import pytest

from data_builders import base, beam, encode, prepare
from uhrjax import errors


@pytest.fixture
def raw(tmp_path):
    folder_layout.write_folder(tmp_path / "raw", [(40, 30), (20, 50), (33, 33), (1, 1)])
    return tmp_path / "raw"


def flags(raw, root, *more):
    return ["folder", f"--dir={raw}", f"--data_dir={root}", "--tile=16", *more]


def contents(root):
    """Returns {relative path: sha256} of all files below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_direct_runner_writes_the_bytes_of_the_local_way(raw, tmp_path):
    pytest.importorskip("apache_beam")
    assert prepare.main(flags(raw, tmp_path / "local", "--views=1,2")) == 0
    assert prepare.main(flags(raw, tmp_path / "beam", "--views=1,2", "--beam")) == 0
    first, second = contents(tmp_path / "local"), contents(tmp_path / "beam")
    assert first == second
    assert sum("array_record" in path for path in first) == 4


def test_problems_of_raw_files_are_listed_as_in_the_local_way(raw, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    path = sorted((raw / "masks").iterdir())[0]
    folder_layout.write_png(path, folder_layout.scene(40, 30, classes=9)[1])
    said = []
    for more in ((), ("--beam",)):
        given = flags(raw, tmp_path / "data", "--classes=a,b", *more)
        assert prepare.main(given) == 2
        said.append(capsys.readouterr().err.split("error: ")[-1])
        assert not contents(tmp_path / "data")
    assert said[0] == said[1] and "is not in the class table" in said[0]


def test_an_unknown_runner_is_one_sentence(raw, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    given = flags(raw, tmp_path / "data", "--beam", "--runner=NoRunner")
    assert prepare.main(given) == 2
    said = capsys.readouterr().err.split("error: ")[-1]
    assert "--runner=NoRunner" in said and "DirectRunner" in said
    assert not contents(tmp_path / "data")


def test_a_pipeline_that_fails_is_one_sentence(tmp_path):
    pytest.importorskip("apache_beam")
    scene = base.RawScene(id="a", height=1, width=1)  # cannot be opened
    units = [encode.Unit(scene, "train", 0, 1, ())]
    with pytest.raises(OSError, match="the Beam pipeline failed on DirectRunner"):
        list(beam.encode_all(units, runner="DirectRunner", folder=tmp_path))
    assert not list(tmp_path.glob(".beam_*"))


def test_without_beam_the_command_to_install_it_is_said(raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(errors.InputError, match=r"pip install 'uhrjax\[beam\]'"):
        prepare.prepare(
            "folder", data_dir=tmp_path / "data", dir=raw, runner="DirectRunner"
        )
    assert not contents(tmp_path / "data")


def test_a_runner_without_beam_says_what_to_add(raw, tmp_path, capsys):
    assert prepare.main(flags(raw, tmp_path / "data", "--runner=FlinkRunner")) == 2
    assert "add --beam" in capsys.readouterr().err


def test_a_scene_is_encoded_into_one_complete_file(tmp_path, monkeypatch):
    def fail(unit):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "encode", fail)
    with pytest.raises(KeyboardInterrupt):
        beam._encode_scene(tmp_path / "0.pickle", [None])
    assert not list(tmp_path.iterdir())
