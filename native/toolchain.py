# SPDX-License-Identifier: Apache-2.0
"""The processor, TensorFlow and C++ compiler of this machine.

Does not import TensorFlow.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from system import errors

NO_COMPILER = "no C++ compiler"

# Patterns of the line that says why a compiler failed, best first. (Headers are called
# errors.h and contain lines with #error; neither is a reason.)
_REASONS = (
    r"No space left|quota exceeded|Read-only file|Cannot allocate|Permission denied",
    r"(?i)\bfatal error: ",
    r"^(?!collect2).*?: (internal compiler )?error: ",
    r"\bld(\.\w+)?: (?!warning)|undefined reference",
    r"\berror: ",
)


class NativeError(errors.UserError):
    """The operations cannot be compiled or loaded here."""


class TensorFlow(NamedTuple):
    """An installed TensorFlow, with the compiler's flags from `tf.sysconfig`."""

    version: str
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...]


def tensorflow() -> TensorFlow:
    """Returns TensorFlow's version and flags, whether it is loaded yet or not.

    Raises NativeError if it is neither loaded nor installed as a package.
    """
    if tf := sys.modules.get("tensorflow"):
        said = tf.sysconfig.get_compile_flags(), tf.sysconfig.get_link_flags()
        return TensorFlow(tf.__version__, *map(tuple, said))
    spec = importlib.util.find_spec("tensorflow")
    for name in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            if spec and spec.origin:
                return _predicted(version, os.path.dirname(spec.origin))
    raise NativeError("TensorFlow is not installed as a package")


def _predicted(version: str, folder: str) -> TensorFlow:
    compile_flags = (
        f"-I{folder}/include",
        "-D_GLIBCXX_USE_CXX11_ABI=1",
        "--std=c++17",
        "-DEIGEN_MAX_ALIGN_BYTES=64",
    )
    link_flags = (f"-L{folder}", "-l:libtensorflow_framework.so.2")
    return TensorFlow(version, compile_flags, link_flags)


def processor() -> str:
    """Names of the processor's instruction sets, if the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def find_compiler() -> list[str]:
    """The command that compiles C++: $CXX, which may be several words, or c++."""
    try:
        command = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise NativeError(f"CXX is not a command: {error}") from None
    if not command:
        command = [shutil.which("c++") or shutil.which("g++") or ""]
    if not command[0]:
        raise NativeError(NO_COMPILER)
    if not shutil.which(command[0]):
        raise NativeError(f"CXX names {command[0]}, which does not exist")
    return command


def failure(printed: str, code: int) -> str:
    """Returns the line of a compiler's standard error that says why it failed.

    `code` is the exit code, or minus the number of the signal that killed it.
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    for pattern in _REASONS:
        for line in lines:
            if re.search(pattern, line):
                return line
    return lines[-1] if lines else f"exit code {code}"
