"""launch.sh, with a Python, sbatch and gcloud that only say how they were called."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TOOLS = ("basename", "bash", "cat", "cksum", "date", "dirname", "env", "mkdir", "sed")
SAY = '#!/usr/bin/env bash\nprintf "%s|" CALLED "$@"\n'
TUPLE = "--config.model.levels=('F4','F5')"


@pytest.fixture
def tree(tmp_path):
    """A folder with launch.sh in which nothing is installed and nothing trained."""
    tree, tools = tmp_path / "my tree", tmp_path / "tools"
    for folder in (tree / ".venv/bin", tools):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "launch.sh", tree)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    add_tool(tree / ".venv/bin/python", '[ "$2" != pip ] || exit 0\n')
    return tree


def add_tool(path, first=""):
    path.write_text(SAY.replace("printf", first + "printf"))
    path.chmod(0o755)


def launch(tree, *argv):
    """Returns (exit code, how the tool was called, all that was printed)."""
    done = subprocess.run(
        ["./launch.sh", *argv], cwd=tree, env={"PATH": str(tree.parent / "tools")},
        capture_output=True, text=True,
    )  # fmt: skip
    called = done.stdout.partition("CALLED|")[2].split("|")[:-1]
    return done.returncode, called, done.stdout + done.stderr


def script_of(tree):
    (script,) = (tree / "runs/slurm").iterdir()
    return script


def test_flags_go_to_main_as_they_are(tree):
    code, called, _ = launch(tree, "configs/pfnet.py:synthetic", "--devices=8", TUPLE)
    assert code == 0
    config = "--config=configs/pfnet.py:synthetic"
    assert called == ["-m", "uhrjax.main", config, "--devices=8", TUPLE]


def test_slurm_script_is_submitted_and_starts_main_on_every_node(tree):
    tools = tree.parent / "tools"
    add_tool(tools / "sbatch")
    code, called, _ = launch(
        tree, "configs/pfnet.py", "--slurm", "--nodes=4", "--partition=gpu",
        "--gpus-per-node=8", TUPLE,
    )  # fmt: skip
    assert code == 0 and called == [f"runs/slurm/{script_of(tree).name}"]
    text = script_of(tree).read_text()
    for line in ("nodes=4", "ntasks-per-node=1", "partition=gpu", "gpus-per-node=8"):
        assert f"#SBATCH --{line}\n" in text
    add_tool(tools / "srun")
    done = subprocess.run(
        ["bash", script_of(tree)], env={"PATH": str(tools)}, cwd="/",
        capture_output=True, text=True,
    )  # fmt: skip
    _, called = done.stdout[:-1].split("CALLED|")
    assert called.split("|") == [
        "--kill-on-bad-exit=1", ".venv/bin/python", "-m", "uhrjax.main",
        "--config=configs/pfnet.py", TUPLE,
    ]  # fmt: skip


def test_without_sbatch_the_script_is_written_and_its_use_is_said(tree):
    code, _, said = launch(tree, "configs/pfnet.py", "--slurm", "--nodes=2")
    assert code == 2
    assert f"sbatch runs/slurm/{script_of(tree).name}" in said
    assert "nothing was submitted" in said


def test_tpu_command_runs_on_all_workers(tree):
    add_tool(tree.parent / "tools/gcloud")
    code, called, _ = launch(
        tree, "configs/pfnet.py", "--tpu=pod", "--zone=us-central2-b", TUPLE
    )
    assert code == 0
    assert called[:5] == ["compute", "tpus", "tpu-vm", "ssh", "pod"]
    assert called[5:7] == ["--zone=us-central2-b", "--worker=all"]
    there = called[7].removeprefix("--command=")
    home = tree.parent  # as on a worker, where the folder lies in the home
    done = subprocess.run(
        ["bash", "-c", there], cwd=home, env={"PATH": str(home / "tools")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.partition("CALLED|")[2].split("|")[:-1] == [
        "-m", "uhrjax.main", "--config=configs/pfnet.py", "--coordinator=auto", TUPLE
    ]  # fmt: skip


def test_without_gcloud_the_command_is_said(tree):
    code, _, said = launch(tree, "configs/pfnet.py", "--tpu=pod", "--zone=a")
    assert code == 2 and "no gcloud here" in said
    assert "gcloud compute tpus tpu-vm ssh pod --zone=a --worker=all" in said


@pytest.mark.parametrize(
    "argv, match",
    [
        (("--nodes=4",), "add --slurm"),
        (("--slurm", "--nodes=many"), "use a number of nodes"),
        (("--tpu=pod",), "needs its --zone=ZONE"),
        (("--tpu", "--zone=a"), "--tpu needs a name"),
    ],
)
def test_flags_that_lack_something_say_what(tree, argv, match):
    code, _, said = launch(tree, "configs/pfnet.py", *argv)
    assert code == 2 and match in said


def test_help_names_every_way_to_start(tree):
    _, _, said = launch(tree)
    for word in ("--devices", "--slurm", "--tpu", "--coordinator", "test", "install"):
        assert word in said
