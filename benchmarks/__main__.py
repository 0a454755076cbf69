# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and writes what they measured.

    python -m benchmarks            all, into benchmarks/results.*
    python -m benchmarks --quick    the ratios of the training step, on the screen

A benchmark is a module here and a line in `BENCHMARKS`. It has

    measure(rounds) → its figures, a dict of what JSON knows
    markdown(figures) → its section of results.md, from the heading on
    plots(figures) → name of a plot → matplotlib figure
"""

from pathlib import Path
from types import ModuleType

from absl import flags

import cli
from benchmarks import environment, peers, results, step

FLAGS = flags.FLAGS

BENCHMARKS: dict[str, ModuleType] = {"step": step}


def define_flags() -> None:
    """The flags of the program."""
    flags.DEFINE_integer("rounds", 5, "Measurements of each peer.", lower_bound=1)
    flags.DEFINE_bool(
        "quick", False, "The ratios of the step alone, in three minutes; no files."
    )
    flags.DEFINE_string(
        "results_dir",
        str(peers.PROJECT / "benchmarks"),
        "Where results.json, results.md and plots/ go.",
    )


def main(_: list[str]) -> None:
    """Measures, prints, and writes the files."""
    facts = environment.facts()
    print(environment.describe(facts))
    if FLAGS.quick:
        print(step.markdown(step.measure(FLAGS.rounds, quick=True)))
        return
    figures, sections, plots = {}, {}, {}
    for name, benchmark in BENCHMARKS.items():
        figures[name] = benchmark.measure(FLAGS.rounds)
        sections[name] = benchmark.markdown(figures[name])
        plots[name] = benchmark.plots(figures[name])
        print(sections[name])
    results.write(Path(FLAGS.results_dir), facts, figures, sections, plots)
    print(f"written to {FLAGS.results_dir}: results.json, results.md, plots/")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
