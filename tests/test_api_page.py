# SPDX-License-Identifier: Apache-2.0
"""The blocks of docs/api.md run as they stand, in order, and print what they say."""

import os
import re

from tests import programs
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PRINTS = re.compile(r"^ *print\(.*  # (.*)$", re.M)


def test_the_blocks_run_and_print_what_they_say(tmp_path):
    code = "".join(f"{block}\n" for block in BLOCK.findall(PAGE))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = programs.run(["-c", code], cwd=tmp_path, env=env, report=False)
    assert done.returncode == 0, done.stderr
    expected = PRINTS.findall(code)
    assert len(expected) == 9 and len(BLOCK.findall(PAGE)) == 7
    lines = done.stdout.splitlines()
    for text in expected:  # in this order, among what training prints
        start = text.removesuffix("…")
        found = [n for n, line in enumerate(lines) if line.startswith(start)]
        assert found, f"{text!r} is not among:\n{done.stdout}"
        lines = lines[found[0] + 1 :]
    found = {p.name for p in (tmp_path / "runs").iterdir()}
    assert found == {"api-s0", "api-s1", "odd"}
