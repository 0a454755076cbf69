# SPDX-License-Identifier: Apache-2.0
"""Results of each recipe in results/, in the words of the pages."""

import functools
import json
import re
import statistics
from typing import NamedTuple

import numpy as np

from benchmarks import accuracy, records
from evaluation.statistics import holm, welch
from tests.helpers import ROOT


class Recipe(NamedTuple):
    """Results of a recipe's seeds, in order of seed; the entry that has its score."""

    seeds: list[dict]
    scored: str = "test"

    @property
    def errors(self):
        return [seed["errors"] for seed in self.scores]

    @property
    def scores(self):
        return [seed[self.scored] for seed in self.seeds]

    @property
    def mean_errors(self):
        return f"{statistics.mean(self.errors):.1f}"

    @property
    def minutes(self):
        return [seed["training_seconds"] / 60 for seed in self.seeds]

    def mean_sd(self, decimals=3, figure="accuracy"):
        """Mean and standard deviation over the seeds, in %."""
        # From the errors, which are exact; 1 - 0.9963 is not.
        values = [100 * score.get(figure, 0) for score in self.scores]
        if figure == "accuracy":
            values = [100 * (1 - s["errors"] / s["images"]) for s in self.scores]
        mean, sd = statistics.mean(values), statistics.stdev(values)
        return f"{mean:.{decimals}f} ± {sd:.{decimals}f} %"

    def after(self, epochs, seeds=None):
        """Mean accuracy after this many epochs, of the first seeds or of all."""
        values = [s["test_accuracy_by_epoch"][epochs - 1] for s in self.seeds[:seeds]]
        return f"{100 * statistics.mean(values):.2f} %"

    def accuracy(self, seed):
        return f"{100 * self.seeds[seed]['test']['accuracy']:.2f} %"

    def confused(self, one, other):
        """Number of confusions between two digits, by seed."""
        tables = [np.array(seed["test"]["confusion_matrix"]) for seed in self.seeds]
        return [int(table[one, other] + table[other, one]) for table in tables]

    def constant(self, seed):
        """(digit, number of epochs) for each digit that was the answer throughout."""
        table = np.array(self.seeds[seed]["test"]["confusion_matrix"])
        shares = {round(n / table.sum(), 4): d for d, n in enumerate(table.sum(1))}
        answers = [shares.get(a) for a in self.seeds[seed]["test_accuracy_by_epoch"]]
        return [(d, answers.count(d)) for d in dict.fromkeys(answers)]


@functools.cache
def recipes():
    found = {}
    for path in sorted((ROOT / "results").glob("*.json")):
        name, seed = re.fullmatch(r"(.*)-s(\d+)", path.stem).groups()
        seeds = found.setdefault(name, Recipe([], records.scored(name))).seeds
        assert int(seed) == len(seeds), f"{path.name}: a seed before it is missing"
        seeds.append(json.loads(path.read_text("utf-8")))
    return found


def ablations():
    """{recipe: (p by Welch's test against the run as it is, p by Holm's correction)}"""
    base = recipes()["lenet_one_thread"].errors
    names = [name for name in recipes() if name.startswith("ablation_")]
    p = [welch(base, recipes()[name].errors) for name in names]
    both = zip(p, holm(p), strict=True)
    return {n: tuple(f"{v:.2g}" for v in values) for n, values in zip(names, both)}


def times_to_accuracy():
    """Rows of "Time to accuracy", and README's of Keras, by benchmarks/results.json."""
    path = ROOT / "benchmarks/results.json"
    trainings = json.loads(path.read_text("utf-8"))["accuracy"]["figures"]["trainings"]

    def ends(values, decimals):
        low, high = (f"{f(values):.{decimals}f}" for f in (min, max))
        return low if low == high else f"{low} to {high}"

    def row(title, peer, decimals, process_decimals, more=""):
        runs = [one for one in trainings if one["peer"] == peer]
        last = [100 * one["epochs"][-1]["accuracy"] for one in runs]
        seconds = [one["epochs"][-1]["seconds"] for one in runs]
        first = [
            [accuracy.first_reached(one["epochs"], mark) for one in runs]
            for mark in accuracy.MARKS
        ]
        never = "–" if more is None else "never"
        marks = [never if None in f else ends(f, decimals) for f in first]
        mean = f", mean {statistics.mean(last):.2f} %" if more == "mean" else ""
        process = ends([one["wall_seconds"] for one in runs], process_decimals)
        cells = [title, f"{ends(last, 2)} %{mean}", ends(seconds, decimals), *marks]
        return f"| {' | '.join([*cells, process])} |"

    (keras,) = (o["epochs"][-1] for o in trainings if o["peer"] == "keras_convnet")
    share, seconds = 100 * keras["accuracy"], keras["seconds"]
    keras_row = (
        "| Keras' MNIST convnet example, as published, one run | – |"
        f" {share:.2f} % | {100 * (100 - share):.0f} | {seconds:.0f} s |"
    )
    return [
        row("`three_passes.flags`, seeds 0–4", "fast99", 1, 1, None),
        row("`fast995.flags`, seeds 0–4", "fast995", 1, 0, "mean"),
        row("Keras' example, 15 epochs", "keras_convnet", 0, 0),
        row("PyTorch's example, 14 epochs", "pytorch_example", 0, 0),
        keras_row,
    ]
