# SPDX-License-Identifier: Apache-2.0
"""A user's mistake gives one line and an exit code, never a traceback.

One process per program runs its `main` with every bad command line in turn.
"""

import json
import subprocess
import sys

import pytest
from absl import flags

from system import cli, errors
from tests import programs
from tests.helpers import ROOT

DRIVER = """
import {program} as program  # first, as a program would
from system import cli, errors; import contextlib, io, json, sys, traceback
from absl import flags

def attempt(main, argv):
    flags.FLAGS.unparse_flags()
    sys.argv = ["{program}", *argv]  # the module whose flags a run has
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            groups = getattr(program, "HEADINGS", {{}})
            cli.run(main, arguments={arguments}, groups=groups)
            code = 0
        except SystemExit as exit:
            code = exit.code
        except Exception:  # not caught by cli.run
            code = traceback.format_exc()
    return [code or 0, out.getvalue(), err.getvalue()]

class Own(errors.UserError):
    exit_code = 7

def own(argv):
    raise Own("what\\nwas  wrong")

def interrupted(argv):
    raise KeyboardInterrupt

def fine(argv):
    print(argv)

program.define_flags()
mains = dict(program=program.main, own=own, interrupted=interrupted, fine=fine)
attempts = [attempt(mains[name], argv) for name, argv in json.load(sys.stdin)]
json.dump(attempts, sys.stdout)
"""

# Bad flags: exit code 2; the line must contain this text.
BAD_FLAGS = {
    "--epoch=3": "Did you mean: epoch_images, epochs",
    "--learning_rat=1": "Did you mean: learning_rate",
    "--batch-size=64": "Did you mean: batch_size",
    "--dropuot=0.1": "Did you mean: dropout",
    "--no_such_thing": "no_such_thing",
    "--profile_steps=9,3": "expected a first step below 3, got 9",
    "--epochs=0": "epochs",
    "--epochs": "epochs",
    "--nokeep_best=1": "does not take an argument",  # found by fuzzing
    "--learning_rate=nan": "expected a number above 0",
    "--learning_rate=inf": "expected a number above 0",
    "--learning_rate=0": "expected a number above 0",
    "--dropout=1": "[0, 0.999]: 16 random bits hold no higher rate",
    "--dropout=-0.1": "expected a number in [0, 0.999]",
    "--weight_average=nan": "expected a number in [0, 1)",
    "--batch_size=x": "batch_size",
    "--batch_size=1.5": "batch_size",
    "--schedule=foo": "constant|cosine|one_cycle|plateau|step",
    "--schedule=plateau": "go by the validation accuracy: set --validation_size",
    "--early_stopping=2": "go by the validation accuracy: set --validation_size",
    "--keep_best": "go by the validation accuracy: set --validation_size",
    "--decay_factor=0": "expected a number in (0, 1]",
    "--plateau_floor=0": "expected a number above 0",
    "--bn_axis=2": "expected -1 or 1",
    "--hidden_units=64,0": "expected whole numbers above 0, such as 150,100",
    "--elastic_alpha=34": "elastic_alpha and elastic_sigma must both be above 0",
    "--bn_axis=1": "--network=lenet has no --bn_axis; it takes --activation",
    "--rho=0.9": "--optimizer=adam has no --rho; it takes --beta1, --beta2, --epsilon",
    "--newton_schulz=3": "--optimizer=adam has no --newton_schulz; it takes --beta1",
    "--nesterov": "--optimizer=adam has no --nesterov; it takes --beta1",
    "--mixup=0.001": "expected 0, or a number in [0.01, 100]",
    "--lookahead_share=0": "expected a number in (0, 1]",
    "--network=resnet": "lenet",
    "--seed=-1": "seed",
    "--seed=2147483648": "seed",
    "--epochs=268435456": "a run can have at most 268,435,455: lower --epochs",
    "--shift_pixels=5": "shift_pixels must be 1 to 4",
    "--flip_codes=2": "'2' is not one of 0, 1",
    "--shift_directions=north": "'north' is not one of up",
    "--rotation=181": "--rotation=181.0: must be 0 to 180 degrees",
    "--elastic_alpha=8": "elastic_alpha and elastic_sigma must both be above 0",
    "digits": "unexpected argument 'digits': flags start with --",
    "--flagfile=no/such.flags": "no/such.flags",
    "--run_dir=not\udcffutf8": "not UTF-8: rename it",
    "--data_dir=a\x1bb": "has control characters",
    "--unset=epoch": "--unset=epoch: no flag has this name",
}

