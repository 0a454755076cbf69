# SPDX-License-Identifier: Apache-2.0
"""Several finished runs side by side, so that "better" has a meaning.

Runs that differ in nothing but their seed are one recipe, and one row of the table.
What is told follows Dietterich, "Approximate Statistical Tests for Comparing Supervised
Classification Learning Algorithms", 1998: McNemar's test between two trained networks;
between two recipes a test over seeds, here Welch's.
"""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from tabulate import tabulate

from evaluation import intervals, result, scoring
from system import console, errors, untrusted
from training import runs

LEVEL = 0.05  # a difference with a smaller p is called more than chance
MAX_PAIRS = 30  # of networks; a longer table is read by nobody
NOTHING = "–"

INTERVALS = """\
The interval of the mean answers what training again with other seeds would bring, on
these digits. The interval of a run answers what other digits of the same kind would
bring, read by that one network. Neither answers both."""
MCNEMAR = """\
Exact McNemar test: it compares two trained networks, not two recipes, of which other
seeds may tell otherwise."""
WELCH = "Welch's t test over the seeds: it compares recipes, on these digits."
HOLM = "The last column goes by Holm's p, which allows for the number of pairs."


class McNemar(NamedTuple):
    """Attributes:
    only_one: how many digits the one network alone reads rightly.
    only_other: how many the other alone.
    p: how probable so uneven a split of them is, were both equally good.
    """

    only_one: int
    only_other: int
    p: float


def mcnemar(one: np.ndarray, other: np.ndarray) -> McNemar:
    """McNemar's test in its exact form, two-sided: a coin for each disagreement.

    McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", 1947.

    Args:
      one: bool [N], which digits a network reads rightly.
      other: bool [N], the same of another network and the same digits.
    """
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    p = float(stats.binomtest(min(b, c), b + c, 0.5).pvalue) if b + c else 1.0
    return McNemar(b, c, p)


def welch(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sided p of Welch's t test: have two samples the same mean?

    Welch, "The generalization of 'Student's' problem when several different population
    variances are involved", 1947. Each sample has two values or more. Two samples
    without any spread give 1 where they are equal and else 0.
    """
    samples = [(statistics.mean(s), statistics.stdev(s), len(s)) for s in (one, other)]
    if samples[0][1] == samples[1][1] == 0:
        return float(samples[0][0] == samples[1][0])
    test = stats.ttest_ind_from_stats(*samples[0], *samples[1], equal_var=False)
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of each of several tests, raised for their number.

    The smallest of m is multiplied by m, the next by m − 1, …; none falls below the one
    before it, and none exceeds 1. Holm, "A simple sequentially rejective multiple test
    procedure", 1979.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more values, by Student's t."""
    half = stats.t.ppf((1 + intervals.CONFIDENCE) / 2, len(values) - 1)
    half *= statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values) - half, statistics.mean(values) + half


class Run(NamedTuple):
    """Attributes:
    directory: of the run.
    config: its flags.
    data: the hash of each file of its data.
    split: what was scored: "test" or "validation".
    labels: uint8 [N].
    hits: bool [N], which digits it reads rightly.
    binary_accuracy: in %, as `scoring.Scores` has it.
    """

    directory: Path
    config: Mapping[str, Any]
    data: Mapping[str, str]
    split: str
    labels: np.ndarray
    hits: np.ndarray
    binary_accuracy: float

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.directory.absolute().name

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config["seed"]

    @property
    def recipe(self) -> dict[str, Any]:
        """All its flags but the seed."""
        return {name: v for name, v in self.config.items() if name != "seed"}

    @property
    def errors(self) -> int:
        """How many digits it reads wrongly."""
        return int((~self.hits).sum())

    @property
    def accuracy(self) -> float:
        """The share of digits it reads rightly, in %."""
        return 100 * float(self.hits.mean())


def read(directory: Path) -> Run:
    """A finished run and what it reads rightly.

    Raises:
      RunError: it is no run, is not trained to its end, has not been scored, or is
        damaged.
    """
    run = runs.read_run(directory)
    labels, probabilities = scoring.read_predictions(directory)
    split, finished, binary_accuracy, errors = _read_result(directory)
    if not finished:
        raise runs.RunError(
            f"{directory} was scored before its training came to its end: resume it by"
            f" {runs.resume_command(directory)}"
        )
    if type(run["config"].get("seed")) is not int:
        raise runs.RunError(
            f"{directory / 'run.json'} is damaged, it names no seed: train again"
        )
    hits = probabilities.argmax(1) == labels
    found = Run(
        directory, run["config"], run["data"], split, labels, hits, binary_accuracy
    )
    if found.errors != errors:
        raise runs.RunError(
            f"{directory / result.RESULT} has {errors} errors, and"
            f" {scoring.PREDICTIONS} beside it {found.errors}, so they are of different"
            f" scores: run {_score_again(directory)} to make both again"
        )
    return found


