# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM as a wish to stop, which training grants when it has saved.

Python's own handlers wait for the end of a call into TensorFlow, which may take
seconds. A thread that the system itself wakes hears a signal at once: the first is
noted, and a second Ctrl-C ends the process, as kill -9 would. Nothing is lost by that
but the steps since the last checkpoint.
"""

import os
import signal
import socket
import threading

import cli

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(cli.UserError):
    """Training was stopped by a signal, and saved.

    Args:
      message: names the command to go on with.
      number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = cli.SIGNALLED + number


class Interruption:
    """Takes the signals in, in the main thread; a context manager.

    Attributes:
      received: number of the first signal, 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._interrupts = 0

    def __enter__(self) -> "Interruption":
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        # Python writes the number to the socket only where it has a handler to call.
        self._handlers = {n: signal.signal(n, lambda *_: None) for n in SIGNALS}
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

    def _note(self, number: int) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            cli.warn("left at once: what follows the last checkpoint is lost")
            os._exit(cli.INTERRUPTED)
        if not self.received:
            cli.warn("stopping: the steps in hand, then saving; Ctrl-C leaves at once")
        self.received = self.received or number
