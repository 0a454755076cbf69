# SPDX-License-Identifier: Apache-2.0
"""Peers: what a benchmark compares, each in its own process.

A module of benchmarks lists its peers in `PEERS`, {name: maker}. `maker(**settings)`
loads the peer's library, builds and warms up what is measured, and returns a function
from a request to an answer. Settings, requests and answers are JSON. A peer lives until
it is closed: it loads and compiles once, and sleeps while others are asked.
`benchmarks.serve` is its end of the pipe.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from system import console, errors

PROJECT = Path(__file__).resolve().parent.parent
CLOSING_SECONDS = 20  # after which a peer that has not exited is killed


class BenchmarkError(errors.UserError):
    """A peer could not be measured."""


class Missing(BenchmarkError):
    """Something that a peer needs is not installed; the message says what."""


class Peer:
    """A running peer of a module's `PEERS`, with the settings for its maker.

    `environment` has further environment variables of its process. Raises Missing if
    its library is not installed, BenchmarkError if it failed.
    """

    def __init__(
        self,
        module: str,
        name: str,
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ):
        self.name = name
        self.settings = dict(settings)
        self._arguments = ["-m", "benchmarks.serve", module, name, json.dumps(settings)]
        # A file: a pipe that nobody reads would block a library that writes a lot.
        self._messages = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, *self._arguments],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            missing = self._read()
            if missing is not None:
                raise Missing(missing)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Any) -> Any:
        """Answer to a request; BenchmarkError if the peer failed."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the peer has exited, so there will be no answer
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(self._failure())
        return json.loads(line)

    def _failure(self) -> str:
        code = self._process.wait()
        if code < 0:
            reason = f"killed by {signal.Signals(-code).name}"
        else:
            self._messages.seek(0)
            reason = (self._messages.read().strip() or "no message").splitlines()[-1]
        return (
            f"the peer {self.name} failed: {reason}; to see its full output:"
            f" echo 1 | {console.command(*self._arguments)}"
        )

    def close(self) -> None:
        """Ends the process, if it is running."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()  # which tells the peer to exit
        except BrokenPipeError:
            pass
        try:
            process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._messages.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_each(
    start: Callable[[dict[str, Any]], Peer],
    settings: Sequence[dict[str, Any]],
    every: bool,
) -> list[Peer]:
    """Starts a peer with each of its settings; names and leaves out those that fail.

    We cannot mend other libraries: PyTorch 2.13's compiled max pool, channels first,
    fails when held to AVX2. `every`: none may fail, as with our own code.

    Raises:
      BenchmarkError: all failed, or one where `every` must not.
      Missing: as from `Peer`; other settings would not help.
    """
    started: list[Peer] = []
    for number, some in enumerate(settings, 1):
        try:
            started.append(start(some))
        except Missing:
            raise
        except BenchmarkError as error:
            if every or (number == len(settings) and not started):
                raise
            print(f"{json.dumps(some)} is left out: {error}")
    return started
