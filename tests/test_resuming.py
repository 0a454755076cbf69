# SPDX-License-Identifier: Apache-2.0
"""Running the same command again, later or elsewhere: what is kept, what is refused.

The run is that of test_older_runs; its flags.txt names the directory that it was
trained in. train.py runs in this process.
"""

import dataclasses
import json
import os
import shutil

import pytest
from absl import flags

import config
import data
import pretrained
import train
from evaluation import result
from native import compile, ops, toolchain
from system import device, errors, flagfiles
from tests.test_older_runs import GOLDEN
from training import checkpoints, machine
from training.runs import RunError

FLAGS_OF_RUN = (  # as one would type them
    *("--network=mlp", "--hidden_units=4", "--activation=selu", "--dataset=digits"),
    *("--shift_directions=", "--flip_codes=", "--epochs=2", "--learning_rate=0.01"),
)


class Loaded(Exception):
    """Raised when the data would be loaded."""


@pytest.fixture
def no_data(monkeypatch):
    """Makes loading the data raise Loaded."""

    def load(*_, **__):
        raise Loaded

    monkeypatch.setattr(data, "load", load)


@pytest.fixture
def interrupted(tmp_path):
    """The run without its last epoch, in another folder."""
    run_dir = tmp_path / "b"
    shutil.copytree(GOLDEN, run_dir)
    shutil.rmtree(checkpoints.path(run_dir / checkpoints.FOLDER, 24))
    (run_dir / "result.json").unlink()
    return run_dir


def change(run_dir, config=(), **changes):
    """Changes run.json."""
    run = json.loads((run_dir / "run.json").read_text())
    run["config"] |= dict(config)
    (run_dir / "run.json").write_text(json.dumps({**run, **changes}))


# --- The folder of flags.txt is the run ---


def test_a_moved_run_is_resumed_where_it_is(
    call, interrupted, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(result, "evaluate", lambda *_: None)
    call("--flagfile=b/flags.txt")
    assert "resuming b from step 12" in capsys.readouterr().out
    assert checkpoints.steps(interrupted / checkpoints.FOLDER) == [12, 24]
    assert {p.name for p in tmp_path.iterdir()} == {"b"}


def run_dir_of(*arguments):
    """Value of --run_dir after all flagfiles."""
    given = [a for a in flagfiles.expand(arguments) if a.startswith("--run_dir=")]
    return given[-1].removeprefix("--run_dir=")


def test_the_folder_of_flags_txt_is_the_run(interrupted, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("b")
    (tmp_path / "mine.flags").symlink_to("b/flags.txt")
    monkeypatch.chdir(tmp_path)
    assert run_dir_of("--flagfile=b/flags.txt") == "b"
    assert run_dir_of(f"--flagfile={interrupted}/flags.txt") == str(interrupted)
    assert run_dir_of("--flagfile=link/flags.txt") == "link"
    assert run_dir_of("--flagfile=mine.flags") == os.path.realpath("b")
    monkeypatch.chdir(interrupted)
    assert run_dir_of("--flagfile=flags.txt") == "."
    assert run_dir_of("--flagfile=../b/flags.txt") == "../b"


def test_a_later_run_dir_is_another_run(interrupted):
    flagfile = f"--flagfile={interrupted}/flags.txt"
    assert run_dir_of(flagfile, "--run_dir=c") == "c"
    assert run_dir_of("--run_dir=c", flagfile) == str(interrupted)


def test_flags_txt_without_its_run_is_a_flagfile(tmp_path):
    shutil.copy(GOLDEN / "flags.txt", tmp_path)
    assert run_dir_of(f"--flagfile={tmp_path}/flags.txt") == "runs/mlp-s0"


def test_directory_names_are_taken_literally(interrupted, monkeypatch, call):
    folder = interrupted.rename(interrupted.with_name("~{seed}"))
    monkeypatch.chdir(folder.parent)
    arguments = flagfiles.expand(["--flagfile=./~{seed}/flags.txt"])
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["train", *arguments])
    assert machine._run_dir(config.from_flags()).resolve() == folder


def test_flags_txt_shows_the_machines_choices():
    lines = {"seed": "--seed=3", "replicas": "--replicas=2", "kernels": ""}
    text = machine.flags_text(lines, ["replicas", "kernels"])
    *comment, seed, chosen, replicas = text.splitlines()
    assert all(line.startswith("# ") for line in (*comment, chosen))
    assert "machine" in chosen
    assert (seed, replicas) == ("--seed=3", "--replicas=2")


# --- What the machine chose is kept ---


def test_the_machines_choices_are_kept(call, no_data, interrupted, monkeypatch, capsys):
    environment = {"intra_op_threads": 3, "inter_op_threads": 2}
    change(interrupted, {"replicas": 2, "threads": 0}, environment=environment)
    monkeypatch.setattr(device, "cores", lambda: 1)
    with pytest.raises(Loaded):  # nothing refuses it
        call(*FLAGS_OF_RUN, f"--run_dir={interrupted}")
    assert call.threads == [(6, 2)]
    said = capsys.readouterr().out
    assert said == f"replicas: 2; threads: 6, as {interrupted} was begun\n"


def test_flags_that_the_user_sets_are_compared(call, no_data, interrupted):
    where = f"--run_dir={interrupted}"
    for flag in ("--replicas=2", "--threads=2"):
        with pytest.raises(RunError, match=f"with {flag[:-1]}1, not 2"):
            call(*FLAGS_OF_RUN, where, flag)
    with pytest.raises(Loaded):
        call(*FLAGS_OF_RUN, where, "--replicas=1", "--threads=1")


def test_unavailable_kernels_give_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine.ops, "missing", lambda: "no C++ compiler")
    run_dir = tmp_path / "a b"
    with pytest.raises(machine.MachineError) as caught:
        machine.resume(run_dir, "native", {"kernels": "native"})
    message = str(caught.value)
    assert "cannot be had here (no C++ compiler)" in message
    flagfile, other = f"--flagfile={run_dir}/flags.txt", f"{run_dir}-tensorflow"
    assert f"'{flagfile}' --kernels=tensorflow '--run_dir={other}'" in message
    machine.resume(run_dir, "tensorflow", {"kernels": "tensorflow"})
    assert "kernels: tensorflow, as" in capsys.readouterr().out


