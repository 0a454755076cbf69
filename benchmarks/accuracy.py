# SPDX-License-Identifier: Apache-2.0
"""Time to 99.0 % and 99.5 % accuracy: our recipes next to published examples.

The peers train one after the other, each in its own process, for as many epochs as they
were written for, and are tested after each epoch. We time training without evaluation.
Where it is known, we also report the time for reading the data, for imports, and for
tracing or the first call of the graph; and the time of the whole process.

The marks choose nothing. When a test accuracy is first reached is known only
afterwards, and flatters a training that wanders about the mark; the accuracy after the
last epoch is the one that was planned.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks import peers, results

PEERS = "benchmarks.examples"
MARKS = (0.99, 0.995)
OTHER_SECONDS = ("data_seconds", "import_seconds", "tracing_seconds", "wall_seconds")


def measure(rounds: int) -> dict[str, Any]:
    """Trains our recipes with one seed per round, the examples once.

    Our claim is about the mean and the worst seed. Keras' example gets seed 0,
    PyTorch's gets 1, with which it was published.

    Returns:
      {"trainings": a list with the result of `train` for each peer and seed}.
    """
    seeds: dict[str, Sequence[int]] = {
        "fast99": range(rounds),
        "fast995": range(rounds),
        "keras_convnet": (0,),
        "pytorch_example": (1,),
    }
    trainings = []
    for peer, peer_seeds in seeds.items():
        for seed in peer_seeds:
            trainings.append(train(peer, seed))
            print(f"{peer}, seed {seed}: {_outcome(trainings[-1])}")
    return {"trainings": trainings}


def train(peer: str, seed: int, epochs: int = 0, **settings: Any) -> dict[str, Any]:
    """Trains a peer of `examples.PEERS` once; 0 epochs stand for as many as published.

    Returns:
      `peer`, `seed`, its answer (see `benchmarks.examples`) and `wall_seconds` from the
        start of its process to the answer. If its library is not installed, `missing`
        says why in place of the answer; if training failed, `failed` does.
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
    """Result of a training in a few words."""
    if "epochs" in training:
        last = training["epochs"][-1]
        return f"{last['accuracy']:.2%} after {last['seconds']:.1f} s"
    return training.get("failed") or f"missing: {training['missing']}"


def first_reached(epochs: Sequence[Mapping[str, float]], mark: float) -> float | None:
    """Training time until a test accuracy of at least `mark`; None: never."""
    for epoch in epochs:
        if epoch["accuracy"] >= mark:
            return epoch["seconds"]
    return None


def _trained(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Completed trainings of each peer."""
    completed: dict[str, list[Mapping[str, Any]]] = {}
    for training in result["trainings"]:
        if "epochs" in training:
            completed.setdefault(training["peer"], []).append(training)
    return completed


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a row per peer and seed, rows of means, and what failed."""
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
    failures = [
        f"{training['peer']}, seed {training['seed']}: {_outcome(training)}"
        for training in result["trainings"]
        if "epochs" not in training
    ]
    return "\n\n".join(
        [
            "## Time to accuracy",
            *([table] if rows else []),
            "Seconds of training, without evaluation, until the end of the last epoch"
            " and of the first epoch that reaches the mark; –: not measured apart from"
            " the rest of the process.",
            *failures,
        ]
    )


def _figures(training: Mapping[str, Any]) -> list[float | None]:
    """Numbers of a row; None: a mark that is never reached, a time not known."""
    epochs = training["epochs"]
    return [
        100 * epochs[-1]["accuracy"],
        epochs[-1]["seconds"],
        *(first_reached(epochs, mark) for mark in MARKS),
        *(training.get(name) for name in OTHER_SECONDS),
    ]


def _texts(figures: Sequence[float | None]) -> list[str]:
    none = ["–", "–", *["never"] * len(MARKS), *["–"] * len(OTHER_SECONDS)]
    return [
        text if figure is None else f"{figure:.2f}"
        for figure, text in zip(figures, none, strict=True)
    ]


def _mean(figures: Sequence[float | None]) -> float | None:
    """Mean; None if one of the marks was never reached."""
    known = [figure for figure in figures if figure is not None]
    return statistics.mean(known) if len(known) == len(figures) else None


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The plot "accuracy": test error over seconds of training; marks are dotted."""
    from evaluation import figures

    styles = {
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
            colour, line = styles[peer]
            for number, training in enumerate(trainings):
                axes.plot(
                    [epoch["seconds"] for epoch in training["epochs"]],
                    [100 * (1 - epoch["accuracy"]) for epoch in training["epochs"]],
                    line,
                    color=colour,
                    label="" if number else peer,  # one legend entry per peer
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
