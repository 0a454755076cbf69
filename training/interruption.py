# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: stop training after saving, or end a process that waits.

Python's own handlers run only after a call into TensorFlow has returned. That may take
seconds, or for ever if the call waits for another worker. So we listen in a thread,
which hears a signal at once.

While training, the first signal asks for a stop: we finish the steps in hand and save.
A second Ctrl-C ends the process at once, like kill -9, and loses only the steps since
the last checkpoint. Before and after training, the first signal ends the process.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from system import console, errors

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 2


class Stopped(errors.UserError):
    """A signal stopped training, after a checkpoint was saved.

    The message has the command that resumes the run.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = errors.SIGNALLED + number


@contextlib.contextmanager
def native_call() -> Iterator[None]:
    """Wraps a call into TensorFlow that blocks all Python threads until it returns.

    Ctrl-C then ends the process without a message. TensorFlow replaces our handler of
    SIGTERM; afterwards we put it back.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    if handlers[signal.SIGINT] != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Listener:
    """Listens for signals in a thread of its own; a context manager."""

    def __enter__(self):
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        # Python writes to the socket only for signals that have a Python handler.
        self._handlers = {n: signal.signal(n, self._handle) for n in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._writer.close()  # ends the thread
        self._thread.join()
        self._reader.close()

    def _listen(self) -> None:
        while byte := self._reader.recv(1):
            if byte[0] in SIGNALS:
                self._note(byte[0])

    def _handle(self, number: int, _: FrameType | None) -> None:
        """Handles a signal in the main thread, once Python has control there."""

    def _note(self, number: int) -> None:
        """Handles a signal in the listening thread, at once."""
        raise NotImplementedError


class Interruption(_Listener):
    """Notes a signal that asks training to stop.

    Attributes:
      received: number of the first signal; 0 if there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._interrupts = 0

    def _note(self, number: int) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            console.warn("ended at once: the steps after the last checkpoint are lost")
            os._exit(errors.INTERRUPTED)
        if not self.received:
            console.warn(
                "stopping: finishing the steps in hand, then saving; a second Ctrl-C"
                " ends at once"
            )
        self.received = self.received or number


class Departure(_Listener):
    """Ends the process at the first signal, even while TensorFlow waits for others.

    The main thread exits by an exception, so that temporary files are removed. If that
    takes longer than `GRACE_SECONDS`, the process ends without it.
    """

    def __init__(self) -> None:
        self._left, self._terminated = threading.Event(), False

    def __exit__(self, *details: object) -> None:
        self._left.set()
        super().__exit__(*details)
        if self._terminated:
            console.warn("stopped by SIGTERM")

    def _handle(self, number: int, _: FrameType | None) -> None:
        # Prints nothing: the signal may have come while the main thread prints, and
        # Python's streams allow no call within a call.
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        self._terminated = True
        sys.exit(errors.SIGNALLED + number)

    def _note(self, number: int) -> None:
        if not self._left.wait(GRACE_SECONDS):
            console.warn(f"stopped by {signal.Signals(number).name} while waiting")
            os._exit(errors.SIGNALLED + number)
