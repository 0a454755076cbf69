# SPDX-License-Identifier: Apache-2.0
"""Compiles the operations, once for each processor and each version of TensorFlow.

The library is kept in `build`, next to a file with its SHA-256. One that is not what
was compiled there, because a disk lost half of it, is compiled again: loaded, it would
end the process.

`start` does it in the background, so that a run can read its data meanwhile;
`foresee`, even while TensorFlow loads, which this module does without.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from system import console, errors, files, flagfiles, untrusted

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"
KERNELS = ("conv_pool.cc", "dropout.cc", "selu_norm.cc", "update.cc")
OPS = "ops.cc"
NO_COMPILER = "no C++ compiler"
COMPILE_SECONDS = 300  # more than a compiler ever takes
LIBRARY_BYTES = 1 << 26  # more than any library has

# -march=native: the result runs on this processor, and is named after it.
FLAGS = ("-std=c++17", "-fPIC", "-O3", "-march=native", "-Wno-psabi")
# Of TensorFlow's headers, 360,000 lines, which warn of themselves at length. The
# parameters are GCC's: not to look for garbage, for a tenth of its time.
_NO_GARBAGE = ("--param=ggc-min-expand=10000", "--param=ggc-min-heapsize=4000000")
OPS_FLAGS = ("-fPIC", "-w", *_NO_GARBAGE)

# Arguments of a run that has no use for the operations.
_WITHOUT = r"--?(help.*|only_check_args.*|network=(?!lenet$).*|kernels=tensorflow)"

# What tells the line with the reason from all else a compiler prints, best first.
# Headers are named errors.h and have lines with #error.
_REASONS = (
    r"No space left|quota exceeded|Read-only file|Cannot allocate|Permission denied",
    r"(?i)\bfatal error: ",
    r"^(?!collect2).*?: (internal compiler )?error: ",
    r"\bld(\.\w+)?: (?!warning)|undefined reference",
    r"\berror: ",
)


class NativeError(errors.UserError):
    """The operations cannot be had here."""


class TensorFlow(NamedTuple):
    """The TensorFlow that is installed, as compilers see it.

    Attributes:
      version: such as 2.21.0.
      compile_flags, link_flags: as of `tf.sysconfig`.
    """

    version: str
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...]


def tensorflow() -> TensorFlow:
    """Asks TensorFlow, or, where it is not loaded yet, says what it is going to say.

    Raises:
      NativeError: it is not loaded, and not installed as a package.
    """
    if tf := sys.modules.get("tensorflow"):
        said = tf.sysconfig.get_compile_flags(), tf.sysconfig.get_link_flags()
        return TensorFlow(tf.__version__, *map(tuple, said))
    spec = importlib.util.find_spec("tensorflow")
    for name in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            if spec and spec.origin:
                return _foreseen(version, os.path.dirname(spec.origin))
    raise NativeError("TensorFlow is not installed as a package")


def _foreseen(version: str, folder: str) -> TensorFlow:
    compile_flags = (
        f"-I{folder}/include",
        "-D_GLIBCXX_USE_CXX11_ABI=1",
        "--std=c++17",
        "-DEIGEN_MAX_ALIGN_BYTES=64",
    )
    link_flags = (f"-L{folder}", "-l:libtensorflow_framework.so.2")
    return TensorFlow(version, compile_flags, link_flags)


def foresee() -> None:
    """Starts as `start` does if a run is likely to want the library.

    To be called before TensorFlow is loaded, which takes a third of the compiler's
    time. It is no more than a guess from the command line: a mistaken one wastes the
    compiler's time, or saves none. What is wrong with the line is said later.
    """
    with contextlib.suppress(flags.Error, errors.UserError, OSError):
        words = flagfiles.expand(sys.argv[1:])
        if is_suited() and not any(re.fullmatch(_WITHOUT, word) for word in words):
            start()


def is_suited() -> bool:
    """Whether the operations are faster on this processor than TensorFlow's own."""
    return "avx512f" in processor().split()


def start() -> None:
    """Starts to compile the library in the background if it is missing or damaged.

    Whatever becomes of that, `library` tells. The end of the program does not wait for
    it.

    Raises:
      NativeError: no compiler.
    """
    global _job
    found = tensorflow()
    path = _path(found)
    if (_job and _job.path == path) or is_sound(path):
        return
    _stop()  # what was foreseen for another TensorFlow than was loaded
    compiler = find_compiler()
    if os.path.lexists(path):
        console.warn(f"{path} is not what was compiled there: compiling it again")
    _job = _Job(compiler, found, path)


