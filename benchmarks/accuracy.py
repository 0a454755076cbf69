# SPDX-License-Identifier: Apache-2.0
"""Time to 99.0 % and 99.5 %: our recipes beside the examples that others publish.

Each peer trains in a process of its own, one after the other, for as long as it was
planned to, and is tested after each epoch. What is timed is training, without
evaluation. Beside it stand, where they are known, reading and preparing the data,
imports, tracing or the first call of a graph; and of all the whole process.

The marks choose nothing. The time at which a test accuracy is first reached is known
afterwards only, and flatters those who wander about the mark; the last accuracy is the
one that was planned.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks import peers, results

PEERS = "benchmarks.examples"
MARKS = (0.99, 0.995)
BESIDE = ("data_seconds", "import_seconds", "tracing_seconds", "wall_seconds")


def measure(rounds: int) -> dict[str, Any]:
    """Trains our recipes with as many seeds as rounds, the examples once.

    Of ours the mean and the worst are the claim. The seeds of the examples are 0 and,
    as PyTorch's is written with it, 1.

    Returns:
      trainings: see `train`, one for each peer and seed.
    """
    return compare(
        {
            "fast99": range(rounds),
            "fast995": range(rounds),
            "keras_convnet": (0,),
            "pytorch_example": (1,),
        }
    )


def compare(seeds: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Trains each peer with its seeds, one after the other; returns as `measure`."""
    trainings = []
    for peer, its_seeds in seeds.items():
        for seed in its_seeds:
            trainings.append(train(peer, seed))
            print(f"{peer}, seed {seed}: {_outcome(trainings[-1])}")
    return {"trainings": trainings}


def train(peer: str, seed: int, epochs: int = 0, **settings: Any) -> dict[str, Any]:
    """Trains a peer once.

    Args:
      peer: its name in examples.PEERS.
      seed: of its training.
      epochs: fewer than planned, to try it out; 0: all.
      settings: more arguments of its maker.

    Returns:
      peer, seed, what it answers, see `benchmarks.examples`, and wall_seconds from
      the start of its process to the answer. Instead of the last two `missing`, the
      reason why its library cannot be loaded, or `failed`, the reason why it broke off.
    """
    named = {"peer": peer, "seed": seed}
    began = time.perf_counter()
    try:
        with peers.Peer(PEERS, peer, {"seed": seed, **settings}) as running:
            answer = running.ask(epochs)
            return {**named, **answer, "wall_seconds": time.perf_counter() - began}
    except peers.Missing as missing:
        return {**named, "missing": str(missing)}
    except peers.BenchmarkError as error:
        return {**named, "failed": str(error)}


def _outcome(training: Mapping[str, Any]) -> str:
    """How it ended, in a few words."""
    if "epochs" in training:
        last = training["epochs"][-1]
        return f"{last['accuracy']:.2%} after {last['seconds']:.1f} s"
    return training.get("failed") or f"missing: {training['missing']}"


def first_reached(epochs: Sequence[Mapping[str, float]], mark: float) -> float | None:
    """Training seconds after the first epoch whose test accuracy is `mark` or more."""
    for epoch in epochs:
        if epoch["accuracy"] >= mark:
            return epoch["seconds"]
    return None


def _trained(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The trainings of each peer that came to their end."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for training in result["trainings"]:
        if "epochs" in training:
            found.setdefault(training["peer"], []).append(training)
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """A section: a line per peer and seed, one for the mean of several, excuses."""
    rows = []
    for peer, trainings in _trained(result).items():
        figures = [_figures(training) for training in trainings]
        for training, own in zip(trainings, figures, strict=True):
            epochs = len(training["epochs"])
            rows.append([peer, str(training["seed"]), str(epochs), *_texts(own)])
        if len(trainings) > 1:
            means = list(map(_mean, zip(*figures, strict=True)))
            rows.append([peer, f"mean of {len(trainings)}", "", *_texts(means)])
    headers = ["peer", "seed", "epochs", "last accuracy, %", "training, s"]
    headers += [f"first {mark:.1%}, s" for mark in MARKS]
    headers += ["data, s", "imports, s", "tracing, s", "process, s"]
    table = results.table(rows, headers)
    excuses = [
        f"{training['peer']}, seed {training['seed']}: {_outcome(training)}"
        for training in result["trainings"]
        if "epochs" not in training
    ]
    return "\n\n".join(
        [
            "## Time to accuracy",
            *([table] if rows else []),
            "Seconds of training until the last epoch's end, and until the end of the"
            " first at the mark, without evaluation; –: not known apart from the rest"
            " of the process.",
            *excuses,
        ]
    )


def _figures(training: Mapping[str, Any]) -> list[float | None]:
    """Numbers of a line of the table; None: a mark not reached, a time not known."""
    epochs = training["epochs"]
    return [
        100 * epochs[-1]["accuracy"],
        epochs[-1]["seconds"],
        *(first_reached(epochs, mark) for mark in MARKS),
        *(training.get(name) for name in BESIDE),
    ]


def _texts(figures: Sequence[float | None]) -> list[str]:
    none = ["–", "–", *["never"] * len(MARKS), *["–"] * len(BESIDE)]
    return [
        text if figure is None else f"{figure:.2f}"
        for figure, text in zip(figures, none, strict=True)
    ]


def _mean(figures: Sequence[float | None]) -> float | None:
    """None, a mark that was never reached, has no mean with others."""
    known = [figure for figure in figures if figure is not None]
    return statistics.mean(known) if len(known) == len(figures) else None


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """ "accuracy": test error against seconds of training; the marks are dotted."""
    from evaluation import figures

    looks = {
        "fast99": (figures.BLUE, "o-"),
        "fast995": (figures.GREEN, "^-"),
        "keras_convnet": (figures.ORANGE, "s-"),
        "pytorch_example": (figures.GREY, "D-"),
    }

    @figures.styled
    def draw() -> Figure:
        figure = Figure(figsize=(figures.WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        trained = _trained(result)
        for peer, trainings in trained.items():
            colour, line = looks[peer]
            for number, training in enumerate(trainings):
                axes.plot(
                    [epoch["seconds"] for epoch in training["epochs"]],
                    [100 * (1 - epoch["accuracy"]) for epoch in training["epochs"]],
                    line,
                    color=colour,
                    label="" if number else peer,  # once in the legend
                    linewidth=1,
                    markersize=3,
                )
        for mark in MARKS:
            axes.axhline(100 * (1 - mark), color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="seconds of training", ylabel="test error, %")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(figures.LogLocator(subs=(1, 2, 5), numticks=12))
            axis.set_minor_locator(figures.NullLocator())
            axis.set_major_formatter("{x:g}")
        if trained:
            axes.legend()
        return figure

    return {"accuracy": draw()}
