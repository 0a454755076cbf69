# SPDX-License-Identifier: Apache-2.0
"""Child processes that start fast, and may die at any moment.

TensorFlow takes seconds to load. So we load it once, in a process that never makes a
tensor and hence has no TensorFlow threads, and fork the children from it.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

TIMEOUT_SECONDS = 300  # then a child is stuck, and is killed


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
      code: exit code, or minus the number of the signal that ended it.
      out: its standard output.
      err: its standard error.
      value: result of its function; None if it did not return.
    """

    code: int
    out: str
    err: str
    value: Any


def run(function: Callable[[], Any]) -> Ended:
    """Calls a function in a child and waits for its end.

    Args:
      function: returns a value of JSON types, or exits.
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
    """Calls the function in the child, writes its value; returns the exit code."""
    signal.alarm(TIMEOUT_SECONDS)
    code = 0
    try:
        json.dump(function(), value)
        value.flush()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
        code = 70  # EX_SOFTWARE, which none of our programs uses
    sys.stdout.flush()
    sys.stderr.flush()
    return code
