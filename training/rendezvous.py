# SPDX-License-Identifier: Apache-2.0
"""The workers of a run meet, before TensorFlow connects them.

TensorFlow's servers wait for each other without a word or a limit, and hear neither
Ctrl-C nor SIGTERM meanwhile. So the workers meet first, in Python. Each opens the port
that TF_CONFIG gives it, which shows that nobody else has it. Worker 0 listens there;
the others connect to it and show their TF_CONFIG. When all have come, the ports are
closed again, and TensorFlow's servers open them a moment later.

A message is a line of JSON:

    worker n to worker 0    {"number": n, "workers": the addresses of all}
    worker 0 to worker n    {"missing": the numbers that it waits for; [] when all came}
                            {"refused": why the workers cannot train together}

A worker that leaves while others wait may come again; only a TF_CONFIG that differs
sends all of them away.
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

NOTICE_SECONDS = 2  # of waiting, after which we say whom for
AGAIN_SECONDS = 60  # between such lines
POLL_SECONDS = 0.1
MESSAGE_SECONDS = 5  # for a connection or a whole message
MESSAGE_BYTES = 1 << 20  # 64 bytes for each of 16,000 addresses
MOST_NAMED = 5  # missing workers in a line


class RendezvousError(errors.UserError):
    """The workers do not come together."""


class _Differs(RendezvousError):
    """A worker has a TF_CONFIG that is not worker 0's."""


class _Wait:
    """Says whom we wait for, and gives up when the time is over.

    Args:
      workers: addresses of all.
      seconds: limit.
    """

    def __init__(self, workers: Sequence[str], seconds: float):
        self._workers, self._seconds = workers, seconds
        now = time.monotonic()
        self._deadline, self._notice = now + seconds, now + NOTICE_SECONDS

    def check(self, missing: Sequence[int], reason: str = "") -> None:
        """To be called again and again.

        Args:
          missing: numbers of the workers that have not come.
          reason: why the first of them cannot be reached, if known.

        Raises:
          RendezvousError: the time is over.
        """
        now = time.monotonic()
        if now < min(self._notice, self._deadline):
            return
        named = [f"worker {n} ({self._workers[n]})" for n in missing[:MOST_NAMED]]
        if len(missing) > MOST_NAMED:
            named.append(f"{len(missing) - MOST_NAMED} more")
        names = ", ".join(named) + (f" [{reason}]" if reason else "")
        if now >= self._deadline:
            raise RendezvousError(
                f"waited {self._seconds:g} s for {names}: start all workers within"
                " that time, or give them more by --wait_seconds"
            )
        left = self._deadline - now
        console.warn(f"waiting for {names}, at most {left:.0f} s more")
        self._notice = now + AGAIN_SECONDS


def meet(workers: Sequence[str], number: int, seconds: float) -> None:
    """Waits until all workers have come.

    Args:
      workers: host:port of all, in their order.
      number: that of this one.
      seconds: to wait at most.

    Raises:
      RendezvousError: this worker's port is taken, another one has a TF_CONFIG that
        differs, or somebody does not come in time.
    """
    wait = _Wait(workers, seconds)
    with _listen(workers[number], number) as server:
        if number == 0:
            _receive_all(server, workers, wait)
        else:
            _join(workers, number, wait)