# Valid flags that cannot be met: exit code 1.
BAD_REQUESTS = {
    "--run_dir={nonsense}": "the name of a flag only",
    "--run_dir={}": "the name of a flag only",
    "--run_dir={seed": "the name of a flag only",
    "--run_dir={seed.low}": "the name of a flag only",
    "--run_dir={seed:>99999999999}": "the name of a flag only",
    "--run_dir={seed!r}": "the name of a flag only",
    "--run_dir=" + "x" * 300: "File name too long",
    "--data_dir=no/such/folder": "no/such/folder",
    "--validation_size=1437": "expected 0 to 1436",
    "--nokeep_originals": "--keep_originals",
    "--run_dir=tests": "holds",
}

HELP = ("--help", "-h", "--helpfull")

# The same for eval.py, which takes arguments.
BAD_EVALUATIONS = {
    "": (2, "nothing to do: give --run_dir=RUN to score a run, --compare RUN RUN"),
    "runs/a": (2, "unexpected argument 'runs/a'"),
    "runs/a runs/b --run_dir=runs/c": (2, "unexpected argument 'runs/a'"),
    "--compare --run_dir=runs/a runs/b": (2, "--run_dir is for scoring a run, not for"),
    "--compare runs/a runs/b --submission=s.csv": (2, "not for comparing runs"),
    "--compare runs/a runs/b --export_dir=e": (2, "not for comparing runs"),
    "--export_dir=e": (2, "nothing to do: give --run_dir=RUN"),
    "--export_formats=int8": (2, "--export_formats needs --export_dir"),
    "--run_dir=runs/a --export_dir=e --export_formats=int4": (2, "int4: expected some"),
    "--run_dir=tests --export_dir=tests": (1, "tests exists already: choose another"),
    "--submission=s.csv": (2, "nothing to do: give --run_dir=RUN"),
    "--images=a.png": (1, "a.png: cannot be read (No such file"),
    "--images=a.png --rotate=45": (2, "auto"),
    "--images=a.png --reject=2": (2, "reject"),
    "--run_dir=a --readings=a.csv": (2, "leave it out, or give --images"),
    "--run_dir=a --ink=dark": (2, "--ink is for reading photos, not for scoring a run"),
    "--run_dir=a --data_dir=b --images=c.png": (2, "not for reading photos"),
    "--compare --data_dir=b c d": (2, "--data_dir is for scoring a run, not for"),
    "--run_dir=a --images=a.png --readings=a.txt": (2, "ends in .csv or"),
    "--run_dir=a --images=a.png --compare": (2, "--images is for reading photos, not"),
    "--run_dir=a --images=a.png --ink=red": (2, "auto|dark|light"),
    "--compare": (2, "two runs or more"),
    "--compare runs/a": (2, "two runs or more"),
    "--compare=maybe runs/a runs/b": (2, "compare"),
    "tests --compare data": (1, "tests holds no run"),
    "--compare README.md data": (1, "README.md holds no run"),
    "--run_dir=tests": (1, "tests holds no run"),
    "--ensemble": (2, "two runs or more"),
    "--ensemble runs/a": (2, "two runs or more"),
    "--ensemble tests data": (1, "tests holds no run"),
    "--ensemble tests data/../tests": (1, "are the same directory: name each run once"),
    "--ensemble a b --run_dir=c": (2, "leave it out, or leave out --ensemble"),
    "--ensemble a b --readings=r.csv": (2, "not for scoring an ensemble"),
    "--ensemble a b --calibrate=c": (2, "--calibrate is for scoring a run, not for"),
    "--ensemble a b --compare": (2, "--ensemble is for scoring an ensemble, not for"),
    "--ensemble a b --images=c.png --run_dir=d": (2, "both name runs"),
    "--ensemble a b --images=c.png --ensemble_dir=d": (2, "not for reading photos"),
    "--ensemble a b --export_dir=e --export_formats=int8": (2, "only a single network"),
    "--run_dir=a --shifts=1 --export_dir=e --export_formats=int8": (2, "only a single"),
    "--run_dir=a --shifts=3": (2, "shifts"),
    "--run_dir=a --ensemble_dir=b": (2, "--ensemble_dir is for scoring an ensemble"),
    "--shifts=1": (2, "nothing to do"),
    "--compare a b --shifts=1": (2, "not for comparing runs"),
    "--run_dir=tests --calibrate=tests": (1, "tests holds no run"),
}


