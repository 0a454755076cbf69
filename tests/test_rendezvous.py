# SPDX-License-Identifier: Apache-2.0
"""Tests of training/rendezvous.py, on loopback and in threads."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from concurrent import futures

import pytest

from system import console, errors
from tests.helpers import ROOT
from training import launch, rendezvous

SECONDS = 20  # more than any of these tests takes


@pytest.fixture
def workers():
    """Addresses of three workers."""
    return [f"{launch.HOST}:{port}" for port in launch.free_ports(3)]


@pytest.fixture
def said(monkeypatch):
    """Lines that the workers print, every 0.2 s."""
    lines = []
    monkeypatch.setattr(rendezvous, "NOTICE_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "REPEAT_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(console, "warn", lines.append)
    return lines


@pytest.fixture
def pool():
    with futures.ThreadPoolExecutor() as executor:
        yield executor


def outcome(meeting):
    """Error of a meeting; "" if all went well."""
    error = meeting.exception(SECONDS)
    assert error is None or isinstance(error, rendezvous.RendezvousError), error
    return str(error or "")


def until(lines, text):
    """Waits for a line that contains this text."""
    end = time.monotonic() + SECONDS
    while not any(text in line for line in lines):
        assert time.monotonic() < end, lines
        time.sleep(0.01)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_workers_meet(workers, said, pool, order):
    meetings = []
    for number in order:
        meetings.append(pool.submit(rendezvous.meet, workers, number, SECONDS))
        time.sleep(0.05)
    assert [outcome(meeting) for meeting in meetings] == ["", "", ""]
    for address in workers:  # the ports are free for TensorFlow's servers
        socket.create_server(rendezvous.host_and_port(address)).close()


def test_workers_say_whom_they_wait_for_and_give_up(workers, said, pool):
    first = pool.submit(rendezvous.meet, workers, 0, 1.5)
    third = pool.submit(rendezvous.meet, workers, 2, 1)
    assert f"waited 1 s for worker 1 ({workers[1]}): start all" in outcome(third)
    assert f"waited 1.5 s for worker 1 ({workers[1]}), worker 2 (" in outcome(first)
    until(said, f"waiting for worker 1 ({workers[1]}), for at most ")
    lone = outcome(pool.submit(rendezvous.meet, workers, 1, 0.3))
    assert f"for worker 0 ({workers[0]}) [Connection refused]: start all" in lone


def test_a_worker_that_left_may_come_back(workers, said, pool):
    first = pool.submit(rendezvous.meet, workers, 0, SECONDS)
    until(said, "waiting for worker 1")
    with socket.create_connection(rendezvous.host_and_port(workers[0])) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\n\n")
        with contextlib.suppress(ConnectionError):
            assert not stranger.recv(1)
    gone = pool.submit(rendezvous.meet, workers, 1, 0.5)
    assert "waited" in outcome(gone)
    said.clear()
    until(said, f"worker 1 ({workers[1]}), worker 2 ({workers[2]})")
    others = [pool.submit(rendezvous.meet, workers, n, SECONDS) for n in (1, 2)]
    assert [outcome(meeting) for meeting in (first, *others)] == ["", "", ""]


def test_another_tf_config_sends_all_away(workers, said, pool):
    others = [workers[0], workers[2], workers[1]]
    meetings = [
        pool.submit(rendezvous.meet, workers, 0, SECONDS),
        pool.submit(rendezvous.meet, workers, 1, SECONDS),
    ]
    until(said, "worker 2")
    meetings.append(pool.submit(rendezvous.meet, others, 1, SECONDS))
    for meeting in meetings:
        message = outcome(meeting)
        assert f"a TF_CONFIG with the workers {', '.join(others)}, but" in message
        assert f"worker 0 one with {', '.join(workers)}: give" in message


def test_a_second_worker_with_the_same_number_is_refused(workers, said, pool):
    first = pool.submit(rendezvous.meet, workers, 0, SECONDS)
    second = pool.submit(rendezvous.meet, workers, 1, SECONDS)
    until(said, "worker 2")
    here = outcome(pool.submit(rendezvous.meet, workers, 1, 1))
    port = workers[1].partition(":")[2]
    assert f"worker 1 cannot open its port {port} (Address already in use): " in here
    with socket.create_connection(rendezvous.host_and_port(workers[0])) as elsewhere:
        rendezvous._send(elsewhere, {"number": 1, "workers": workers})
        answer = rendezvous._receive(elsewhere)
    assert "a worker 1 has come already" in answer["refused"]
    third = pool.submit(rendezvous.meet, workers, 2, SECONDS)
    assert [outcome(meeting) for meeting in (first, second, third)] == ["", "", ""]


@pytest.mark.parametrize("address", ["", "a", ":1", "a:", "a:0", "a:65536", "a:-1"])
def test_bad_addresses_are_refused(address):
    with pytest.raises(ValueError, match="not like host:port"):
        rendezvous.host_and_port(address)


def test_an_address_is_split():
    assert rendezvous.host_and_port("[::1]:7000") == ("::1", 7000)


# Waits in C, where Python's handlers do not run, or in the rendezvous.
WAITING = """
import ctypes, json, os, sys
from system import cli, console
from training import interruption, rendezvous
interruption.GRACE_SECONDS = rendezvous.NOTICE_SECONDS = 0.1
def main(argv):
    with interruption.Departure():
        if len(argv) > 1:
            rendezvous.meet(argv[1:], 0, 60)
        console.warn("waiting")
        ctypes.CDLL(None).pause() and ctypes.CDLL(None).pause()
cli.run(main, arguments=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("in_python", [True, False])
def test_a_signal_ends_a_worker_that_waits(workers, number, in_python):
    command = [sys.executable, "-c", WAITING, *(workers if in_python else [])]
    with subprocess.Popen(command, cwd=ROOT, text=True, stderr=-1) as process:
        try:
            assert "waiting" in process.stderr.readline()
            process.send_signal(number)
            _, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == errors.SIGNALLED + number
    assert len(err.splitlines()) == 1 and "Traceback" not in err
