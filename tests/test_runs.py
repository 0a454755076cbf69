# SPDX-License-Identifier: Apache-2.0
"""Tests of training/runs.py: runs are created once, resumed, and never mixed up."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from config import Config
from evaluation import trained
from system import cli
from tests.helpers import ROOT
from training import locks, runs
from training.runs import RunError

CONFIG = Config(epochs=3, learning_rate=0.1).resolved()

FACTS = {"data": {"a": "b"}, "environment": {"cores": 2, "version": cli.VERSION}}


def open_run(run_dir, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    runs.open_run(run_dir, config, "--epochs=3\n", FACTS)


def visible(folder):
    return sorted(p.name for p in folder.iterdir())


def test_open_run_creates_the_directory(tmp_path):
    run_dir = tmp_path / "runs" / "one"
    open_run(run_dir)
    assert visible(run_dir) == ["flags.txt", "run.json"]
    assert (run_dir / "flags.txt").read_text() == "--epochs=3\n"
    run = json.loads((run_dir / "run.json").read_text())
    own = {"format": runs.FORMAT, "version": cli.VERSION}
    assert run == {**own, "config": CONFIG.deciding(), **FACTS}
    assert runs.read_run(run_dir) == run


def test_the_same_settings_resume_the_run(tmp_path):
    open_run(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    (tmp_path / "metrics.csv").touch()
    open_run(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"learning_rate": 0.2}, "--learning_rate=0.1, not 0.2"),
        ({"flip_codes": []}, r"--flip_codes=\['1'\], not \[\]"),
        ({"network": "mlp", "seed": 5}, "--network=lenet, not mlp"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, what):
    open_run(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunError, match=what) as caught:
        open_run(tmp_path, **changes)
    assert "choose another --run_dir" in str(caught.value)
    assert f"--flagfile={tmp_path / 'flags.txt'}" in str(caught.value)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_foreign_directory_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="holds 'thesis.tex' but no run.json"):
        open_run(tmp_path)
    assert visible(tmp_path) == ["thesis.tex"]


def test_a_run_killed_before_its_run_json_is_opened_again(tmp_path):
    (tmp_path / "flags.txt").write_text("--epo")
    (tmp_path / ".run.json.123").touch()
    open_run(tmp_path)
    assert (tmp_path / "flags.txt").read_text() == "--epochs=3\n"


def test_a_file_where_the_directory_should_be(tmp_path):
    (tmp_path / "file").touch()
    for run_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="choose another --run_dir"):
            open_run(run_dir)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "3", '{"config": 3}', "{}", '{"config": "\xff"}']
)
def test_a_damaged_run_json_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match="run.json") as caught:
        runs.read_run(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(RunError):
        open_run(tmp_path)


@pytest.mark.parametrize(
    "damage", [{"environment": [1]}, {"resumed": "x"}, {"resumed": [{}, None]}]
)
def test_a_damaged_environment_is_refused(tmp_path, damage):
    open_run(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(RunError, match="run.json does not say where it was trained"):
        open_run(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    for run_dir in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="holds no run"):
            runs.read_run(run_dir)


def test_write_atomically_replaces_and_leaves_nothing_else(tmp_path):
    for text in ("first, which is longer", "é"):
        runs.write_atomically(tmp_path / "file", text)
        assert (tmp_path / "file").read_text(encoding="utf-8") == text
    assert visible(tmp_path) == ["file"]


def test_other_data_is_refused(tmp_path):
    open_run(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunError, match="was trained on other data files .* --data_dir"):
        runs.open_run(tmp_path, CONFIG, "", {**FACTS, "data": {"a": "c"}})
    assert (tmp_path / "run.json").read_bytes() == before
    runs.check_data(tmp_path, runs.read_run(tmp_path), {"a": "b"})


def test_a_file_is_not_a_run(tmp_path):
    (tmp_path / "log").touch()
    with pytest.raises(RunError, match="log holds no run"):
        runs.read_run(tmp_path / "log")


HOLD = """
import sys, time
from pathlib import Path
from training import locks, runs
with locks.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_process_is_refused_until_the_first_has_died(tmp_path):
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(RunError, match=f"another process {first.pid}: wait"):
                with locks.lock(run_dir):
                    raise AssertionError("both hold it")
        finally:
            first.kill()
    with locks.lock(run_dir):
        assert (run_dir / ".lock").read_text() == str(os.getpid())
    with locks.lock(run_dir):
        pass


def test_a_lock_leaves_a_foreign_directory_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="holds 'thesis.tex' but no run.json"):
        with locks.lock(tmp_path):
            raise AssertionError("it was locked")
    assert visible(tmp_path) == ["thesis.tex"]
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="choose another --run_dir"):
            with locks.lock(place):
                raise AssertionError("it was locked")


def test_a_lock_removes_what_killed_processes_left(tmp_path):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    open_run(tmp_path)
    mine = (".metrics.csv.old", ".bashrc", ".run.json.1")  # process 1 is alive
    for name in (*mine, f".metrics.csv.{dead.pid}", f".run.json.{os.getpid()}"):
        (tmp_path / name).touch()
    with locks.lock(tmp_path):
        assert visible(tmp_path) == sorted([".lock", *mine, "flags.txt", "run.json"])


def test_another_environment_is_warned_of_and_recorded(tmp_path, capsys):
    open_run(tmp_path)
    open_run(tmp_path)
    assert capsys.readouterr().err == ""
    assert "resumed" not in runs.read_run(tmp_path)
    for _ in range(2):  # the warning comes once
        elsewhere = {"cores": 4, "version": cli.VERSION}
        runs.open_run(tmp_path, CONFIG, "", {**FACTS, "environment": elsewhere})
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "(cores 2, now 4)" in line and "its last bits may differ" in line
    stored = runs.read_run(tmp_path)
    assert stored["environment"] == FACTS["environment"]
    assert stored["resumed"] == [elsewhere]


@pytest.mark.parametrize("name", [*runs.CONTENTS, "checkpoints/a", "train/a.v2"])
@pytest.mark.parametrize("place", [os.symlink, lambda _, path: os.mkfifo(path)])
def test_a_link_or_a_pipe_in_a_run_is_refused(tmp_path, name, place):
    victim, run_dir = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    if name not in ("flags.txt", "run.json"):
        open_run(run_dir)
    (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
    place(victim, run_dir / name)
    for enter in (locks.lock, trained.load):
        with pytest.raises(RunError, match=f"{name} is a (link|pipe)"):
            with enter(run_dir):
                raise AssertionError("it was locked")
    assert victim.read_text() == "mine"


def test_a_lock_with_a_second_name_is_refused(tmp_path):
    (tmp_path / "victim").write_text("mine")
    open_run(tmp_path / "run")
    os.link(tmp_path / "victim", tmp_path / "run" / ".lock")
    with pytest.raises(RunError, match=".lock is a hard link: delete it"):
        with locks.lock(tmp_path / "run"):
            raise AssertionError("it was locked")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_run_directory_may_itself_be_a_link(tmp_path):
    open_run(tmp_path / "disk")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with locks.lock(tmp_path / "run"):
        open_run(tmp_path / "run")
