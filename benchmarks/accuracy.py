# SPDX-License-Identifier: Apache-2.0
"""Time to 99.0 % and 99.5 %: our recipes beside the examples that others publish.

    python -m benchmarks.accuracy

Each peer trains in a process of its own, one after the other, as often as it was
planned to, and is tested after each epoch. What is timed is training, without
evaluation; reading and preparing the data are added, since no one trains without.
Imports, and tracing or the first call of a graph, are given beside.

The marks choose nothing. The time at which a test accuracy is first reached is known
afterwards only, and flatters those who wander about the mark; the last accuracy is the
one that was planned.
"""

import functools
import importlib.metadata
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tabulate import tabulate

import cli
import data
from benchmarks import growth, process

# A peer loads its library itself, so that no process holds that of another.

FLAGS = flags.FLAGS

MARKS = (0.99, 0.995)


class Options(NamedTuple):
    """What a peer is told.

    Attributes:
      seed: of weights, batches and dropout.
      epochs: 0: as many as published; fewer only to try the benchmark out.
      dataset: a name in data.DATASETS, with labels for its test images.
      threads: CPU threads; 0: what the library does by itself.
      flagfile: of one of ours: to be trained in place of the one it is named after.
    """

    seed: int = 0
    epochs: int = 0
    dataset: str = "mnist"
    threads: int = 0
    flagfile: str = ""


class Stopwatch:
    """Adds up the seconds between its starts and its stops."""

    def __init__(self):
        self.seconds = 0.0
        self._began: float | None = None

    def start(self) -> "Stopwatch":
        """Goes on; returns itself."""
        self._began = time.perf_counter()
        return self

    def stop(self) -> None:
        """Stands still; nothing happens if it already does."""
        if self._began is not None:
            self.seconds += time.perf_counter() - self._began
            self._began = None

    def lap(self) -> float:
        """Returns the seconds so far, and begins anew at 0."""
        self.stop()
        seconds, self.seconds = self.seconds, 0.0
        self.start()
        return seconds


def ours(options: Options, flagfile: str) -> dict[str, Any]:
    """train.py with a flagfile, in a process of its own.

    Training seconds and accuracies are those that the run writes down. The rest of
    its time is taken afterwards, in this process, which does the same up to the first
    step; offline augmentation, if there is any, is made anew each time and counts as
    data. The first call of the graph counts as training.

    Args:
      options: of the run.
      flagfile: its other flags, unless the options name another one.

    Raises:
      ProcessError: train.py failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        recipe = [
            f"--flagfile={options.flagfile or flagfile}",
            f"--seed={options.seed}",
            f"--dataset={options.dataset}",
        ]
        if options.threads:  # otherwise as the flagfile has it
            recipe.append(f"--threads={options.threads}")
        place = [f"--run_dir={folder}/run", f"--augmented_dir={folder}/augmented"]
        fewer = [f"--epochs={options.epochs}"] if options.epochs else []
        _, wall = process.run("train.py", *recipe, *place, *fewer)
        watch = Stopwatch().start()
        import train
        from training import runs

        imports = watch.lap()
        rows = runs.read_metrics(Path(folder) / "run")
        config = growth.settings(*recipe)
        watch.lap()
        sets = train.load_sets(
            data.load(options.dataset, config["data_dir"]), config, f"{folder}/anew"
        )
        images, labels = map(train.tf.constant, sets[:2])
        loaded = watch.lap()
        epoch_steps = int(rows[0]["step"])
        state = train.build_state(config)
        train.make_train_steps(state, images, labels, config, epoch_steps)
        traced = watch.lap()
    return {
        "library": _versions("tensorflow"),
        "planned_epochs": config["epochs"],
        "epochs": [
            {"seconds": row["seconds"], "accuracy": row["test_accuracy"]}
            for row in rows
        ],
        "import_seconds": imports,
        "data_seconds": loaded,
        "tracing_seconds": traced,
        "wall_seconds": wall,
    }


def keras_convnet(options: Options) -> dict[str, Any]:
    """Keras' published example "Simple MNIST convnet", by F. Chollet.

    keras.io/examples/vision/mnist_convnet, in the repository keras-team/keras-io
    examples/vision/mnist_convnet.py: 34,826 parameters, Adam at its default of 1e-3,
    batches of 128, a tenth of the training images held out, 15 epochs; 99.22 % in the
    output it is published with. Its settings are these to the letter; only the progress
    bar is spared, and the data are read by this project. oneDNN is on; Keras as
    shipped leaves that to TensorFlow and the processor.

    The first batch, which traces the graph, counts as tracing.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras says
    watch = Stopwatch().start()
    import device  # isort: skip  (first: it loads TensorFlow)
    import keras
    from keras import layers

    imports = watch.lap()
    if options.threads:  # otherwise as Keras has it: one per core, in and between ops
        device.set_threads(options.threads)
    keras.utils.set_random_seed(options.seed)
    watch.lap()
    dataset = data.load(options.dataset)
    x_train = dataset.train_images.astype(np.float32) / 255
    x_test = dataset.test_images.astype(np.float32) / 255
    y_train = keras.utils.to_categorical(dataset.train_labels, 10)
    y_test = keras.utils.to_categorical(_test_labels(dataset), 10)
    loaded = watch.lap()

    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    planned = 15
    training, tracing = Stopwatch(), 0.0
    epochs: list[dict[str, float]] = []

    def after_batch(batch: int, logs: Any) -> None:
        nonlocal tracing
        if not epochs and batch == 0:
            tracing = training.lap()

    def after_epoch(epoch: int, logs: Any) -> None:
        _, accuracy = network.evaluate(x_test, y_test, verbose=0)
        correct = round(accuracy * len(y_test))  # it comes as float32
        epochs.append(_tested(training, correct / len(y_test)))

    network.fit(
        x_train,
        y_train,
        batch_size=128,
        epochs=options.epochs or planned,
        validation_split=0.1,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: training.start(),
                on_train_batch_end=after_batch,
                on_test_begin=lambda logs: training.stop(),  # of the tenth held out
                on_epoch_end=after_epoch,
            )
        ],
    )
    return {
        "library": _versions("keras", "tensorflow"),
        "planned_epochs": planned,
        "epochs": epochs,
        "import_seconds": imports,
        "data_seconds": loaded,
        "tracing_seconds": tracing,
    }


