# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM as a wish to stop, which training grants when it has saved.

Python's own handlers wait for the end of a call into TensorFlow, which may take
seconds, or for ever where it waits for another worker. A thread that the system itself
wakes hears a signal at once. While training, the first signal is noted, and a second
Ctrl-C ends the process, as kill -9 would: nothing is lost by that but the steps since
the last checkpoint. Before and after training, the first one ends the process.
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
    """Training was stopped by a signal, and saved.

    Args:
      message: names the command to go on with.
      number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = errors.SIGNALLED + number


@contextlib.contextmanager
def native_call() -> Iterator[None]:
    """For a call into TensorFlow that lets no thread of Python run until it returns.

    Ctrl-C ends the process within, which prints nothing. TensorFlow puts a handler of
    its own in the place of that of SIGTERM; afterwards ours is back.
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
    """Hears signals in a thread, whatever the main thread does; a context manager."""

    def __enter__(self):
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        # Python writes the number to the socket only where it has a handler to call.
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
        """Called in the main thread, when it is in Python."""

    def _note(self, number: int) -> None:
        """Called in the thread, at once."""
        raise NotImplementedError


class Interruption(_Listener):
    """Notes that training is to stop.

    Attributes:
      received: number of the first signal, 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._interrupts = 0

    def _note(self, number: int) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            console.warn("left at once: what follows the last checkpoint is lost")
            os._exit(errors.INTERRUPTED)
        if not self.received:
            console.warn(
                "stopping: the steps in hand, then saving; Ctrl-C leaves at once"
            )
        self.received = self.received or number


class Departure(_Listener):
    """Ends the process at the first signal, also where TensorFlow waits for others.

    The main thread leaves by an exception, which removes what is temporary. If it does
    not come to that within `GRACE_SECONDS`, the process is ended all the same.
    """

    def __init__(self) -> None:
        self._left = threading.Event()

    def __exit__(self, *details: object) -> None:
        self._left.set()
        super().__exit__(*details)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        console.warn("stopped by SIGTERM")
        sys.exit(errors.SIGNALLED + number)

    def _note(self, number: int) -> None:
        if not self._left.wait(GRACE_SECONDS):
            console.warn(f"stopped by {signal.Signals(number).name}, while waiting")
            os._exit(errors.SIGNALLED + number)
