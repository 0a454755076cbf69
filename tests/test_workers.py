# SPDX-License-Identifier: Apache-2.0
"""Tests of training/workers.py: real processes on loopback."""

import contextlib
import os
import random
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader

from benchmarks import distribute as benchmark
from config import Config
from tests import programs
from tests.helpers import command
from training import checkpoints, history, launch, runs
from training.state import State

SECONDS = 300  # more than any of these processes takes, on a busy machine
LEAVING = 30  # seconds for the others to notice that one is gone

STEPS = 4  # per epoch
EPOCHS = 6
FLAGS = (
    *("--dataset=digits", "--shift_directions=", "--flip_codes=", "--threads=1"),
    *("--batch_size=33", f"--epoch_images={33 * STEPS}", f"--epochs={EPOCHS}"),
    *("--optimizer=momentum", "--learning_rate=2e-3", "--replicas=2", "--log_steps=2"),
    "--weight_average=0.9",
)
# Quick to trace: for all that is about processes, whatever they train.
MLP = ("--network=mlp", "--hidden_units=8")
LENET = ("--batch_norm=conv", "--kernels=tensorflow", "--dropout=0.2")
CLOSE = 1e-3  # of all variables and losses
# Of these where batch norm is computed in another way. TensorFlow's variances are wrong
# by 1e-4, and a pool gives the gradient of two equal values to one of them.
SYNC_CLOSE = 1e-2


@contextlib.contextmanager
def workers(*commands):
    """Starts a Python process with these arguments for each worker."""
    ports = launch.free_ports(len(commands))
    with contextlib.ExitStack() as stack:
        processes = []
        for number, arguments in enumerate(commands):
            env = {**os.environ, "TF_CONFIG": launch.tf_config(ports, number)}
            process = programs.Program(arguments, env=env, report=False)
            processes.append(stack.enter_context(process))
        yield processes


def ends(processes):
    """Waits; returns each worker's exit code, output and errors, without the bar."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=SECONDS)
        lines = [line for line in err.splitlines() if line.startswith("train.py: ")]
        found.append((process.returncode, out, lines))
    return found


def training(run_dir, *others):
    """Command of a worker; later flags override earlier ones."""
    return (
        "train.py",
        "--distribute=multi_worker",
        *FLAGS,
        f"--run_dir={run_dir}",
        *others,
    )


def wait_for_epoch(run_dir, count, process):
    """Waits until metrics.csv has this many epochs."""
    began = time.monotonic()
    while len(history.read(run_dir)) < count:
        assert process.poll() is None and time.monotonic() < began + SECONDS
        time.sleep(0.02)


def launched(run_dir, *others):
    """Trains a run to its end with two workers, using the launcher."""
    launch = ["-m", "training.launch", "--workers=2", "--", *FLAGS]
    return command(*launch, f"--run_dir={run_dir}", *others, timeout=SECONDS)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Directory of an undisturbed run of two workers."""
    run_dir = tmp_path_factory.mktemp("two") / "run"
    done = launched(run_dir, *MLP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == EPOCHS  # of worker 0 alone
    assert (run_dir / "result.json").exists()
    return run_dir


def config_of(run_dir):
    return runs.read_run(run_dir)["config"]


def alone(run_dir, *others):
    """Command of a single process for the same run."""
    return [*training(run_dir, *others), "--distribute=none"]


def state(run_dir, config):
    """Every variable of the last checkpoint."""
    found = State(Config(**config))
    step = checkpoints.restore(found.checkpoint, run_dir / "checkpoints", config)
    return [np.array(step)] + [v.numpy() for v in found.variables]


def rows(run_dir):
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in history.read(run_dir)
    ]


def far(run_dir, other, config, other_config):
    """Largest difference of a variable or a loss between two runs."""
    pairs = list(zip(state(run_dir, config), state(other, other_config), strict=True))
    pairs += [
        (one[name], two[name])
        for one, two in zip(rows(run_dir), rows(other), strict=True)
        for name in ("step", "train_loss", "test_loss")
    ]
    return max(np.abs(one - two).max() for one, two in pairs)


def assert_same(run_dir, other):
    """Compares two runs bit for bit."""
    config = config_of(run_dir)
    assert config == config_of(other)
    assert rows(run_dir) == rows(other)
    for one, two in zip(state(run_dir, config), state(other, config), strict=True):
        assert one.tobytes() == two.tobytes()