def pytorch_example(options: Options) -> dict[str, Any]:
    """PyTorch's published example "Basic MNIST Example".

    mnist/main.py in the repository pytorch/examples, as of 2025-07: Adadelta at 1.0,
    times 0.7 after each epoch; batches of 64; 14 epochs; no accuracy is published
    with it. As written it shuffles on an accelerator only: on a CPU each epoch has the
    same order. Its settings are these to the letter, but for its seed of 1, which is an
    option here. It reads each image through torchvision's transforms, one at a time;
    here the same values come from one array, made beforehand, which is faster. The
    lines it prints are spared.
    """
    watch = Stopwatch().start()
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    imports = watch.lap()
    if options.threads:  # otherwise as PyTorch has it: one per core
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    watch.lap()
    dataset = data.load(options.dataset)

    def tensors(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
        x = torch.from_numpy(images.reshape(-1, 1, 28, 28).astype(np.float32))
        y = torch.from_numpy(labels.astype(np.int64))
        return TensorDataset((x / 255 - 0.1307) / 0.3081, y)

    train_set = tensors(dataset.train_images, dataset.train_labels)
    test_set = tensors(dataset.test_images, _test_labels(dataset))
    loaded = watch.lap()

    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Dropout(0.25),
        torch.nn.Flatten(),
        torch.nn.Linear(9216, 128),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(128, 10),
        torch.nn.LogSoftmax(dim=1),
    )
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    train_loader = DataLoader(train_set, batch_size=64)
    test_loader = DataLoader(test_set, batch_size=1000)
    planned = 14
    training = Stopwatch()
    epochs = []
    for _ in range(options.epochs or planned):
        training.start()
        network.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            functional.nll_loss(network(x), y).backward()
            optimizer.step()
        training.stop()
        network.eval()
        with torch.no_grad():
            correct = sum(
                int((network(x).argmax(dim=1) == y).sum()) for x, y in test_loader
            )
        epochs.append(_tested(training, correct / len(test_set)))
        schedule.step()
    return {
        "library": _versions("torch"),
        "planned_epochs": planned,
        "epochs": epochs,
        "import_seconds": imports,
        "data_seconds": loaded,
        "tracing_seconds": 0.0,
    }


