# SPDX-License-Identifier: Apache-2.0
"""Scores in words: tables and lines for the console, and names for a network's uses."""

from collections.abc import Mapping, Sequence
from typing import Any

import data

MAX_SHOWN = 30  # classes in a table of the console


def show(summary: Mapping[str, Any]) -> str:
    """The summary as text for the console; of many classes, only the worst."""
    rows = summary["classes"]
    tables = [f"the {MAX_SHOWN} of {len(rows):,} classes with the lowest recall:"]
    if len(rows) <= MAX_SHOWN:
        tables = [_confusions(summary)]
    else:
        rows = sorted(rows, key=lambda row: row["recall"] or 0)[:MAX_SHOWN]
    return "\n\n".join(
        [
            *tables,
            _each_class(rows),
            f"{_accuracy(summary)}  ·  loss {summary['loss']:.4f}  ·  binary accuracy"
            f" {summary['binary_accuracy']:.2%}\n{_confidence(summary)}",
        ]
    )


def show_line(summary: Mapping[str, Any]) -> str:
    """The `figures` of another way to use a network, in a line."""
    return f"{_accuracy(summary)}  ·  {_confidence(summary)}"


def _accuracy(summary: Mapping[str, Any]) -> str:
    return (
        f"accuracy {summary['accuracy']:.2%}  ·  {summary['errors']} errors of"
        f" {summary['images']:,}"
    )


def _confidence(summary: Mapping[str, Any]) -> str:
    return (
        f"NLL {summary['nll']:.4f}  ·  calibration error"
        f" {summary['calibration_error']:.2%}  ·  1% left unread:"
        f" {summary['accuracy_99']:.2%}, {summary['errors_99']} errors"
    )


def _confusions(summary: Mapping[str, Any]) -> str:
    names = [row["name"] for row in summary["classes"]]
    table = [
        [name, *(count or "·" for count in row)]
        for name, row in zip(names, summary["confusion_matrix"], strict=True)
    ]
    return _table(table, ["true \\ predicted", *names])


def _each_class(rows: Sequence[Mapping[str, Any]]) -> str:
    table = [
        [row["name"], percent(row["precision"]), percent(row["recall"]), row["images"]]
        for row in rows
    ]
    digits = {row["name"] for row in rows} <= set(data.DIGITS)
    kind = "digit" if digits else "class"
    return _table(table, [kind, "precision", "recall", "images"])


def _table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    from tabulate import tabulate

    # A class may be named 1e5, which is not a number here.
    align = ["right"] * len(header)
    return tabulate(rows, header, colalign=align, disable_numparse=True)


def percent(share: float | None) -> str:
    """0.9959 → 99.59%; "–" if there is no figure."""
    return "–" if share is None else f"{share:.2%}"


def ways(
    split: str, result: Mapping[str, Any], plain: str = "as trained"
) -> list[tuple[str, Mapping[str, Any]]]:
    """What to call each way that a network was scored, and its figures; plain first."""
    found = [(plain, result[split])]
    for name, summary in result.items():
        if name.startswith(f"{split}_") and "errors" in summary:
            words = []
            if "shifts" in summary:
                words.append(f"mean over shifts by ±{summary['shifts']}")
            if "temperature" in summary:
                words.append(f"temperature {summary['temperature']:.3f}")
            found.append((", ".join(words), summary))
    return found
