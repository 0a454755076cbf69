# SPDX-License-Identifier: Apache-2.0
"""Tests of training/list.py: every run in a table, whatever its state."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from system import errors
from tests.helpers import ROOT
from tests.test_older_runs import GOLDEN
from training import list as runs_list
from training import locks

FILES = ("run.json", "metrics.csv", "result.json")


@pytest.fixture
def folder(tmp_path):
    """Runs in every state; that of version 0.5.1 has 2 epochs."""
    for name in ("a", "b/more", "b/new", "c", "d", "e"):
        shutil.copytree(GOLDEN, tmp_path / name)
    edit(tmp_path / "b" / "more", lambda config: config.update(epochs=5))
    edit(tmp_path / "b" / "new", lambda config: config.update(seed=3))
    for name in ("result.json", "metrics.csv"):
        (tmp_path / "b" / "new" / name).unlink()
    (tmp_path / "c" / "run.json").write_text("{")
    shutil.rmtree(tmp_path / "d" / "checkpoints")
    (tmp_path / "e" / "result.json").unlink()
    (tmp_path / "logs").mkdir()
    os.symlink(tmp_path / "a", tmp_path / "link")
    return tmp_path


def edit(run_dir, change):
    run = json.loads((run_dir / "run.json").read_text())
    change(run["config"])
    (run_dir / "run.json").write_text(json.dumps(run))


def test_the_table(folder, capsys):
    with locks.lock(folder / "a"):  # by this process, which is none of the others
        runs_list.main(["", str(folder)])
    said = capsys.readouterr().out.replace(f"{folder}/", "")
    header, _, *lines = [" ".join(line.split()) for line in said.splitlines()]
    assert header == "run network data seed epochs accuracy errors time"
    assert lines[:6] == [
        "a mlp digits 0 2/2 55.28 % 161 1 s finished",
        "b/more mlp digits 0 2/5 55.28 % 161 1 s unfinished",
        "b/new mlp digits 3 0/2 – – – unfinished",
        "c – – – – – – – damaged",
        "d – – – – – – – damaged",
        "e mlp digits 0 2/2 55.28 % – 1 s finished, not scored",
    ]
    assert lines[6].startswith("damaged: c/run.json cannot be read: ")
    assert lines[7:] == ["damaged: d has no checkpoint"]


def test_a_run_that_is_being_trained(folder):
    hold = (
        "import sys; from pathlib import Path; from training import list, locks\n"
        "assert 'tensorflow' not in sys.modules  # which takes seconds to load\n"
        "with locks.lock(Path(sys.argv[1])):\n"
        "    print(flush=True); sys.stdin.read()"
    )
    pipes = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    arguments = [sys.executable, "-c", hold, str(folder / "a")]
    with subprocess.Popen(arguments, **pipes) as process:
        process.stdout.readline()
        assert locks.is_held(folder / "a")
        assert runs_list.describe(folder / "a").cells[-1] == "training now"
        process.communicate(b"")
    assert not locks.is_held(folder / "a")
    assert runs_list.describe(folder / "a").cells[-1] == "finished"


def test_folders_without_runs_are_named(tmp_path):
    with pytest.raises(errors.UserError, match="no runs under"):
        runs_list.main(["", str(tmp_path)])
    with pytest.raises(errors.UserError, match="no such folder"):
        runs_list.main(["", str(tmp_path / "other")])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FILES),
    st.sampled_from(["cut", "byte", "value"]),
    st.integers(0, 10**6),
    st.sampled_from([None, -1, 1e308, "", [], {}, "\x1b[31m", True]),
)
def test_no_damage_ends_it(tmp_path_factory, file, kind, place, value):
    run_dir = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(GOLDEN, run_dir, ignore=shutil.ignore_patterns("t*", "f*"))
    content = (run_dir / file).read_bytes()
    place %= len(content)
    if kind == "value" and file.endswith(".json"):
        entries = json.loads(content)
        inner = entries["config"]
        inner[sorted(inner)[place % len(inner)]] = value
        entries[sorted(entries)[place % len(entries)]] = value
        content = json.dumps(entries).encode()
    elif kind == "cut":
        content = content[:place]
    else:
        content = content[:place] + bytes([place % 256]) + content[place + 1 :]
    (run_dir / file).write_bytes(content)
    row = runs_list.describe(run_dir)
    assert len(row.cells) == len(runs_list.HEADER)
    assert all(cell.isprintable() for cell in (*row.cells, row.damage))
    assert bool(row.damage) == (row.cells[-1] == "damaged")
    shutil.rmtree(run_dir)
