# SPDX-License-Identifier: Apache-2.0
"""A program's standard streams and Ctrl-C, whatever the one leads to, whenever the
other comes.

What is printed may find no reader, a full disk, or an encoding without its characters.
None of that stops a program: its work is in files, and worth more than a line.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from system import errors

START = time.perf_counter()  # of the program, but for Python's own 0.02 s
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Of terminals, and of the direction of writing; but for the end of a line and a tab.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_stderr = 2  # which native libraries are kept from while they load
_ends: list[Callable[[], None]] = []  # of what would go on without the program


def start() -> None:
    """The first thing a program does, for its imports may take seconds.

    Ctrl-C ends it with one line until `listen` is called. A standard stream that is
    closed is opened, or the next file would get its number, and what is printed.
    """
    global _stderr
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not of nohup
        signal.signal(signal.SIGINT, _leave)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # writing fails, as to a closed one
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    _stderr = os.dup(2)


def _leave(*_: object) -> None:
    """Not an exception, which a library that is half loaded would make another of."""
    for end_it in _ends:
        end_it()
    with contextlib.suppress(OSError):
        os.write(_stderr, f"{program()}: interrupted\n".encode())
    os._exit(errors.INTERRUPTED)


def before_leaving(end_it: Callable[[], None]) -> None:
    """Has Ctrl-C call a function first, while the program is loaded."""
    _ends.append(end_it)


def listen() -> None:
    """Ctrl-C is KeyboardInterrupt from here on: all is loaded."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end() -> None:
    """Ctrl-C ends the program at once: nothing is left but to tidy up."""
    if _stderr != 2 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def program() -> str:
    """Name of the program, such as train.py."""
    folder, name = os.path.split(sys.argv[0])
    if name == "-m":  # of Python, which has not found the module yet
        return sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return os.path.basename(folder) if name == "__main__.py" else name


class Output:
    """A text stream that remembers why it could not be written, and goes on.

    Args:
      stream: to write to.
      escape: whether names of files may be among what is printed, and nothing that is
        to move the cursor.

    Attributes:
      error: the first failure; what was to be written then and later is lost.
    """

    def __init__(self, stream: Any, escape: bool = False):
        self._stream = stream
        self._escape = escape
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text as far as the stream's encoding has its characters."""
        shown = _CONTROL.sub(lambda c: printable(c[0]), text) if self._escape else text
        with self._forgiving():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Hands on what is in memory."""
        with self._forgiving():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            # Nor is Python to complain at its end of what is still in memory.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def outputs() -> Iterator[None]:
    """Makes an `Output` of standard output and of standard error."""
    before = sys.stdout, sys.stderr
    output, error = Output(sys.stdout, escape=True), Output(sys.stderr)
    sys.stdout, sys.stderr = output, error  # type: ignore[assignment]
    try:
        yield
    finally:
        output.flush()
        error.flush()
        sys.stdout, sys.stderr = before


def command(program: str, *arguments: object) -> str:
    """A command to be pasted into a shell, such as python eval.py '--run_dir=a b'.

    Args:
      program: train.py, eval.py, or -m and then a module as the first argument.
      arguments: flags and others, not quoted.
    """
    named, here = shutil.which("python"), sys.executable
    same = named and os.path.realpath(named) == os.path.realpath(here)
    if same and os.path.dirname(named or "") == os.path.dirname(here):
        here = "python"
    elif here.startswith(os.path.join(os.getcwd(), "")):
        here = os.path.relpath(here)
    if program.endswith(".py") and os.path.realpath(os.getcwd()) != PROJECT:
        program = os.path.join(PROJECT, program)
    return " ".join(quote(str(word)) for word in (here, program, *arguments))


def quote(text: str) -> str:
    """A word of a command, quoted for the shell; in one line, whatever is in it."""
    if all(map(_is_shown, text)):
        return shlex.quote(text)
    pieces = [
        (
            c
            if _is_shown(c) and c not in "\\'"
            else "".join(f"\\{byte:03o}" for byte in os.fsencode(c))
        )
        for c in text
    ]
    return f"$'{''.join(pieces)}'"


def _is_shown(character: str) -> bool:
    """Whether standard error shows a character as it is."""
    try:
        character.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return character.isprintable()


def warn(message: str) -> None:
    """Prints one line on standard error."""
    print(f"{program()}: {one_line(message)}", file=sys.stderr, flush=True)


def one_line(message: str) -> str:
    """A message as a console can take it, whatever was quoted in it.

    The midst of a long one is left out; the command at its end is not.
    """
    # Blanks stay as they are: there may be two in the path of a command.
    text = re.sub(r"\s*[\t\n\v\f\r\x85\u2028\u2029]\s*", " ", message.strip())
    text = printable(text)
    return text if len(text) <= 6000 else f"{text[:1500]} … {text[-4490:]}"


def printable(text: str) -> str:
    """A text with what would move a cursor, or turn its direction, written out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
