# SPDX-License-Identifier: Apache-2.0
"""Outputs are full, closed, unread or lack characters; the run must be complete."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.torture import children, small
from tests.torture.kills import Report
from tests.torture.table import Row

PROGRAM = Path(__file__).resolve().parent.parent.parent / "train.py"

UNREAD = "| head -1 >/dev/null; exit ${PIPESTATUS[0]}"

# Command lines for bash; standard error goes to a file unless it is what fails.
WAYS = {
    "standard output on a full disk": '"$@" >/dev/full 2>"$ERR"',
    "standard output closed": '"$@" >&- 2>"$ERR"',
    "nobody reads standard output": f'"$@" 2>"$ERR" {UNREAD}',
    "standard output in ASCII": 'PYTHONIOENCODING=ascii "$@" 2>"$ERR"',
    "standard error on a full disk": '"$@" 2>/dev/full',
    "standard error closed": '"$@" 2>&-',
    "all closed": '"$@" <&- >&- 2>&-',
    "nobody reads anything": f'"$@" 2>&1 {UNREAD}',
}


def lost(folder: Path, report: Report) -> Row:
    """Runs train.py with each of these outputs; the run must be complete."""
    row = Row("outputs full, closed, unread: the run is complete")
    run_dir = folder / "out"
    err = folder / "err"
    small.run(folder / "out-intact", score=True)
    expected = _state(folder / "out-intact")
    for name, way in WAYS.items():
        shutil.rmtree(run_dir, ignore_errors=True)
        err.write_text("")
        done = subprocess.run(
            ["bash", "-c", way, "bash", sys.executable, str(PROGRAM), *small.FLAGS]
            + [f"--run_dir={run_dir}"],
            env={**os.environ, "ERR": str(err)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
            timeout=children.TIMEOUT_SECONDS,
        )
        wrong = None
        if done.returncode not in (0, 1) or "Traceback" in err.read_text():
            wrong = f"exit code {done.returncode}: {err.read_text()[-300:]}"
        elif _state(run_dir) != expected:
            wrong = f"the run is incomplete: {err.read_text()[-300:]}"
        row.add(name, wrong)
        report(name, wrong)
    return row


def _state(run_dir: Path) -> object:
    """Digest of a run, and whether it has predictions; None if it has no result."""

    def read() -> list[object]:
        return [small.digest(run_dir), (run_dir / "predictions.npz").exists()]

    return children.run(read).value if (run_dir / "result.json").exists() else None
