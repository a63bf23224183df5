"""One run in several processes, on one host or many: start, share, agree, gather.

Every process runs the same command. Process 0 is the one that prints and writes what
there is one of; stdout of the others goes nowhere.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from uhrjax import rendezvous
from uhrjax.errors import InputError

T = TypeVar("T")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
GRACE_S = 3.0  # in which the others leave before the coordinator does
_SLURM_PORTS = 61440, 4096  # first, how many; a job has its own


def start(
    *, devices: int = 0, coordinator: str = "", processes: int = 0, process: int = -1
) -> None:
    """Connects the processes of a run; to be called before anything is computed.

    Args:
        devices: how many of this process's devices to use; on a CPU as many virtual
            ones are made; 0: all.
        coordinator: "host:port" of process 0; "auto": JAX finds the others (TPU pods,
            Open MPI, Kubernetes); "": one process, or those of a Slurm step.
        processes: how many, with a coordinator.
        process: which one this is, with a coordinator.

    Raises:
        InputError: the flags do not go together, somebody did not come, or there are
            fewer devices.
    """
    if devices < 0:
        raise InputError(f"--devices={devices}; use 1 or more, or leave it out for all")
    if devices:
        _limit(devices)
    if coordinator == "auto":
        _connect_by_jax()
    elif coordinator:
        if processes < 1 or process < 0:
            raise InputError(
                "--coordinator needs --processes=N, and --process=I, another of 0 to "
                "N - 1 in each of them"
            )
        _connect(coordinator, processes, process)
    elif processes or process >= 0:
        raise InputError(
            "--processes and --process need --coordinator=HOST:PORT, where process 0 "
            "can be reached"
        )
    elif all(os.environ.get(name) for name in SLURM):
        _connect_by_slurm()
    if devices:
        _check_count(devices)


def is_one_of_several() -> bool:
    """Whether this process is connected to others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes what there is one of."""
    return jax.process_index() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Returns those of some items that this process works on."""
    return items[jax.process_index() :: jax.process_count()]


def gather(value: T) -> list[T]:
    """Returns the value of every process, in order, bit by bit; all must call it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(data)], np.int32))
    lengths = np.ravel(lengths)
    # A power of two, so that few programs serve all sizes.
    padded = np.zeros(1 << int(lengths.max() - 1).bit_length(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [
        pickle.loads(row[:length].tobytes())
        for row, length in zip(rows, lengths, strict=True)
    ]


def wait() -> None:
    """Returns when all processes have come here."""
    gather(None)


def in_turn(work: Callable[[], T]) -> T:
    """Does the same work in every process, one after the other, process 0 first.

    So what the first one prepares on a disk that they share, the others find there.

    Raises:
        InputError: in all processes, if the work failed in any of them.
    """
    if jax.process_count() == 1:
        return work()
    result, problem = None, ""
    for turn in range(jax.process_count()):
        if turn == jax.process_index():
            result, problem = _tried(work)
        wait()
    agree(problem)
    return result


def together(work: Callable[[], T]) -> T:
    """Does what every process has to do by itself, then waits for the others.

    Raises:
        InputError: in all processes, if the work failed in any of them.
    """
    if jax.process_count() == 1:
        return work()
    result, problem = _tried(work)
    agree(problem)
    return result


def agree(problem: str) -> None:
    """Raises InputError in all processes if there is a problem in any of them."""
    found = {text: i for i, text in reversed(list(enumerate(gather(problem)))) if text}
    if found:
        text, index = list(found.items())[-1]
        where = "" if index == 0 else f"process {index}: "
        raise InputError(where + text)


def check_same(what: str, value: str, advice: str) -> None:
    """Raises InputError unless all processes have the same value."""
    values = gather(value)
    for index, other in enumerate(values):
        if other != values[0]:
            raise InputError(
                f"{what} differs: process 0 has {values[0]}, process {index} {other}; "
                f"{advice}"
            )


def check_there(path: str | pathlib.Path) -> None:
    """Raises InputError in all of several processes if one does not see a path."""
    if jax.process_count() > 1:
        path = pathlib.Path(path).expanduser()
        lost = f"{path} is not there; all processes read it: put it on storage that "
        agree("" if path.exists() else lost + "every host sees")


def check_shared(folder: pathlib.Path) -> None:
    """Makes a folder; raises InputError unless all processes see the same one."""
    if jax.process_count() == 1:
        folder.mkdir(parents=True, exist_ok=True)
        return
    name = f".{gather(uuid.uuid4().hex)[0]}"
    problem = ""
    if is_first():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        except OSError as error:
            problem = str(error)
    agree(problem)
    sees = (folder / name).exists()
    wait()
    if is_first():
        (folder / name).unlink()
    agree(
        ""
        if sees
        else f"{folder.absolute()} is not the folder that process 0 has: all processes "
        "write one run, so give a --workdir on storage that every host sees"
    )


def name() -> str:
    """Returns who says an error: uhrjax, or which of several processes."""
    if not jax.distributed.is_initialized() or is_first():
        return "uhrjax"
    return f"uhrjax, process {jax.process_index()}"


def print_failure(error: Exception) -> None:
    """Prints what ended this process of several, if no user's mistake did."""
    if not isinstance(error, jax.errors.JaxRuntimeError):
        traceback.print_exception(error)
        return
    text = " ".join(str(error).split())
    print(
        f"{name()}: the devices stopped: {text[:300]}; if another process of this run "
        "ended before, its own message says why; the same command goes on from the "
        "last checkpoint",
        file=sys.stderr,
    )


