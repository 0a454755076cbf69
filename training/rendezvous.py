# SPDX-License-Identifier: Apache-2.0
"""The workers of a run meet before TensorFlow connects them.

TensorFlow's servers wait for each other silently and without limit, and neither Ctrl-C
nor SIGTERM stops them. So the workers first meet in Python. Each opens its port in
TF_CONFIG, which proves that the port is free. The others connect to worker 0 and send
their TF_CONFIG. Once all have come, the ports are closed, and TensorFlow's servers open
them a moment later.

A message is a line of JSON:

    worker n to worker 0    {"number": n, "workers": all addresses}
    worker 0 to worker n    {"missing": numbers of missing workers, [] if there is none}
                            {"refused": why the workers cannot train together}

A worker that leaves while others wait may come back. If a worker's TF_CONFIG differs
from worker 0's, all are sent away.
"""

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from system import console, errors, untrusted

NOTICE_SECONDS = 2  # of waiting until we say for whom
REPEAT_SECONDS = 60  # until we say it again
POLL_SECONDS = 0.1
MESSAGE_SECONDS = 5  # to connect, or for a whole message
MESSAGE_BYTES = 1 << 20  # 64 bytes for each of 16,000 addresses
MAX_NAMED = 5  # missing workers listed by name


class RendezvousError(errors.UserError):
    """The workers cannot meet."""


class _Differs(RendezvousError):
    """A worker's TF_CONFIG differs from worker 0's."""


class _Wait:
    """Says whom we wait for, and gives up after a while."""

    def __init__(self, workers: Sequence[str], seconds: float):
        self._workers, self._seconds = workers, seconds
        now = time.monotonic()
        self._deadline, self._notice = now + seconds, now + NOTICE_SECONDS

    def check(self, missing: Sequence[int], reason: str = "") -> None:
        """Says whom we wait for, if it is time; call it repeatedly while waiting.

        `reason` is why the first missing worker cannot be reached, if known. Raises
        RendezvousError if we have waited long enough.
        """
        now = time.monotonic()
        if now < min(self._notice, self._deadline):
            return
        named = [f"worker {n} ({self._workers[n]})" for n in missing[:MAX_NAMED]]
        if len(missing) > MAX_NAMED:
            named.append(f"{len(missing) - MAX_NAMED} more")
        names = ", ".join(named) + (f" [{reason}]" if reason else "")
        if now >= self._deadline:
            raise RendezvousError(
                f"waited {self._seconds:g} s for {names}: start all workers within"
                " that time, or raise --wait_seconds"
            )
        left = self._deadline - now
        console.warn(f"waiting for {names}, for at most {left:.0f} s more")
        self._notice = now + REPEAT_SECONDS


def meet(workers: Sequence[str], number: int, seconds: float) -> None:
    """Waits until all workers have come; they are given as host:port, by number.

    Raises RendezvousError if this worker's port is taken, another worker's TF_CONFIG
    differs, or a worker does not come in time.
    """
    wait = _Wait(workers, seconds)
    with _listen(workers[number], number) as server:
        if number == 0:
            _receive_all(server, workers, wait)
        else:
            _join(workers, number, wait)


