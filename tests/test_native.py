# SPDX-License-Identifier: Apache-2.0
"""Tests of native/: each operation beside TensorFlow's own."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import models
from models import layers
from native import compile, ops, toolchain
from training import machine, optimizers

pytestmark = pytest.mark.native

EPSILON = 1e-3


def normal(*shape):
    return tf.constant(np.random.default_rng(shape).normal(size=shape), tf.float32)


def close(ours, expected, atol=2e-6):
    """To rounding, of the largest number in it."""
    size = np.abs(expected).max()
    assert size > 0
    np.testing.assert_allclose(ours / size, expected / size, atol=atol)


def plain_conv_pool(x, w):
    return tf.nn.max_pool2d(tf.nn.conv2d(x, w, 1, "SAME"), 3, 2, "VALID")


def value_and_gradients(function, arguments, gradient):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        y = function(*arguments)
    return [t.numpy() for t in (y, *tape.gradient(y, arguments, gradient))]


# Both of LeNet's, at one width and another; and sizes that fill no vector, no window.
SHAPES = pytest.mark.parametrize(
    "x, outputs",
    [
        ((5, 28, 28, 1), 12),
        ((5, 13, 13, 12), 16),
        ((2, 13, 13, 24), 32),
        ((2, 9, 8, 17), 33),
        ((3, 8, 5, 16), 3),
        ((1, 3, 4, 2), 1),
    ],
)


@SHAPES
def test_conv_pool(x, outputs):
    arguments = [normal(*x), normal(3, 3, x[-1], outputs)]
    dy = normal(x[0], (x[1] - 1) // 2, (x[2] - 1) // 2, outputs)
    ours = value_and_gradients(ops.conv_pool, arguments, dy)
    plain = value_and_gradients(plain_conv_pool, arguments, dy)
    for one, other in zip(ours, plain, strict=True):
        close(one, other)


@SHAPES
def test_conv_pool_of_data(x, outputs):
    """The gradient of the kernel alone has an operation of its own."""
    x, w = normal(*x), normal(3, 3, x[-1], outputs)
    with tf.GradientTape() as tape, tf.GradientTape() as plain_tape:
        tape.watch([x, w])
        plain_tape.watch(w)
        y, plain = ops.conv_pool(x, w, data=True), plain_conv_pool(x, w)
    close(y, plain.numpy())
    dx, dw = tape.gradient(y, [x, w])
    assert dx is None
    close(dw, plain_tape.gradient(plain, w).numpy())


def test_of_equal_values_the_first_gets_the_gradient():
    """As on the empty margin of every digit."""
    x, w = tf.zeros([1, 7, 7, 2]), normal(3, 3, 2, 5)
    dy = normal(1, 3, 3, 5)
    ours = value_and_gradients(ops.conv_pool, [x, w], dy)
    plain = value_and_gradients(plain_conv_pool, [x, w], dy)
    assert not np.any(ours[0])
    close(ours[1], plain[1])


@pytest.mark.parametrize(
    "shape", [(5, 13, 13, 12), (7, 6, 6, 16), (6, 288), (3, 144), (5, 7), (33, 1)]
)
def test_selu_norm(shape):
    channels = shape[-1]
    x = 3 * normal(*shape)
    vectors = [normal(channels, i)[:, 0] for i in (1, 2, 3)]

    def plain(x, bias, scale, offset):
        z = tf.nn.selu(x + bias)
        mean, variance = tf.nn.moments(z, list(range(len(shape) - 1)))
        return tf.nn.batch_normalization(z, mean, variance, offset, scale, EPSILON)

    def ours(*arguments):
        return ops.selu_norm(*arguments, epsilon=EPSILON).y

    arguments, dy = [x, *vectors], normal(*shape)
    results = value_and_gradients(ours, arguments, dy)
    exact = [tf.cast(x, tf.float64) for x in (*arguments, dy)]
    expected = value_and_gradients(plain, exact[:-1], exact[-1])
    # Of few rows some channel's are so near each other that rounding is magnified.
    close(results[0], expected[0], atol=1e-5)
    close(results[1], expected[1], atol=1e-5)
    # That of the bias is a sum whose parts all but cancel.
    size = np.abs(expected[1]).reshape(-1, channels).sum(0).max()
    np.testing.assert_allclose(results[2] / size, expected[2] / size, atol=1e-5)
    close(results[3], expected[3], atol=1e-5)
    close(results[4], expected[4])


def test_selu_norm_statistics():
    x, zeros = normal(7, 4), tf.zeros([4])
    _, mean, variance = ops.selu_norm(x, zeros, zeros, zeros, epsilon=EPSILON)
    z = tf.nn.selu(x).numpy()
    np.testing.assert_allclose(mean, z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, z.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 288), (3, 5, 7), (1,)])
@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_dropout(shape, rate):
    """The mask is the plain one's, number by number, at each of two seeds."""
    for seed in ([3, 4], [5, 2**31 - 1]):
        x, dy = normal(*shape), normal(*shape)
        ours, plain = (
            value_and_gradients(
                lambda x, f=f, more=more: f(x, rate, seed=tf.constant(seed), **more),
                [x],
                dy,
            )
            for f, more in ((ops.dropout, {}), (layers.dropout, {"training": True}))
        )
        for one, other in zip(ours, plain, strict=True):
            assert ((one == 0) == (other == 0)).all()
            np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.9991, 0.999995, -0.1])
