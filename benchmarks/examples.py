# SPDX-License-Identifier: Apache-2.0
"""Trainings to be timed: our recipes, and examples that others have published.

Each maker returns a function from a number of epochs (0: as many as published) to the
results of the training: `library` with its version; `epochs`, a list with the `seconds`
of training so far and the test `accuracy` after each epoch; and, if known,
`import_seconds`, `data_seconds` and `tracing_seconds`. Each peer imports its library
itself, so that no process loads that of another.
"""

import csv
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import data
from benchmarks import environment, peers
from system import errors

# Function from a number of epochs to the results of the training.
Training = Callable[[int], dict[str, Any]]

Arrays = tuple[np.ndarray, np.ndarray]  # images, labels


class Stopwatch:
    """Adds up the seconds between its starts and stops."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began: float | None = None

    def start(self) -> "Stopwatch":
        """Starts or continues; returns itself."""
        self._began = time.perf_counter()
        return self

    def stop(self) -> None:
        """Stops, if it is running."""
        if self._began is not None:
            self.seconds += time.perf_counter() - self._began
            self._began = None

    def lap(self) -> float:
        """Returns the seconds so far and restarts at 0."""
        self.stop()
        seconds, self.seconds = self.seconds, 0.0
        self.start()
        return seconds


def ours(*, flagfile: str, seed: int = 0, dataset: str = "mnist") -> Training:
    """train.py with a flagfile, in its own process.

    An enlarged set, if there is one, is built again each time. The first call of the
    graph counts as training, its tracing does not.
    Seed and dataset override the flagfile's.
    """

    def answer(epochs: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", f"--flagfile={flagfile}"]
            command += [f"--seed={seed}", f"--dataset={dataset}"]
            command += [f"--run_dir={folder}/run", f"--augmented_dir={folder}/sets"]
            if epochs:
                command.append(f"--epochs={epochs}")
            done = subprocess.run(
                command, cwd=peers.PROJECT, capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = done.stderr.strip() or f"exit code {done.returncode}"
                raise peers.BenchmarkError(reason.splitlines()[-1])
            # Not with training.runs, which would load TensorFlow here, too.
            metrics = f"{folder}/run/metrics.csv"
            with open(metrics, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            with open(f"{folder}/run/run.json", encoding="utf-8") as file:
                data_seconds = json.load(file)["data_seconds"]
        return {
            "library": _versions("tensorflow"),
            "epochs": [
                _tested(float(row["seconds"]), float(row["test_accuracy"]))
                for row in rows
            ],
            "data_seconds": data_seconds,
        }

    return answer


def keras_convnet(*, seed: int = 0, dataset: str = "mnist") -> Training:
    """Keras' published example "Simple MNIST convnet", by F. Chollet.

    Source: keras-team/keras-io, examples/vision/mnist_convnet.py, also at
    keras.io/examples/vision/mnist_convnet. 34,826 parameters, Adam at its default of
    1e-3, batches of 128, a tenth of the training images held out, 15 epochs; its
    published output says 99.22 %. We keep all its settings, drop the progress bar, and
    read the data ourselves. oneDNN is on; Keras leaves that to TensorFlow and the
    processor. The first batch, which traces the graph, counts as tracing. The test
    images of the dataset need labels.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras says
    watch = Stopwatch().start()
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)
    import keras

    imports = watch.lap()
    digits = _labelled(dataset)
    x_train = digits.train_images.astype(np.float32) / 255
    x_test = digits.test_images.astype(np.float32) / 255
    y_train = keras.utils.to_categorical(digits.train_labels, 10)
    y_test = keras.utils.to_categorical(digits.test_labels, 10)
    loaded = watch.lap()
    keras.utils.set_random_seed(seed)
    network = _keras_network()

    def answer(epochs: int) -> dict[str, Any]:
        return {
            "library": _versions("keras", "tensorflow"),
            **_fit(network, (x_train, y_train), (x_test, y_test), epochs or 15),
            "import_seconds": imports,
            "data_seconds": loaded,
        }

    return answer


def _keras_network():
    import keras
    from keras import layers

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
    return network


