# SPDX-License-Identifier: Apache-2.0
"""Injects faults into the real programs, and shows what became of them.

    python -m tests.torture

A tiny run is killed at every moment of a save and at many others, its checkpoints are
damaged byte by byte, its disk filled, made read-only, moved away, links planted in it,
parts of it removed, its outputs closed; each time it is refused, or resumes to the end,
where every variable, metric and TensorBoard point must be those of a run that was never
disturbed. What was found is written to torture/results.json and results.md. It takes
half an hour on two cores; disks are mounted only where that is permitted.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
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

ROWS = "rows.json"  # of a group that has come to its end


class Survived(errors.UserError):
    """Not all faults were survived."""


def define_flags() -> None:
    """The flags of a session of torture."""
    flags.DEFINE_integer("kills", 140, "kill -9 at so many moments.", lower_bound=6)
    flags.DEFINE_integer("signals", 12, "SIGTERM and Ctrl-C, each.", lower_bound=1)
    flags.DEFINE_integer("disks", 16, "Sizes of a too small disk.", lower_bound=1)
    flags.DEFINE_integer(
        "augmentation_kills", 30, "kill -9 in augmentation.", lower_bound=1
    )
    flags.DEFINE_integer("every", 1, "Try every so-many-th damage.", lower_bound=1)
    flags.DEFINE_integer("jobs", 0, "Groups at a time; 0: one per core.", lower_bound=0)
    flags.DEFINE_list("only", [], f"Some of {', '.join(GROUPS)}; none for all.")
    cli.define_path("results", "torture", "Folder for the results; '' for none.")


Group = Callable[[Path, kills.Report], list[table.Row]]

# Those that take longest come first, so that all jobs end at about the same time.
GROUPS: dict[str, Group] = {
    "kills": lambda folder, tell: [kills.kills(folder, FLAGS.kills, tell)],
    "bytes": lambda folder, tell: damage.every_byte(folder, tell, FLAGS.every),
    "disks": lambda folder, tell: [
        disks.full(folder, FLAGS.disks, tell),
        disks.read_only(folder, tell),
        disks.vanished(folder, FLAGS.disks, tell),
        disks.clock_jumps(folder, tell),
    ],
    "history": lambda folder, tell: history.lost(folder, tell, FLAGS.every),
    "links": lambda folder, tell: planted.links(folder, tell, FLAGS.every),
    "signals": lambda folder, tell: [
        kills.signals(folder, FLAGS.signals, tell),
        waiting.signals(folder, FLAGS.signals, tell),
    ],
    "augmentation": lambda folder, tell: [
        augmentation.killed(folder, FLAGS.augmentation_kills, tell),
        augmentation.full(folder, FLAGS.disks, tell),
    ],
    "damage": lambda folder, tell: damage.older_taken(folder, tell, FLAGS.every),
    "native": lambda folder, tell: [libraries.damaged(folder, tell, FLAGS.every)],
    "outputs": lambda folder, tell: [outputs.lost(folder, tell)],
}


def run_groups(names: Sequence[str], folder: Path, jobs: int) -> list[table.Row]:
    """Goes through groups of faults, so many at a time, each in a process of its own.

    Args:
      names: keys of `GROUPS`.
      folder: to work in.
      jobs: how many at a time.

    Returns:
      The rows of all, in the order of `GROUPS`.
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
    """In a child, which leaves the rows in its folder."""
    place, count = folder / name, 0
    place.mkdir()

    def tell(fault: str, wrong: str | None) -> None:
        nonlocal count
        count += 1
        if wrong:
            print(f"{name}: {fault}: {wrong}", flush=True)

    began = time.monotonic()
    try:
        rows = GROUPS[name](place, tell)
    except Exception:  # of this program, or what it takes for granted
        rows = [table.Row(name)]
        rows[0].add("all", traceback.format_exc()[-600:])
        tell("all", traceback.format_exc())
    (place / ROWS).write_text(json.dumps([row.to_json() for row in rows]))
    minutes = (time.monotonic() - began) / 60
    print(f"{name}: {count} faults in {minutes:.1f} minutes", flush=True)


def main(_: list[str]) -> None:
    """Goes through the groups of faults, and shows the table."""
    chosen = FLAGS.only or list(GROUPS)
    for name in chosen:
        if name not in GROUPS:
            raise errors.UsageError(
                f"--only={name}: expected some of {', '.join(GROUPS)}"
            )
    results, began = FLAGS.results, time.monotonic()
    small.prepare()
    with tempfile.TemporaryDirectory() as folder:
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
