# SPDX-License-Identifier: Apache-2.0
"""Tests of training/search.py, with a stand-in for train.py, and once for real."""

import functools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from system import errors, flagfiles
from tests import programs
from tests.helpers import ROOT
from training import children, engines, search, search_space, study, sweep_plan, trials
from training.search_plan import Plan

pytest.importorskip("optuna", reason="the extra search is missing")

# Trains five epochs at once: the nearer --rotation is to 12, the better, a higher rate
# is better, and above 0.05 it diverges.
STAND_IN = """
import json, math, os, pathlib, sys, time

values = dict(arg[2:].split("=", 1) for arg in sys.argv[1:] if "=" in arg)
run_dir = pathlib.Path(values["run_dir"])
run_dir.mkdir(parents=True, exist_ok=True)
with open(run_dir / "started", "a") as file:
    print(*sys.argv[1:], file=file)
(run_dir / "pid").write_text(str(os.getpid()))
slow = pathlib.Path("slow")
while slow.exists() and run_dir.name in slow.read_text():
    time.sleep(0.01)
rate, seed = float(values["learning_rate"]), int(values["seed"])
rows = ["epoch,step,seconds,validation_accuracy,validation_loss"]
for epoch in range(5):
    miss = (float(values["rotation"]) - 12) ** 2 / 1000 - math.log10(rate) / 20
    accuracy = (1 - miss - 0.01 * seed) * (epoch + 1) / 6
    rows.append(f"{epoch},{10 * epoch + 10},1,{accuracy:.9g},{1 - accuracy:.9g}")
(run_dir / "metrics.csv").write_text("\\n".join(rows) + "\\n")
if rate > 0.05:
    sys.exit(4)
if pathlib.Path("fail").exists() and run_dir.name == "t002-s0":
    print("out of luck", file=sys.stderr)
    sys.exit(3)
(run_dir / "result.json").write_text("{}")
(run_dir / "predictions.npz").touch()
"""

DRIVER = """
import pathlib
from system import cli
from training import children, search, sweep_plan

sweep_plan.TRAIN = pathlib.Path({train!r})
children.POLL_SECONDS = 0.01
search.define_flags()
cli.run(search.main, arguments=True)
"""

BASE = """\
--dataset=digits
--network=mlp
--hidden_units=8
--shift_directions=
--flip_codes=
--epochs=5
--validation_size=400
"""
SPACE = "# rates\n--learning_rate=log 1e-3..1e-1\n--rotation=5..20\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a flagfile and a space; searches run the stand-in."""
    (tmp_path / "train.py").write_text(STAND_IN)
    (tmp_path / "base.flags").write_text(BASE)
    (tmp_path / "a.space").write_text(SPACE)
    monkeypatch.setattr(sweep_plan, "TRAIN", tmp_path / "train.py")
    monkeypatch.setattr(children, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_plan(runs="runs", extra=(), **options):
    arguments = ["--flagfile=base.flags", *extra]
    settings = {"trials": 12, "generation": 2, "seeds": [0], "objective": "accuracy"}
    settings |= {"prune_after": 1, "search_seed": 0, **options}
    base = search.settings_of(arguments)
    space = search_space.read(Path("a.space"), type(base))
    folder = Path(runs, "a")
    folder.mkdir(parents=True, exist_ok=True)
    return Plan(arguments, search.settings_of, base, space, folder, **settings)


def open_study(plan):
    path = plan.folder / search.STUDY
    return study.Study(path, plan.description(), plan.space, plan.objective)


def run(plan, engine=None):
    """Searches; returns the trials."""
    memory = open_study(plan)
    search.search(plan, memory, engine or functools.partial(engines.local, 2))
    return memory.trials


def starts(plan):
    """How often each run was started."""
    return {
        path.parent.name: len(path.read_text().splitlines())
        for path in sorted(plan.folder.glob("*/started"))
    }


# --- searches ---


def test_jobs_change_nothing(folder):
    one = run(make_plan("one"), functools.partial(engines.local, 1))
    four = run(make_plan("four"), functools.partial(engines.local, 4))
    assert one == four and [trial.number for trial in one] == list(range(12))
    assert {trial.state for trial in one} == {"finished", "pruned", "diverged"}
    other = run(make_plan("other", search_seed=1))
    assert [trial.settings for trial in other] != [trial.settings for trial in one]


def test_dask_changes_nothing(folder, cluster):
    import distributed

    def prepare(train):
        sweep_plan.TRAIN = train

    here = run(make_plan("here"))
    address = cluster.scheduler_address
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, 60)
        client.run(prepare, folder / "train.py")
    assert run(make_plan("there"), functools.partial(engines.dask, address)) == here


