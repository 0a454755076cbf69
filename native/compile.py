# SPDX-License-Identifier: Apache-2.0
"""Compiles the operations, once per processor and version of TensorFlow.

The library is kept in `build`, next to a file with its SHA-256. If the two do not
match, it is compiled again: loading a damaged library would crash the process.

`start` compiles in the background while a run reads its data; `foresee` starts even
before TensorFlow is loaded, so this module does not import it.
"""

import atexit
import contextlib
import hashlib
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from native import toolchain
from native.toolchain import NativeError
from system import console, errors, files, flagfiles, untrusted

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"
KERNELS = (
    *("blur.cc", "conv3x3.cc", "conv_pool.cc", "conv_pool_gradient.cc"),
    *("dropout.cc", "norm_relu.cc", "predict.cc", "resample.cc", "selu_norm.cc"),
    "update.cc",
)
OPS = "ops.cc"
COMPILE_SECONDS = 300  # no compiler takes this long
LIBRARY_BYTES = 1 << 26  # no library is this large

KERNEL_FLAGS = ("-std=c++17", "-fPIC", "-O3", "-Wno-psabi")
# Environment variable that holds the operations to fewer instructions than the
# processor has, as ONEDNN_MAX_CPU_ISA holds TensorFlow's.
MAX_ISA = "LENET_MAX_CPU_ISA"
# The compiler's name of each value. native: the library runs on this processor only,
# and is named after it.
MARCH = {"": "native", "AVX2": "x86-64-v3"}
# For TensorFlow's headers, 360,000 lines with many warnings. The parameters turn off
# GCC's garbage collector, which saves a tenth of the time.
_NO_GARBAGE = ("--param=ggc-min-expand=10000", "--param=ggc-min-heapsize=4000000")
OPS_FLAGS = ("-fPIC", "-w", *_NO_GARBAGE)

# Arguments that mean a run does not use the operations.
_WITHOUT = (
    r"--?(help.*|only_check_args.*|network=(?!(lenet|conv6)$).*|kernels=tensorflow)"
)


def foresee() -> None:
    """Calls `start` if the command line suggests that the library will be needed.

    Call it before TensorFlow is loaded, which takes a third of the compiler's time. It
    only guesses: a wrong guess wastes the compiler's time, or saves none. Errors in the
    command line are reported later.
    """
    with contextlib.suppress(flags.Error, errors.UserError, OSError):
        words = flagfiles.expand(sys.argv[1:])
        if is_suited() and not any(re.fullmatch(_WITHOUT, word) for word in words):
            start()


def is_suited() -> bool:
    """Whether the operations are faster than TensorFlow's on this processor.

    On ARM they may be, but nobody has measured it.
    """
    return {"avx2", "fma"} <= set(toolchain.processor().split())


def start() -> None:
    """Starts to compile in the background if the library is missing or damaged.

    `library` reports the outcome. The program does not wait for it when it ends. Raises
    NativeError if there is no compiler, or $LENET_MAX_CPU_ISA is unknown.
    """
    global _job
    tensorflow = toolchain.tensorflow()
    path = library_path(tensorflow)
    if (_job and _job.path == path) or is_sound(path):
        return
    _stop()  # started by `foresee`, for another TensorFlow than the one loaded
    compiler = toolchain.find_compiler()
    if os.path.lexists(path):
        console.warn(f"{path} does not match its SHA-256: compiling it again")
    _job = _Job(compiler, tensorflow, path)


def library() -> Path:
    """Returns the library's path; compiles it if it is missing or damaged.

    Raises NativeError if there is no compiler, it fails, or $LENET_MAX_CPU_ISA is
    unknown.
    """
    global _job
    start()
    if _job:
        try:
            _job.wait()
        finally:
            _job = None
    return library_path(toolchain.tensorflow())


def is_compiled() -> bool:
    """Whether the library is there.

    Raises NativeError if $LENET_MAX_CPU_ISA is unknown.
    """
    return is_sound(library_path(toolchain.tensorflow()))


def kernel_flags() -> tuple[str, ...]:
    """The compiler's flags for the kernels.

    Raises NativeError if $LENET_MAX_CPU_ISA is unknown.
    """
    held = os.environ.get(MAX_ISA, "").upper()
    if held not in MARCH:
        known = " or ".join(name for name in MARCH if name)
        raise NativeError(
            f"{MAX_ISA}={held} is unknown: set it to {known}, or unset it"
        )
    return (*KERNEL_FLAGS, f"-march={MARCH[held]}")


