# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and writes what they measured.

    python -m benchmarks                  all, into benchmarks/results.*
    python -m benchmarks --only=growth    that one; the results of the others stay
    python -m benchmarks --quick          the ratios of the training step, on the screen

A benchmark is a module here and a line in `BENCHMARKS`. It has

    measure(rounds) → its figures, a dict of what JSON knows
    markdown(figures) → its section of results.md, from the heading on
    plots(figures) → name of a plot → matplotlib figure
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

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
    startup,
    step,
    windows,
)
from system import cli

FLAGS = flags.FLAGS

BENCHMARKS: dict[str, ModuleType] = {
    "step": step,
    "startup": startup,
    "online": online,
    "distribute": distribute,
    "logging": logging,
    "growth": growth,
    "windows": windows,
    "accuracy": accuracy,
}


def define_flags() -> None:
    """The flags of the program."""
    flags.DEFINE_integer("rounds", 5, "Measurements of each peer.", lower_bound=1)
    flags.DEFINE_list(
        "only", [], f"Benchmarks, of {', '.join(BENCHMARKS)}; default: all."
    )
    flags.DEFINE_bool(
        "quick", False, "The ratios of the step alone, in three minutes; no files."
    )
    cli.define_path(
        "results_dir",
        str(peers.PROJECT / "benchmarks"),
        "Where results.json, results.md and plots/ go.",
    )
    flags.register_validator(
        "only",
        lambda names: set(names) <= set(BENCHMARKS),
        f"expected names out of {', '.join(BENCHMARKS)}",
    )
    flags.register_multi_flags_validator(
        ["only", "quick"],
        lambda values: not (values["only"] and values["quick"]),
        "--quick is of the step alone: leave --only out",
    )


def measure(
    names: Iterable[str], rounds: int, folder: Path, facts: Mapping[str, Any]
) -> None:
    """Measures and prints one after the other; what is done is written at once.

    Args:
      names: of benchmarks.
      rounds: measurements of each peer.
      folder: of the files; the results of other benchmarks there stay.
      facts: see `environment.facts`.
    """
    found = results.read(folder)
    for name in names:
        figures = BENCHMARKS[name].measure(rounds)
        print(BENCHMARKS[name].markdown(figures), end="\n\n", flush=True)
        found[name] = {"environment": facts, "figures": figures}
        results.write(folder, found, BENCHMARKS)
    print(f"written to {folder}: results.json, results.md, plots/")


def main(_: list[str]) -> None:
    """Measures what the flags say."""
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
