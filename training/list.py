# SPDX-License-Identifier: Apache-2.0
"""Lists all runs under a folder: how far each is, how good, and what is damaged.

    python -m training.list runs/

A run is any folder with a run.json. It is not loaded: the table is made from run.json,
metrics.csv and result.json, without TensorFlow.
"""

if __name__ == "__main__":  # first, since the other imports take a while
    from system import console

    console.start()

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from system import cli, console, errors, untrusted
from training import history, locks, runs

HEADER = ("run", "network", "data", "seed", "epochs", "accuracy", "errors", "time", "")
ALIGN = ("left", "left", "left", *["right"] * 5, "left")
NONE = "–"


class Row(NamedTuple):
    """A run as the table shows it, and why it is damaged."""

    cells: Sequence[str]
    damage: str = ""


def find(folder: Path) -> Iterator[Path]:
    """Folders under this one, itself included, that hold a run or what is left of it.

    Links are not followed.
    """
    for path, names, files in os.walk(folder):
        names.sort()
        if runs.RUN in files or history.METRICS in files or "checkpoints" in names:
            names.clear()  # no run is inside another one
            yield Path(path)


def describe(run_dir: Path) -> Row:
    """Describes a run; never raises, whatever is in the folder."""
    try:
        runs.check_contents(run_dir)
        run = runs.read_run(run_dir)
        return Row(_cells(run_dir, run))
    except (errors.UserError, OSError, ArithmeticError) as error:
        why = str(error)
    except (LookupError, TypeError, ValueError) as error:
        why = f"{run_dir}: a file has not the contents it should have ({error!r})"
    name = console.one_line(str(run_dir))
    blank = [NONE] * (len(HEADER) - 2)
    return Row([name, *blank, "damaged"], console.one_line(why))


def _cells(run_dir: Path, run: Mapping[str, Any]) -> list[str]:
    config, rows = run["config"], history.read(run_dir)
    planned = int(config["epochs"])
    locked = locks.is_held(run_dir)
    if not locked and not any((run_dir / "checkpoints").glob("step-*")):
        raise runs.RunError(f"{run_dir} has no checkpoint")
    patience = int(config.get("early_stopping", 0))
    over = len(rows) >= planned or bool(rows) and history.stopped_early(rows, patience)
    accuracy, wrong = _score(run_dir, rows)
    state = "finished" if over else "unfinished"
    state += ", not scored" * (over and wrong is None)
    return [
        console.one_line(str(run_dir)),
        console.one_line(str(config["network"])[:20]),
        console.one_line(str(config["dataset"])[:20]),
        str(int(config["seed"])),
        f"{len(rows)}/{planned}",
        NONE if accuracy is None else f"{100 * accuracy:.2f} %",
        NONE if wrong is None else f"{wrong:,}",
        console.duration(rows[-1]["seconds"]) if rows else NONE,
        "training now" if locked else state,
    ]


def _score(
    run_dir: Path, rows: Sequence[Mapping[str, float]]
) -> tuple[float | None, int | None]:
    """Accuracy after the last epoch; errors, too, if the run was scored then."""
    if (run_dir / "result.json").exists():
        result = untrusted.read_json(run_dir / "result.json")
        if result["epochs"] == len(rows):
            score = result["test" if "test" in result else "validation"]
            return float(score["accuracy"]), int(score["errors"])
    last = rows[-1] if rows else {}
    return last.get("test_accuracy", last.get("validation_accuracy")), None


def main(argv: list[str]) -> None:
    """Prints the table, and below it what is wrong with damaged runs."""
    folders = [Path(os.path.expanduser(name)) for name in argv[1:] or ["runs"]]
    for folder in folders:
        if not folder.is_dir():
            raise errors.UserError(
                f"{folder}: no such folder; give one that holds run directories"
            )
    rows = [describe(run_dir) for folder in folders for run_dir in find(folder)]
    if not rows:
        raise errors.UserError(f"no runs under {', '.join(map(str, folders))}")
    cells = [row.cells for row in rows]
    print(tabulate(cells, HEADER, colalign=ALIGN, disable_numparse=True))
    for row in rows:
        if row.damage:
            print(f"damaged: {row.damage}")


if __name__ == "__main__":
    cli.run(main, arguments=True)