def library_path(tensorflow: toolchain.TensorFlow) -> Path:
    """Path of the library; its name is a hash of everything that it depends on.

    Raises NativeError if $LENET_MAX_CPU_ISA is unknown.
    """
    # Without the folder of TensorFlow.
    parts = [f for f in tensorflow.compile_flags if not f.startswith("-I")]
    parts += [tensorflow.version, *OPS_FLAGS, *kernel_flags()]
    parts += [platform.machine(), toolchain.processor()]
    parts += [p.read_text() for p in sorted(FOLDER.glob("*.[ch]*")) if p.is_file()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return BUILD / f"ops-{key}.so"


def is_sound(path: Path) -> bool:
    """Whether a library is a plain file that matches its recorded SHA-256."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        recorded = untrusted.read(path.with_suffix(".sha256"), 1 << 10)
        return recorded == _digest(untrusted.read(path, LIBRARY_BYTES))
    except OSError:
        return False


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder in BUILD; also removes those of killed processes."""
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


class _Job:
    """Compiles a library for a TensorFlow in a background thread."""

    def __init__(
        self, compiler: list[str], tensorflow: toolchain.TensorFlow, path: Path
    ):
        self.path = path
        self._compiler, self._tensorflow = compiler, tensorflow
        self._error: Exception | None = None
        self._lock = threading.Lock()  # guards the next two
        self._running: list[subprocess.Popen[str]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until the library is there; Ctrl-C stops the compiler."""
        try:
            self._thread.join()
        finally:
            self.stop()
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Kills the compilers and waits until their files are removed."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)
        self._thread.join()

    def _work(self) -> None:
        try:
            BUILD.mkdir(exist_ok=True)
            with _folder() as folder:
                built = folder / self.path.name
                self._build(built)
                self._install(built)
        except OSError as error:
            reason = f"cannot compile in {BUILD}: {errors.reason(error)}"
            self._error = NativeError(reason)
        except Exception as error:
            self._error = error

    def _build(self, path: Path) -> None:
        """Compiles and links the library in the folder of `path`."""
        objects = [path.with_name(f"{source}.o") for source in (*KERNELS, OPS)]
        # Without -march=native, which would make Eigen align arrays differently from
        # TensorFlow.
        ops = [*OPS_FLAGS, *self._tensorflow.compile_flags, "-c", str(FOLDER / OPS)]
        # ops.cc takes about as long as all kernels, so we compile both at once.
        with self._compiling(ops, objects[-1]) as process:
            for kernel, output in zip(KERNELS, objects):
                self._run([*kernel_flags(), "-c", str(FOLDER / kernel)], output)
            self._wait(process)
        link = ["-shared", *map(str, objects), *self._tensorflow.link_flags]
        self._run(link, path)

    def _install(self, built: Path) -> None:
        digest_path = self.path.with_suffix(".sha256")
        if not digest_path.is_file():  # a pipe, or a broken link
            digest_path.unlink(missing_ok=True)
        # The digest first: a library without one would be compiled again.
        with files.replacing(digest_path) as file:
            file.write(_digest(built.read_bytes()))
        files.flush(built)
        built.rename(self.path)  # atomic, in case another process compiles as well
        files.flush(BUILD)

    def _run(self, arguments: list[str], output: Path) -> None:
        with self._compiling(arguments, output) as process:
            self._wait(process)

    @contextlib.contextmanager
    def _compiling(
        self, arguments: list[str], output: Path
    ) -> Iterator[subprocess.Popen[str]]:
        """Starts a compiler; kills it at the end of the block if it still runs."""
        with self._lock:
            if self._stopped:
                raise NativeError("the C++ compiler was stopped")
            process = subprocess.Popen(
                [*self._compiler, *arguments, "-o", str(output)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "TMPDIR": str(output.parent), "LC_ALL": "C"},
                start_new_session=True,  # so that its children can be killed with it
            )
            self._running.append(process)
        try:
            yield process
        finally:
            _kill(process)
            process.communicate()
            with self._lock:
                self._running.remove(process)

    def _wait(self, process: subprocess.Popen[str]) -> None:
        try:
            _, printed = process.communicate(timeout=COMPILE_SECONDS)
        except subprocess.TimeoutExpired:
            reason = f"the C++ compiler takes over {COMPILE_SECONDS} s"
            raise NativeError(reason) from None
        if process.returncode:
            reason = toolchain.failure(printed, process.returncode)
            raise NativeError(f"the C++ compiler {self._compiler[0]} fails: {reason}")


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


_job: _Job | None = None  # the running job, until `library` has waited for it


@atexit.register
def _stop() -> None:
    if _job:
        _job.stop()


console.before_leaving(_stop)
