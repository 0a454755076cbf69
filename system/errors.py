# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can correct, and the exit codes of all programs."""

import re

USAGE_ERROR = 2
NO_MNIST = 3
DIVERGED = 4
SIGNALLED = 128  # plus the number of the signal, as in a shell
INTERRUPTED = SIGNALLED + 2  # SIGINT, by Ctrl-C
TERMINATED = SIGNALLED + 15  # SIGTERM

# As --help shows them.
EXIT_CODES = {
    0: "success",
    1: "error: one line on standard error says what is wrong and what to do",
    USAGE_ERROR: "a flag or argument is missing, unknown or wrong",
    NO_MNIST: "MNIST was not found and could not be downloaded",
    DIVERGED: "training diverged: a loss, gradient or weight is no longer finite",
    INTERRUPTED: "stopped by Ctrl-C; training saves a checkpoint first",
    TERMINATED: "training was stopped by SIGTERM, after saving a checkpoint",
}


class UserError(Exception):
    """An error that the user can correct.

    Its message is one line: what is wrong, where, what was expected, what to do next.
    A program prints it on standard error and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(UserError):
    """Flags or arguments that are missing, or contradict each other."""

    exit_code = USAGE_ERROR


def reason(error: Exception) -> str:
    """The message of a system or TensorFlow error, in one line.

    Drops the name of the operation, which TensorFlow puts around its messages.
    """
    message = getattr(error, "strerror", None) or getattr(error, "message", None)
    line = (str(message or error).splitlines() or [""])[0]
    return re.sub(r"^\{\{.*?\}\} | \[Op:\w+\].*$", "", line)