def test_a_trial_trains_its_seeds_until_one_is_pruned(folder):
    plan = make_plan(seeds=[3, 5], trials=16)
    ended = run(plan)
    counts = starts(plan)
    for trial in ended:
        both = [f"t{trial.number:03}-s{seed}" in counts for seed in (3, 5)]
        assert both[0]
        if trial.state == "finished":
            assert all(both) and [score.seed for score in trial.scores] == [3, 5]
            assert len(trial.curve) == 10
    pruned = [trial for trial in ended if trial.state == "pruned"]
    assert any("t%03d-s5" % trial.number not in counts for trial in pruned)
    assert set(counts.values()) == {1}


def test_more_trials_continue_a_search(folder):
    whole = run(make_plan("whole", trials=10))
    first = run(make_plan("parts", trials=6))
    assert first == whole[:6]
    assert run(make_plan("parts", trials=10)) == whole
    assert set(starts(make_plan("parts")).values()) == {1}


def test_tpe_learns(folder):
    """Its last trials are better than its first, which are drawn at random."""
    ended = run(make_plan(trials=24, prune_after=0))
    scored = [t.value("accuracy") for t in ended if t.state == "finished"]
    assert sum(scored[-8:]) / 8 > sum(scored[:8]) / 8
    best = trials.best(ended, "accuracy")
    assert abs(float(best.settings["rotation"]) - 12) < 3


def test_a_failure_ends_a_search_and_it_resumes(folder):
    plan = make_plan()
    reference = run(make_plan("reference"))
    (folder / "fail").touch()
    with pytest.raises(sweep_plan.SweepError, match="t002-s0 failed with exit code 3"):
        run(plan)
    (folder / "fail").unlink()
    assert run(plan) == reference
    counts = starts(plan)
    assert counts.pop("t002-s0") == 2
    finished = [t for t in reference if t.state == "finished"]
    assert all(counts[f"t{t.number:03}-s0"] == 1 for t in finished if t.number != 2)


# --- the file ---


def test_other_terms_are_refused(folder):
    plan = make_plan()
    run(plan)
    for options, what in [
        ({"generation": 3}, "--generation 2, and not 3"),
        ({"seeds": [0, 1]}, r"--seeds \[0\], and not"),
        ({"extra": ["--batch_size=64"]}, "--batch_size None, and not 64"),
    ]:
        with pytest.raises(study.StudyError, match=what):
            open_study(make_plan(**options))
    (folder / "a.space").write_text("--rotation=1..2\n")
    with pytest.raises(study.StudyError, match="--space"):
        open_study(make_plan())