def test_kernels_of_a_run_are_kept():
    chosen = {"replicas": 2, "threads": 0, "kernels": "tensorflow"}
    begun = config.Config(**chosen)
    assert machine.keep(config.Config(), begun) == chosen
    mlp = config.Config(network="mlp")
    assert machine.keep(mlp, begun) == {"replicas": 2, "threads": 0}
    mine = config.Config(replicas=3, kernels="native")
    assert machine.keep(mine, begun) == {"threads": 0}


def test_a_run_from_before_conv6_had_kernels_keeps_tensorflows():
    recorded = json.loads((pretrained.ROBUST / "run.json").read_text())["config"]
    assert recorded["network"] == "conv6" and recorded["kernels"] is None
    begun = config.Config.recorded(recorded)
    same = dataclasses.replace(begun, kernels=None)
    kept = machine.keep(same, begun)
    assert kept == {"threads": 0, "kernels": "tensorflow"}
    again = dataclasses.replace(same, **kept).resolved()
    assert again.deciding() == begun.deciding()


def test_kernels_that_fail_to_compile_are_not_recorded(
    call, monkeypatch, tmp_path, capsys
):
    """The compiler fails after the choice, while the data is being read."""
    monkeypatch.setattr(compile, "BUILD", tmp_path / "build")
    monkeypatch.setattr(toolchain, "processor", lambda: "flags : fma avx2")
    monkeypatch.setenv("CXX", "false")
    ops.load.cache_clear()
    trained = []
    monkeypatch.setattr(train, "train", lambda *given: trained.append(given[0]))
    monkeypatch.setattr(train.trained, "after_training", lambda *_: None)
    monkeypatch.setattr(train.result, "evaluate", lambda *_: None)
    where, small = f"--run_dir={tmp_path / 'run'}", ("--dataset=digits", "--epochs=2")
    call(*small, "--shift_directions=", "--flip_codes=", where)
    said = capsys.readouterr().out
    assert "kernels: native\n" in said
    assert "kernels: tensorflow (the C++ compiler false fails: exit code 1)\n" in said
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    for kept in (trained[0].deciding(), run["config"], run["chosen"]):
        assert kept["kernels"] == "tensorflow"
    assert "\n--kernels=tensorflow\n" in (tmp_path / "run" / "flags.txt").read_text()
    call(f"--flagfile={tmp_path / 'run'}/flags.txt")  # resumed


