# SPDX-License-Identifier: Apache-2.0
"""Starts programs in a tenth of the time, from a process that has loaded TensorFlow.

Loading it takes two seconds of a core, and our tests start some hundred programs. So a
server loads it once, with nothing of the project, and forks for each program: what runs
there is the program itself, from its first line, in a process of its own. A test about
loading or memory starts a process of its own instead.

A report takes longer than all else that a small run does. Programs whose test reads no
report are run without: report=False.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_REQUEST_BYTES = 1 << 17
# What the interpreter looks at when it starts, which a fork does not.
STARTUP = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONPATH", "PYTHONHASHSEED", "LC_ALL")


class Program:
    """A script, -m module or -c code that runs; it has the methods of subprocess.Popen.

    Its input and output are UTF-8; a context manager that kills it at the end. Without
    `report` it writes no report.html, and none of its pictures for TensorBoard.
    """

    def __init__(self, arguments, *, cwd=ROOT, env=None, input=None, report=True):
        self.args = [sys.executable, *map(str, arguments)]
        self.returncode = None
        env = dict(env or os.environ)
        request = {"arguments": self.args[1:], "cwd": str(cwd), "env": env}
        request["report"] = report
        self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        with tempfile.TemporaryFile() as given:
            given.write((input or "").encode())
            given.seek(0)
            self._start(request, [given, *self._files])

    def _start(self, request, files):
        """Sends a request with the program's standard input, output and errors."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            handles = [f.fileno() for f in (*files, theirs)]
            socket.send_fds(_server(), [json.dumps(request).encode()], handles)
        self._lines = self._socket.makefile()
        self.pid = int(self._lines.readline())

    def wait(self, timeout=None):
        """Returns the exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            # Nothing is buffered: the exit code is the only line after the first.
            if not select.select([self._socket], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._socket.close()
        return self.returncode

    def poll(self):
        """Returns the exit code; None if the program runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)

    def communicate(self, timeout=None):
        """Waits; returns what the program wrote to its output and its errors."""
        self.wait(timeout)
        for file in self._files:
            file.seek(0)
        return tuple(io.TextIOWrapper(file, "utf-8").read() for file in self._files)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.wait()
        for file in self._files:
            file.close()


class Popen(Program):
    """A program that is started as by subprocess.Popen: with pipes, or with files."""

    def __init__(
        self, command, *, stdin, stdout, stderr, cwd=None, env=None, report=True, **_
    ):
        self.args, self.returncode, self._files = command, None, ()
        request = {"arguments": command[1:], "cwd": str(cwd or os.getcwd())}
        request |= {"env": dict(env or os.environ), "report": report}
        with contextlib.ExitStack() as stack:
            if stdin == subprocess.PIPE:
                stdin, self.stdin = map(open, os.pipe(), "rw")
            else:
                stdin = open(os.devnull)
            stack.enter_context(stdin)
            if stdout == subprocess.PIPE:
                self.stdout, stdout = map(open, os.pipe(), "rw")
                stack.enter_context(stdout)
            errors = stdout if stderr == subprocess.STDOUT else stderr
            self._start(request, [stdin, stdout, errors])


def run(arguments, *, timeout=None, **options):
    """Does what `subprocess.run` does, with options of `Program`."""
    with Program(arguments, **options) as program:
        texts = program.communicate(timeout)
    return subprocess.CompletedProcess(program.args, program.returncode, *texts)


def can_run(arguments, options):
    """Whether `run` does what subprocess.run would do."""
    env = options.get("env") or os.environ
    same = all(env.get(name) == os.environ.get(name) for name in STARTUP)
    known = options.keys() <= {"cwd", "env", "input", "timeout", "report"}
    return same and known and not str(arguments[0]).startswith("-c")


@functools.cache
def _server():
    """Starts the server; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )
    return ours


def serve(requests):
    """Forks for each request until the other end is closed."""
    preload()
    while True:
        message, handles, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 4)
        if not message:
            return None
        if not os.fork():  # a process that waits, so that we need not
            break
        for handle in handles:
            os.close(handle)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    requests.close()
    *files, reply = handles
    if pid := os.fork():
        os.write(reply, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(reply, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(reply)
    for number, handle in enumerate(files):
        os.dup2(handle, number)
        os.close(handle)
    return json.loads(message)


# Packages that a score and its report need, a second and a half together.
OTHERS = (
    *("absl.app", "cv2", "jinja2", "matplotlib.figure", "PIL.Image", "scipy.ndimage"),
    *("scipy.stats", "sklearn.datasets", "sklearn.metrics", "tabulate", "tqdm"),
    *("tensorboard.plugins.hparams.summary_v2", "tensorboard.plugins.pr_curve.summary"),
    "tensorboard.plugins.projector.projector_config_pb2",
)


def preload():
    """Loads TensorFlow as the programs do, under a name that they do not know."""
    spec = importlib.util.spec_from_file_location("_device", ROOT / "system/device.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for name in OTHERS:
        importlib.import_module(name)


# In place of evaluation/report.py.
NO_REPORT = types.SimpleNamespace(REPORT="report.html", write=lambda *_: {})


def become(arguments, cwd, env, report):
    """Runs a program as `python …` would in a process of its own."""
    if not report:
        sys.modules["evaluation.report"] = NO_REPORT
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "r" if name == "stdin" else "w"
        errors = "backslashreplace" if name == "stderr" else "strict"
        setattr(sys, name, open(number, mode, encoding="utf-8", errors=errors))
    if arguments[0] == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *arguments[2:]]
        with tempfile.NamedTemporaryFile("w", suffix=".py") as code:
            code.write(arguments[1])
            code.flush()
            runpy.run_path(code.name, run_name="__main__")
    elif arguments[0] == "-m":
        sys.path[0] = cwd
        sys.argv = ["-m", *arguments[2:]]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(arguments[0]).absolute().parent)
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    if program := serve(socket.socket(fileno=int(sys.argv[1]))):
        become(**program)