def test_a_damaged_file_is_refused(folder):
    plan = make_plan()
    run(plan)
    path = plan.folder / search.STUDY
    content = path.read_bytes()
    for damage in (b"no database" * 100, content[: len(content) // 2]):
        path.write_bytes(damage)
        with pytest.raises(study.StudyError, match="is damaged"):
            open_study(plan)
    path.unlink()
    with pytest.raises(study.StudyError, match="has t000-s0, but no search.sqlite"):
        study.refuse_leftovers(plan.folder, search.STUDY)
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(study.StudyError, match="is a link"):
        open_study(plan)


def test_a_missing_optuna_gives_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(errors.UserError, match="extra named search"):
        open_study(make_plan())


def test_a_file_that_cannot_be_written_gives_one_line(folder):
    plan = make_plan()
    memory = open_study(plan)
    database = sqlite3.connect(plan.folder / search.STUDY)
    database.execute("DROP TABLE study_user_attributes")
    database.close()
    with pytest.raises(study.StudyError, match="cannot write .*no such table"):
        memory.ask(0, 4, 0)


# --- the program ---


def start(folder, *arguments):
    driver = DRIVER.format(train=str(folder / "train.py"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return programs.Program(["-c", driver, *arguments], cwd=folder, env=env)


def finish(program):
    with program:
        return program.communicate(60), program.returncode


COMMAND = (
    "base.flags",
    "--space=a.space",
    "--trials=12",
    "--prune_after=1",
    "--generation=2",
    "--jobs=2",
)


def test_the_program(folder):
    (out, error), code = finish(start(folder, *COMMAND, "--results=kept"))
    assert (code, error) == (0, "")
    record = json.loads((folder / "runs/a/trials.json").read_text())
    assert json.loads((folder / "kept/a.json").read_text()) == record
    assert len(record["trials"]) == 12 and record["settings"]["hidden_units"] == [8]
    best = record["trials"][record["best"]]
    assert best["state"] == "finished"
    assert best["value"] == max(
        t["value"] for t in record["trials"] if t["state"] == "finished"
    )
    text = (folder / "runs/a/best.flags").read_text()
    assert "the best of 12 by validation accuracy:" in text
    assert "# Searched by: python -m training.search base.flags --space=a.space" in text
    assert "# Space: --rotation=5..20" in text
    chosen = search.settings_of(["--flagfile=runs/a/best.flags"])
    own = [f"--{name}={value}" for name, value in best["settings"].items()]
    assert (
        chosen.deciding()
        == search.settings_of(["--flagfile=base.flags", *own]).deciding()
    )
    assert f"best: trial {best['number']}, runs/a/best.flags" in out
    assert "binomial standard error of 400 digits" in out
    # A second time, nothing is trained.
    again = finish(start(folder, *COMMAND))
    assert again[0][0].splitlines()[-5:] == out.splitlines()[-5:]
    assert set(starts(make_plan()).values()) == {1}


def test_what_a_run_takes_from_others_is_kept(folder):
    taken = ["--teachers=one,two", "--init_from=three"]
    plan = make_plan(extra=taken, trials=2)
    ended = run(plan)
    best = search.best_flags(plan, ended[0], 2, "python -m training.search …")
    assert set(taken) < set(best.splitlines())
    with pytest.raises(errors.UserError, match="teachers"):
        open_study(make_plan(extra=["--teachers=one", *taken[1:]], trials=2))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_search_that_was_ended_resumes(folder, number):
    whole = trials.record(run(make_plan("whole", trials=8)), "accuracy")
    command = (*COMMAND, "--trials=8")
    (folder / "slow").write_text("t006-s0")
    with start(folder, *command) as program:
        pid = folder / "runs/a/t006-s0/pid"
        end = time.monotonic() + 60
        while not pid.exists() or not pid.read_text():
            assert time.monotonic() < end and program.poll() is None
            time.sleep(0.01)
        program.send_signal(number)
        program.wait(60)
    (folder / "slow").unlink()
    (_, error), code = finish(start(folder, *command))
    assert (code, error) == (0, "")
    assert json.loads((folder / "runs/a/trials.json").read_text())["trials"] == whole
    counts = starts(make_plan())
    assert counts.pop("t006-s0") == 2 and max(counts.values()) <= 2
    finished = [t["number"] for t in whole if t["state"] == "finished"]
    assert all(counts.get(f"t{n:03}-s0", 1) == 1 for n in finished if n < 4)


@pytest.mark.parametrize(
    "arguments, code, what",
    [
        (["--space=a.space"], 2, "expected one flagfile and --space"),
        (["base.flags"], 2, "expected one flagfile and --space"),
        (["base.flags", "base.flags", "--space=a.space"], 2, "expected one flagfile"),
        (["base.flags", "--space=none"], 1, "none: the space cannot be read"),
        (["none.flags", "--space=a.space"], 2, "none.flags: the flagfile cannot be"),
        (
            ["base.flags", "--space=bad.space"],
            1,
            "bad.space, line 1: .*must be 0 to 180",
        ),
        ([*COMMAND, "--seeds=x"], 2, "'x' is neither a seed"),
        ([*COMMAND, "--dask_scheduler=x"], 2, "dask_scheduler must look like"),
        ([*COMMAND, "--dask_scheduler=tcp://a:1"], 2, "give only one of them"),
        ([*COMMAND, "--", "--seed=1"], 2, "leave '--seed=1' out"),
        ([*COMMAND, "--", "--validation_size=0"], 2, "-- --validation_size=5000"),
        ([*COMMAND, "--", "--epochs=x"], 2, "epochs"),
    ],
)
def test_a_mistake_gives_one_line(folder, arguments, code, what):
    (folder / "bad.space").write_text("--rotation=5..200\n--shear=0..9\n")
    (out, error), got = finish(start(folder, *arguments))
    assert (got, out) == (code, "")
    assert (
        re.search(what, error)
        and len(error.splitlines()) == 1
        and not (folder / "runs").exists()
    )


def test_two_searches_do_not_share_a_folder(folder):
    with study.locked(Path("runs/a")):
        (_, error), code = finish(start(folder, *COMMAND))
    assert code == 1 and "another search is at work in runs/a" in error


def test_a_real_search(tmp_path, monkeypatch, capsys):
    """Of train.py, forked, with two runs at a time."""
    forking = types.SimpleNamespace(**vars(subprocess))
    forking.Popen = functools.partial(programs.Popen, report=False)
    monkeypatch.setattr(children, "subprocess", forking)
    monkeypatch.chdir(tmp_path)
    Path("base.flags").write_text(BASE + "--threads=1\n--epoch_images=64\n")
    Path("a.space").write_text("--learning_rate=log 1e-3..1e-2\n--batch_size=16,32\n")
    plan = make_plan(trials=3, generation=2, extra=["--epochs=2"], objective="loss")
    ended = run(plan)
    assert [trial.state for trial in ended] == ["finished"] * 3
    monkeypatch.setattr(sys, "argv", ["search"])
    search.report(plan, ended, None)
    best = trials.best(ended, "loss")
    for trial in ended:
        run_dir = plan.folder / f"t{trial.number:03}-s0"
        config = json.loads((run_dir / "run.json").read_bytes())["config"]
        assert str(config["batch_size"]) == trial.settings["batch_size"]
        assert f"{config['learning_rate']:g}" == trial.settings["learning_rate"]
        assert best.value("loss") <= trial.value("loss")
    lines = flagfiles.expand([f"--flagfile={plan.folder / search.BEST}"])
    assert f"--learning_rate={best.settings['learning_rate']}" in lines
