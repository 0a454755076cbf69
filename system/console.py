# SPDX-License-Identifier: Apache-2.0
"""Text for the console, a program's standard streams, and Ctrl-C at any moment.

A line that we print may find no reader, a full disk, or an encoding that lacks its
characters. None of these stops a program: its work is in files and is worth more.
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

START = time.perf_counter()  # of the program, apart from Python's own 0.02 s
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Characters that control a terminal or the direction of text; not tab and newline.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_stderr = 2  # after `start` a copy, for 2 leads elsewhere while TensorFlow loads
_before_leaving: list[Callable[[], None]] = []


def start() -> None:
    """Prepares the console; programs call it first, as their imports may take seconds.

    Until `listen` is called, Ctrl-C ends the program with one line. Standard streams
    that are closed are opened: otherwise the next file would get their number, and
    receive what is printed.
    """
    global _stderr
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup
        signal.signal(signal.SIGINT, _leave)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # writing still fails
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    _stderr = os.dup(2)


def _leave(*_: object) -> None:
    """Exits at once: a library that is loading might catch an exception."""
    for function in _before_leaving:
        function()
    with contextlib.suppress(OSError):
        os.write(_stderr, f"{program()}: interrupted\n".encode())
    os._exit(errors.INTERRUPTED)


def before_leaving(function: Callable[[], None]) -> None:
    """Registers a function that Ctrl-C calls first while the program is loading."""
    _before_leaving.append(function)


def listen() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt, as everything is loaded."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end() -> None:
    """Makes Ctrl-C end the program at once, as only tidying up is left."""
    if _stderr != 2 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def program() -> str:
    """Name of the program, such as train.py."""
    folder, name = os.path.split(sys.argv[0])
    if name == "-m":  # Python has not found the module yet
        return sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return os.path.basename(folder) if name == "__main__.py" else name


class Output:
    """A text stream that records errors in writing instead of raising them.

    `escape` escapes control characters, which file names may contain. After the first
    `error`, all text is lost.
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
        """Writes a text, escaping characters that the stream's encoding lacks."""
        shown = _CONTROL.sub(lambda c: printable(c[0]), text) if self._escape else text
        with self._recording():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        with self._recording():
            self._stream.flush()

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            # So that Python does not complain at exit about what is still buffered.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def outputs() -> Iterator[None]:
    """Replaces standard output and standard error by an `Output` each."""
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
    """A command that can be pasted into a shell: python eval.py '--run_dir=a b'.

    The program is train.py, eval.py, or -m with a module as the first argument.
    """
    python, on_path = sys.executable, shutil.which("python") or ""
    same = on_path and os.path.realpath(on_path) == os.path.realpath(python)
    if same and os.path.dirname(on_path) == os.path.dirname(python):
        python = "python"
    elif python.startswith(os.path.join(os.getcwd(), "")):
        python = os.path.relpath(python)
    if program.endswith(".py") and os.path.realpath(os.getcwd()) != PROJECT:
        program = os.path.join(PROJECT, program)
    return " ".join(quote(str(word)) for word in (python, program, *arguments))


def quote(text: str) -> str:
    """A word quoted for the shell, in one line of printable characters."""
    if all(map(_is_shown, text)):
        return shlex.quote(text)
    return f"$'{''.join(map(_octal, text))}'"


def _octal(character: str) -> str:
    if _is_shown(character) and character not in "\\'":
        return character
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def _is_shown(character: str) -> bool:
    """Whether standard error can show a character as it is."""
    try:
        character.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return character.isprintable()


def warn(message: str) -> None:
    """Prints one line on standard error."""
    print(f"{program()}: {one_line(message)}", file=sys.stderr, flush=True)


def one_line(message: str) -> str:
    """A message in one line of printable characters, whatever it quotes.

    The middle of a very long one is left out, so that the command at its end stays.
    """
    # Other blanks stay: a path in a command may have two of them.
    text = re.sub(r"\s*[\t\n\v\f\r\x85\u2028\u2029]\s*", " ", message.strip())
    text = printable(text)
    return text if len(text) <= 6000 else f"{text[:1500]} … {text[-4490:]}"


def printable(text: str) -> str:
    """A text whose control characters are escaped, so that they control nothing."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def duration(seconds: float, space: str = " ") -> str:
    """572.4 → 9 min 32 s; `space` comes between a number and its unit."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number:,}{space}{unit}" for number, unit in parts[:2])
