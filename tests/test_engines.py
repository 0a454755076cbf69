# SPDX-License-Identifier: Apache-2.0
"""Tests of training/engines.py and children.py: runs of a sweep, trained by Dask."""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest

from system import cli, errors, files
from tests.test_sweep import STAND_IN, folder, plan, started  # noqa: F401
from training import children, engines, sweep, sweep_plan

ROWS = [
    {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": 1 - accuracy}
    for epoch, accuracy in enumerate([0.2, 0.6, 0.5, 0.7])
]


# --- the rule ---


@pytest.mark.parametrize(
    "limits, kept",
    [
        ({}, None),
        ({1: 0.6}, None),  # equal is good enough
        ({1: 0.61}, 2),
        ({2: 0.6}, None),  # it had 0.6 once
        ({0: 0.3, 3: 0.8}, 1),
        ({3: 0.8}, 4),
        ({9: 1.0}, None),
    ],
)
def test_a_rule_cuts_at_the_first_epoch_below_its_limit(limits, kept):
    more = children.Rule("validation_accuracy", 1, limits)
    less = children.Rule("validation_loss", -1, {e: 1 - v for e, v in limits.items()})
    for rule in (more, less):
        assert rule.cut(ROWS) == (ROWS[:kept] if kept else None)
        # However many epochs there are when we look.
        for seen in range(len(ROWS) + 1):
            cut = rule.cut(ROWS[:seen])
            assert cut == (ROWS[:kept] if kept and seen >= kept else None)


# --- Dask ---


@pytest.fixture
def engine(cluster, folder):  # noqa: F811
    """Two workers that run the stand-in for train.py."""
    import distributed

    def prepare(train):
        sweep_plan.TRAIN = train
        children.POLL_SECONDS = 0.01

    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, 60)
        client.run(prepare, folder / "train.py")
        yield functools.partial(engines.dask, cluster.scheduler_address)


def wait_for(path):
    """Waits until a run has written a file, and returns what is in it."""
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path} was never written"
        time.sleep(0.01)
    return path.read_text()


def is_gone(pid):
    end = time.monotonic() + 30
    while files.is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not files.is_running(pid)


def test_a_cluster_trains_a_sweep(engine, capsys):
    runs = plan("one.flags", "two.flags")
    sweep.sweep(runs, engine)
    out = sorted(line.partition(":")[0] for line in capsys.readouterr().out.split("\n"))
    assert out[1:] == [run.name for run in runs]
    assert [len(started(run.name)) for run in runs] == [1, 1, 1, 1]
    sweep.sweep(runs, engine)
    assert [len(started(run.name)) for run in runs] == [1, 1, 1, 1]


def test_a_failure_on_a_worker_ends_a_sweep(engine, capsys):
    runs = plan("one.flags", seeds=[1, 2], extra=["--fail=1"])
    with pytest.raises(sweep_plan.SweepError, match="one-s1 failed with exit code 3"):
        sweep.sweep(runs, engine)
    assert "one-s1: out of luck" in capsys.readouterr().err
    assert [sweep_plan.is_finished(run) for run in runs] == [False, True]


def test_a_run_of_a_killed_worker_is_resumed_by_another(engine, cluster):
    (run,) = plan("one.flags", seeds=[0], extra=["--wait=0"])
    thread = threading.Thread(target=sweep.sweep, args=[[run], engine])
    thread.start()
    pid = int(wait_for(run.directory / "pid"))
    Path("train.py").write_text(STAND_IN.replace("sleep(60)", "sleep(0)"))
    parent = int((run.directory / "parent").read_text())
    assert parent in [nanny.pid for nanny in cluster.workers.values()]
    os.kill(parent, signal.SIGKILL)
    thread.join(120)
    assert is_gone(pid) and len(started("one-s0")) == 2
    assert sweep_plan.is_finished(run)


def test_a_run_ends_when_nobody_waits_for_it(engine):
    (run,) = plan("one.flags", seeds=[0], extra=["--wait=0"])
    with engine() as crew:
        crew.submit(children.job(run))
        pid = int(wait_for(run.directory / "pid"))
    assert is_gone(pid)


def test_a_worker_of_another_version_trains_nothing(engine):
    (run,) = plan("one.flags", seeds=[0])
    waiting = deque([children.job(run)._replace(version="0.0.0")])
    with contextlib.closing(engines.run(engine, waiting)) as ended:
        ((_, outcome),) = ended
    assert outcome.state == children.FAILED
    assert f"has version {cli.VERSION}" in outcome.error and not started("one-s0")


def test_a_missing_dask_gives_one_line(folder, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(errors.UserError, match="extra named dask"):
        sweep.sweep(
            plan("one.flags"), functools.partial(engines.dask, "tcp://127.0.0.1:1")
        )
