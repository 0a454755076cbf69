# SPDX-License-Identifier: Apache-2.0
"""Outputs of eval.py: checked before the work, written even if one of them fails."""

from collections.abc import Callable, Mapping
from typing import Any

from system import errors, files

FILES = ("submission", "readings", "report")  # flags
FOLDERS = ("export_dir", "annotated_dir", "ensemble_dir")


def check(values: Mapping[str, Any]) -> None:
    """Raises UserError if an output that the flags name cannot be written."""
    for name in (*FILES, *FOLDERS):
        if values[name]:
            files.check_writable(values[name], name, is_folder=name in FOLDERS)


class Outputs:
    """Writes several outputs even if one fails, and reports failures at the end."""

    def __init__(self) -> None:
        self._failures: list[str] = []

    def attempt(self, write: Callable[..., Any], *args: Any) -> bool:
        """Calls `write(*args)`; returns whether it raised no UserError."""
        try:
            write(*args)
        except errors.UserError as error:
            self._failures.append(str(error))
            return False
        return True

    def report(self) -> None:
        """Raises a UserError with all failures, if there are any."""
        if self._failures:
            raise errors.UserError("; ".join(self._failures))
