"""Runs of two processes, as on two hosts: train, score, label, stop, go on."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import cv2
import grain
import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from uhrjax import errors, hosts, initialize, main, methods, metrics, train
from uhrjax.data import pipeline

HERE = pathlib.Path(__file__).parent


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def flags(squares, data_root, workdir, *more):
    return [
        "--config=tests/pixel.py", f"--workdir={workdir}",
        f"--config.data.dir={squares}", f"--config.data.root={data_root}", *more,
    ]  # fmt: skip


def start_pair(work, argv):
    """Starts two processes of two devices each."""
    several = ["--devices=2", "--processes=2", f"--coordinator=localhost:{free_port()}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE)}
    return [
        subprocess.Popen(
            [sys.executable, str(HERE / "several.py"), work, *argv, *several,
             f"--process={index}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip


def end_pair(pair):
    """Returns of every process (stdout, what it told)."""
    ended = []
    for process in pair:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        told = {}
        for line in err.splitlines():
            if line.startswith("FOUND "):
                told |= json.loads(line.removeprefix("FOUND "))
        ended.append((out, told))
    return ended


def train_lines(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["part"] == "train"]


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def pixel(monkeypatch):
    """The network by its name, and flags that are not for the next test."""
    monkeypatch.setitem(methods.METHODS, "pixel", "pixel.PixelMethod")
    with flagsaver.flagsaver():
        yield


@pytest.fixture(scope="module")
def folders(squares, data_root, tmp_path_factory):
    """The same run in one process and in two; what the two told."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    pair = start_pair("everything", flags(squares, data_root, two))
    told = end_pair(pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(methods.METHODS, "pixel", "pixel.PixelMethod")
        patch.chdir(HERE.parent)
        with flagsaver.flagsaver():
            main.main(["main", *flags(squares, data_root, one)])
    return one, two, told


def test_two_processes_train_as_one_does(folders):
    one, two, _ = folders
    ours, theirs = train_lines(two), train_lines(one)
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(ours, theirs, strict=True):
        for name in ("total", "grad_norm", "learning_rate"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)


def test_only_process_0_prints(folders):
    _, _, ((first, _), (second, _)) = folders
    assert "4 x cpu (cpu) in 2 processes" in first and "mIoU" in first
    assert second == ""


def test_counts_of_two_processes_are_those_of_all_scenes(folders, squares):
    _, two, _ = folders
    counts = np.zeros((2, 2), np.int64)
    for path in sorted((squares / "val/masks").iterdir()):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        ours = cv2.imread(str(two / "masks" / path.name), cv2.IMREAD_UNCHANGED)
        counts += metrics.confusion(label, ours, 2)
    report = report_of(two)
    np.testing.assert_array_equal(counts, report["confusion"])
    assert report["device"] == "4 x cpu (cpu) in 2 processes"
    # 3 x 2 and 2 x 3 patches of 32 px, and the scene of 1 px
    assert np.sum(report_of(two / "c")["confusion"]) == 12 * 32 * 32 + 1


def test_two_processes_score_as_one_does(folders, pixel, squares, data_root, tmp_path):
    _, two, _ = folders
    argv = ["main", "--mode=evaluate", f"--checkpoint={two}", f"--output={tmp_path}"]
    main.main(argv)
    ours, theirs = report_of(two), report_of(tmp_path)
    assert ours["weights_hash"] == theirs["weights_hash"]  # saved on four devices
    for name in ("miou", "boundary_f_3", "boundary_f_12"):
        assert ours["scores"][name] == pytest.approx(theirs["scores"][name], abs=1e-3)


def test_files_are_labelled_by_one_process_each(folders, squares):
    _, two, ((_, told), _) = folders
    assert told["code"] == 0
    for path in (squares / "val/images").iterdir():
        mask = cv2.imread(str(two / "labelled" / path.name), cv2.IMREAD_UNCHANGED)
        same = cv2.imread(str(two / "masks" / path.name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, same)


def test_one_file_is_labelled_by_both_processes(folders):
    _, two, ((first, told), (_, second)) = folders
    whole = cv2.imread(str(two / "masks/val0.png"), cv2.IMREAD_UNCHANGED)
    assert whole.shape == (75, 50) and whole.any()
    ours = cv2.imread(str(two / "joint/val0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ours, whole)
    assert first.count("complete already") == 1
    np.testing.assert_array_equal(told["alone"], whole[None])
    assert second["alone"] == []


def test_files_that_fail_are_told_of_whoever_had_them(folders):
    _, _, ((first, told), (_, second)) = folders
    assert told["broken"] == second["broken"] == 1
    assert told["lonely"] == second["lonely"] == 1  # one file, opened by both
    assert "a.png" in first and "b.png" in first


def test_processes_tell_each_other_every_bit(folders):
    _, _, told = folders
    for index, (_, found) in enumerate(told):
        assert found["gathered"] == [[2**53, ""], [2**53 + 1, "x"]]
        assert found["turn"] == [index, str(index)]  # the first one had finished


def test_what_fails_in_one_process_is_said_in_all(folders):
    _, _, told = folders
    for _, found in told:
        assert found["failed"] == found["together"] == "process 1: no scenes here"
        assert "the split differs: process 0 has s0, process 1 s1" in found["other"]
        assert found["shared"] == found["there"] == ""
        assert "is not there; all processes read it" in found["lost"]
        assert "what --input names differs" in found["lists"]
        assert "process 1: " in found["unshared"]
        assert "give a --workdir on storage that every host sees" in found["unshared"]


def test_a_run_goes_from_one_process_to_two_and_back(
    pixel, squares, data_root, tmp_path
):
    long = ("--config.epochs=60", "--config.eval.every=1000")
    argv = flags(squares, data_root, tmp_path / "run", *long)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train._StopRequest, "is_due", lambda self, step: step == 5)
        main.main(["main", *argv])
    pair = start_pair("run", argv)
    log = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 200
    while len(log.read_text().splitlines()) < 6:
        assert pair[0].poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    pair[1].send_signal(signal.SIGTERM)  # a scheduler may tell only one of them
    (out, told), (_, second) = end_pair(pair)
    assert told["code"] == second["code"] == 0
    assert f"resumed from {tmp_path}/run/checkpoints/5" in out
    assert "the same command goes on" in out
    (saved,) = (tmp_path / "run/checkpoints").iterdir()
    assert 6 <= int(saved.name) < 180
    main.main(["main", *argv])
    main.main(["main", *flags(squares, data_root, tmp_path / "whole", *long)])
    lines = train_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 181))
    parts, whole = (initialize.read_run(tmp_path / n) for n in ("run", "whole"))
    np.testing.assert_allclose(
        parts["params"]["classify"]["kernel"],
        whole["params"]["classify"]["kernel"],
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("how, code", [("lose", 9), ("fail", 1)])
def test_when_one_process_ends_the_other_says_so_and_ends(tmp_path, how, code):
    pair = start_pair(how, ["--config=tests/pixel.py"])
    said = [process.communicate(timeout=100)[1] for process in pair]
    assert [process.returncode for process in pair] == [1, code]
    assert "uhrjax: the devices stopped" in said[0]
    assert "if another process of this run ended" in said[0]
    assert "Traceback" not in said[0]
    assert ("RuntimeError: a bug" in said[1]) == (how == "fail")


@pytest.mark.parametrize("count", (2, 4))
def test_batches_are_the_same_for_any_number_of_processes(count):
    samples = [{"label": np.array([i])} for i in range(24)]
    data = grain.MapDataset.source(samples).seed(3).shuffle().repeat(None)

    def first(process):
        stream = pipeline.train_batches(
            data, batch_size=8, start_step=2, process=process,
            transform=lambda sample, rng: {**sample, "noise": rng.random()},
            targets=lambda label, rng: {"target": rng.random()},
        )  # fmt: skip
        return [next(stream) for _ in range(4)]

    whole = first((0, 1))
    parts = [first((index, count)) for index in range(count)]
    for step, batch in enumerate(whole):
        for name, values in batch.items():
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, values)


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("node001", "node001"), ("node001,host2", "node001"),
        ("gpu[07-09,12]", "gpu07"), ("gpu[3,5],big1", "gpu3"),
        ("big1,gpu[3,5]", "big1"), ("r[1-2]-ib", "r1-ib"),
    ],
)  # fmt: skip
def test_first_node_of_a_slurm_list(nodes, first):
    assert hosts.first_node(nodes) == first