def scopes_drawn(run_dir):
    """First two parts of the names in the graph that TensorBoard shows."""
    (path,) = (run_dir / "train").glob("*tfevents*")
    (drawn,) = [
        event.graph_def
        for event in event_file_loader.EventFileLoader(str(path)).Load()
        if event.graph_def
    ]
    nodes = tf.compat.v1.GraphDef.FromString(drawn).node
    return {"/".join(node.name.split("/")[:2]) for node in nodes}


def test_the_step_of_a_worker_is_drawn(two):
    assert scopes_drawn(two) >= {
        *("part_step/augment", "part_step/mlp", "part_step/loss"),
        *("part_step/gradient_tape", "exchange/CollectiveReduceV2", "unpack/split"),
        *("optimizer/AssignVariableOp", "variables/network", "variables/optimizer"),
    }


def test_two_workers_equal_one_process_with_two_replicas(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    command = training(two, *LENET)
    with workers(command, command) as pair, workers(alone(one, *LENET)) as single:
        assert [code for code, *_ in ends([*pair, *single])] == [0, 0, 0]
    config = config_of(two)
    assert config["replicas"] == 2 and "distribute" not in config
    assert far(two, one, config, config) < CLOSE


def test_synchronised_batch_norm_covers_the_whole_batch(tmp_path):
    others = (*LENET, "--dropout=0", "--batch_norm=all", "--epochs=1")
    others += ("--learning_rate=1e-4", "--weight_average=0")
    sync, whole = "--sync_batch_norm", "--replicas=1"
    runs_ = [tmp_path / name for name in ("two", "mirrored", "one", "parts")]
    command = training(runs_[0], *others, sync)
    mirrored = training(runs_[1], *others, sync, "--distribute=mirrored")
    with workers(command, command) as two, workers(mirrored) as one:
        assert [code for code, *_ in ends([*two, *one])] == [0, 0, 0]
    # The second replica is drawn, although no edge leads from it to the update.
    drawn = scopes_drawn(runs_[1])
    assert drawn >= {"gradient_tape/lenet", "replica_1/loss", "replica_1/exchange"}
    with (
        workers(alone(runs_[2], *others, whole)) as one,
        workers(alone(runs_[3], *others)) as parts,
    ):
        assert [code for code, *_ in ends([*one, *parts])] == [0, 0]
    configs = [config_of(run_dir) for run_dir in runs_]
    for number in (0, 1):
        assert far(runs_[number], runs_[2], configs[number], configs[2]) < SYNC_CLOSE
    assert far(runs_[3], runs_[2], configs[3], configs[2]) > 10 * SYNC_CLOSE


def test_a_killed_worker_stops_the_others_and_the_run_resumes(two, tmp_path):
    random_ = random.Random(7)
    run_dir = tmp_path / "run"
    command = training(run_dir, *MLP)
    with workers(command, command) as processes:
        wait_for_epoch(run_dir, random_.randrange(1, EPOCHS - 1), processes[0])
        time.sleep(random_.uniform(0, 0.2))
        victim = random_.randrange(2)
        processes[victim].kill()
        began = time.monotonic()
        code, _, lines = ends(processes)[1 - victim]
        assert time.monotonic() < began + LEAVING
    assert code == 1 and len(lines) == 1, lines
    assert f"worker {1 - victim} of 2 (127.0.0.1:" in lines[0]
    assert "has lost another worker" in lines[0] and str(run_dir) in lines[0]
    assert not (run_dir / "result.json").exists()
    with workers(command, command) as processes:
        assert [code for code, _, _ in ends(processes)] == [0, 0]
    assert_same(run_dir, two)


def test_sigterm_to_one_worker_stops_all_and_any_number_resumes(two, tmp_path):
    """Two workers, then one process, then two again, one of them slow."""
    run_dir = tmp_path / "run"
    command = training(run_dir, *MLP)
    with workers(command, command) as processes:
        wait_for_epoch(run_dir, 1, processes[0])
        processes[1].terminate()
        found = ends(processes)
    assert [code for code, _, _ in found] == [143, 143]
    (step,) = {
        int(line.split("at step ")[1].split(",")[0]) for _, _, (*_, line) in found
    }
    assert checkpoints.steps(run_dir / "checkpoints")[-1] == step
    assert found[1][2][-1].endswith(f"--flagfile={run_dir / 'flags.txt'}")
    with workers(alone(run_dir, *MLP)) as processes:
        wait_for_epoch(run_dir, 2, processes[0])
        processes[0].terminate()
        assert ends(processes)[0][0] == 143
    config = config_of(run_dir)
    with workers(command, command) as processes:
        wait_for_epoch(run_dir, EPOCHS - 2, processes[0])
        processes[1].send_signal(signal.SIGSTOP)
        time.sleep(2)
        processes[1].send_signal(signal.SIGCONT)
        assert [code for code, _, _ in ends(processes)] == [0, 0]
    assert far(run_dir, two, config, config) < CLOSE


def test_all_workers_refuse_differing_settings(tmp_path):
    run_dir = tmp_path / "run"
    with workers(training(run_dir), training(run_dir, "--seed=3")) as processes:
        for code, out, lines in ends(processes):
            assert code == 1 and "epoch" not in out
            assert lines == [
                "train.py: worker 1 has --seed 3, but worker 0 has 0: start all with"
                " the same flags, version and data"
            ]
    assert not run_dir.exists()


# What workers exchange.
TALK = """
import os
from system import device
import numpy as np
import tensorflow as tf
from system import errors
from training import cluster
from training.workers import Workers
place = cluster.find_place("multi_worker", os.environ["TF_CONFIG"])
n = place.number
assert (place.workers, place.on_host) == (2, 2)
workers = Workers("multi_worker", place, 2)
assert workers.gather({"é": [n, None] * n}) == [{"é": []}, {"é": [1, None]}]
assert workers.agree(15 * n) == 15
bits = np.array([0, 1 << 31, 2**32 - 1, 5 + n], np.uint32)
floats = tf.Variable(bits.view(np.float32))
bools = tf.Variable([n == 0, False, True])
workers.follow_first([floats, bools])
assert floats.numpy().view(np.uint32).tolist() == [0, 1 << 31, 2**32 - 1, 5]
assert bools.numpy().tolist() == [True, False, True]
workers.check_equal([floats, bools], "here")
workers.check_alike({"data": "x"})
try:
    workers.check_alike({"a": 1, "version": "0.4." + "09"[n], "z": n})
except errors.UserError as error:
    print(error)
bools.assign([n == 1, False, True])
try:
    workers.check_equal([floats, bools], "at step 7")
except errors.UserError as error:
    print(error)
workers.agree(0)
"""


def test_workers_exchange_values():
    command = ("-c", TALK)
    with workers(command, command) as processes:
        for process in processes:
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
            assert (
                "worker 1 has version 0.4.9, but worker 0 has 0.4.0: start all" in out
            )
            assert "worker 1 differ from those of worker 0 at step 7" in out


# Meets the others, and is gone when TensorFlow connects them.
GONE = """
import json
import os
from training import rendezvous
workers = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
rendezvous.meet(workers, 1, 60)
"""
LEFT = """
import os
from system import device
from system import cli
from training import cluster, strategies
from training.workers import Workers
strategies.CONNECT_SECONDS = 1
place = cluster.find_place("multi_worker", os.environ["TF_CONFIG"])
cli.run(lambda _: Workers("multi_worker", place, 2))
"""


def test_a_worker_that_vanishes_after_the_meeting_is_reported():
    with workers(("-c", LEFT), ("-c", GONE)) as (left, gone):
        _, err = left.communicate(timeout=SECONDS)
        assert gone.wait(SECONDS) == 0
    assert left.returncode == 1 and len(err.splitlines()) == 1, err
    assert "could not connect this worker to the others, which were there" in err


def test_the_benchmark_reports_the_cost_of_the_exchange():
    seconds = {name: [0.01, 0.02] for name in benchmark.WAYS}
    seconds[benchmark.APART] = [0.006, 0.012]
    figures = {"batch_size": 100, "bytes": 3000, "seconds": seconds}
    text = benchmark.markdown(figures)
    assert "here 3,000. The exchange takes 40% of a step of 2 workers" in text
    assert text.count("6,667") == 4 and "11,111" in text  # images/s
