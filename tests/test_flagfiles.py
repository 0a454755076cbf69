# SPDX-License-Identifier: Apache-2.0
"""Every flagfile says what train.py understands."""

from pathlib import Path

import pytest
from absl import flags

import train

ROOT = Path(__file__).parent.parent
FLAGFILES = sorted([*ROOT.glob("*.flags"), *ROOT.glob("flags/*.flags")])


@pytest.fixture
def parse():
    """parse(*arguments) → values of train's flags by name."""
    if "epochs" not in flags.FLAGS:  # test_train may have come before
        train.define_flags()

    def parse(*arguments):
        flags.FLAGS.unparse_flags()
        rest = flags.FLAGS(["train.py", *map(str, arguments)])
        assert rest == ["train.py"]
        return flags.FLAGS.flag_values_dict()

    yield parse
    flags.FLAGS.unparse_flags()


def lines(path):
    text = path.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and line[0] != "#"]


def test_there_are_flagfiles():
    assert ROOT / "lenet.flags" in FLAGFILES
    assert len(FLAGFILES) >= 2


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfile_parses(path, parse):
    values = parse(f"--flagfile={path}")
    for line in lines(path):
        name, _, text = line.removeprefix("--").partition("=")
        if name == "flagfile":  # its lines are tested as those of its own file
            continue
        assert name.removeprefix("no") in values or name in values, line
        if text and isinstance(values[name], (int, float)) and values[name] is not True:
            assert values[name] == float(text), line
        elif text and isinstance(values[name], list):
            assert [str(value) for value in values[name]] == text.split(","), line
    run_dir = train._run_dir({**values, "seed": 7})
    assert "{" not in str(run_dir)
    assert str(run_dir).endswith("s7")


def test_run_directories_differ(parse):
    run_dirs = [parse(f"--flagfile={path}")["run_dir"] for path in FLAGFILES]
    assert len(set(run_dirs)) == len(run_dirs)


def test_the_command_line_overrules_the_file_before_it(parse):
    values = parse(f"--flagfile={ROOT / 'lenet.flags'}", "--epochs=7", "--seed=3")
    assert (values["epochs"], values["seed"], values["batch_norm"]) == (7, 3, "all")


def test_a_flagfile_may_name_another(tmp_path, parse):
    mine = tmp_path / "mine.flags"
    mine.write_text(f"# mine\n--flagfile={ROOT / 'lenet.flags'}\n--dropout=0.25\n")
    values = parse(f"--flagfile={mine}")
    assert (values["dropout"], values["schedule"]) == (0.25, "one_cycle")
