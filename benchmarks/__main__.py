# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and stores their results.

    python -m benchmarks                  all of them, into benchmarks/results.*
    python -m benchmarks --only=growth    one; the results of the others stay
    python -m benchmarks --quick          the training step only, printed, not stored

A benchmark is a module of this package and a line in `BENCHMARKS`. It has

    measure(rounds) → its figures, a dict of JSON types
    markdown(figures) → its section of results.md, with heading
    plots(figures) → {name of a plot: matplotlib figure}; may be missing
"""

if __name__ == "__main__":  # first: the imports below may take seconds
    from system import console

    console.start()

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags

from benchmarks import (
    accuracy,
    distribute,
    environment,
    growth,
    logging,
    online,
    peers,
    results,
    serving,
    startup,
    step,
    windows,
)
from system import cli

FLAGS = flags.FLAGS

BENCHMARKS: dict[str, ModuleType] = {
    "step": step,
    "startup": startup,
    "serving": serving,
    "online": online,
    "distribute": distribute,
    "logging": logging,
    "growth": growth,
    "windows": windows,
    "accuracy": accuracy,
}


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_integer("rounds", 5, "How often to measure each peer.", lower_bound=1)
    flags.DEFINE_list(
        "only", [], f"Benchmarks to run, of {', '.join(BENCHMARKS)}; default: all."
    )
    flags.DEFINE_bool(
        "quick",
        False,
        "Measure the training step only, in four minutes; store nothing.",
    )
    cli.define_path(
        "results_dir",
        str(peers.PROJECT / "benchmarks"),
        "Folder for results.json, results.md and plots/.",
    )
    flags.register_validator(
        "only",
        lambda names: set(names) <= set(BENCHMARKS),
        f"expected some of {', '.join(BENCHMARKS)}",
    )
    flags.register_multi_flags_validator(
        ["only", "quick"],
        lambda values: not all(values.values()),
        "--quick measures the training step only: drop --only",
    )


def measure(
    names: Iterable[str], rounds: int, folder: Path, facts: Mapping[str, Any]
) -> None:
    """Runs benchmarks, prints their results and stores them one by one in a folder.

    Results of other benchmarks in it stay. For the facts, see `environment.facts`.
    """
    found = results.read(folder)
    start = time.monotonic()
    for name in names:
        figures = BENCHMARKS[name].measure(rounds)
        print(BENCHMARKS[name].markdown(figures), end="\n\n")
        print(f"{name} done, {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
        found[name] = {"environment": facts, "figures": figures}
        results.write(folder, found, BENCHMARKS)
    print(f"written to {folder}: results.json, results.md, plots/")


def main(_: list[str]) -> None:
    """Runs the benchmarks that the flags name."""
    facts = environment.facts()
    print(environment.describe(facts), flush=True)
    if FLAGS.quick:
        print(step.markdown(step.measure(FLAGS.rounds, quick=True)))
    else:
        names = FLAGS.only or BENCHMARKS
        measure(names, FLAGS.rounds, Path(FLAGS.results_dir), facts)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