def _score_again(directory: Path | str) -> str:
    return console.command("eval.py", f"--run_dir={directory}")


def _read_result(directory: Path) -> tuple[str, bool, float, int]:
    """The split scored, whether at the end, the binary accuracy in %, the errors."""
    path = directory / result.RESULT
    try:
        scored = untrusted.read_json(path)
        split = "test" if "test" in scored else "validation"
        binary_accuracy = 100 * float(scored[split]["binary_accuracy"])
        errors = scored[split]["errors"]
        if not isinstance(scored["finished"], bool) or not 0 <= binary_accuracy <= 100:
            raise ValueError(path)
        if type(errors) is not int or errors < 0:
            raise ValueError(path)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise runs.RunError(
            f"{path} is missing, damaged or of an older version"
            f" ({type(error).__name__}): run {_score_again(directory)} to make it again"
        ) from None
    return split, scored["finished"], binary_accuracy, errors


def _check_comparable(compared: Sequence[Run]) -> None:
    """Raises RunError unless the runs differ, and were scored on the same digits."""
    for one, other in itertools.combinations(compared, 2):
        both = f"{one.directory} and {other.directory}"
        if one.directory.resolve() == other.directory.resolve():
            raise runs.RunError(f"{both} are the same directory: name each run once")
        if one.data != other.data:
            raise runs.RunError(
                f"{both} have different data: compare runs of one dataset"
            )
        if one.split != other.split:
            raise runs.RunError(
                f"{both} were scored on different digits, {one.split} and"
                f" {other.split}: score both again by {_score_again('RUN')}"
            )
        if not np.array_equal(one.labels, other.labels):
            raise runs.RunError(
                f"{both} were scored on different digits: compare runs that held out"
                " the same ones, those of the same --split_seed and --validation_size"
            )
        if one.config == other.config:
            raise runs.RunError(
                f"{both} have the same flags and the same seed, and so would count"
                " twice: leave out one of them"
            )


