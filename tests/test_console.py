# SPDX-License-Identifier: Apache-2.0
"""Tests of system/console.py: paths with ~, commands to paste, bad outputs, Ctrl-C."""

import ast
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from system import cli, console, flagfiles
from tests.helpers import ROOT, command

SOURCES = [
    path
    for pattern in ("*.py", "*/*.py", "tests/fuzz/*.py", "tests/torture/*.py")
    for path in ROOT.glob(pattern)
    if path.parent.name != "tests"
]

TEXTS = {"dask_scheduler", "seeds"}  # text flags that are not paths


@pytest.fixture
def parse(monkeypatch):
    """parse(*arguments) → the flags --run_dir and --images."""
    monkeypatch.setenv("HOME", "/home/of me")

    def parse(*arguments):
        values = flags.FlagValues()
        cli.define_path("run_dir", "~/runs", "Where.", flag_values=values)
        cli.define_paths("images", "Which.", flag_values=values)
        values(["program", *flagfiles.expand(arguments)])
        return values

    return parse


def test_a_leading_tilde_is_expanded(parse, tmp_path):
    assert parse().run_dir == "/home/of me/runs"
    assert parse("--run_dir=~/{seed}").run_dir == "/home/of me/{seed}"
    assert parse("--run_dir", "~").run_dir == "/home/of me"
    assert parse("--run_dir=a~/~").run_dir == "a~/~"
    assert parse("--images=~/a", "--images=b").images == ["/home/of me/a", "b"]
    (tmp_path / "a.flags").write_text("--run_dir=~/x\n--images=~/y\n")
    values = parse(f"--flagfile={tmp_path / 'a.flags'}")
    assert (values.run_dir, values.images) == ("/home/of me/x", ["/home/of me/y"])
    assert values["run_dir"].serialize() == "--run_dir=/home/of me/x"


def test_a_path_that_is_not_text_is_refused(parse):
    with pytest.raises(flags.IllegalFlagValueError, match="not UTF-8"):
        parse("--run_dir=a\udcff")
    assert parse("--images=a\udcff").images == ["a\udcff"]


def test_every_text_flag_is_a_path_or_listed():
    """In all programs. cli.define_path expands ~."""
    defined = {
        node.args[0].value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("DEFINE_string", "DEFINE_multi_string")
    }
    assert defined == TEXTS


@pytest.mark.parametrize(
    "word",
    ["a b", "it's", "~", "$HOME `ls`", "a  b", "a\nb\\'\t", "\x1b]0;\xa0é", "\udcff"],
)
def test_a_command_can_be_pasted(word):
    """Even if it was printed as part of a message."""
    line = console.one_line(f"to go on:  {console.command('-c', 'import sys', word)}")
    assert line.isprintable()
    pasted = re.sub("^to go on:  .* -c 'import sys'", "printf %s", line)
    done = subprocess.run(["bash", "-c", pasted], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)


def test_no_message_contains_a_handwritten_command():
    """console.command quotes arguments and names this Python; docstrings need not."""
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        docs = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in set(ast.walk(tree)) - docs:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"(?<!`)\bpython3? (-m|\w+\.py)", node.value), path


def test_a_message_cannot_move_the_cursor():
    assert console.one_line("a\n b\x1b[2Jc\u2028\ud800é") == "a b\\x1b[2Jc \\ud800é"
    assert len(console.one_line("x" * 10**6)) < 6001


def test_a_command_names_python_and_program(monkeypatch, tmp_path):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    (folder / "python3").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(ROOT)
    assert (
        console.command("eval.py", "--run_dir=a b") == "python eval.py '--run_dir=a b'"
    )
    monkeypatch.chdir(tmp_path)  # which has no train.py
    assert console.command("train.py") == f"python {ROOT / 'train.py'}"
    monkeypatch.setenv("PATH", "/bin")
    assert console.command("-m", "data") == ".venv/bin/python3 -m data"


PRINTS = """
from system import console
console.start()
from system import cli; import os, tqdm
def main(arguments):
    for _ in tqdm.tqdm(range(3), mininterval=0):
        print("·" * 9999, "\\udcff")
    os.mkdir(arguments[1])  # the work
    os.fstat(2)
cli.run(main, arguments=True)
"""
LOST = "-c: cannot write standard output ({}): its text is lost, the work is done"


@pytest.mark.parametrize(
    "line, code, error",
    [
        ("{} >/dev/full", 1, LOST.format("No space left on device")),
        ("{} >&-", 1, LOST.format("Bad file descriptor")),
        ("{} <&- >&-", 1, LOST.format("Bad file descriptor")),
        ("{} | true; exit $PIPESTATUS", 1, "-c: nobody reads standard output: its"),
        ("{} 2>/dev/full", 0, ""),
        ("{} 2>&-", 0, ""),
        ("{} >&- 2>&-", 1, ""),
        ("PYTHONIOENCODING=ascii {}", 0, "3/3"),
        ("PYTHONIOENCODING=latin-1 {} 2>&1 | cat", 0, ""),
    ],
)
def test_a_run_survives_any_failing_output(tmp_path, line, code, error):
    """An output may be full, closed, unread, or in another encoding."""
    program = f'"{sys.executable}" -c "$PROGRAM" "{tmp_path}/work"'
    done = subprocess.run(
        ["bash", "-c", line.format(program)],
        env={**os.environ, "PROGRAM": PRINTS},
        cwd=ROOT,
        capture_output=True,
    )
    said = done.stderr.decode()
    assert (tmp_path / "work").exists()
    assert done.returncode == code, said
    assert error in said and "Traceback" not in said and "Exception" not in said
    if "ascii" in line:
        assert done.stdout.startswith(b"\\xb7\\xb7") and b"\\udcff" in done.stdout


def test_output_does_not_move_the_cursor():
    """Whatever a file is called. Only the progress bar, on standard error, may."""
    prints = (
        "from system import cli; cli.run(lambda _: print('a\\x1b[2J\\r\\u202eb\\t·'))"
    )
    said = command("-c", prints)
    assert (said.stdout, said.returncode) == ("a\\x1b[2J\\r\\u202eb\t·\n", 0)


def test_ctrl_c_ends_a_program_that_loads_tensorflow():
    # It then waits for input, as a busy machine may send the signal late.
    starts = "from system import console; console.start(); print(flush=True)"
    loads = f"{starts}; from system import device; input()"
    with subprocess.Popen(
        [sys.executable, "-c", loads],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "-c: interrupted\n")


def test_every_program_starts_its_console_first():
    """Before its imports, which may take seconds."""
    programs = [path for path in SOURCES if "\n    cli.run(" in path.read_text("utf-8")]
    assert len(programs) >= 13
    for path in programs:
        first = ast.parse(path.read_text("utf-8")).body[1]
        assert ast.unparse(first).splitlines()[:3] == [
            "if __name__ == '__main__':",
            "    from system import console",
            "    console.start()",
        ], path


def test_help_lists_all_flags_of_a_program():
    """Including those of its modules, but not those of libraries."""
    shown = command("-m", "augment.build", "--help").stdout
    names = set(re.findall(r"^  --(?:\[no\])?(\w+)", shown, re.MULTILINE))
    assert {"deform", "flip_codes", "multiply", "rotation", "augmented_dir"} <= names
    assert {"dataset", "workers", "preview"} <= names and "verbosity" not in names


def test_version():
    said = command("-m", "data", "--version")
    assert (said.stdout, said.returncode) == (f"lenet-selu {cli.VERSION}\n", 0)
    assert "launch" not in command("-m", "training.launch", "--version").stdout
