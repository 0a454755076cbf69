# SPDX-License-Identifier: Apache-2.0
"""Commands and links in the pages work."""

import ast
import json
import re
import shlex
from collections import defaultdict

import pytest

from tests import programs as forks
from tests.helpers import ROOT

PAGES = ("docs/walkthrough.md", "README.md", "docs/results.md")
LINKED = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
)
SCRIPT = re.compile(r'^python -c "(.*?)"$', re.DOTALL | re.MULTILINE)

# Runs a program up to where its flags are parsed, once for each command line.
DRIVER = """
from system import cli; import contextlib, io, json, runpy, sys
from absl import flags

def parse(main, *, arguments=False, groups=None):
    for argv in json.load(sys.stdin):
        flags.FLAGS.unparse_flags()
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            cli._parse_flags([sys.argv[0], *argv], arguments, groups or {})
        said = [line for line in said.getvalue().splitlines() if ": " in line]
        print("RESULT" + json.dumps(said[-1:]))

cli.run = parse
name = sys.argv.pop(1)
if name.endswith(".py"):
    runpy.run_path(name, run_name="__main__")
else:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def blocks(page):
    """The fenced blocks of a page."""
    return re.findall(
        r"^```\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.S | re.M
    )


def commands(page):
    """The words of each command of a page that starts with python or make."""
    found = []
    for block in blocks(page):
        for line in SCRIPT.sub("", block).replace("\\\n", " ").splitlines():
            if re.match("(python|make) ?", line):
                words = shlex.split(line, comments=True)
                cut = [i for i, word in enumerate(words) if word in ("|", "&&", ";")]
                found.append(words[: min(cut, default=len(words))])
    return found


def complaints(program, lines):
    """Complaints of a program about the flags of each command line."""
    done = forks.run(["-c", DRIVER, program], input=json.dumps(lines))
    assert done.returncode == 0, done.stderr
    answers = [s for s in done.stdout.splitlines() if s.startswith("RESULT")]
    return [json.loads(answer.removeprefix("RESULT")) for answer in answers]


def programs():
    """{name of a program or module: the flags of each of its command lines}"""
    found = defaultdict(list)
    for page in PAGES:
        for first, *words in commands(page):
            if first == "python":
                words = words[1:] if words[0] == "-m" else words
                found[words[0]].append(words[1:])
    del found["data"]  # which has no flags
    return found


@pytest.mark.parametrize("program", sorted(programs()))
def test_programs_accept_the_flags(program):
    lines = programs()[program]
    expected = [[] for _ in lines]
    assert complaints(program, lines) == expected


def test_an_unknown_flag_would_be_noticed():
    ((said,),) = complaints("eval.py", [["--run_dirr=runs/a"]])
    assert "Unknown command line flag 'run_dirr'" in said


@pytest.mark.parametrize("page", PAGES[:2])
def test_the_makefile_has_the_targets(page):
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = [words[1] for words in commands(page) if words[0] == "make"]
    assert named and set(named) <= set(targets)


def anchors(path):
    """Headings of a page as GitHub writes them, which links may name after #."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for name, anchor in re.findall(r"\]\(((?!http)[^)#]*)#?([^)]*)\)", text):
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), name
        assert not anchor or anchor in anchors(path), f"{name}#{anchor}"


def test_flagfiles_exist_or_are_made():
    for page in PAGES:
        text = "\n".join(blocks(page))
        for name in re.findall(r"[\w/]+\.flags", text):
            assert (ROOT / name).exists() or f"> {name}" in text, name


def test_scripts_are_python():
    scripts = [s for block in blocks(PAGES[0]) for s in SCRIPT.findall(block)]
    assert len(scripts) == 2
    for script in scripts:
        assert ast.parse(script).body


def test_pictures_are_small():
    sizes = [path.stat().st_size for path in (ROOT / "docs").glob("walkthrough-*.png")]
    assert len(sizes) == 5 and max(sizes) < 200e3 and sum(sizes) < 1e6