def group(compared: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by recipe, each recipe with a name of its own, in the order given.

    A name is that of a run's directory without the seed; if it stands for two recipes,
    the path is added, and at last the seed.
    """
    groups: list[list[Run]] = []
    for run in compared:
        for others in groups:
            if others[0].recipe == run.recipe:
                others.append(run)
                break
        else:
            groups.append([run])
    names = _distinct(
        [_without_seed(some[0].name, some[0].seed) for some in groups],
        [_without_seed(str(some[0].directory), some[0].seed) for some in groups],
        [str(some[0].directory) for some in groups],
    )
    return {
        name: sorted(some, key=lambda run: run.seed)
        for name, some in zip(names, groups, strict=True)
    }


def _without_seed(name: str, seed: int) -> str:
    return re.sub(rf"(?<=.)[-_.](s|seed)[-_=]?{seed}$", "", name)


def _distinct(*candidates: list[str]) -> list[str]:
    """The first list of names in which none comes twice."""
    return next(names for names in candidates if len(set(names)) == len(names))


def differences(groups: Mapping[str, Sequence[Run]]) -> str:
    """A line that names the flags in which recipes differ, with the value of each."""
    recipes = [some[0].recipe for some in groups.values()]
    parts = []
    for name in sorted(set().union(*recipes)):
        values = [recipe.get(name) for recipe in recipes]
        if any(value != values[0] for value in values):
            parts.append(f"--{name} ({' | '.join(map(_show_value, values))})")
    return f"{' | '.join(groups)} differ in: {', '.join(parts)}."


def _show_value(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


def compare(directories: Sequence[Path]) -> str:
    """Tables of runs for a console, and what they do and do not show.

    Args:
      directories: of two or more scored runs.

    Raises:
      errors.UsageError: fewer than two runs.
      RunError: a directory without a finished and scored run, one named twice, or runs
        that were scored on different digits than the others.
    """
    if len(directories) < 2:
        raise errors.UsageError(
            "--compare wants two runs or more: "
            + console.command("eval.py", "--compare", "RUN", "RUN")
        )
    compared = [read(directory) for directory in directories]
    _check_comparable(compared)
    groups = group(compared)
    parts = [_recipe_table(groups)]
    if len(groups) > 1:
        parts.append(differences(groups))
    run_names = _distinct(
        [run.name for run in compared], [str(run.directory) for run in compared]
    )
    names = {run.directory: name for run, name in zip(compared, run_names, strict=True)}
    parts += [_run_table(groups, names), INTERVALS, *_networks(groups, names)]
    return "\n\n".join([*parts, *_recipes(groups)])


def _recipe_table(groups: Mapping[str, Sequence[Run]]) -> str:
    rows = []
    for name, members in groups.items():
        accuracies = [run.accuracy for run in members]
        interval = NOTHING
        if len(members) > 1:
            low, high = mean_interval(accuracies)
            # Student's t knows of no bounds, and few seeds make it go beyond them.
            interval = f"{max(low, 0):.3f} to {min(high, 100):.3f}"
        seeds = ", ".join(str(run.seed) for run in members)
        errors = ", ".join(str(run.errors) for run in members)
        binary = _mean([run.binary_accuracy for run in members])
        rows.append([name, seeds, errors, _mean(accuracies), interval, binary])
    run = next(iter(groups.values()))[0]
    errors, mean = f"errors of {len(run.labels):,}", f"{run.split} accuracy %"
    header = ["recipe", "seeds", errors, f"{mean}, mean ± sd", "95 % of the mean"]
    return _table([*header, "binary accuracy %"], rows)


def _mean(values: Sequence[float]) -> str:
    """The mean; with its standard deviation if there are two values or more."""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _run_table(groups: Mapping[str, Sequence[Run]], names: Mapping[Path, str]) -> str:
    rows = []
    for run in itertools.chain(*groups.values()):
        low, high = intervals.share_interval(len(run.hits) - run.errors, len(run.hits))
        interval = f"{100 * low:.2f} to {100 * high:.2f}"
        rows.append([names[run.directory], run.errors, f"{run.accuracy:.2f}", interval])
    return _table(["run", "errors", "accuracy %", "95 % of the run"], rows)


class Pair(NamedTuple):
    """Two networks or two recipes and the test between them.

    Attributes:
      names: of both.
      errors: of each, or their mean over seeds.
      told: of each, in a column of the table.
      p: of the test.
    """

    names: tuple[str, str]
    errors: tuple[float, float]
    told: tuple[str, str]
    p: float


def verdict(pair: Pair) -> str:
    """A sentence that says which of two makes fewer errors, and whether that counts."""
    (one, few), (other, many) = sorted(
        zip(pair.names, pair.errors, strict=True), key=lambda item: item[1]
    )
    if few == many:
        return f"{one} and {other} make equally many errors, {_count(few)}."
    figures = f"{_count(few)} against {_count(many)}"
    chance = "more than" if pair.p < LEVEL else "not more than"
    return (
        f"{one} makes fewer errors than {other}, {figures};\n"
        f"the difference is {chance} chance at {100 * LEVEL:g} % (p {_p(pair.p)})."
    )


def _count(errors: float) -> str:
    return f"{errors:.1f}".removesuffix(".0")


def _p(value: float) -> str:
    # No test's p is 0, but some are less than a float can hold.
    return f"= {value:.2g}" if value else "< 1e-307"


def _pair_table(told: tuple[str, str], pairs: Sequence[Pair]) -> str:
    """A row per pair; who makes fewer errors is named where that is beyond chance."""
    rows = []
    for pair, p in zip(pairs, holm([pair.p for pair in pairs]), strict=True):
        better = pair.names[int(pair.errors[1] < pair.errors[0])]
        better = better if p < LEVEL else NOTHING
        both = [_p(value).removeprefix("= ") for value in (pair.p, p)]
        rows.append([*pair.names, *pair.told, *both, better])
    return _table(["one", "other", *told, "p", "p, Holm", "fewer errors"], rows)


def _networks(
    groups: Mapping[str, Sequence[Run]], names: Mapping[Path, str]
) -> list[str]:
    """McNemar's test of each pair across recipes, or within the only one there is."""
    members = list(groups.values())
    pairs = []
    for one, other in _pairs_of_runs(members):
        test = mcnemar(one.hits, other.hits)
        pairs.append(
            Pair(
                (names[one.directory], names[other.directory]),
                (one.errors, other.errors),
                (str(test.only_one), str(test.only_other)),
                test.p,
            )
        )
    if len(pairs) > MAX_PAIRS:
        return [
            f"McNemar's test is left out: {len(pairs)} pairs of networks, and more than"
            f" {MAX_PAIRS} are\ntoo many to read. Compare fewer runs to have it."
        ]
    if len(pairs) > 1:
        told = "right: only one", "only other"
        return [f"{MCNEMAR}\n{HOLM}", _pair_table(told, pairs)]
    (pair,) = pairs
    alone = "{} digits are read rightly by {} alone, {} by {} alone.".format(
        pair.told[0], pair.names[0], pair.told[1], pair.names[1]
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


def _recipes(groups: Mapping[str, Sequence[Run]]) -> list[str]:
    """Welch's test of each pair of recipes that have two seeds or more."""
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
        means = statistics.mean(one), statistics.mean(other)
        told = _count(means[0]), _count(means[1])
        pairs.append(Pair(names, means, told, welch(one, other)))
    if not pairs:
        return ["Train two seeds or more of each recipe to compare the recipes."]
    if len(pairs) > 1:
        return [f"{WELCH}\n{HOLM}", _pair_table(("errors: one", "other"), pairs)]
    return [WELCH, verdict(pairs[0])]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    # What is a number has been written as it is to be read.
    return tabulate(rows, header, disable_numparse=True)
