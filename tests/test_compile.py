# SPDX-License-Identifier: Apache-2.0
"""Tests of native/compile.py and native/toolchain.py."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from native import compile, ops, toolchain
from training import machine

pytestmark = pytest.mark.native


@pytest.fixture
def nothing_compiled(monkeypatch, tmp_path):
    monkeypatch.setattr(compile, "BUILD", tmp_path / "build")
    ops.load.cache_clear()
    yield tmp_path / "build"
    ops.load.cache_clear()


def test_a_failing_compiler_is_reported(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    assert ops.missing() == "the C++ compiler false fails: exit code 1"
    assert not list(nothing_compiled.iterdir())  # no partial files


def test_a_missing_compiler_is_reported(nothing_compiled, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(nothing_compiled))
    assert ops.missing() == toolchain.NO_COMPILER
    with pytest.raises(compile.NativeError, match="no C"):
        ops.conv_pool(tf.zeros([1, 5, 5, 1]), tf.zeros([3, 3, 1, 1]))


def test_a_compiler_that_does_not_exist_is_named(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", str(nothing_compiled / "c++"))
    assert "c++, which does not exist" in ops.missing()


def test_the_compiler_may_be_several_words(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", "env false")
    assert ops.missing() == "the C++ compiler env fails: exit code 1"


@pytest.fixture
def copied(nothing_compiled, monkeypatch):
    """A library that is copied instead of compiled, and the list of its builds."""
    content, builds = compiled().read_bytes(), []

    def build(_, path):
        builds.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(compile._Job, "_build", build)
    path = compile.library()
    assert len(builds) == 1 and compile.library() == path
    return path, builds


def compiled():
    """Path of the library that the other tests load."""
    name = compile.library_path(toolchain.tensorflow()).name
    return Path(ops.__file__).parent / "build" / name


def damage(path, how):
    noted, content = path.with_suffix(".sha256"), path.read_bytes()
    if how in ("link", "pipe"):
        kept = path.rename(path.with_name("elsewhere"))
        path.symlink_to(kept) if how == "link" else os.mkfifo(path)
    elif how == "no hash":
        noted.unlink()
    elif how == "pipe for a hash":
        noted.unlink()
        os.mkfifo(noted)
    elif how == "garbage for a hash":
        noted.write_bytes(b"\xff" * 5000)
    else:
        flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
        half = content[: len(content) // 2]
        path.write_bytes({"half": half, "empty": b"", "flipped": flipped}[how])


DAMAGES = ("half", "empty", "flipped", "no hash", "garbage for a hash", "link", "pipe")


@pytest.mark.parametrize("how", [*DAMAGES, "pipe for a hash"])
def test_a_damaged_library_is_compiled_again(copied, capsys, monkeypatch, how):
    path, builds = copied
    content = path.read_bytes()
    damage(path, how)
    assert compile.library() == path and len(builds) == 2
    assert path.read_bytes() == content and path.is_file() and not path.is_symlink()
    said = capsys.readouterr().err
    assert f"{path} does not match its SHA-256" in said and said.count("\n") == 1
    assert compile.library() == path and len(builds) == 2
    # Not really loaded: a process can register an operation only once.
    loaded = []
    monkeypatch.setattr(tf, "load_op_library", loaded.append)
    assert ops.missing() == "" and not capsys.readouterr().err
    assert loaded == [str(path)]


def test_leftovers_of_killed_compilers_are_removed(copied):
    path, _ = copied
    killed = subprocess.Popen(["true"])
    killed.wait()
    dead, alive = (path.with_name(f".compiling.{n}") for n in (killed.pid, 1))
    hash_ = path.with_name(f".{path.stem}.sha256.{killed.pid}")
    for folder in (dead, alive):
        (folder / "of a compiler").mkdir(parents=True)
    hash_.touch()
    path.unlink()
    compile.library()
    names = {path.name, path.with_suffix(".sha256").name, alive.name}
    assert {p.name for p in path.parent.iterdir()} == names


# As GCC 12 and its assembler print it.
NO_SPACE = (
    "{standard input}: Fatal error: can't write 211 bytes to section .text of x.o: 'No"
    " space left on device'"
)


@pytest.mark.parametrize(
    "printed, reason",
    [
        (
            "{standard input}: Assembler messages:\n"
            f"{NO_SPACE}\n{{standard input}}: Fatal error: x.o: No such file or"
            " directory\n",
            NO_SPACE,
        ),
        (
            "/usr/bin/ld: final link failed: No space left on device\n"
            "collect2: error: ld returned 1 exit status\n",
            "/usr/bin/ld: final link failed: No space left on device",
        ),
        (
            "In file included from core/errors.h:7:\nstatus.h:3: warning: an error\n"
            '   12 | #error "not here"\nops.cc:7:1: fatal error: error writing to'
            " /tmp/a.s: No space left on device\ncompilation terminated.\n",
            "ops.cc:7:1: fatal error: error writing to /tmp/a.s: No space left on"
            " device",
        ),
        (
            "In file included from core/errors.h:7,\n                 from ops.cc:9:\n"
            "vector.h:3:2: error: #error no vectors\n",
            "vector.h:3:2: error: #error no vectors",
        ),
        (
            "c++: fatal error: Killed signal terminated program cc1plus\n"
            "compilation terminated.\n",
            "c++: fatal error: Killed signal terminated program cc1plus",
        ),
        (
            "/usr/bin/ld: cannot find -ltensorflow: No such file or directory\n"
            "collect2: error: ld returned 1 exit status\n",
            "/usr/bin/ld: cannot find -ltensorflow: No such file or directory",
        ),
        ("c++: error: unrecognized -x\n", "c++: error: unrecognized -x"),
        ("something else\n", "something else"),
        ("", "exit code 1"),
    ],
)
def test_the_reason_for_a_failure_is_found(printed, reason):
    assert toolchain.failure(printed, 1) == reason


def test_a_compiler_that_is_killed_or_never_ends_is_reported(
    nothing_compiled, monkeypatch
):
    monkeypatch.setenv("CXX", "sh -c 'kill -9 $$'")
    assert ops.missing() == "the C++ compiler sh fails: killed by SIGKILL"
    monkeypatch.setenv("CXX", "sh -c 'exec sleep 60'")
    monkeypatch.setattr(compile, "COMPILE_SECONDS", 0.05)
    assert ops.missing() == "the C++ compiler takes over 0.05 s"
    assert not list(nothing_compiled.iterdir())


def test_stopping_ends_the_background_compiler(nothing_compiled, monkeypatch):
    """Its child processes end as well, and its folder is removed, without waiting."""
    monkeypatch.setenv("CXX", "sh -c 'sleep 60; true'")
    began = time.perf_counter()
    compile.start()
    job = compile._job
    while not job._running:
        time.sleep(0.01)
    compile._stop()  # as at the end of the program
    assert time.perf_counter() - began < 10
    assert not job._running and not list(nothing_compiled.iterdir())
    with pytest.raises(compile.NativeError, match="SIGKILL|stopped"):
        compile.library()
    assert compile._job is None


def test_a_failure_in_the_background_is_reported_later(
    nothing_compiled, monkeypatch, capfd
):
    """The choice of kernels does not wait for the compiler."""
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : fma avx2")
    monkeypatch.setenv("CXX", "false")
    assert ops.unsuited() == ""
    fails = "the C++ compiler false fails: exit code 1"
    with pytest.raises(machine.MachineError, match=re.escape(f"here ({fails}): train")):
        machine.settle("native", {})  # the user asked for it
    assert machine.settle("native", {"kernels": "native"}) == "tensorflow"
    assert capfd.readouterr() == (f"kernels: tensorflow ({fails})\n", "")
    assert machine.settle("tensorflow", {}) == "tensorflow"
    assert machine.settle(None, {}) is None


def test_without_a_compiler_tensorflows_kernels_are_used(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", str(nothing_compiled / "c++"))
    with pytest.raises(machine.MachineError, match="not exist.*--kernels=tensorflow"):
        machine.start_kernels()


def test_a_full_disk_is_named(nothing_compiled, monkeypatch, tmp_path):
    """The compiler's temporary files are on the same disk as the library."""
    script = tmp_path / "c++"
    script.write_text('#!/bin/sh\necho "$TMPDIR: No space left" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert f"{nothing_compiled}/.compiling.{os.getpid()}: No space" in ops.missing()


@pytest.mark.parametrize(
    "processor, reason",
    [
        ("flags : fma avx", "no AVX2"),
        ("flags : avx2", "no AVX2"),
        ("flags : fma avx2", ""),
        ("Features : asimd", "no AVX2"),
    ],
)
def test_the_choice_of_kernels_depends_on_the_processor(monkeypatch, processor, reason):
    monkeypatch.setattr(toolchain, "processor", lambda: processor)
    monkeypatch.setattr(compile, "start", lambda: None)
    assert ops.unsuited() == reason


def test_each_processor_and_version_has_its_own_library(monkeypatch):
    found = toolchain.tensorflow()
    paths = {compile.library_path(found)}
    monkeypatch.setattr(toolchain, "processor", lambda: "another")
    paths.add(compile.library_path(found))
    paths.add(compile.library_path(found._replace(version="1.0")))
    paths.add(
        compile.library_path(
            found._replace(compile_flags=("-D_GLIBCXX_USE_CXX11_ABI=0",))
        )
    )
    monkeypatch.setenv(compile.MAX_ISA, "avx2")
    paths.add(compile.library_path(found))
    assert len(paths) == 5


def test_the_kernels_can_be_held_to_an_instruction_set(nothing_compiled, monkeypatch):
    assert compile.kernel_flags()[-1] == "-march=native"
    monkeypatch.setenv(compile.MAX_ISA, "AVX2")
    assert compile.kernel_flags()[-1] == "-march=x86-64-v3"
    monkeypatch.setenv(compile.MAX_ISA, "AVX3")
    assert (
        ops.missing()
        == "LENET_MAX_CPU_ISA=AVX3 is unknown: set it to AVX2, or unset it"
    )


def test_flags_of_tensorflow_are_known_before_it_is_loaded(monkeypatch):
    said = toolchain.tensorflow()
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert toolchain.tensorflow() == said


@pytest.mark.parametrize(
    "arguments, begins",
    [
        (["--flagfile=lenet.flags"], True),
        (["--network=lenet", "--seed=1"], True),
        (["--flagfile=flags/robust.flags"], True),
        (["--flagfile=flags/mlp_64.flags"], False),
        (["--kernels=tensorflow"], False),
        (["--flagfile=lenet.flags", "--helpfull"], False),
        (["--flagfile=nowhere.flags"], False),  # an error that train.py reports later
    ],
)
def test_the_compiler_starts_before_tensorflow(monkeypatch, arguments, begins):
    started = []
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setattr(compile, "start", lambda: started.append(True))
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : fma avx2")
    compile.foresee()
    assert bool(started) == begins
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : fma avx")
    compile.foresee()
    assert bool(started) == begins


def test_compiling_for_another_tensorflow_is_stopped(nothing_compiled, monkeypatch):
    """If TensorFlow as loaded differs from what `foresee` found."""
    monkeypatch.setenv("CXX", "sh -c 'sleep 60; true'")
    loaded = toolchain.tensorflow()
    monkeypatch.setattr(toolchain, "tensorflow", lambda: loaded._replace(version="1.0"))
    compile.start()
    foreseen = compile._job
    monkeypatch.setattr(toolchain, "tensorflow", lambda: loaded)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(compile.NativeError, match="false fails"):
        compile.library()
    assert not foreseen._running and not list(nothing_compiled.iterdir())


def test_ctrl_c_while_tensorflow_loads_ends_the_compiler(tmp_path):
    ours = f"61.{os.getpid()}"  # seconds; no other run of this test sleeps as long
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, signal, time\n"
        "from system import console\n"
        "console.start()\n"
        "from native import compile\n"
        "compile.BUILD = pathlib.Path(BUILD)\n"
        "compile.start()\n"
        "while not compile._job._running: time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(60)\n".replace("BUILD)", f"{str(tmp_path / 'build')!r})")
    )
    ended = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "CXX": f"sh -c 'sleep {ours}'", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        timeout=50,
    )
    assert ended.returncode == 130 and b"program.py: interrupted" in ended.stderr
    assert not list((tmp_path / "build").iterdir())
    assert f"sleep\0{ours}\0".encode() not in b"".join(
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
    )