def host_and_port(address: str) -> tuple[str, int]:
    """Splits an address such as "10.0.0.1:7000" or "[::1]:7000".

    Raises:
      ValueError: it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r} is not like host:port")
    return host.strip("[]"), int(port)


def _listen(address: str, number: int) -> socket.socket:
    """Opens the port of an address on all of this machine's, as TensorFlow will.

    Raises:
      RendezvousError: it cannot be opened.
    """
    _, port = host_and_port(address)
    try:
        if socket.has_dualstack_ipv6():
            # Fails where IPv6 is compiled in and switched off.
            with contextlib.suppress(OSError):
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
        return socket.create_server(("", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # create_server adds to the error's own
    raise RendezvousError(
        f"worker {number} cannot open its port {port} ({reason}): end the process that"
        " has it, which may be an earlier start of this worker, or give the worker"
        " another port in every TF_CONFIG"
    )


def _receive_all(server: socket.socket, workers: Sequence[str], wait: _Wait) -> None:
    """Worker 0: takes the others in until all are there."""
    guests: dict[int, socket.socket] = {}
    missing = list(range(1, len(workers)))
    try:
        while missing:
            wait.check(missing)
            sources = [server, *guests.values()]
            ready, _, _ = select.select(sources, [], [], POLL_SECONDS)
            for number, guest in list(guests.items()):
                if guest in ready:  # one that says more than a greeting has left
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
    """Takes in the next that connects, if it is a worker that is missing.

    Raises:
      _Differs: its TF_CONFIG is another.
    """
    guest, (host, *_) = server.accept()
    try:
        number, theirs = _greeting(_receive(guest))
    except (OSError, ValueError):  # no worker
        guest.close()
        return
    if theirs != list(workers):
        error = _Differs(
            f"worker {number} at {host.removeprefix('::ffff:')} has a TF_CONFIG with"
            f" the workers {console.one_line(', '.join(theirs))}, and worker 0 one with"
            f" {', '.join(workers)}: give all the same"
        )
        _send(guest, {"refused": str(error)})
        guest.close()
        raise error
    if number in guests or not 0 < number < len(workers):
        _send(
            guest,
            {
                "refused": f"a worker {number} has come already: it is started twice,"
                " or two workers have the same task in TF_CONFIG"
            },
        )
        guest.close()
        return
    guests[number] = guest


def _join(workers: Sequence[str], number: int, wait: _Wait) -> None:
    """Another worker: comes to worker 0, and waits with it.

    Raises:
      RendezvousError: worker 0 refuses it, or the time is over.
    """
    reason = ""
    while True:
        wait.check([0], reason)
        try:
            with socket.create_connection(
                host_and_port(workers[0]), timeout=MESSAGE_SECONDS
            ) as host:
                if host.getsockname() == host.getpeername():
                    raise ConnectionRefusedError(  # where nobody listens, by chance
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
    """Sends a message; one that has gone is noticed where it should answer."""
    with contextlib.suppress(OSError):
        receiver.settimeout(MESSAGE_SECONDS)
        receiver.sendall(json.dumps(message).encode() + b"\n")


def _receive(sender: socket.socket) -> Any:
    """Returns the last of the messages that have come; waits for one.

    Raises:
      OSError: the connection ends before, or it takes too long.
      ValueError: it is too long, or no JSON.
    """
    deadline, content = time.monotonic() + MESSAGE_SECONDS, b""
    while not content.endswith(b"\n"):
        sender.settimeout(max(deadline - time.monotonic(), 1e-3))
        part = sender.recv(1 << 16)
        content += part
        if not part:
            raise ConnectionError("it has closed the connection")
        if len(content) > MESSAGE_BYTES:
            raise ValueError("it is no worker that waits")
    return untrusted.parse_json(content.splitlines()[-1])


def _greeting(message: Any) -> tuple[int, list[str]]:
    """A worker's number, and the addresses of all workers as it knows them.

    Raises:
      ValueError: the message is no greeting.
    """
    if not isinstance(message, dict) or message.keys() != {"number", "workers"}:
        raise ValueError("no greeting of a worker")
    number, workers = message["number"], message["workers"]
    if type(number) is not int or not isinstance(workers, list):
        raise ValueError("no greeting of a worker")
    if not all(isinstance(address, str) for address in workers):
        raise ValueError("no greeting of a worker")
    return number, workers


def _answer(message: Any, count: int) -> list[int]:
    """The workers of `count` that worker 0 waits for.

    Raises:
      RendezvousError: worker 0 refuses.
      ValueError: the message is no answer of worker 0.
    """
    if isinstance(message, dict):
        refused, missing = message.get("refused"), message.get("missing")
        if isinstance(refused, str):
            raise RendezvousError(console.one_line(refused))
        if isinstance(missing, list) and all(
            type(n) is int and 0 <= n < count for n in missing
        ):
            return missing
    raise ValueError("it is no worker that waits")
