# SPDX-License-Identifier: Apache-2.0
"""Errors that the person at the keyboard can put right."""

USAGE_ERROR = 2  # exit code


class UserError(Exception):
    """Something the person at the keyboard can put right.

    The message is one line: what is wrong, where, what was expected, what to do.
    A program that meets it prints that line on standard error and exits with
    `exit_code`.
    """

    exit_code = 1


class UsageError(UserError):
    """A command line that does not say what is to be done."""

    exit_code = USAGE_ERROR
