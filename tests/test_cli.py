# SPDX-License-Identifier: Apache-2.0
"""A mistake of the user's is one line and an exit code, never a traceback.

One process runs train.py's `main` with every bad command line in turn.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DRIVER = """
import train  # first, as a program would
import cli, contextlib, io, json, sys, traceback
from absl import flags

def attempt(main, argv):
    flags.FLAGS.unparse_flags()
    sys.argv = ["train", *argv]  # the module whose flags a run has
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run(main)
            code = 0
        except SystemExit as exit:
            code = exit.code
        except Exception:  # one that cli.run let pass
            code = traceback.format_exc()
    return [code or 0, out.getvalue(), err.getvalue()]

class Own(cli.UserError):
    exit_code = 7

def own(argv):
    raise Own("what\\nwas  wrong")

def interrupted(argv):
    raise KeyboardInterrupt

def fine(argv):
    print(argv)

train.define_flags()
mains = {"train": train.main, "own": own, "interrupted": interrupted, "fine": fine}
attempts = [attempt(mains[name], argv) for name, argv in json.load(sys.stdin)]
json.dump(attempts, sys.stdout)
"""

# Bad flags: exit code 2, and what the line must say.
BAD_FLAGS = {
    "--epoch=3": "Did you mean: epoch_images, epochs",
    "--no_such_thing": "no_such_thing",
    "--epochs=0": "epochs",
    "--epochs": "epochs",
    "--learning_rate=nan": "expected a number above 0",
    "--learning_rate=inf": "expected a number above 0",
    "--learning_rate=0": "expected a number above 0",
    "--dropout=1": "expected a number in [0, 1)",
    "--dropout=-0.1": "expected a number in [0, 1)",
    "--weight_average=nan": "expected a number in [0, 1)",
    "--batch_size=x": "batch_size",
    "--batch_size=1.5": "batch_size",
    "--schedule=foo": "constant|cosine|one_cycle",
    "--network=resnet": "lenet",
    "--seed=-1": "seed",
    "--seed=2147483648": "seed",
    "--shift_pixels=5": "shift_pixels must be 1 to 4",
    "--flip_codes=2": "'2' is not one of 0, 1",
    "--shift_directions=north": "'north' is not one of up",
    "digits": "unexpected argument 'digits': flags start with --",
    "--flagfile=no/such.flags": "no/such.flags",
}

# Good flags that ask for what cannot be: exit code 1.
BAD_REQUESTS = {
    "--run_dir={nonsense}": "the name of a flag only",
    "--run_dir={}": "the name of a flag only",
    "--run_dir={seed": "the name of a flag only",
    "--run_dir={seed.low}": "the name of a flag only",
    "--data_dir=no/such/folder": "no/such/folder",
    "--validation_size=1437": "expected 0 to 1436",
    "--nokeep_originals": "--keep_originals",
    "--run_dir=tests": "holds",
}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """{(main, argument): (exit code, standard output, standard error)}"""
    keys = [("train", argument) for argument in (*BAD_FLAGS, *BAD_REQUESTS)]
    keys += [("own", ""), ("interrupted", ""), ("fine", "")]
    # Were a mistake let pass, the run would be a short one, out of the way.
    plain = ["--dataset=digits", "--shift_directions=", "--flip_codes="]
    plain += [f"--run_dir={tmp_path_factory.mktemp('runs') / 'run'}"]
    plain += ["--epochs=1", "--epoch_images=128"]
    cases = [(main, [*plain, argument] if argument else []) for main, argument in keys]
    driven = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(cases),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert driven.returncode == 0, driven.stderr
    return dict(zip(keys, json.loads(driven.stdout), strict=True))


def check_line(error, expected):
    assert error.startswith("train: ") and error.endswith("\n"), error
    assert len(error.splitlines()) == 1, error
    assert expected in error


@pytest.mark.parametrize("argument, expected", list(BAD_FLAGS.items()))
def test_a_bad_flag_is_one_line_and_2(attempts, argument, expected):
    code, _, error = attempts["train", argument]
    assert code == 2
    check_line(error, expected)


@pytest.mark.parametrize("argument, expected", list(BAD_REQUESTS.items()))
def test_a_bad_request_is_one_line_and_1(attempts, argument, expected):
    code, _, error = attempts["train", argument]
    assert code == 1
    check_line(error, expected)


def test_an_error_brings_its_exit_code(attempts):
    assert attempts["own", ""] == [7, "", "train: what was wrong\n"]


def test_an_interrupt_is_130(attempts):
    assert attempts["interrupted", ""] == [130, "", "train: interrupted\n"]


def test_no_mistake_is_0(attempts):
    assert attempts["fine", ""] == [0, "['train']\n", ""]