def _fit(network, train: Arrays, test: Arrays, epochs: int) -> dict[str, Any]:
    """Trains a Keras network, tests it after each epoch."""
    from keras import callbacks

    training, tracing = Stopwatch(), 0.0
    tested: list[dict[str, float]] = []

    def after_batch(batch: int, logs: Any) -> None:
        nonlocal tracing
        if not tested and batch == 0:
            tracing = training.lap()

    def after_epoch(epoch: int, logs: Any) -> None:
        _, accuracy = network.evaluate(*test, verbose=0)
        correct = round(accuracy * len(test[1]))  # accuracy is a float32
        tested.append(_tested(training.seconds, correct / len(test[1])))

    timing = callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: training.start(),
        on_train_batch_end=after_batch,
        on_test_begin=lambda logs: training.stop(),  # tests the held-out tenth
        on_epoch_end=after_epoch,
    )
    network.fit(
        *train,
        batch_size=128,
        epochs=epochs,
        validation_split=0.1,
        verbose=0,
        callbacks=[timing],
    )
    return {"epochs": tested, "tracing_seconds": tracing}


def pytorch_example(*, seed: int = 1, dataset: str = "mnist") -> Training:
    """PyTorch's published example "Basic MNIST Example".

    Source: pytorch/examples, mnist/main.py, as of 2025-07. Adadelta at 1.0, times 0.7
    after each epoch; batches of 64; 14 epochs; no accuracy is published with it. As
    written, it shuffles on an accelerator only; on a CPU each epoch has the same order.
    We keep all its settings but the output. It applies torchvision's transforms to one
    image at a time; we compute the same values beforehand, which is faster.
    """
    watch = Stopwatch().start()
    import torch
    from torch.utils.data import DataLoader

    imports = watch.lap()
    digits = _labelled(dataset)
    train_set = _tensors(digits.train_images, digits.train_labels)
    test_set = _tensors(digits.test_images, digits.test_labels)
    loaded = watch.lap()
    torch.manual_seed(seed)
    network = _pytorch_network()
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    train_loader = DataLoader(train_set, batch_size=64)
    test_loader = DataLoader(test_set, batch_size=1000)

    def answer(epochs: int) -> dict[str, Any]:
        training, tested = Stopwatch(), []
        for _ in range(epochs or 14):
            training.start()
            _train_epoch(network, train_loader, optimizer)
            training.stop()
            tested.append(_tested(training.seconds, _accuracy(network, test_loader)))
            schedule.step()
        return {
            "library": _versions("torch"),
            "epochs": tested,
            "import_seconds": imports,
            "data_seconds": loaded,
            "tracing_seconds": 0.0,
        }

    return answer


def _tensors(images, labels):
    import torch

    x = torch.from_numpy(images.reshape(-1, 1, 28, 28).astype(np.float32))
    y = torch.from_numpy(labels.astype(np.int64))
    return torch.utils.data.TensorDataset((x / 255 - 0.1307) / 0.3081, y)


def _pytorch_network():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
        nn.LogSoftmax(dim=1),
    )


def _train_epoch(network, loader, optimizer) -> None:
    from torch.nn import functional

    network.train()
    for x, y in loader:
        optimizer.zero_grad()
        functional.nll_loss(network(x), y).backward()
        optimizer.step()


def _accuracy(network, loader) -> float:
    import torch

    network.eval()
    with torch.no_grad():
        correct = [(network(x).argmax(dim=1) == y).sum() for x, y in loader]
    return int(sum(correct)) / len(loader.dataset)


def _labelled(name: str) -> data.Dataset:
    """A dataset whose test images have labels."""
    dataset = data.load(name)
    if dataset.test_labels is None:
        raise errors.UserError(
            f"{name} has no labels for its test images: choose another dataset"
        )
    return dataset


def _tested(seconds: float, accuracy: float) -> dict[str, float]:
    """Result of an epoch: training time so far, test accuracy."""
    return {"seconds": seconds, "accuracy": accuracy}


def _versions(*packages: str) -> str:
    return ", ".join(f"{name} {environment.version(name)}" for name in packages)


# {name: maker(**settings)}; see benchmarks.peers.
PEERS: dict[str, Callable[..., Training]] = {
    "fast99": functools.partial(ours, flagfile="flags/fast99.flags"),
    "fast995": functools.partial(ours, flagfile="flags/fast995.flags"),
    "keras_convnet": keras_convnet,
    "pytorch_example": pytorch_example,
}