def test_dropout_of_no_drawable_rate_is_refused(rate):
    with pytest.raises(tf.errors.InvalidArgumentError, match="0 to 0.999 wanted"):
        ops.dropout(tf.ones([4]), rate, seed=tf.constant([3, 4]))
    highest = layers.MAX_DROPOUT
    ops.dropout(tf.ones([4]), highest, seed=tf.constant([3, 4]))


def test_selu_far_below_and_above_0():
    x = tf.constant([[-1e30], [-200.0], [-87.5], [-1.0], [-1e-6], [0.0], [1e30]])
    one, zero = tf.ones([1]), tf.zeros([1])
    ours = ops.load().selu_norm(x=x, bias=zero, scale=one, offset=zero, epsilon=EPSILON)
    np.testing.assert_allclose(ours.z, tf.nn.selu(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "x, w",
    [
        ([2, 5, 5, 3], [3, 3, 2, 4]),
        ([2, 5, 5, 3], [5, 5, 3, 4]),
        ([2, 2, 5, 3], [3, 3, 3, 4]),
        ([5, 5, 3], [3, 3, 3, 4]),
    ],
)
def test_what_does_not_fit_is_refused(x, w):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        ops.conv_pool(tf.zeros(x), tf.zeros(w))


def test_a_vector_that_does_not_fit_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not fit"):
        ops.selu_norm(
            *(tf.zeros([2, 3]), tf.zeros([3]), tf.zeros([4]), tf.zeros([3])),
            epsilon=EPSILON,
        )


def test_evaluation_and_export_know_nothing_of_it():
    network = models.build(
        {
            **{"network": "lenet", "kernels": "native"},
            **{"batch_norm": "all", "batch_norm_first": False},
        }
    )
    images = tf.TensorSpec([4, 28, 28, 1], tf.uint8)

    def operations(training):
        function = tf.function(
            lambda x: network(x, training=training, seed=tf.zeros([2], tf.int32))[0]
        )
        graph = function.get_concrete_function(images).graph
        return {op.type for op in graph.get_operations()}

    assert {"ConvPool", "SeluNorm"} <= operations(True)
    assert not {"ConvPool", "SeluNorm"} & operations(False)


THREADS = """
from system import device; import numpy as np, tensorflow as tf
from native import ops
device.set_threads(THREADS)
rng = np.random.default_rng(0)
x, w, dy = (tf.constant(rng.normal(size=shape), tf.float32)
            for shape in ([7, 9, 9, 3], [3, 3, 3, 5], [7, 4, 4, 5]))
with tf.GradientTape() as tape:
    tape.watch([x, w])
    y = ops.conv_pool(x, w)
dx, dw = tape.gradient(y, [x, w], dy)
print(y.numpy().tobytes().hex(), dx.numpy().tobytes().hex())
print(*dw.numpy().ravel())
"""


def test_threads_share_a_batch():
    def results(threads):
        code = THREADS.replace("THREADS", str(threads))
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        by_image, dw = done.stdout.splitlines()
        return by_image, [float(x) for x in dw.split()]

    one, three = results(1), results(3)
    assert one[0] == three[0]
    np.testing.assert_allclose(one[1], three[1], rtol=1e-5, atol=1e-5)


# --- the update of the weights ---


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_adam_is_the_rule_and_its_neighbours(average, threads):
    """As of the operations of TensorFlow, step by step, whatever the sizes."""

    def trained(threads):
        weights = [tf.Variable(normal(*shape)) for shape in ((300, 70), (17,), (3, 5))]
        slow = [tf.Variable(w) for w in weights] if average else []
        optimizer = optimizers.Optimizer(
            *("adam", weights),
            weight_decay=0.1,
            averages=slow,
            average_decay=average,
            threads=threads,
            epsilon=1e-3,
        )
        norms = []
        for step in range(4):
            gradients = [normal(*w.shape, step + 1)[..., step] for w in weights]
            norms.append(
                optimizer.apply(
                    gradients,
                    step=tf.constant(step),
                    rate=tf.constant(0.1 / (step + 1)),
                )
            )
        slots = [s for name in ("m", "v") for s in optimizer.slots[name]]
        return [v.numpy() for v in (*weights, *slots, *slow, *norms)]

    for ours, plain in zip(trained(threads), trained(0), strict=True):
        close(ours, plain)


def test_adam_leaves_what_was_read_before_as_it_was():
    """A variable's numbers may be in use elsewhere: they are not written over."""
    w, m, v = (tf.Variable(tf.ones([5])) for _ in range(3))
    read = w.read_value(), m.read_value()
    ops.adam(
        *([w], [m], [v], [tf.ones([5])]),
        **{"rate": 0.1, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-8},
        decays=[False],
        shrink=1.0,
    )
    np.testing.assert_array_equal(read, tf.ones([2, 5]))
    np.testing.assert_allclose(w, 0.9 * tf.ones([5]), rtol=1e-6)


def test_adam_refuses_what_does_not_fit():
    w, m, v = (tf.Variable(tf.ones([size])) for size in (5, 5, 4))
    settings = {"rate": 0.1, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-8, "shrink": 1.0}
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not fit"):
        ops.adam([w], [m], [v], [tf.ones([5])], decays=[False], **settings)
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many"):
        ops.adam([w], [m], [m], [tf.ones([5])], decays=[], **settings)


# --- compiling ---


@pytest.fixture
def nothing_compiled(monkeypatch, tmp_path):
    monkeypatch.setattr(compile, "BUILD", tmp_path / "build")
    ops.load.cache_clear()
    yield tmp_path / "build"
    ops.load.cache_clear()


def test_a_compiler_that_fails(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    assert ops.missing() == "the C++ compiler false fails: exit code 1"
    assert not list(nothing_compiled.iterdir())  # nothing half done


def test_no_compiler(nothing_compiled, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(nothing_compiled))
    assert ops.missing() == toolchain.NO_COMPILER
    with pytest.raises(compile.NativeError, match="no C"):
        ops.conv_pool(tf.zeros([1, 5, 5, 1]), tf.zeros([3, 3, 1, 1]))


def test_a_compiler_that_is_not_there(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", str(nothing_compiled / "c++"))
    assert "c++, which does not exist" in ops.missing()


def test_a_compiler_of_two_words(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", "env false")
    assert ops.missing() == "the C++ compiler env fails: exit code 1"


@pytest.fixture
def copied(nothing_compiled, monkeypatch):
    """A library whose compilation is a copy of the one that is there, and counted."""
    content, builds = compiled().read_bytes(), []

    def build(_, path):
        builds.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(compile._Job, "_build", build)
    path = compile.library()
    assert len(builds) == 1 and compile.library() == path
    return path, builds


def compiled():
    """The library that all other tests load."""
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
    # Not loaded in earnest: a process can have but one copy of an operation.
    loaded = []
    monkeypatch.setattr(tf, "load_op_library", loaded.append)
    assert ops.missing() == "" and not capsys.readouterr().err
    assert loaded == [str(path)]


def test_leftovers_of_killed_compilers_go(copied):
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


# As GCC 12 and its assembler say it.
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
def test_the_reason_of_a_compiler_that_fails(printed, reason):
    assert toolchain.failure(printed, 1) == reason


def test_a_compiler_that_is_killed_or_never_ends(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", "sh -c 'kill -9 $$'")
    assert ops.missing() == "the C++ compiler sh fails: killed by SIGKILL"
    monkeypatch.setenv("CXX", "sh -c 'exec sleep 60'")
    monkeypatch.setattr(compile, "COMPILE_SECONDS", 0.05)
    assert ops.missing() == "the C++ compiler takes over 0.05 s"
    assert not list(nothing_compiled.iterdir())


def test_a_compiler_in_the_background_is_ended(nothing_compiled, monkeypatch):
    """With all that it started: its folder goes, and nobody waits."""
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


def test_a_compiler_that_fails_in_the_background(nothing_compiled, monkeypatch, capfd):
    """The choice of kernels does not wait for it; what it said comes afterwards."""
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : avx512f")
    monkeypatch.setenv("CXX", "false")
    assert ops.unsuited() == ""
    fails = "the C++ compiler false fails: exit code 1"
    with pytest.raises(machine.MachineError, match=re.escape(f"here ({fails}): train")):
        machine.settle("native", {})  # as asked for
    assert machine.settle("native", {"kernels": "native"}) == "tensorflow"
    assert capfd.readouterr() == (f"kernels: tensorflow ({fails})\n", "")
    assert machine.settle("tensorflow", {}) == "tensorflow"
    assert machine.settle(None, {}) is None


def test_kernels_as_asked_for_without_a_compiler(nothing_compiled, monkeypatch):
    monkeypatch.setenv("CXX", str(nothing_compiled / "c++"))
    with pytest.raises(machine.MachineError, match="not exist.*--kernels=tensorflow"):
        machine.start_kernels()


def test_a_full_disk_is_named(nothing_compiled, monkeypatch, tmp_path):
    """The compiler's temporary files go where the library goes."""
    script = tmp_path / "c++"
    script.write_text('#!/bin/sh\necho "$TMPDIR: No space left" >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert f"{nothing_compiled}/.compiling.{os.getpid()}: No space" in ops.missing()


@pytest.mark.parametrize(
    "processor, reason", [("flags : fma avx2", "no AVX-512"), ("flags : avx512f", "")]
)
def test_where_it_is_the_better_choice(monkeypatch, processor, reason):
    monkeypatch.setattr(toolchain, "processor", lambda: processor)
    monkeypatch.setattr(compile, "start", lambda: None)
    assert ops.unsuited() == reason


def test_another_processor_or_version_is_compiled_for_anew(monkeypatch):
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
    assert len(paths) == 4


def test_what_tensorflow_is_going_to_say(monkeypatch):
    """Before it is loaded: then it can be compiled for meanwhile."""
    said = toolchain.tensorflow()
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert toolchain.tensorflow() == said


@pytest.mark.parametrize(
    "arguments, begins",
    [
        (["--flagfile=lenet.flags"], True),
        (["--network=lenet", "--seed=1"], True),
        (["--flagfile=flags/mlp_64.flags"], False),
        (["--kernels=tensorflow"], False),
        (["--flagfile=lenet.flags", "--helpfull"], False),
        (["--flagfile=nowhere.flags"], False),  # which is said later
    ],
)
def test_the_compiler_starts_before_tensorflow(monkeypatch, arguments, begins):
    started = []
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setattr(compile, "start", lambda: started.append(True))
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : avx512f")
    compile.foresee()
    assert bool(started) == begins
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : avx2")
    compile.foresee()
    assert bool(started) == begins


def test_what_was_foreseen_for_another_tensorflow(nothing_compiled, monkeypatch):
    """Is ended, and that which was loaded compiled for."""
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


def test_it_can_be_had_here():
    assert ops.missing() == ""
