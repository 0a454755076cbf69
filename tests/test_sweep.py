# SPDX-License-Identifier: Apache-2.0
"""Tests of training/sweep.py, with a small stand-in for train.py, and once for real."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from evaluation import predictions, result
from system import errors, files
from tests import programs
from tests.helpers import ROOT, command
from training import children, engines, sweep, sweep_plan
from training.sweep_plan import SweepError

# Takes the flags that a sweep gives, and writes what train.py would.
STAND_IN = """
import json, os, pathlib, signal, sys, time

values = dict(arg[2:].split("=", 1) for arg in sys.argv[1:])
run_dir = pathlib.Path(values["run_dir"])
run_dir.mkdir(parents=True, exist_ok=True)
with open(run_dir / "started", "a") as file:
    print(*sys.argv[1:], file=file)
if "stubborn" in values:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(run_dir / "parent").write_text(str(os.getppid()))
(run_dir / "pid").write_text(str(os.getpid()))  # from here on a test may interrupt it
if "wait" in values and int(values["seed"]) >= int(values["wait"]):
    time.sleep(60)
while values.get("outlive") == values["seed"]:  # until the sweep has seen run 1 end
    pid = run_dir.with_name("one-s1") / "pid"
    try:
        os.kill(int(pid.read_text()), 0)
    except ProcessLookupError:
        break
    except (FileNotFoundError, ValueError):
        pass
    time.sleep(0.01)
if values.get("fail") == values["seed"]:
    print("step 1\\rstep 2\\r\\nout of luck", file=sys.stderr)
    sys.exit(3)
score = dict(accuracy=0.75, errors=int(values["seed"]), images=2000)
score["binary_accuracy"] = 0.9512
if "unscored" not in values:
    (run_dir / "result.json").write_text(json.dumps({"test": score}))
    (run_dir / "predictions.npz").touch()
"""

# A sweep in its own process, with the stand-in for train.py.
DRIVER = """
import pathlib, sys
from system import cli
from training import children, sweep, sweep_plan

