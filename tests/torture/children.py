# SPDX-License-Identifier: Apache-2.0
"""Processes that are begun, and ended, at will.

TensorFlow takes seconds to load. So it is loaded once, in a process that never makes a
tensor, and hence none of its threads; the children, which do, are forks of that one.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

TIMEOUT = 300  # seconds, after which a child is taken to hang and is killed


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
      code: its exit code, or minus the number of the signal that ended it.
      out: what it said.
      err: what it said on standard error.
      value: what its function returned, if it did.
    """

    code: int
    out: str
    err: str
    value: Any


def run(function: Callable[[], Any]) -> Ended:
    """Calls a function in a child, and waits for its end.

    Args:
      function: returns JSON types, or exits.
    """
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.TemporaryFile("w+") as value,
    ):
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_call(function, value))
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err, value):
            file.seek(0)
            texts.append(file.read())
    returned = json.loads(texts[2]) if texts[2] else None
    return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], returned)


def _call(function: Callable[[], Any], value) -> int:
    """In the child: returns the exit code."""
    signal.alarm(TIMEOUT)
    code = 0
    try:
        json.dump(function(), value)
        value.flush()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
        code = 70  # EX_SOFTWARE: no program of ours ends with it
    sys.stdout.flush()
    sys.stderr.flush()
    return code
