# SPDX-License-Identifier: Apache-2.0
"""Runs the programs as a user would."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(*arguments):
    """Runs Python with these arguments in the project's folder, to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