def library() -> Path:
    """Path of the library; compiles it if it is missing or damaged.

    Raises:
      NativeError: no compiler, or one that fails.
    """
    global _job
    start()
    if _job:
        try:
            _job.wait()
        finally:
            _job = None
    return _path(tensorflow())


def _path(found: TensorFlow) -> Path:
    return BUILD / f"ops-{key(found)}.so"


def is_sound(path: Path) -> bool:
    """Whether a library is a plain file with the SHA-256 that was noted for it."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        noted = untrusted.read(path.with_suffix(".sha256"), 1 << 10)
        return noted == _digest(untrusted.read(path, LIBRARY_BYTES))
    except OSError:
        return False


def key(found: TensorFlow) -> str:
    """Short hash of everything that the library depends on."""
    # But for where TensorFlow lies.
    parts = [f for f in found.compile_flags if not f.startswith("-I")]
    parts += [found.version, *OPS_FLAGS, *FLAGS, platform.machine(), processor()]
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


class _Job:
    """Compiles a library in a thread of its own.

    Args:
      compiler: command.
      found: what the library is for.
      path: library.

    Attributes:
      path: as given.
    """

    def __init__(self, compiler: Sequence[str], found: TensorFlow, path: Path):
        self.path = path
        self._compiler, self._found = compiler, found
        self._error: Exception | None = None
        self._lock = threading.Lock()  # of the two below
        self._running: list[subprocess.Popen[str]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the library is there; an exception, as of Ctrl-C, stops it.

        Raises:
          NativeError: the compiler fails.
        """
        try:
            self._thread.join()
        finally:
            self.stop()
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Ends the compilers and removes what they have written."""
        self._kill()
        self._thread.join()

    def _kill(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)

    def _work(self) -> None:
        try:
            self._compile()
        except OSError as error:
            reason = f"cannot compile in {BUILD}: {errors.reason(error)}"
            self._error = NativeError(reason)
        except Exception as error:
            self._error = error

    def _compile(self) -> None:
        BUILD.mkdir(exist_ok=True)
        with _folder() as folder:
            built = folder / self.path.name
            self._build(built)
            noted = self.path.with_suffix(".sha256")
            if not noted.is_file():  # a pipe, or a link to nowhere
                noted.unlink(missing_ok=True)
            # First its hash: a library without one would be compiled again.
            with files.replacing(noted) as file:
                file.write(_digest(built.read_bytes()))
            files.flush(built)
            built.rename(self.path)  # whole or not there, whoever else compiles
            files.flush(BUILD)

    def _build(self, path: Path) -> None:
        """Compiles the library, in a folder where nothing else is."""
        commands, objects = [], []
        for source in (*KERNELS, OPS):
            # TensorFlow's headers are not for this processor's flags: Eigen would align
            # its arrays otherwise than the library does.
            ours = source in KERNELS
            options = FLAGS if ours else (*OPS_FLAGS, *self._found.compile_flags)
            objects.append(str(path.with_name(source).with_suffix(".o")))
            what = ("-c", str(FOLDER / source), "-o", objects[-1])
            commands.append([*self._compiler, *options, *what])
        # The last takes as long as all others together, so two at a time are enough.
        self._side_by_side(commands[::-1], path.parent)
        link = ["-shared", *objects, *self._found.link_flags]
        self._run([*self._compiler, *link, "-o", str(path)], path.parent)

    def _side_by_side(self, commands: list[list[str]], folder: Path) -> None:
        """Runs commands, two at a time; if one fails, the others are ended."""
        waiting, errors = iter(commands), []

        def work() -> None:
            try:
                for command in waiting:
                    self._run(command, folder)
            except Exception as error:
                errors.append(error)
                self._kill()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _run(self, command: Sequence[str], folder: Path) -> None:
        """Runs a compiler, whose temporary files go to a folder."""
        with self._lock:
            if self._stopped:
                raise NativeError("the C++ compiler was stopped")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "TMPDIR": str(folder), "LC_ALL": "C"},
                start_new_session=True,  # so that what it starts is ended with it
            )
            self._running.append(process)
        try:
            _, printed = process.communicate(timeout=COMPILE_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            reason = f"the C++ compiler takes over {COMPILE_SECONDS} s"
            raise NativeError(reason) from None
        finally:
            with self._lock:
                self._running.remove(process)
        if process.returncode:
            reason = _reason(printed, process.returncode)
            raise NativeError(f"the C++ compiler {command[0]} fails: {reason}")


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


_job: _Job | None = None  # that was started, and not waited for yet


@atexit.register
def _stop() -> None:
    if _job:
        _job.stop()


console.before_leaving(_stop)