@pytest.mark.parametrize(
    "damage", [{"replicas": 0}, {"replicas": None}, {"threads": "2"}, {"kernels": 3}]
)
def test_an_impossible_choice_is_damage(call, no_data, interrupted, damage):
    change(interrupted, damage)
    with pytest.raises(RunError, match="run.json is damaged"):
        call(*FLAGS_OF_RUN, f"--run_dir={interrupted}")
    assert machine.threads({"environment": {"intra_op_threads": "x"}}) == 0


@pytest.mark.parametrize("name", ["replicas", "kernels", "threads"])
def test_unset_choices_cannot_name_the_directory(call, no_data, name, tmp_path):
    where = f"--run_dir={tmp_path}/{{{name}}}"
    with pytest.raises(errors.UserError, match="only if they are set"):
        call(*FLAGS_OF_RUN, where)


# --- Refused first ---


def test_another_run_is_refused_before_the_data(call, no_data, interrupted):
    before = sorted(interrupted.rglob("*"))
    with pytest.raises(RunError, match="holds a run with --network=mlp, not lenet: "):
        call(f"--run_dir={interrupted}", "--kernels=tensorflow")
    change(interrupted, {"schedule": "one_cycle"})
    again = f"--flagfile={interrupted}/flags.txt", "--schedule=one_cycle"
    with pytest.raises(RunError, match="has --schedule=one_cycle over 2 epochs, and"):
        call(*again, "--epochs=5")
    assert set(interrupted.rglob("*")) - set(before) <= {interrupted / ".lock"}


def test_an_impossible_directory_is_refused_before_the_data(call, no_data, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.tex").touch()
    for name, why in (("file/run", "cannot write"), ("thesis", "holds 'one.tex'")):
        with pytest.raises(RunError, match=why):
            call(*FLAGS_OF_RUN, f"--run_dir={tmp_path / name}")


def test_a_run_without_data_leaves_no_directory(call, no_data, tmp_path):
    with pytest.raises(Loaded):
        call(*FLAGS_OF_RUN, f"--run_dir={tmp_path / 'run'}")
    assert not list(tmp_path.iterdir())


# --- A finished run ---


def test_restarting_a_finished_run_loads_no_data(call, no_data, tmp_path, capsys):
    run_dir = shutil.copytree(GOLDEN, tmp_path / "run")
    call(*FLAGS_OF_RUN, f"--run_dir={run_dir}", "--data_dir=here")
    said = capsys.readouterr().out
    assert said.startswith(f"{run_dir} is trained to its last step, 24, and scored: 16")
    assert said.endswith(f" eval.py --run_dir={run_dir} --data_dir=here\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("lost", ["result.json", "predictions.npz", "metrics.csv"])
def test_a_run_that_lost_a_file_is_not_finished(tmp_path, lost):
    run_dir = shutil.copytree(GOLDEN, tmp_path / "run")
    assert result.finished(run_dir, config.Config(epochs=2))
    (run_dir / lost).write_text("{}")
    assert not result.finished(run_dir, config.Config(epochs=2))
    (run_dir / lost).unlink()
    assert not result.finished(run_dir, config.Config(epochs=2))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_run_that_lost_events_is_not_finished(tmp_path, split):
    """Training then loads everything, and says what is lost."""
    run_dir = shutil.copytree(GOLDEN, tmp_path / "run")
    shutil.rmtree(run_dir / split)
    assert not result.finished(run_dir, config.Config(epochs=2))