sweep_plan.TRAIN = pathlib.Path({train!r})
sweep.EVAL = pathlib.Path({eval!r})
children.GRACE_SECONDS = 0.5
children.LOCK_SECONDS = 0.5
sweep.define_flags()
cli.run(sweep.main, arguments=True)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two flagfiles; sweeps there run the stand-in."""
    (tmp_path / "train.py").write_text(STAND_IN)
    (tmp_path / "eval.py").write_text("import sys; print('eval.py', *sys.argv[1:])")
    (tmp_path / "one.flags").write_text("# one\n--epochs=3\n")
    (tmp_path / "two.flags").write_text("--flagfile=one.flags\n--epochs=4\n")
    monkeypatch.setattr(sweep_plan, "TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(children, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(children, "LOCK_SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(*flagfiles, seeds=(0, 1), extra=()):
    return sweep_plan.plan(
        [Path(name) for name in flagfiles], seeds, Path("runs"), extra
    )


def run_sweep(runs, jobs=1, results=None):
    sweep.sweep(runs, functools.partial(engines.local, jobs), results)


def started(name):
    """Command lines with which a run was started."""
    path = Path("runs") / name / "started"
    return path.read_text().splitlines() if path.exists() else []


def start(folder, *arguments):
    """Starts a sweep as a process.

    Without preexec_fn: with it Python forks before it executes, and if another test has
    started gRPC in this process, gRPC restarts its threads in the fork, where they
    abort as soon as Python closes their files (grpc/grpc#43055).
    """
    driver = DRIVER.format(train=str(folder / "train.py"), eval=str(folder / "eval.py"))
    return subprocess.Popen(
        [sys.executable, "-c", driver, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_of(name, errors):
    """Line that a sweep prints for a run of the stand-in."""
    score = f"test accuracy 75.00%, {errors} errors of 2,000, binary accuracy 95.12%"
    return f"{name}: {score}"


def finish(process):
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


# --- sweeps ---


def test_a_sweep_trains_each_run_once(folder, capsys):
    runs = plan("one.flags", "two.flags", extra=["--wait=9"])
    run_sweep(runs, results=Path("results/new"))
    out = capsys.readouterr().out.splitlines()
    assert out[1] == line_of("one-s1", 1)
    assert [line.partition(":")[0] for line in out] == [run.name for run in runs]
    for run in runs:
        assert started(run.name) == [" ".join(run.arguments)]
        copied = folder / "results" / "new" / f"{run.name}.json"
        assert copied.read_bytes() == (run.directory / "result.json").read_bytes()
    # A second time, all scores are printed again, and nothing is trained.
    (folder / "results" / "new" / "one-s0.json").unlink()
    run_sweep(runs, results=Path("results/new"))
    assert capsys.readouterr().out.splitlines() == out
    assert (folder / "results" / "new" / "one-s0.json").exists()
    assert all(len(started(run.name)) == 1 for run in runs)
    # The shell's runs/one-s*, for eval.py --compare, matches the runs alone.
    assert sorted(Path("runs").glob("one-s*")) == [run.directory for run in runs[:2]]


def test_an_uncertain_run_is_left_to_train_py(folder):
    run_sweep(plan("one.flags"))
    # Another comment changes nothing; another value may.
    (folder / "one.flags").write_text("# changed\n--epochs=3\n")
    run_sweep(plan("one.flags"))
    assert len(started("one-s0")) == 1
    run_sweep(plan("one.flags", extra=["--epochs=5"]))
    assert len(started("one-s0")) == 2
    (folder / "runs/one-s0/result.json").unlink()
    run_sweep(plan("one.flags", extra=["--epochs=5"]))
    assert (len(started("one-s0")), len(started("one-s1"))) == (3, 2)
    for damage in ("", "[]", "{"):
        (folder / "runs/one-s1/sweep.json").write_text(damage)
        run_sweep(plan("one.flags", seeds=[1], extra=["--epochs=5"]))
    assert len(started("one-s1")) == 5


def test_after_a_failure_no_other_run_starts(folder, capsys):
    runs = plan("one.flags", seeds=[0, 1, 2], extra=["--fail=1"])
    with pytest.raises(SweepError) as caught:
        run_sweep(runs)
    message = str(caught.value)
    log = Path("runs/logs/one-s1.log")
    assert message.startswith(f"one-s1 failed with exit code 3: see {log}; ")
    assert message.endswith(f"{folder}/train.py {' '.join(runs[1].arguments)}")
    assert len(message.splitlines()) == 1
    captured = capsys.readouterr()
    shown = ["step 1", "step 2", "out of luck"]
    assert captured.err.splitlines() == [f"one-s1: {line}" for line in shown]
    assert [len(started(run.name)) for run in runs] == [1, 1, 0]
    # Output of earlier attempts stays in the log, and is not shown as the last one's.
    with pytest.raises(SweepError):
        run_sweep(runs)
    assert capsys.readouterr().err == captured.err
    assert log.read_text().count("out of luck") == 2


def test_a_scored_run_has_what_evaluation_writes():
    # training may not import evaluation, so it has the names a second time.
    assert sweep_plan.SCORED == (result.RESULT, predictions.PREDICTIONS)
    assert sweep_plan.RESULT == result.RESULT


def test_a_run_without_a_score_is_a_failure(folder):
    with pytest.raises(SweepError, match="one-s0 has no result.json and predictions"):
        run_sweep(plan("one.flags", extra=["--unscored=1"]))
    assert not Path("runs/one-s0/sweep.json").exists()


def test_a_result_without_a_score_is_a_failure(folder):
    runs = plan("one.flags", seeds=[0])
    run_sweep(runs)
    score = '{"accuracy": 75, "errors": 1, "images": 9, "binary_accuracy": 1}'
    for damage in ("{", "[]", '{"test": {"accuracy": 0.75}}', f'{{"test": {score}}}'):
        Path("runs/one-s0/result.json").write_text(damage)
        with pytest.raises(SweepError, match="eval.py --run_dir=runs/one-s0"):
            run_sweep(runs)


def test_jobs_run_side_by_side(folder):
    # The first is still running when the second fails, and is not started again.
    runs = plan("one.flags", seeds=[5, 1, 0], extra=["--fail=1", "--outlive=5"])
    with pytest.raises(SweepError, match="one-s1"):
        run_sweep(runs, jobs=2)
    assert [len(started(run.name)) for run in runs] == [1, 1, 0]
    assert Path("runs/one-s5/sweep.json").exists()


def test_a_run_that_cannot_start_leaves_others_alone(folder):
    runs = plan("one.flags", seeds=[0, 1, 2])
    runs[1].log.mkdir(parents=True)
    with pytest.raises(SweepError, match="cannot write runs/logs/one-s1.log: Is a dir"):
        run_sweep(runs, jobs=2)
    assert [len(started(run.name)) for run in runs] == [1, 0, 0]
    assert Path("runs/one-s0/sweep.json").exists()


@pytest.mark.parametrize("name", ["runs/logs", "runs/logs/one-s0.log"])
def test_a_log_is_not_written_through_a_link(folder, name):
    outside = folder / "outside"
    outside.mkdir()
    Path(name).parent.mkdir(parents=True)
    Path(name).symlink_to(outside if name == "runs/logs" else outside / "log")
    with pytest.raises(SweepError, match=f"{name} is a link: delete it"):
        run_sweep(plan("one.flags"))
    assert not list(outside.iterdir())


def test_a_folder_that_cannot_be_written(folder):
    (folder / "runs").write_text("a file")
    with pytest.raises(errors.UserError, match="choose another --runs"):
        run_sweep(plan("one.flags"))


# --- the program ---


def wait_for(process, path):
    """Waits until a run has written a file."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{path} was never written")


