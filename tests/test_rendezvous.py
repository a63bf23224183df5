"""Processes that meet: all come, one is missing, two have the same number."""

import concurrent.futures
import socket

import pytest

from uhrjax import errors, rendezvous


def meet(*guests, wait_s=20.0):
    """Returns what is said to every guest, a pair (processes, process)."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]

    def come(guest):
        try:
            rendezvous.meet(f"localhost:{port}", *guest, wait_s)
        except errors.InputError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor(len(guests)) as pool:
        return list(pool.map(come, guests))


def test_all_come():
    assert meet((3, 2), (3, 0), (3, 1)) == ["", "", ""]
    assert meet((1, 0)) == [""]


def test_who_is_missing_is_named_to_all_that_came():
    said = meet((4, 0), (4, 2), wait_s=0.5)
    for text in said:
        assert "2 of 4 processes came" in text and "process 1, 3 did not" in text


def test_a_number_given_twice_is_said():
    said = meet((4, 0), (4, 1), (4, 1))
    assert all("--process=1 was given twice" in text for text in said)


def test_numbers_of_processes_that_differ_are_said():
    said = meet((2, 0), (3, 1))
    assert all("started with --processes=3, process 0 with 2" in text for text in said)


def test_a_coordinator_that_is_not_there_is_said():
    (text,) = meet((2, 1), wait_s=0.3)
    assert "could not reach process 0 at localhost:" in text


def test_other_programs_that_knock_are_ignored():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rendezvous.meet, f"localhost:{port}", 2, 0, 20.0)
        while not waiting.done():
            try:
                with socket.create_connection(("localhost", port), timeout=1) as knock:
                    knock.sendall(b"GET / HTTP/1.1\n")
                break
            except OSError:
                continue
        rendezvous.meet(f"localhost:{port}", 2, 1, 20.0)
        waiting.result()


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as server:
        where = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(errors.InputError, match="cannot listen on port"):
            rendezvous.meet(where, 2, 0, 1.0)


@pytest.mark.parametrize("where", ("host", "host:", ":12", "host:0", "host:99999"))
def test_an_address_needs_host_and_port(where):
    with pytest.raises(errors.InputError, match="give HOST:PORT of process 0"):
        rendezvous.meet(where, 2, 1)


@pytest.mark.parametrize("process", (-1, 2))
def test_numbers_out_of_range_are_refused(process):
    with pytest.raises(errors.InputError, match="use 0 to 1"):
        rendezvous.meet("localhost:9999", 2, process)
