"""Preparation: complete or not at all, the same bytes twice, and its command line."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import types

import folder_layout
import numpy as np
import pytest

from data_builders import encode, generate, prepare, procedural, record
from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import window as windows


def contents(root):
    """Returns {relative path: sha256} of all files below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def raw(tmp_path):
    folder_layout.write_folder(tmp_path / "raw", [(40, 30), (20, 50), (33, 33)])
    return tmp_path / "raw"


def run(raw, root, **options):
    options = {"tile": 16, "stride": 8, "views": (1, 2), **options}
    return prepare.prepare("folder", data_dir=root, dir=raw, **options)


def test_two_runs_write_the_same_bytes(raw, tmp_path):
    run(raw, tmp_path / "one")
    run(raw, tmp_path / "two", workers=2)  # in processes, this time
    flags = ["--tile=16", "--stride=8", "--views=1,2", f"--dir={raw}"]
    flags += [f"--data_dir={tmp_path / 'three'}"]
    command = [sys.executable, "-m", "data_builders.prepare", "folder", *flags]
    subprocess.run(command, check=True, capture_output=True)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two") == contents(tmp_path / "three")
    assert sum("array_record" in path for path in first) == 4


def test_nothing_is_done_again_and_missing_layouts_are_added(
    raw, tmp_path, monkeypatch
):
    run(raw, tmp_path / "data", configs=("scenes",))
    before = contents(tmp_path / "data")
    run(raw, tmp_path / "data")
    after = contents(tmp_path / "data")
    assert before.items() < after.items()
    monkeypatch.setattr(generate, "generate", pytest.fail)
    run(raw, tmp_path / "data")


def test_overwrite_replaces_and_a_failure_keeps_what_was_there(raw, tmp_path):
    name = run(raw, tmp_path / "data").name
    before = contents(tmp_path / "data")
    victim = prepared.locate(tmp_path / "data", name, "scenes") / "metadata.json"
    victim.write_text("{}")
    run(raw, tmp_path / "data", overwrite=True)
    assert contents(tmp_path / "data") == before
    path = next((raw / "images").iterdir())
    stat, size = path.stat(), path.stat().st_size
    path.write_bytes(b"x" * size)  # the same fingerprint, but broken
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(errors.InputError, match="cannot be used"):
        run(raw, tmp_path / "data", overwrite=True)
    assert contents(tmp_path / "data") == before


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    raw, tmp_path, monkeypatch, capsys
):
    full = types.SimpleNamespace(total=1, used=1, free=2**20)
    monkeypatch.setattr(record.shutil, "disk_usage", lambda path: full)
    flags = [f"--dir={raw}", f"--data_dir={tmp_path / 'data'}"]
    assert prepare.main(["folder", *flags]) == 2
    said = capsys.readouterr().err.split("error: ")[-1]
    assert "is full (1 MiB left), nothing was kept" in said
    assert not contents(tmp_path / "data")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "x"), RuntimeError("No space left on device")]
)
def test_a_writer_that_finds_the_disk_full_says_so(tmp_path, error):
    with pytest.raises(OSError, match="is full"), record._disk_errors(tmp_path):
        raise error


def test_lost_records_are_noticed(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_count_records", lambda shard: 0)
    with pytest.raises(OSError, match="records of split 'train' arrived"):
        run(raw, tmp_path / "data")
    assert not contents(tmp_path / "data")


def test_a_crash_in_the_middle_leaves_nothing_that_looks_prepared(
    raw, tmp_path, monkeypatch
):
    real, calls = encode.encode, []

    def crash(unit):
        calls.append(unit)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(unit)

    monkeypatch.setattr(encode, "encode", crash)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "data")
    assert not contents(tmp_path / "data")


def test_remains_of_a_killed_run_are_removed(raw, tmp_path):
    name = run(raw, tmp_path / "data").name
    folder = prepared.locate(tmp_path / "data", name, "scenes")
    shutil.copytree(folder, folder.parent / f".incomplete_{folder.name}")
    before = contents(folder)
    listed = prepare.describe_all(tmp_path / "data")
    assert listed.count("as scenes") == 1
    run(raw, tmp_path / "data", overwrite=True)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def _hold(folder, ready, seconds):
    import time

    with record.one_at_a_time(folder):
        ready.set()
        time.sleep(seconds)


def test_two_processes_do_not_prepare_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "x", ready, 0.5))
    other.start()
    assert ready.wait(30)
    with record.one_at_a_time(tmp_path / "x"):
        assert not other.is_alive() or other.join(5) is None
        assert other.exitcode == 0  # it was done before we got in
    assert not (tmp_path / "x").exists()


