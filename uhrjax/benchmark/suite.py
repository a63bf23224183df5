"""All benchmarks one after the other, each in a process of its own, in one table."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from uhrjax.benchmark import suite_table

COMMANDS = ("train", "predict", "data")
# What the papers' recipes are measured by; `data` needs the data sets prepared.
PAPERS = (
    ("train", "configs/pfnet.py", ()),
    ("predict", "configs/pfnet.py", ()),
    ("train", "configs/upernet.py", ()),
    ("train", "configs/semantic_fpn.py", ()),
    ("train", "configs/fctl.py:deepglobe", ()),
    ("predict", "configs/fctl.py:deepglobe,crude", ("--rows=2448", "--columns=2448")),
    ("train", "configs/glnet.py", ()),
    ("predict", "configs/glnet.py", ("--rows=2448", "--columns=2448")),
    ("train", "configs/magnet.py:deepglobe", ()),
    # One patch at a time, as the paper has it, leaves a large device idle.
    (
        "predict",
        "configs/magnet.py:deepglobe",
        ("--config.magnet.patches_at_once=8",),
    ),
    ("train", "configs/foveation.py:deepglobe", ()),
    # One location per smallest patch: every px is labelled once.
    ("predict", "configs/foveation.py:deepglobe", ("--config.eval.rate=500",)),
    ("train", "configs/cascadepsp.py", ()),
    ("predict", "configs/cascadepsp.py", ()),
)
SMALL = ("pfnet", "fctl", "glnet", "magnet", "foveation", "cascadepsp")
SMALL_SIZE = ("--rows=512", "--columns=512", "--pass_s=2")


class Job(NamedTuple):
    """One benchmark."""

    command: str
    spec: str
    words: tuple[str, ...]  # more of the command line


def run(
    spec: str | None,
    overrides: list[str],
    *,
    steps: int,
    repeats: int,
) -> dict[str, Any]:
    """Runs all, prints as it goes, and returns all figures as a JSON tree.

    Args:
        spec: of a config: all benchmarks of that one. None: the papers' recipes, or on
            a CPU their small variants.
        overrides: of every config.
        steps: of training.
        repeats: of every other measurement.
    """
    jobs = _plan(spec)
    shared = [*overrides, f"--steps={steps}", f"--repeats={repeats}"]
    found: dict[str, Any] = {"benchmark": "all", "runs": [], "failed": {}}
    for job in jobs:
        print(
            f"\n== {job.command} {job.spec} {' '.join(job.words)}".rstrip(), flush=True
        )
        words = [word for word in shared if _is_known(job.command, word)]
        result, problem = _run(job, words)
        if result is None:
            print(f"failed: {problem}", flush=True)
            found["failed"][f"{job.command} {job.spec}"] = problem
        else:
            found["runs"].append(result)
    suite_table.print_all(found)
    return found


def _plan(spec: str | None) -> list[Job]:
    if spec is not None:
        return [Job(command, spec, ()) for command in COMMANDS]
    if _platform() != "cpu":
        return [Job(*each) for each in PAPERS]
    print("a CPU: small variants of the recipes (--config=... measures another)")
    jobs = []
    for name in SMALL:
        config = f"configs/{name}.py:synthetic,smoke"
        for command in COMMANDS:
            size = SMALL_SIZE if command == "predict" else ()
            jobs.append(Job(command, config, size))
    return jobs


def _platform() -> str:
    """Returns the kind of device; asked in another process, as a GPU serves one."""
    program = "import jax; print(jax.default_backend())"
    words = [sys.executable, "-c", program]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def _is_known(command: str, word: str) -> bool:
    """Whether a flag means something to a benchmark."""
    if word.startswith("--config."):
        return True
    return word.startswith("--steps=") == (command == "train")


def _run(job: Job, words: list[str]) -> tuple[dict[str, Any] | None, str]:
    """Runs one benchmark; returns its figures, or None and why there are none."""
    with tempfile.TemporaryDirectory(prefix="uhrjax-benchmark-") as folder:
        path = pathlib.Path(folder) / "figures.json"
        line = ["-m", "uhrjax.benchmark", job.command, f"--config={job.spec}"]
        ended = subprocess.run(
            [sys.executable, *line, *job.words, *words, f"--json={path}"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if ended.returncode == 0 and path.is_file():
            return json.loads(path.read_text()), ""
    told = ended.stderr.strip().splitlines() or ["nothing; out of memory, perhaps"]
    return None, f"it ended with code {ended.returncode} and said: {told[-1]}"
