# SPDX-License-Identifier: Apache-2.0
"""Tests of training/sweep_plan.py."""

from pathlib import Path

import pytest

from system import errors
from training import sweep_plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two flagfiles."""
    (tmp_path / "one.flags").write_text("# one\n--epochs=3\n")
    (tmp_path / "two.flags").write_text("--flagfile=one.flags\n--epochs=4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(*flagfiles, extra=()):
    return sweep_plan.plan(
        [Path(name) for name in flagfiles], (0, 1), Path("runs"), extra
    )


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2,5", [0, 2, 5]),
        ("7", [7]),
        ("3-3, 0-1", [3, 0, 1]),
        ("2147483647", [2**31 - 1]),
    ],
)
def test_seeds(text, seeds):
    assert sweep_plan.parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text, what",
    [
        ("", "'' is neither"),
        ("-1", "'-1' is neither"),
        ("0-", "'0-' is neither"),
        ("0,,1", "'' is neither"),
        ("0:4", "'0:4' is neither"),
        ("1.5", "'1.5' is neither"),
        ("4-0", "'4-0' is not a range"),
        ("2147483648", "is not a range"),
        ("0-2,1", "has a seed twice"),
        ("0-2147483647", "more than 1000"),
        ("0-999,1000", "more than 1000"),
    ],
)
def test_no_seeds(text, what):
    with pytest.raises(errors.UserError, match=what):
        sweep_plan.parse_seeds(text)


def test_plan(folder):
    runs = plan("one.flags", "two.flags", extra=["--epochs=1"])
    assert [run.name for run in runs] == ["one-s0", "one-s1", "two-s0", "two-s1"]
    assert runs[3].directory == Path("runs/two-s1")
    assert runs[3].log == Path("runs/logs/two-s1.log")
    own = ["--epochs=1", "--seed=1", "--run_dir=runs/two-s1"]
    assert runs[3].arguments == ["--flagfile=two.flags", *own]
    assert runs[3].flags() == ["--epochs=3", "--epochs=4", *own]


def test_plan_refuses(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "one.flags").touch()
    with pytest.raises(sweep_plan.SweepError, match="2 flagfiles are named one"):
        plan("one.flags", "sub/one.flags")
    with pytest.raises(sweep_plan.SweepError, match="no.flags.*No such file"):
        plan("one.flags", "no.flags")
    (folder / "sub" / "nested.flags").write_text("--flagfile=gone.flags\n")
    with pytest.raises(
        sweep_plan.SweepError, match="nested.flags: .*gone.flags.*current folder"
    ):
        plan("sub/nested.flags")
    for extra in ("--seed=3", "--run_dir=x", "-seed"):
        with pytest.raises(errors.UsageError, match=f"leave '{extra}' out"):
            plan("one.flags", extra=[extra])