def _tested(training: Stopwatch, accuracy: float) -> dict[str, float]:
    """What is kept of an epoch: training seconds so far, and the test accuracy then."""
    return {"seconds": training.seconds, "accuracy": accuracy}


def _test_labels(dataset: data.Dataset) -> np.ndarray:
    if dataset.test_labels is None:
        raise cli.UserError(
            f"the test images of {dataset.name} have no labels: choose another dataset"
        )
    return dataset.test_labels


def _versions(*packages: str) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


# name: function(options) → what is known of its training, in a process of its own.
PEERS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "fast99": functools.partial(ours, flagfile="flags/fast99.flags"),
    "fast995": functools.partial(ours, flagfile="flags/fast995.flags"),
    "keras_convnet": keras_convnet,
    "pytorch_example": pytorch_example,
}

# Of our recipes five, since their mean and their worst are the claim; of the examples
# one, which for PyTorch's is the one it is written with.
SEEDS: dict[str, Sequence[int]] = {
    "fast99": range(5),
    "fast995": range(5),
    "keras_convnet": (0,),
    "pytorch_example": (1,),
}


def run_peer(peer: str, options: Options) -> dict[str, Any]:
    """Trains a peer in a new process.

    Returns:
      `peer`, `seed` and, as JSON has it, `library` with its version, `planned_epochs`,
      `epochs` (training `seconds` so far and test `accuracy` after each), and the
      seconds beside: `import_seconds`, `data_seconds`, `tracing_seconds`,
      `wall_seconds` of the whole process. Instead of these, `missing`: the reason why
      its library cannot be loaded; or `failed`: the reason why it broke off.
    """
    named = {"peer": peer, "seed": options.seed}
    try:
        told = options._asdict()
        found, wall = process.measure("benchmarks.accuracy", peer, told)
    except process.ProcessError as error:
        return {**named, "failed": str(error)}
    return {**named, "wall_seconds": wall, **found}


def measure(
    seeds: Mapping[str, Sequence[int]] = SEEDS,
    *,
    epochs: int = 0,
    dataset: str = "mnist",
    threads: int = 0,
) -> list[dict[str, Any]]:
    """Every peer with each of its seeds, one after the other: see `run_peer`."""
    results = []
    for peer, its_seeds in seeds.items():
        for seed in its_seeds:
            result = run_peer(peer, Options(seed, epochs, dataset, threads))
            results.append(result)
            if "epochs" in result:
                last = result["epochs"][-1]
                told = f"{last['accuracy']:.2%} after {last['seconds']:.1f} s"
            else:
                told = _excuse(result)
            print(f"{peer}, seed {seed}: {told}", flush=True)
    return results


