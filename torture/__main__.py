# SPDX-License-Identifier: Apache-2.0
"""Injects faults into the real programs, and shows what became of them.

    python -m torture

A tiny run is killed at every moment of a save and at many others, its checkpoints are
damaged byte by byte, its disk filled, made read-only, moved away; each time it goes on
to the end, where every variable, metric and TensorBoard point must be those of a run
that was never disturbed. What was found is written to torture/results.json and
results.md. It takes half an hour; disks are mounted only where that is permitted.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    import console

    console.start()

import device  # noqa: F401  # isort: skip  (first: it loads TensorFlow)

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from absl import flags
from tqdm import tqdm

import cli
from torture import augmentation, damage, disks, kills, small, table
from training import runs

FLAGS = flags.FLAGS


class Survived(cli.UserError):
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
    flags.DEFINE_list("only", [], f"Some of {', '.join(GROUPS)}; none for all.")
    cli.define_path("results", "torture", "Folder for the results; '' for none.")


Group = Callable[[Path, kills.Report], list[table.Row]]

GROUPS: dict[str, Group] = {
    "kills": lambda folder, tell: [kills.kills(folder, FLAGS.kills, tell)],
    "signals": lambda folder, tell: [kills.signals(folder, FLAGS.signals, tell)],
    "bytes": lambda folder, tell: damage.every_byte(folder, tell, FLAGS.every),
    "damage": lambda folder, tell: damage.older_taken(folder, tell, FLAGS.every),
    "disks": lambda folder, tell: [
        disks.full(folder, FLAGS.disks, tell),
        disks.read_only(folder, tell),
        disks.vanished(folder, FLAGS.disks, tell),
        disks.clock_jumps(folder, tell),
    ],
    "augmentation": lambda folder, tell: [
        augmentation.killed(folder, FLAGS.augmentation_kills, tell),
        augmentation.full(folder, FLAGS.disks, tell),
    ],
}


def main(_: list[str]) -> None:
    """Goes through the groups of faults, and shows the table."""
    chosen = FLAGS.only or list(GROUPS)
    for name in chosen:
        if name not in GROUPS:
            raise cli.UsageError(f"--only={name}: expected some of {', '.join(GROUPS)}")
    results, began = FLAGS.results, time.monotonic()
    calls = [GROUPS[name] for name in chosen]
    rows: list[table.Row] = []
    small.prepare()
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="fault") as bar:

        def tell(fault: str, wrong: str | None) -> None:
            bar.update()
            bar.set_description(fault)
            if wrong:
                bar.write(f"{fault}: {wrong}")

        for call in calls:
            rows += call(Path(folder), tell)
    print(table.show(rows))
    if results:
        names = ("commit", "tensorflow", "processor", "cores")
        facts = {name: runs.environment()[name] for name in names}
        facts["minutes"] = round((time.monotonic() - began) / 60)
        table.write(rows, Path(results), facts)
    failures = [failure for row in rows for failure in row.failures]
    if failures:
        raise Survived(f"{len(failures)} faults were not survived: see {results}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
