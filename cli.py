# SPDX-License-Identifier: Apache-2.0
"""What the programs share: their environment, their flag errors, their exit codes.

Import this before TensorFlow. oneDNN's kernels more than double the speed of a
convolution here, and TensorFlow reads the switch once, when it is loaded; on some
processors it is off by default.
"""

import os
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags, logging  # noqa: E402  (the switches above come first)

VERSION = "0.1.0"

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class UserError(Exception):
    """Something the person at the keyboard can put right.

    The message is one line: what is wrong, where, what was expected, what to do.
    A program that meets it prints that line on standard error and exits with
    `exit_code`.
    """

    exit_code = 1


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Returns what `app.run` wants from a flags parser; a bad flag exits with 2."""
    try:
        rest = flags.FLAGS(list(argv))
    except flags.Error as error:
        _fail(str(error), USAGE_ERROR)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}: flags start with --", USAGE_ERROR)
    return rest


def _fail(message: str, code: int) -> None:
    program = os.path.basename(sys.argv[0])
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and calls `main`; a user's mistake is one line, no traceback."""

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", INTERRUPTED)

    logging.set_verbosity(logging.WARNING)  # not what the checkpoint library does
    app.run(guarded, flags_parser=_parse_flags)