def test_the_program_ends_with_the_comparison(folder):
    done = finish(
        start(
            folder, "one.flags", "--seeds=3,5", "two.flags", "--runs=r", "--", "--e=1"
        )
    )
    runs = ["one-s3", "one-s5", "two-s3", "two-s5"]
    lines = done[1].splitlines()
    assert done[0] == 0 and done[2] == ""
    directories = " ".join(f"r/{name}" for name in runs)
    assert lines[4:] == ["", f"eval.py --compare {directories}"]
    assert "--flagfile=two.flags --e=1 --seed=5 --run_dir=r/two-s5" in (
        Path("r/two-s5/started").read_text()
    )
    assert finish(start(folder, "one.flags", "--seeds=3", "--runs=r"))[1] == (
        line_of("one-s3", 3) + "\n"
    )


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("extra", [[], ["--stubborn=1"]])
def test_an_interrupt_ends_the_runs_and_the_command_resumes(
    folder, signal_number, extra
):
    command = ["one.flags", "--seeds=0-2", "--jobs=2", "--", "--wait=1", *extra]
    process = start(folder, *command)
    wait_for(process, folder / "runs/one-s1/pid")
    wait_for(process, folder / "runs/one-s2/pid")
    process.send_signal(signal_number)
    code, out, error = finish(process)
    assert (code, error) == (130, "-c: interrupted\n")
    assert out == line_of("one-s0", 0) + "\n"
    for name in ("one-s1", "one-s2"):
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / "runs" / name / "pid").read_text()), 0)
    (folder / "train.py").write_text(STAND_IN.replace("sleep(60)", "sleep(0)"))
    assert finish(start(folder, *command))[0] == 0
    assert [len(started(f"one-s{seed}")) for seed in range(3)] == [1, 2, 2]


def test_no_run_outlives_a_killed_sweep(folder):
    process = start(folder, "one.flags", "--seeds=0", "--", "--wait=0")
    wait_for(process, folder / "runs/one-s0/pid")
    process.kill()
    process.communicate()  # ends only when no run holds the pipes any more
    pid = int((folder / "runs/one-s0/pid").read_text())
    end = time.monotonic() + 10
    while files.is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not files.is_running(pid)


def test_two_sweeps_do_not_train_the_same_run(folder):
    process = start(folder, "one.flags", "--seeds=0", "--", "--wait=0")
    wait_for(process, folder / "runs/one-s0/started")
    with pytest.raises(SweepError, match="one-s0 is being trained by another sweep"):
        run_sweep(plan("one.flags"))
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


@pytest.mark.parametrize(
    "arguments, code, what",
    [
        ([], 2, "no flagfile given"),
        (["--", "--epochs=1"], 2, "no flagfile given"),
        (["one.flags", "--seeds=4-0"], 2, "'4-0' is not a range of seeds"),
        (["one.flags", "--jobs=0"], 2, "jobs"),
        (["one.flags", "--epochs=1"], 2, "epochs"),
        (["one.flags", "--", "--seed=1"], 2, "leave '--seed=1' out"),
        (["one.flags", "no.flags"], 1, "no.flags"),
    ],
)
def test_a_mistake_gives_one_line(folder, arguments, code, what):
    done = finish(start(folder, *arguments))
    assert done[:2] == (code, "")
    assert what in done[2] and len(done[2].splitlines()) == 1
    assert not (folder / "runs").exists()


def test_a_real_sweep(tmp_path, monkeypatch, capsys):
    """Of train.py and eval.py, forked; the program itself is tested above."""
    forking = types.SimpleNamespace(**vars(subprocess))
    forking.Popen = functools.partial(programs.Popen, report=False)
    monkeypatch.setattr(children, "subprocess", forking)
    flagfile = tmp_path / "digits.flags"
    flagfile.write_text(
        "--dataset=digits\n--network=mlp\n--hidden_units=8\n--shift_directions=\n"
        "--flip_codes=\n--epochs=2\n--epoch_images=64\n"
    )
    extra = ["--epochs=1", "--threads=1"]
    runs = sweep_plan.plan([flagfile], (0, 1), tmp_path, extra)
    run_sweep(runs, jobs=2)
    out = capsys.readouterr().out
    for name in ("digits-s0", "digits-s1"):
        assert f"{name}: test accuracy" in out
        config = json.loads((tmp_path / name / "result.json").read_bytes())["config"]
        assert (f"digits-s{config['seed']}", config["epochs"]) == (name, 1)
    done = command("eval.py", "--compare", *(run.directory for run in runs))
    assert done.returncode == 0, done.stderr
    assert "95 % of the mean" in done.stdout and "McNemar" in done.stdout