def first_reached(epochs: Sequence[Mapping[str, float]], mark: float) -> float | None:
    """Training seconds after the first epoch whose test accuracy is `mark` or more."""
    for epoch in epochs:
        if epoch["accuracy"] >= mark:
            return epoch["seconds"]
    return None


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line per peer and seed, one for the mean of several, then excuses."""
    rows = []
    for peer in dict.fromkeys(result["peer"] for result in results):
        own = [r for r in results if r["peer"] == peer and "epochs" in r]
        figures = [_figures(result) for result in own]
        rows += [
            [peer, str(result["seed"]), _planned(result), *map(_show, own_figures)]
            for result, own_figures in zip(own, figures, strict=True)
        ]
        if len(own) > 1:
            means = map(_mean, zip(*figures, strict=True))
            rows.append([peer, f"mean of {len(own)}", "", *map(_show, means)])
    header = ["peer", "seed", "epochs", "last accuracy, %", "training, s"]
    header += ["with data, s", *(f"first {mark:.1%}, s" for mark in MARKS)]
    header += ["data, s", "imports, s", "tracing, s", "process, s"]
    # The numbers are text by now, and are to stay as they are.
    align = ["left"] + ["right"] * (len(header) - 1)
    lines = tabulate(
        rows, header, tablefmt="github", colalign=align, disable_numparse=True
    )
    excuses = [
        f"{r['peer']}, seed {r['seed']}: {_excuse(r)}"
        for r in results
        if "epochs" not in r
    ]
    return "\n\n".join([lines, *excuses])


def _figures(result: Mapping[str, Any]) -> list[float | None]:
    """The figures of a line; the marks are reached after so long, data included."""
    loaded, last = result["data_seconds"], result["epochs"][-1]
    reached = [first_reached(result["epochs"], mark) for mark in MARKS]
    return [
        100 * last["accuracy"],
        last["seconds"],
        loaded + last["seconds"],
        *(None if seconds is None else loaded + seconds for seconds in reached),
        loaded,
        result["import_seconds"],
        result["tracing_seconds"],
        result["wall_seconds"],
    ]


def _show(figure: float | None) -> str:
    return "never" if figure is None else f"{figure:.2f}"


def _mean(figures: Sequence[float | None]) -> float | None:
    """None, a mark that was never reached, has no mean with others."""
    known = [figure for figure in figures if figure is not None]
    return statistics.mean(known) if len(known) == len(figures) else None


def _planned(result: Mapping[str, Any]) -> str:
    """How many epochs there were and, if they were cut short, of how many."""
    done, planned = len(result["epochs"]), result["planned_epochs"]
    return f"{done}" if done == planned else f"{done} of {planned}"


def _excuse(result: Mapping[str, Any]) -> str:
    if "missing" in result:
        return f"missing: {result['missing']}"
    return f"failed: {result['failed']}"


def plot(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Test error against the seconds of training and data, and the marks as lines.

    Args:
      results: of `measure`; those without epochs are left out.
      path: of the picture; its suffix says of what kind.
    """
    import matplotlib

    from evaluation import figures  # loads matplotlib: not where speed is measured

    with matplotlib.rc_context(figures.STYLE):
        figure = figures.Figure(
            figsize=(1.4 * figures.WIDTH, 3.6), layout="constrained"
        )
        axes = figure.subplots()
        looks = zip(
            dict.fromkeys(result["peer"] for result in results),
            (
                (figures.BLUE, "o-"),
                (figures.GREEN, "^-"),
                (figures.ORANGE, "s-"),
                (figures.GREY, "D-"),
            ),
            strict=False,
        )
        for peer, (colour, line) in looks:
            label: str | None = peer
            for result in results:
                if result["peer"] == peer and "epochs" in result:
                    axes.plot(
                        [
                            e["seconds"] + result["data_seconds"]
                            for e in result["epochs"]
                        ],
                        [100 * (1 - e["accuracy"]) for e in result["epochs"]],
                        line,
                        color=colour,
                        label=label,
                        linewidth=1,
                        markersize=3,
                    )
                    label = None  # once in the legend
        for mark in MARKS:
            axes.axhline(100 * (1 - mark), color="black", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="seconds of data and training", ylabel="test error, %")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(figures.LogLocator(subs=(1, 2, 5), numticks=12))
            axis.set_minor_locator(figures.NullLocator())
            axis.set_major_formatter("{x:g}")
        if axes.lines[len(MARKS) :]:
            axes.legend()
        process.save(figure, path)


def define_flags() -> None:
    """The flags of the benchmark; none is named like one of train.py's."""
    flags.DEFINE_integer(
        "only_epochs",
        0,
        "So many epochs of each, to try the benchmark out; 0: as published.",
        lower_bound=0,
    )
    process.define_flags(list(PEERS))
    flags.adopt_module_key_flags(process)


def main(_: list[str]) -> None:
    """Trains one peer, or starts itself for each of them in turn."""
    if FLAGS.peer:
        options = Options(**process.options(Options._fields))
        print(json.dumps(alone(FLAGS.peer, options)))
        return
    results = measure(epochs=FLAGS.only_epochs, threads=FLAGS.cpu_threads)
    print(table(results))
    if FLAGS.plot:
        plot(results, FLAGS.plot)


def alone(peer: str, options: Options) -> dict[str, Any]:
    """A peer in this process; `missing` if its library cannot be loaded."""
    try:
        return PEERS[peer](options)
    except ImportError as error:
        return {"missing": " ".join(str(error).split())}


if __name__ == "__main__":
    define_flags()
    cli.run(main)
