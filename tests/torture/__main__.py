# SPDX-License-Identifier: Apache-2.0
"""Injects faults into the real programs and reports which ones did harm.

    python -m tests.torture

We kill a tiny run at every moment of a save and at many others, damage its checkpoints
byte by byte, fill its disk, make it read-only or move it away, plant links, remove
files, close its outputs. Each time the run must be refused, or resume to the end with
every variable, metric and TensorBoard point of an undisturbed run. The results go to
tests/torture/results.json and results.md. It takes half an hour on two cores; disks are
mounted only where that is permitted.
"""

if __name__ == "__main__":  # first: the imports below may take seconds
    from system import console

    console.start()

from system import device  # isort: skip  (first: it loads TensorFlow)

import json
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from system import cli, errors
from tests.torture import (
    augmentation,
    damage,
    disks,
    history,
    kills,
    libraries,
    outputs,
    planted,
    small,
    table,
    waiting,
)
from training.environment import current_environment

FLAGS = flags.FLAGS

ROWS = "rows.json"  # results of a group that has finished


class Survived(errors.UserError):
    """Some faults were not survived."""


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_integer("kills", 140, "Number of kill -9 in training.", lower_bound=6)
    flags.DEFINE_integer(
        "signals", 12, "Number of SIGTERM and of Ctrl-C.", lower_bound=1
    )
    flags.DEFINE_integer("disks", 16, "Number of full disks.", lower_bound=1)
    flags.DEFINE_integer(
        "augmentation_kills", 30, "Number of kill -9 in augmentation.", lower_bound=1
    )
    flags.DEFINE_integer("every", 1, "Inject only every n-th damage.", lower_bound=1)
    flags.DEFINE_integer(
        "jobs", 0, "Groups of faults at the same time; 0: one per core.", lower_bound=0
    )
    flags.DEFINE_list("only", [], f"Groups, of {', '.join(GROUPS)}; default: all.")
    cli.define_path(
        "results", "tests/torture", "Folder for the results; '': store none."
    )


Group = Callable[[Path, kills.Report], list[table.Row]]

# The longest come first, so that all jobs end at about the same time.
GROUPS: dict[str, Group] = {
    "kills": lambda folder, report: [kills.kills(folder, FLAGS.kills, report)],
    "bytes": lambda folder, report: damage.every_byte(folder, report, FLAGS.every),
    "disks": lambda folder, report: [
        disks.full(folder, FLAGS.disks, report),
        disks.read_only(folder, report),
        disks.vanished(folder, FLAGS.disks, report),
        disks.clock_jumps(folder, report),
    ],
    "history": lambda folder, report: history.lost(folder, report, FLAGS.every),
    "links": lambda folder, report: planted.links(folder, report, FLAGS.every),
    "signals": lambda folder, report: [
        kills.signals(folder, FLAGS.signals, report),
        waiting.signals(folder, FLAGS.signals, report),
    ],
    "augmentation": lambda folder, report: [
        augmentation.killed(folder, FLAGS.augmentation_kills, report),
        augmentation.full(folder, FLAGS.disks, report),
    ],
    "damage": lambda folder, report: damage.older_taken(folder, report, FLAGS.every),
    "native": lambda folder, report: [libraries.damaged(folder, report, FLAGS.every)],
    "outputs": lambda folder, report: [outputs.lost(folder, report)],
}


def run_groups(names: Sequence[str], folder: Path, jobs: int) -> list[table.Row]:
    """Injects groups of faults, each group in its own process.

    Args:
      names: keys of `GROUPS`.
      folder: folder to work in.
      jobs: number of groups at the same time.

    Returns:
      Rows of all groups, in the order of `GROUPS`.
    """
    left = [name for name in GROUPS if name in names]
    running: set[int] = set()
    try:
        while left or running:
            while left and len(running) < jobs:
                name = left.pop(0)
                if (pid := os.fork()) == 0:
                    _run_group(name, folder)
                    os._exit(0)
                running.add(pid)
            running.remove(os.wait()[0])
    finally:
        for pid in running:
            os.kill(pid, signal.SIGTERM)
    parts = [(folder / name / ROWS).read_text() for name in GROUPS if name in names]
    return [table.Row.from_json(row) for part in parts for row in json.loads(part)]


def _run_group(name: str, folder: Path) -> None:
    """Injects a group of faults, in a child; stores the rows in its folder."""
    own, count = folder / name, 0
    own.mkdir()

    def report(fault: str, wrong: str | None) -> None:
        nonlocal count
        count += 1
        if wrong:
            print(f"{name}: {fault}: {wrong}", flush=True)

    began = time.monotonic()
    try:
        rows = GROUPS[name](own, report)
    except Exception:  # a mistake in this program
        rows = [table.Row(name)]
        rows[0].add("all", traceback.format_exc()[-600:])
        report("all", traceback.format_exc())
    (own / ROWS).write_text(json.dumps([row.to_json() for row in rows]))
    minutes = (time.monotonic() - began) / 60
    print(f"{name}: {count} faults in {minutes:.1f} minutes", flush=True)


def main(_: list[str]) -> None:
    """Injects the groups of faults, prints and stores the table."""
    chosen = FLAGS.only or list(GROUPS)
    for name in chosen:
        if name not in GROUPS:
            raise errors.UsageError(
                f"--only={name}: expected some of {', '.join(GROUPS)}"
            )
    results, began = FLAGS.results, time.monotonic()
    small.prepare()
    with tempfile.TemporaryDirectory() as folder:
        kills.undisturbed(Path(folder) / "intact")  # for all groups
        rows = run_groups(chosen, Path(folder), FLAGS.jobs or device.cores())
    print(table.show(rows))
    if results:
        names = ("commit", "tensorflow", "processor", "cores")
        facts = {name: current_environment()[name] for name in names}
        facts["minutes"] = round((time.monotonic() - began) / 60)
        table.write(rows, Path(results), facts)
    failures = [failure for row in rows for failure in row.failures]
    if failures:
        raise Survived(f"{len(failures)} faults were not survived: see {results}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