def host_and_port(address: str) -> tuple[str, int]:
    """Splits "10.0.0.1:7000", "[::1]:7000" or the like; else raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r} is not like host:port")
    return host.strip("[]"), int(port)


def _listen(address: str, number: int) -> socket.socket:
    """Opens this worker's port on all addresses of this machine, as TensorFlow will."""
    _, port = host_and_port(address)
    try:
        if socket.has_dualstack_ipv6():
            # Fails if IPv6 is compiled in but switched off.
            with contextlib.suppress(OSError):
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
        return socket.create_server(("", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # str(error) repeats the address
    raise RendezvousError(
        f"worker {number} cannot open its port {port} ({reason}): end the process that"
        " uses it, perhaps an earlier start of this worker, or give the worker another"
        " port in every TF_CONFIG"
    )


def _receive_all(server: socket.socket, workers: Sequence[str], wait: _Wait) -> None:
    """Admits workers until all have come; worker 0 calls this."""
    guests: dict[int, socket.socket] = {}
    missing = list(range(1, len(workers)))
    try:
        while missing:
            wait.check(missing)
            sources = [server, *guests.values()]
            ready, _, _ = select.select(sources, [], [], POLL_SECONDS)
            for number, guest in list(guests.items()):
                if guest in ready:  # it has left; workers say nothing else
                    guests.pop(number).close()
            if server in ready:
                _admit(server, workers, guests)
            if ready:
                missing = [n for n in range(1, len(workers)) if n not in guests]
                for guest in guests.values():
                    _send(guest, {"missing": missing})
    except _Differs as error:
        for guest in guests.values():
            _send(guest, {"refused": str(error)})
        raise
    finally:
        for guest in guests.values():
            guest.close()


def _admit(
    server: socket.socket, workers: Sequence[str], guests: dict[int, socket.socket]
) -> None:
    """Accepts a connection, and keeps it if it is from a missing worker.

    Raises _Differs if that worker's TF_CONFIG differs.
    """
    guest, (host, *_) = server.accept()
    try:
        number, theirs = _greeting(_receive(guest))
    except (OSError, ValueError):  # not a worker
        guest.close()
        return
    if theirs != list(workers):
        error = _Differs(
            f"worker {number} at {host.removeprefix('::ffff:')} has a TF_CONFIG with"
            f" the workers {console.one_line(', '.join(theirs))}, but worker 0 one with"
            f" {', '.join(workers)}: give all workers the same"
        )
        _refuse(guest, str(error))
        raise error
    if 0 < number < len(workers) and number not in guests:
        guests[number] = guest
        return
    _refuse(
        guest,
        f"a worker {number} has come already: it was started twice, or two workers have"
        " the same task in TF_CONFIG",
    )


def _refuse(guest: socket.socket, why: str) -> None:
    _send(guest, {"refused": why})
    guest.close()


def _join(workers: Sequence[str], number: int, wait: _Wait) -> None:
    """Connects to worker 0 and waits with it; all other workers call this."""
    reason = ""
    while True:
        wait.check([0], reason)
        try:
            with socket.create_connection(
                host_and_port(workers[0]), timeout=MESSAGE_SECONDS
            ) as host:
                if host.getsockname() == host.getpeername():
                    # By chance, a port that nobody listens to connects to itself.
                    raise ConnectionRefusedError(
                        errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)
                    )
                _send(host, {"number": number, "workers": list(workers)})
                missing = [0]
                while missing:
                    wait.check(missing)
                    if select.select([host], [], [], POLL_SECONDS)[0]:
                        missing = _answer(_receive(host), len(workers))
            return
        except (OSError, ValueError) as error:
            reason = errors.reason(error)
        time.sleep(POLL_SECONDS)


def _send(receiver: socket.socket, message: dict[str, Any]) -> None:
    """Sends a message; if the receiver is gone, reading its answer will show that."""
    with contextlib.suppress(OSError):
        receiver.settimeout(MESSAGE_SECONDS)
        receiver.sendall(json.dumps(message).encode() + b"\n")


def _receive(sender: socket.socket) -> Any:
    """Waits for messages, and returns the last one that has arrived.

    Raises OSError if the connection ended or the message took too long, ValueError if
    the message is too long or is not JSON.
    """
    deadline, content = time.monotonic() + MESSAGE_SECONDS, b""
    while not content.endswith(b"\n"):
        sender.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = sender.recv(1 << 16)
        content += part
        if not part:
            raise ConnectionError("it closed the connection")
        if len(content) > MESSAGE_BYTES:
            raise ValueError("it is not a waiting worker")
    return untrusted.parse_json(content.splitlines()[-1])


def _greeting(message: Any) -> tuple[int, list[str]]:
    """Parses a worker's greeting: its number, and its addresses of all workers."""
    if isinstance(message, dict) and message.keys() == {"number", "workers"}:
        number, workers = message["number"], message["workers"]
        if type(number) is int and number >= 0 and isinstance(workers, list):
            if workers and all(isinstance(w, str) and w for w in workers):
                return number, workers
    raise ValueError("not a worker's greeting")


def _answer(message: Any, count: int) -> list[int]:
    """Parses worker 0's answer: numbers of the missing workers, of `count`.

    Raises RendezvousError if worker 0 refuses us, ValueError if it is another message.
    """
    if isinstance(message, dict):
        refused, missing = message.get("refused"), message.get("missing")
        if isinstance(refused, str):
            raise RendezvousError(console.one_line(refused))
        if isinstance(missing, list) and all(
            type(n) is int and 0 <= n < count for n in missing
        ):
            return missing
    raise ValueError("it is not a waiting worker")
