# SPDX-License-Identifier: Apache-2.0
"""What the programs share: one-line errors and exit codes."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

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
