# SPDX-License-Identifier: Apache-2.0
"""The table of faults and results: for the console, as JSON, as Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tabulate

HEADERS = ("fault", "injected", "survived", "bytes lost")


class Row:
    """Results of one kind of fault.

    Args:
      name: the kind of fault.
      reason: why it cannot be injected on this machine, if so.

    Attributes:
      injected: number of faults injected.
      failures: (fault, what went wrong) of those that were not survived.
    """

    def __init__(self, name: str, reason: str | None = None):
        self.name, self.reason = name, reason
        self.injected = 0
        self.failures: list[tuple[str, str]] = []

    def add(self, fault: str, wrong: str | None) -> None:
        """Counts a fault; `wrong` says what went wrong, if anything."""
        self.injected += 1
        if wrong:
            self.failures.append((fault, wrong))

    def to_json(self) -> dict[str, Any]:
        """JSON types that `from_json` takes."""
        return {
            "fault": self.name,
            "not_run": self.reason,
            "injected": self.injected,
            "failures": self.failures,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Row":
        """The row that `to_json` returned."""
        row = cls(content["fault"], content["not_run"])
        row.injected = content["injected"]
        row.failures = [tuple(failure) for failure in content["failures"]]
        return row

    def cells(self) -> tuple:
        """Cells of the table; a run that survived has lost 0 bytes."""
        if self.reason:
            return (self.name, "not run", self.reason, "")
        survived = self.injected - len(self.failures)
        return (self.name, self.injected, survived, "?" if self.failures else 0)


def show(rows: Sequence[Row], style: str = "simple") -> str:
    """The table as text, in a style of tabulate."""
    return tabulate.tabulate([row.cells() for row in rows], HEADERS, style, intfmt=",")


def write(rows: Sequence[Row], folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes results.json and results.md."""
    content = {**facts, "rows": [row.to_json() for row in rows]}
    (folder / "results.json").write_text(
        json.dumps(content, indent=1) + "\n", encoding="utf-8"
    )
    text = f"# Faults injected\n\n{show(rows, 'github')}\n\n"
    text += "`python -m tests.torture`, " + ", ".join(
        f"{name} {value}" for name, value in facts.items()
    )
    (folder / "results.md").write_text(text + "\n", encoding="utf-8")
