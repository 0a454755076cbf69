# SPDX-License-Identifier: Apache-2.0
"""Starts programs in a tenth of the time, from a process that has loaded TensorFlow.

Loading it takes two seconds of a core, and our tests start some hundred programs. So a
server loads it once, with nothing of the project, and forks for each program: what runs
there is the program itself, from its first line, in a process of its own. A test about
loading, memory or signals starts a process of its own instead.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_REQUEST_BYTES = 1 << 17
# What the interpreter looks at when it starts, which a fork does not.
STARTUP = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONPATH", "PYTHONHASHSEED", "LC_ALL")


def run(arguments, *, cwd=ROOT, env=None, input=None, timeout=None):
    """Runs a script of the project, or -m module, to its end; UTF-8 text in and out.

    Returns subprocess.CompletedProcess. Raises subprocess.TimeoutExpired.
    """
    words = list(map(str, arguments))
    request = {"arguments": words, "cwd": str(cwd), "env": dict(env or os.environ)}
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, ours:
        with theirs, tempfile.TemporaryFile() as given:
            given.write((input or "").encode())
            given.seek(0)
            handles = [f.fileno() for f in (given, out, err, theirs)]
            socket.send_fds(_server(), [json.dumps(request).encode()], handles)
        ours.settimeout(timeout)
        lines = ours.makefile()
        pid = int(lines.readline())
        try:
            code = int(lines.readline())
        except TimeoutError:
            os.kill(pid, 9)
            raise subprocess.TimeoutExpired(words, timeout) from None
        texts = [_text(file) for file in (out, err)]
    return subprocess.CompletedProcess([sys.executable, *words], code, *texts)


def can_run(arguments, options):
    """Whether `run` does what subprocess.run would do."""
    env = options.get("env") or os.environ
    same = all(env.get(name) == os.environ.get(name) for name in STARTUP)
    known = options.keys() <= {"cwd", "env", "input", "timeout"}
    return same and known and not str(arguments[0]).startswith("-c")


def _text(file):
    file.seek(0)
    return io.TextIOWrapper(file, "utf-8").read()


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


def preload():
    """Loads TensorFlow as the programs do, under a name that they do not know."""
    spec = importlib.util.spec_from_file_location("_device", ROOT / "system/device.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def become(arguments, cwd, env):
    """Runs a program as `python …` would in a process of its own."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "r" if name == "stdin" else "w"
        errors = "backslashreplace" if name == "stderr" else "strict"
        setattr(sys, name, open(number, mode, encoding="utf-8", errors=errors))
    if arguments[0] == "-m":
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