def test_units_in_flight_are_bounded_and_in_order(monkeypatch):
    scene = procedural_scene()
    units = [encode.Unit(scene, "train", 0, 8, ()) for _ in range(7)]
    submitted, done = [], []

    class Pool:
        def __init__(self, *args, **kwargs):
            pass

        def submit(self, function, unit):
            submitted.append(unit)
            return types.SimpleNamespace(result=lambda: unit)

        def shutdown(self, **kwargs):
            pass

    monkeypatch.setattr(generate.concurrent.futures, "ProcessPoolExecutor", Pool)
    for unit in generate._encode_all(units, 2):
        done.append(unit)
        assert len(submitted) - len(done) <= 3
    assert all(a is b for a, b in zip(done, units, strict=True))


def procedural_scene():
    from data_builders import synthetic

    return synthetic.ProceduralScene(
        id="x", height=8, width=8, kind="objects", size="tiny", seed=0
    )


@pytest.fixture
def few(monkeypatch):
    """Makes the synthetic splits short."""
    counts = {"train": 2, "val": 1, "test": 1}
    monkeypatch.setitem(procedural.SPLITS, "tiny", counts)


@pytest.mark.parametrize("kind", ["objects", "landcover"])
def test_synthetic_scenes_are_prepared_as_they_are_drawn(tmp_path, few, kind):
    info = prepare.prepare(f"synthetic/{kind}_tiny", data_dir=tmp_path, workers=1)
    assert info.name == f"synthetic/{kind}_tiny"
    assert info.classes == tuple(name for name, _ in procedural.CLASSES[kind])
    folder = prepared.locate(tmp_path, info.name, "scenes")
    window = windows.Window(100, 200, 150, 90)
    for split_index, split in enumerate(("train", "val", "test")):
        reader = scenes.open_scenes(folder, split)
        made = procedural.make_scene(kind, "tiny", seed=10**6 * split_index)
        expected = windows.cut(made.image, window, fill=0)
        np.testing.assert_array_equal(reader.read_image(0, window), expected)
        expected = windows.cut(made.label, window, fill=255)
        np.testing.assert_array_equal(reader.read_label(0, window), expected)
        if kind == "landcover":
            expected = windows.cut(made.thin, window, fill=0)
            found = reader.read_extra("thin", 0, window)
            np.testing.assert_array_equal(found, expected)
    patches = prepared.locate(tmp_path, info.name, "patches_256_128")
    assert len(scenes.open_patches(patches, "train")) == 2 * 9


def test_the_split_hash_follows_ids_and_splits(raw, tmp_path):
    first = run(raw, tmp_path / "data", train="s0,s1", val="s2").split_hash
    again = run(raw, tmp_path / "data", train="s1,s0", val="s2").split_hash
    other = run(raw, tmp_path / "data", train="s0,s2", val="s1").split_hash
    assert first == again != other


def test_unknown_names_options_and_subsets_list_what_there_is(tmp_path):
    with pytest.raises(errors.InputError, match="there are synthetic, folder, isaid"):
        prepare.prepare("mars", data_dir=tmp_path)
    with pytest.raises(errors.InputError, match="no option colour; it has: subset"):
        prepare.prepare("synthetic", data_dir=tmp_path, colour="red")
    with pytest.raises(
        errors.InputError, match="objects_many, objects_few, objects_full"
    ):
        prepare.prepare("synthetic", data_dir=tmp_path, subset="objects_huge")


@pytest.mark.parametrize(
    "flags", [["mars"], ["synthetic", "--tile=a"], ["synthetic", "--nope=1"]]
)
def test_a_wrong_command_line_is_one_line_with_exit_code_2(capsys, flags):
    with pytest.raises(SystemExit) as caught:
        prepare.main(flags)
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith("error: ") and said.count("\n") == 1


def test_the_command_reports_counts_classes_bytes_and_path(tmp_path, raw, capsys):
    flags = [f"--data_dir={tmp_path / 'data'}"]
    own = [f"--dir={raw}", "--classes=ground,roof", "--tile=16", "--views=1,2"]
    assert prepare.main([*flags, "folder", *own]) == 0  # flags may stand on both sides
    said = capsys.readouterr().out
    for part in ("train: 2 scenes", "ground", "roof", "(ignored)", "patches_16_8_v1-2"):
        assert part in said
    assert str(tmp_path / "data") in said and "MB" in said
    assert prepare.main(["folder", *flags, *own]) == 0
    assert "already prepared" in capsys.readouterr().out
    assert prepare.main(flags) == 0
    said = capsys.readouterr().out
    assert "as scenes: scenes train 2, val 1; 2 classes" in said
    assert "isaid" in said and "prepared: no" in said


def test_the_module_runs_and_imports_neither_jax_nor_tensorflow(tmp_path):
    code = (
        "import sys\nfrom data_builders import prepare\n"
        f"code = prepare.main(['--data_dir={tmp_path}'])\n"
        "assert not {'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout
