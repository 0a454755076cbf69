# SPDX-License-Identifier: Apache-2.0
"""Compiles the operations, once for each processor and each version of TensorFlow.

The library is kept in `build`, next to a file with its SHA-256. One that is not what
was compiled there, because a disk lost half of it, is compiled again: loaded, it would
end the process.
"""

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

import cli
import files
import untrusted

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"
KERNELS = ("conv_pool.cc", "dropout.cc", "selu_norm.cc", "update.cc")
OPS = "ops.cc"
NO_COMPILER = "no C++ compiler"
COMPILE_SECONDS = 300  # more than a compiler ever takes
LIBRARY_BYTES = 1 << 26  # more than any library has

# -march=native: the result runs on this processor, and is named after it.
FLAGS = ("-std=c++17", "-fPIC", "-O3", "-march=native", "-Wno-psabi")

# What tells the line with the reason from all else a compiler prints, best first.
# Headers are named errors.h and have lines with #error.
_REASONS = (
    r"No space left|quota exceeded|Read-only file|Cannot allocate|Permission denied",
    r"(?i)\bfatal error: ",
    r"^(?!collect2).*?: (internal compiler )?error: ",
    r"\bld(\.\w+)?: (?!warning)|undefined reference",
    r"\berror: ",
)


class NativeError(cli.UserError):
    """The operations cannot be had here."""


def library() -> Path:
    """Path of the library; compiles it if it is missing or damaged.

    Raises:
      NativeError: no compiler, or one that fails.
    """
    path = BUILD / f"ops-{key()}.so"
    if not is_sound(path):
        if os.path.lexists(path):
            cli.warn(f"{path} is not what was compiled there: compiling it again")
        _compile(path)
    return path


def is_sound(path: Path) -> bool:
    """Whether a library is a plain file with the SHA-256 that was noted for it."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        noted = untrusted.read(path.with_suffix(".sha256"), 1 << 10)
        return noted == _digest(untrusted.read(path, LIBRARY_BYTES))
    except OSError:
        return False


def key() -> str:
    """Short hash of everything that the library depends on."""
    parts = [tf.__version__, *FLAGS, platform.machine(), processor()]
    parts += [p.read_text() for p in sorted(FOLDER.glob("*.[ch]*")) if p.is_file()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def processor() -> str:
    """Instructions that the processor has, where the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _compile(path: Path) -> None:
    compiler = find_compiler()
    try:
        BUILD.mkdir(exist_ok=True)
        with _folder() as folder:
            built = folder / path.name
            _build(compiler, built)
            noted = path.with_suffix(".sha256")
            if not noted.is_file():  # a pipe, or a link to nowhere
                noted.unlink(missing_ok=True)
            # First its hash: a library without one would be compiled again.
            with files.replacing(noted) as file:
                file.write(_digest(built.read_bytes()))
            files.flush(built)
            built.rename(path)  # whole or not there, whoever else compiles
            files.flush(BUILD)
    except OSError as error:
        raise NativeError(f"cannot compile in {BUILD}: {cli.reason(error)}") from None


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder in BUILD; removes those of processes that were killed."""
    for path in BUILD.glob(".*"):
        match = re.fullmatch(r"\.compiling\.(\d{1,10})", path.name, re.ASCII)
        if match and not path.is_symlink() and not files.is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
    files.remove_leftovers(BUILD)
    folder = BUILD / f".compiling.{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build(compiler: Sequence[str], path: Path) -> None:
    """Compiles the library, in a folder where nothing else is."""
    objects = []
    for source in (*KERNELS, OPS):
        # TensorFlow's headers are not for this processor's flags: Eigen would align its
        # arrays otherwise than the library does.
        ours = source in KERNELS
        flags = FLAGS if ours else ("-fPIC", *tf.sysconfig.get_compile_flags())
        objects.append(str(path.with_name(source).with_suffix(".o")))
        command = [*compiler, *flags, "-c", str(FOLDER / source), "-o", objects[-1]]
        _run(command, path.parent)
    link = tf.sysconfig.get_link_flags()
    _run([*compiler, "-shared", *objects, *link, "-o", str(path)], path.parent)


def find_compiler() -> list[str]:
    """The command that compiles C++: $CXX, which may be several words, c++ or g++.

    Raises:
      NativeError: there is none.
    """
    try:
        command = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise NativeError(f"CXX is no command: {error}") from None
    if not command:
        command = [shutil.which("c++") or shutil.which("g++") or ""]
    if not command[0]:
        raise NativeError(NO_COMPILER)
    if not shutil.which(command[0]):
        raise NativeError(f"CXX names {command[0]}, which is not there")
    return command


def _run(command: Sequence[str], folder: Path) -> None:
    """Runs a compiler, whose temporary files go to a folder."""
    environment = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C"}
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise NativeError(f"the C++ compiler takes over {COMPILE_SECONDS} s") from None
    if ended.returncode:
        reason = _reason(ended.stderr, ended.returncode)
        raise NativeError(f"the C++ compiler {command[0]} fails: {reason}")


def _reason(printed: str, code: int) -> str:
    """Why a compiler failed, in one line.

    Args:
      printed: what it said on standard error.
      code: its exit code, or minus the number of the signal that ended it.
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    for pattern in _REASONS:
        for line in lines:
            if re.search(pattern, line):
                return line
    return lines[-1] if lines else f"exit code {code}"