def leave(code: int) -> None:
    """Ends a process that failed, without waiting for the others; else does nothing."""
    if not jax.distributed.is_initialized():
        return
    if jax.process_index() == 0:
        time.sleep(GRACE_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tried(work: Callable[[], T]) -> tuple[T | None, str]:
    """Returns what the work returned, and what a user can mend about it."""
    try:
        return work(), ""
    except (InputError, OSError) as error:
        return None, str(error)


def _limit(devices: int) -> None:
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:
        raise InputError(
            "--devices must be known before JAX starts; JAX runs already"
        ) from error
    visible = ",".join(map(str, range(devices)))
    for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
        jax.config.update(name, visible)


def _check_count(devices: int) -> None:
    try:
        found = jax.local_devices()
    except RuntimeError as error:  # a GPU that is to be visible is not there
        text = " ".join(str(error).split())
        raise InputError(
            f"--devices={devices}: this host has fewer ({text[:200]}); use as many as "
            "it has, or leave the flag out for all of them"
        ) from error
    if len(found) < devices:
        raise InputError(
            f"--devices={devices}, but this host has {len(found)} "
            f"({found[0].device_kind}); use {len(found)} or fewer, or leave the flag "
            "out for all of them"
        )
    if len(found) > devices:
        raise InputError(
            f"--devices={devices}: the {len(found)} devices of a {found[0].device_kind}"
            " host go together; leave the flag out"
        )


def _connect(coordinator: str, processes: int, process: int) -> None:
    rendezvous.meet(coordinator, processes, process)
    if process:
        _silence()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator, processes, process, local_device_ids=_local_devices()
    )


def _connect_by_slurm() -> None:
    """Connects the tasks of a Slurm step, if there are several."""
    job, nodes, tasks, task = (os.environ[name] for name in SLURM)
    if int(tasks) == 1:
        return
    port = _SLURM_PORTS[0] + int(job) % _SLURM_PORTS[1]
    _connect(f"{first_node(nodes)}:{port}", int(tasks), int(task))


def _local_devices() -> list[int]:
    """Returns the GPUs of this process; none: all, as for one process per host."""
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1").partition("(")[0]
    if per_node.partition(",")[0] == "1":
        return []
    return [int(os.environ.get("SLURM_LOCALID", 0))]


def first_node(nodes: str) -> str:
    """Returns the first host of a Slurm list, such as gpu[07-09,12],big1."""
    name, bracket, rest = nodes.partition("[")
    if not bracket or "," in name:
        return name.partition(",")[0]
    first = rest.replace("-", ",").replace("]", ",").partition(",")[0]
    return name + first + (rest.partition("]")[2].partition(",")[0])


def _connect_by_jax() -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--coordinator=auto: JAX found no cluster here ({error}); give "
            "--coordinator=HOST:PORT --processes=N --process=I"
        ) from error
    if jax.process_index():
        _silence()


def _silence() -> None:
    """Sends stdout nowhere, also that of libraries that are not Python."""
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
