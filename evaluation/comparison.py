# SPDX-License-Identifier: Apache-2.0
"""Tables of several finished runs, and whether their differences are significant.

Each recipe, see `evaluation.recipes`, is one row of the first table. The tests follow
Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification
Learning Algorithms", 1998: McNemar's between two trained networks, and between two
recipes a test over seeds, here Welch's.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from evaluation import hard_digits, recipes, statistics
from evaluation.recipes import Run, Table
from system import console, errors

LEVEL = 0.05  # of significance
MAX_PAIRS = 30  # of networks; nobody reads a longer table
NOTHING = "–"

INTERVALS = """\
The interval of the mean: what other seeds would give on these digits. The interval of a
run: what this one network would give on other digits of the same kind. Neither covers
both."""
MCNEMAR = """\
Exact McNemar test: it compares two trained networks, not two recipes; other seeds may
give another answer."""
WELCH = "Welch's t test over the seeds: it compares recipes, on these digits."
HOLM = "The last column uses Holm's p, which is corrected for the number of pairs."


class Comparison(NamedTuple):
    """Runs, and what is to say of them.

    Attributes:
      groups: the runs of each recipe, by its name.
      parts: tables and paragraphs, in order.
    """

    groups: Mapping[str, Sequence[Run]]
    parts: Sequence[str | Table]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.parts))


def compare(directories: Sequence[Path]) -> Comparison:
    """Compares two or more scored runs: tables, and which differences are significant.

    Raises RunError if a directory holds no finished, scored run or is named twice, or
    if the runs were scored on different digits.
    """
    if len(directories) < 2:
        raise errors.UsageError(
            "--compare needs two runs or more: "
            + console.command("eval.py", "--compare", "RUN", "RUN")
        )
    compared = [recipes.read(directory) for directory in directories]
    recipes.check_comparable(compared)
    groups = recipes.group(compared)
    parts: list[str | Table] = [_recipe_table(groups)]
    if len(groups) > 1:
        parts.append(recipes.differences(groups))
    run_names = recipes.distinct(
        [run.name for run in compared], [str(run.directory) for run in compared]
    )
    names = {run.directory: name for run, name in zip(compared, run_names, strict=True)}
    parts += [_run_table(groups, names), INTERVALS, *_test_networks(groups, names)]
    parts += [*_test_recipes(groups), *hard_digits.parts(compared, run_names)]
    return Comparison(groups, parts)


def _recipe_table(groups: Mapping[str, Sequence[Run]]) -> Table:
    rows = []
    for name, members in groups.items():
        accuracies = [run.accuracy for run in members]
        interval = NOTHING
        if len(members) > 1:
            low, high = statistics.mean_interval(accuracies)
            # Student's t has no bounds: with few seeds, it exceeds 0 and 100.
            interval = f"{max(low, 0):.3f} to {min(high, 100):.3f}"
        seeds = ", ".join(str(run.seed) for run in members)
        errors = ", ".join(str(run.errors) for run in members)
        binary = _mean([run.binary_accuracy for run in members])
        rows.append([name, seeds, errors, _mean(accuracies), interval, binary])
    run = next(iter(groups.values()))[0]
    errors, accuracy = f"errors of {len(run.labels):,}", f"{run.split} accuracy %"
    header = ["recipe", "seeds", errors, f"{accuracy}, mean ± sd", "95 % of the mean"]
    return Table([*header, "binary accuracy %"], rows)


def _mean(values: Sequence[float]) -> str:
    """Mean, with the standard deviation of two values or more."""
    text = f"{mean(values):.3f}"
    return f"{text} ± {stdev(values):.3f}" if len(values) > 1 else text


def _run_table(groups: Mapping[str, Sequence[Run]], names: Mapping[Path, str]) -> Table:
    rows = []
    for run in itertools.chain(*groups.values()):
        count = len(run.correct)
        low, high = statistics.share_interval(count - run.errors, count)
        interval = f"{100 * low:.2f} to {100 * high:.2f}"
        rows.append([names[run.directory], run.errors, f"{run.accuracy:.2f}", interval])
    return Table(["run", "errors", "accuracy %", "95 % of the run"], rows)


class Pair(NamedTuple):
    """Two networks or two recipes, and the test between them."""

    names: tuple[str, str]  # of both
    errors: tuple[float, float]  # of both; for recipes, the mean over seeds
    cells: tuple[str, str]  # one column of the table for each
    p: float  # p value of the test


def verdict(pair: Pair) -> str:
    """A sentence: which of two makes fewer errors, and whether that is significant."""
    (one, few), (other, many) = sorted(
        zip(pair.names, pair.errors, strict=True), key=lambda item: item[1]
    )
    if few == many:
        return f"{one} and {other} make equally many errors, {_count(few)}."
    significant = "significant" if pair.p < LEVEL else "not significant"
    return (
        f"{one} makes fewer errors than {other}, {_count(few)} against {_count(many)};"
        f"\nthe difference is {significant} at {100 * LEVEL:g} % (p {_p(pair.p)})."
    )


def _count(errors: float) -> str:
    return f"{errors:.1f}".removesuffix(".0")


def _p(value: float) -> str:
    # No p is 0, but some are smaller than any float.
    return f"= {value:.2g}" if value else "< 1e-307"


def _pair_table(columns: tuple[str, str], pairs: Sequence[Pair]) -> Table:
    """One row per pair; a significantly better one is named in the last column."""
    rows = []
    adjusted = statistics.holm([pair.p for pair in pairs])
    for pair, p in zip(pairs, adjusted, strict=True):
        better = pair.names[int(pair.errors[1] < pair.errors[0])]
        better = better if p < LEVEL else NOTHING
        both = [_p(value).removeprefix("= ") for value in (pair.p, p)]
        rows.append([*pair.names, *pair.cells, *both, better])
    return Table(["one", "other", *columns, "p", "p, Holm", "fewer errors"], rows)


def _test_networks(
    groups: Mapping[str, Sequence[Run]], names: Mapping[Path, str]
) -> list[str | Table]:
    """McNemar's test for each pair across recipes, or within the only recipe."""
    pairs = []
    for one, other in _pairs_of_runs(list(groups.values())):
        test = statistics.mcnemar(one.correct, other.correct)
        both = names[one.directory], names[other.directory]
        cells = str(test.only_one), str(test.only_other)
        pairs.append(Pair(both, (one.errors, other.errors), cells, test.p))
    if len(pairs) > MAX_PAIRS:
        return [
            f"No McNemar's test: {len(pairs)} pairs of networks, and more than"
            f" {MAX_PAIRS} are too many to\nread. Compare fewer runs to get it."
        ]
    if len(pairs) > 1:
        columns = "correct: only one", "only other"
        return [f"{MCNEMAR}\n{HOLM}", _pair_table(columns, pairs)]
    (pair,) = pairs
    alone = "{} digits are classified correctly by {} alone, {} by {} alone.".format(
        pair.cells[0], pair.names[0], pair.cells[1], pair.names[1]
    )
    return [MCNEMAR, f"{alone}\n{verdict(pair)}"]


def _pairs_of_runs(groups: Sequence[Sequence[Run]]) -> list[tuple[Run, Run]]:
    if len(groups) == 1:
        return list(itertools.combinations(groups[0], 2))
    return [
        pair
        for one, other in itertools.combinations(groups, 2)
        for pair in itertools.product(one, other)
    ]


def _test_recipes(groups: Mapping[str, Sequence[Run]]) -> list[str | Table]:
    """Welch's test for each pair of recipes that have two seeds or more."""
    if len(groups) == 1:
        return []
    errors = {
        name: [run.errors for run in members]
        for name, members in groups.items()
        if len(members) > 1
    }
    pairs = []
    for names in itertools.combinations(errors, 2):
        one, other = errors[names[0]], errors[names[1]]
        means = mean(one), mean(other)
        cells = _count(means[0]), _count(means[1])
        pairs.append(Pair(names, means, cells, statistics.welch(one, other)))
    if not pairs:
        return ["Train two seeds or more of each recipe to compare the recipes."]
    if len(pairs) > 1:
        return [f"{WELCH}\n{HOLM}", _pair_table(("errors: one", "other"), pairs)]
    return [WELCH, verdict(pairs[0])]
