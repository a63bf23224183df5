"""The processes of a run find each other before JAX connects them.

JAX ends a process that waits in vain, without a word to its user. So all of them meet
first at the address that JAX will use: process 0 listens there, the others say who they
are, and it tells everybody whether all have come.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time

from uhrjax.errors import InputError

WAIT_S = 300.0  # for the last one to come
_RETRY_S = 0.2


def meet(
    coordinator: str, processes: int, process: int, wait_s: float = WAIT_S
) -> None:
    """Returns when all processes of a run have come.

    Args:
        coordinator: "host:port" of process 0, free for JAX afterwards.
        processes: how many there are.
        process: which one this is, 0 to processes - 1.
        wait_s: how long to wait for the others.

    Raises:
        InputError: somebody did not come, in all processes that did.
    """
    host, port = parse(coordinator)
    if not 0 <= process < processes:
        raise InputError(
            f"--process={process} of --processes={processes}; use 0 to {processes - 1},"
            " each once"
        )
    if process == 0:
        _host(host, port, processes, time.monotonic() + wait_s, wait_s)
    else:
        _join(host, port, processes, process, wait_s)


def parse(coordinator: str) -> tuple[str, int]:
    """Returns host and port of "host:port"; raises InputError."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(
            f"--coordinator={coordinator!r}: give HOST:PORT of process 0, as all "
            "others reach it, e.g. --coordinator=10.0.0.1:9876"
        )
    return host.strip("[]"), int(port)


def _host(host: str, port: int, processes: int, deadline: float, wait_s: float) -> None:
    came: dict[int, socket.socket] = {}
    problem = ""
    try:
        server = socket.create_server(("", port), backlog=processes)
    except OSError as error:
        raise InputError(
            f"process 0 cannot listen on port {port} ({error.strerror}); give another "
            "one to all processes: --coordinator=HOST:PORT"
        ) from error
    with server:
        while len(came) < processes - 1 and not problem:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                guest = server.accept()[0]
            except TimeoutError:
                absent = sorted(set(range(1, processes)) - set(came))
                problem = (
                    f"{len(came) + 1} of {processes} processes came within "
                    f"{wait_s:.0f} s, process {', '.join(map(str, absent))} did not: "
                    "start the same command on every host, with its own --process"
                )
                break
            problem = _admit(guest, came, processes)
        for guest in came.values():
            with guest:
                _say(guest, {"problem": problem})
    if problem:
        raise InputError(problem)


def _admit(guest: socket.socket, came: dict[int, socket.socket], processes: int) -> str:
    """Notes who came; returns what is wrong with them, or ""."""
    guest.settimeout(5.0)
    try:
        said = _hear(guest)
        index, count = int(said["process"]), int(said["processes"])
    except (OSError, ValueError, KeyError, TypeError):  # some other program
        guest.close()
        return ""
    problem = ""
    if count != processes:
        problem = f"process {index} was started with --processes={count}"
        problem += f", process 0 with {processes}: give the same number to all"
    elif index in came:
        problem = f"--process={index} was given twice; use 1 to {processes - 1}, each"
        problem += " once (0 is the coordinator)"
        _say(guest, {"problem": problem})
        guest.close()
        return problem
    came[index] = guest
    return problem


def _join(host: str, port: int, processes: int, process: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            guest = socket.create_connection((host, port), timeout=5.0)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"process {process} could not reach process 0 at {host}:{port} for "
                    f"{wait_s:.0f} s ({error.strerror or error}): is it running there, "
                    "with the same --coordinator, and is the port open?"
                ) from error
            time.sleep(_RETRY_S)
    with guest:
        _say(guest, {"process": process, "processes": processes})
        guest.settimeout(wait_s + 10)
        try:
            problem = _hear(guest)["problem"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"process 0 at {host}:{port} ended while this one waited for the "
                "others; its own message says why"
            ) from error
    if problem:
        raise InputError(problem)


def _say(to: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # who is gone already does not need to know
        to.sendall(json.dumps(message).encode() + b"\n")


def _hear(who: socket.socket) -> dict[str, object]:
    with who.makefile("rb") as stream:
        return json.loads(stream.readline(4096))
