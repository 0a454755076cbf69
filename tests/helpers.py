# SPDX-License-Identifier: Apache-2.0
"""What many test files need."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import data
from tests import programs

ROOT = Path(__file__).parent.parent


def command(*arguments, check=False, **options):
    """Runs Python with these arguments in the project's folder, to its end.

    Options are those of `subprocess.run`, and `report` of `programs.Program`.
    """
    if programs.can_run(arguments, options):
        done = programs.run(arguments, **options)
        if check:
            done.check_returncode()
        return done
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        **{"cwd": ROOT, "capture_output": True, "text": True, **options},
        check=check,
    )


def error_of(function, *arguments):
    """The message of a DataError: one short line."""
    with pytest.raises(data.DataError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 500
    return message


def cells(markdown):
    """Rows of all tables in a page, each with its header first."""
    lines = [line for line in markdown.splitlines() if re.match(r"\|(?![:-]-)", line)]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