@pytest.fixture
def connected(monkeypatch):
    """What processes would be connected by."""
    calls = []
    monkeypatch.setattr(hosts, "_connect", lambda *given: calls.append(given))
    for name in hosts.SLURM:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_process_by_itself_is_connected_to_none(connected):
    hosts.start()
    assert connected == [] and not hosts.is_one_of_several()


@pytest.mark.parametrize("tasks, expected", [("1", 0), ("4", 1)])
def test_tasks_of_a_slurm_step_find_each_other(connected, monkeypatch, tasks, expected):
    for name, value in zip(hosts.SLURM, ("5000", "gpu[3-6]", tasks, "2"), strict=True):
        monkeypatch.setenv(name, value)
    hosts.start()
    assert connected == [("gpu3:62344", 4, 2)][:expected]


@pytest.mark.parametrize(
    "per_node, own", [("1(x4)", []), ("1", []), ("8(x4)", [5]), (None, [])]
)
def test_a_task_takes_all_gpus_of_its_node_unless_it_shares_it(
    monkeypatch, per_node, own
):
    monkeypatch.delenv("SLURM_STEP_TASKS_PER_NODE", raising=False)
    if per_node:
        monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", per_node)
    monkeypatch.setenv("SLURM_LOCALID", "5")
    assert hosts._local_devices() == own


@pytest.mark.parametrize(
    "given, match",
    [
        ({"devices": -1}, "use 1 or more"),
        ({"processes": 2}, "need --coordinator=HOST:PORT"),
        ({"process": 0}, "need --coordinator=HOST:PORT"),
        ({"coordinator": "a:1"}, "needs --processes=N, and --process=I"),
        ({"coordinator": "a:1", "processes": 2}, "needs --processes=N"),
        ({"devices": 2}, "JAX runs already"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(connected, given, match):
    jax.devices()
    with pytest.raises(errors.InputError, match=match):
        hosts.start(**given)


def test_auto_without_a_cluster_says_what_to_give(connected, monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(errors.InputError, match="JAX found no cluster here"):
        hosts.start(coordinator="auto")


class Device:
    device_kind = "TPU v4"


def devices_of(count):
    if not count:
        raise RuntimeError("'visible_device_list' listed an invalid Device id '1'")
    return [Device] * count


@pytest.mark.parametrize(
    "there, match",
    [
        (0, "this host has fewer .*invalid Device id"),
        (1, "this host has 1 .TPU v4.; use 1 or fewer"),
        (4, "the 4 devices of a TPU v4 host go together"),
    ],
)
def test_devices_that_are_not_there_are_refused(connected, monkeypatch, there, match):
    monkeypatch.setattr(hosts, "_limit", lambda devices: None)
    monkeypatch.setattr(jax, "local_devices", lambda: devices_of(there))
    with pytest.raises(errors.InputError, match=match):
        hosts.start(devices=2)
