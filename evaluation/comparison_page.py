# SPDX-License-Identifier: Apache-2.0
"""A comparison of runs as a page: their curves, tables and tests."""

from pathlib import Path

from evaluation import figures, page
from evaluation.comparison import Comparison, Table
from system import files
from training import history, runs

TEMPLATE = "comparison.html.j2"


def write(path: Path, comparison: Comparison) -> None:
    """Writes the page.

    Raises:
      RunError: the metrics.csv of a run is damaged or lost.
      UserError: the file cannot be written.
    """
    groups = comparison.groups
    split = next(iter(groups.values()))[0].split
    curves = {
        name: [_rows(run.directory, split) for run in members]
        for name, members in groups.items()
    }
    content = page.render(
        TEMPLATE,
        split=split,
        names=list(groups),
        runs=sum(map(len, groups.values())),
        parts=[(isinstance(part, Table), part) for part in comparison.parts],
        curves=page.svg_uri(figures.compared_curves(curves, split)),
    )
    # The user chose this name, so it may be a link.
    files.write(path, content.encode(), follow=True)


def _rows(run_dir: Path, split: str) -> list[dict[str, float]]:
    """Rows of a run's metrics.csv, with the split's columns."""
    rows = history.read(run_dir)
    needed = {"images", f"{split}_loss", f"{split}_accuracy"}
    if not rows or not needed <= rows[0].keys():
        raise runs.RunError(
            f"{run_dir / history.METRICS} has no {split} curves to draw: put the run's"
            " own file back, or leave --report out"
        )
    return rows