def drive(program, cases, arguments=False):
    """(exit code, standard output, standard error) of cases: (main, flags)."""
    driver = DRIVER.format(program=program, arguments=arguments)
    driven = programs.run(["-c", driver], input=json.dumps(cases))
    assert driven.returncode == 0, driven.stderr
    return json.loads(driven.stdout)


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """{(main, argument): (exit code, standard output, standard error)}"""
    keys = [("program", argument) for argument in (*BAD_FLAGS, *BAD_REQUESTS)]
    keys += [("own", ""), ("interrupted", ""), ("fine", "")]
    keys += [("program", argument) for argument in HELP]
    # If a mistake passed unnoticed, the run would be short and in a folder of its own.
    plain = ["--dataset=digits", "--shift_directions=", "--flip_codes="]
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    plain += [f"--run_dir={run_dir}"]
    plain += ["--epochs=1", "--epoch_images=128"]
    cases = [(main, [*plain, argument] if argument else []) for main, argument in keys]
    found = dict(zip(keys, drive("train", cases), strict=True))
    assert not run_dir.exists(), "a mistake left half a run"
    return found


@pytest.fixture(scope="module")
def evaluations():
    """{arguments: (exit code, standard output, standard error)}"""
    lines = [*BAD_EVALUATIONS, "--help"]
    cases = [("program", line.split()) for line in lines]
    driven = drive("eval", cases, arguments=True)
    return dict(zip(lines, driven, strict=True))


def check_line(error, expected, program="train"):
    assert error.startswith(f"{program}: ") and error.endswith("\n"), error
    assert len(error.splitlines()) == 1, error
    assert expected in error


@pytest.mark.parametrize("argument, expected", list(BAD_FLAGS.items()))
def test_a_bad_flag_prints_one_line_and_exits_with_2(attempts, argument, expected):
    code, _, error = attempts["program", argument]
    assert code == 2
    check_line(error, expected)


@pytest.mark.parametrize("argument, expected", list(BAD_REQUESTS.items()))
def test_a_bad_request_prints_one_line_and_exits_with_1(attempts, argument, expected):
    code, _, error = attempts["program", argument]
    assert code == 1
    check_line(error, expected)


@pytest.mark.parametrize("line, expected", list(BAD_EVALUATIONS.items()))
def test_a_bad_evaluation_prints_one_line(evaluations, line, expected):
    code, out, error = evaluations[line]
    assert (code, out) == (expected[0], "")
    check_line(error, expected[1], "eval")


def test_a_validator_refuses_what_its_check_refuses():
    def check(value):
        if value < 0:
            raise errors.UserError(f"{value} is below 0")

    accepts = cli.validator(check)
    assert accepts(0) is True
    with pytest.raises(flags.ValidationError, match="^-1 is below 0$"):
        accepts(-1)


def test_an_error_has_its_own_exit_code(attempts):
    assert attempts["own", ""] == [7, "", "train: what was  wrong\n"]


def test_an_interrupt_exits_with_130(attempts):
    assert attempts["interrupted", ""] == [130, "", "train: interrupted\n"]


def test_success_exits_with_0(attempts):
    assert attempts["fine", ""] == [0, "['train']\n", ""]


@pytest.mark.parametrize("argument", HELP)
def test_help_exits_with_0(attempts, argument):
    code, out, error = attempts["program", argument]
    assert (code, error) == (0, "")
    assert "--learning_rate" in out


def test_help_lists_important_flags_first_with_ranges_and_defaults(attempts):
    _, out, _ = attempts["program", "--help"]
    assert max(map(len, out.splitlines())) <= 88
    assert "--epochs: a positive integer; default 20\n      Number of epochs" in out
    assert "--schedule: constant|cosine|one_cycle|plateau|step; default constant" in out
    assert "--weight_decay: a number in [0, 1)" in out
    assert "--[no]keep_best: default false" in out
    assert "--data_dir\n      Folder of the data" in out
    order = ["What matters most:", "--epochs:", "Training:", "--rho:", "Housekeeping:"]
    order += [
        "--log_steps:",
        "--flagfile=FILE",
        "Exit codes:\n  0    success",
        "143  t",
    ]
    places = [out.index(words) for words in order]
    assert places == sorted(places)
    for name in ("network", "augmented_dir", "elastic_sigma", "profile_steps"):
        assert out.count(f"  --{name}") == 1
    assert "Further flags" not in out


def test_help_of_eval_has_every_flag_in_a_group(evaluations):
    code, out, error = evaluations["--help"]
    assert (code, error) == (0, "")
    assert "Further flags" not in out and "\nReading photos:\n  --images: " in out
    assert "--export_formats: a comma separated list\n" in out


def test_help_survives_a_reader_that_stops_early():
    """For example `head`, which stops after ten lines."""
    with subprocess.Popen(
        [sys.executable, "train.py", "--help"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (0, "")
