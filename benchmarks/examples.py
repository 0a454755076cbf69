# SPDX-License-Identifier: Apache-2.0
"""Trainings that are timed: our recipes, and the examples that others publish.

Each maker here gives a function from a number of epochs, 0 for as many as published,
to what is known of the training: `library` with its version; `epochs`, the `seconds`
of training so far and the test `accuracy` after each; and the seconds beside, where
they are known: `import_seconds`, `data_seconds`, `tracing_seconds`.
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

# A peer loads its library itself, so that no process holds that of another.

# From a number of epochs to what is known of the training.
Training = Callable[[int], dict[str, Any]]


class Stopwatch:
    """Adds up the seconds between its starts and its stops."""

    def __init__(self) -> None:
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


def ours(*, flagfile: str, seed: int = 0, dataset: str = "mnist") -> Training:
    """train.py with a flagfile, in a process of its own.

    Offline augmentation, if there is any, is made anew each time. The first call of
    the graph counts as training, its tracing does not.

    Args:
      flagfile: of the recipe.
      seed: takes the place of the flagfile's.
      dataset: likewise.
    """

    def answer(epochs: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", f"--flagfile={flagfile}"]
            command += [f"--seed={seed}", f"--dataset={dataset}"]
            command += [
                f"--run_dir={folder}/run",
                f"--augmented_dir={folder}/augmented",
            ]
            if epochs:
                command.append(f"--epochs={epochs}")
            done = subprocess.run(
                command, cwd=peers.PROJECT, capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = done.stderr.strip() or f"exit code {done.returncode}"
                raise peers.BenchmarkError(reason.splitlines()[-1])
            # Not by training.runs, which loads TensorFlow once more.
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

    keras.io/examples/vision/mnist_convnet, in the repository keras-team/keras-io
    examples/vision/mnist_convnet.py: 34,826 parameters, Adam at its default of 1e-3,
    batches of 128, a tenth of the training images held out, 15 epochs; 99.22 % in the
    output it is published with. Its settings are these to the letter; only the progress
    bar is spared, and the data are read by this project. oneDNN is on; Keras as
    shipped leaves that to TensorFlow and the processor.

    The first batch, which traces the graph, counts as tracing.

    Args:
      seed: of weights, batches and dropout.
      dataset: a name in data.DATASETS, with labels for its test images.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras says
    watch = Stopwatch().start()
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)
    import keras
    from keras import layers

    imports = watch.lap()
    digits = _labelled(dataset)
    x_train = digits.train_images.astype(np.float32) / 255
    x_test = digits.test_images.astype(np.float32) / 255
    y_train = keras.utils.to_categorical(digits.train_labels, 10)
    y_test = keras.utils.to_categorical(digits.test_labels, 10)
    loaded = watch.lap()

    keras.utils.set_random_seed(seed)
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
    training, tracing = Stopwatch(), 0.0
    tested: list[dict[str, float]] = []

    def after_batch(batch: int, logs: Any) -> None:
        nonlocal tracing
        if not tested and batch == 0:
            tracing = training.lap()

    def after_epoch(epoch: int, logs: Any) -> None:
        _, accuracy = network.evaluate(x_test, y_test, verbose=0)
        correct = round(accuracy * len(y_test))  # it comes as float32
        tested.append(_tested(training.seconds, correct / len(y_test)))

    def answer(epochs: int) -> dict[str, Any]:
        network.fit(
            x_train,
            y_train,
            batch_size=128,
            epochs=epochs or 15,
            validation_split=0.1,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=lambda epoch, logs: training.start(),
                    on_train_batch_end=after_batch,
                    on_test_begin=lambda logs: training.stop(),  # the held-out tenth
                    on_epoch_end=after_epoch,
                )
            ],
        )
        return {
            "library": _versions("keras", "tensorflow"),
            "epochs": tested,
            "import_seconds": imports,
            "data_seconds": loaded,
            "tracing_seconds": tracing,
        }

    return answer


def pytorch_example(*, seed: int = 1, dataset: str = "mnist") -> Training:
    """PyTorch's published example "Basic MNIST Example".

    mnist/main.py in the repository pytorch/examples, as of 2025-07: Adadelta at 1.0,
    times 0.7 after each epoch; batches of 64; 14 epochs; no accuracy is published
    with it. As written it shuffles on an accelerator only: on a CPU each epoch has the
    same order. Its settings are these to the letter. It reads each image through
    torchvision's transforms, one at a time; here the same values come from one array,
    made beforehand, which is faster. The lines it prints are spared.

    Args:
      seed: of weights and dropout; 1 as written.
      dataset: a name in data.DATASETS, with labels for its test images.
    """
    watch = Stopwatch().start()
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    imports = watch.lap()
    digits = _labelled(dataset)

    def tensors(images, labels):
        x = torch.from_numpy(images.reshape(-1, 1, 28, 28).astype(np.float32))
        y = torch.from_numpy(labels.astype(np.int64))
        return TensorDataset((x / 255 - 0.1307) / 0.3081, y)

    train_set = tensors(digits.train_images, digits.train_labels)
    test_set = tensors(digits.test_images, digits.test_labels)
    loaded = watch.lap()

    torch.manual_seed(seed)
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

    def train_epoch() -> None:
        network.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            functional.nll_loss(network(x), y).backward()
            optimizer.step()

    def accuracy() -> float:
        network.eval()
        with torch.no_grad():
            right = [(network(x).argmax(dim=1) == y).sum() for x, y in test_loader]
        return int(sum(right)) / len(test_set)

    def answer(epochs: int) -> dict[str, Any]:
        training, tested = Stopwatch(), []
        for _ in range(epochs or 14):
            training.start()
            train_epoch()
            training.stop()
            tested.append(_tested(training.seconds, accuracy()))
            schedule.step()
        return {
            "library": _versions("torch"),
            "epochs": tested,
            "import_seconds": imports,
            "data_seconds": loaded,
            "tracing_seconds": 0.0,
        }

    return answer


def _labelled(name: str) -> data.Dataset:
    """A data set whose test images have labels."""
    dataset = data.load(name)
    if dataset.test_labels is None:
        raise errors.UserError(
            f"{name} has no labels for its test images: choose another"
        )
    return dataset


def _tested(seconds: float, accuracy: float) -> dict[str, float]:
    """What is kept of an epoch: training seconds so far, and the test accuracy then."""
    return {"seconds": seconds, "accuracy": accuracy}


def _versions(*packages: str) -> str:
    return ", ".join(f"{name} {environment.version(name)}" for name in packages)


# name: maker(**settings), for benchmarks.peers.
PEERS: dict[str, Callable[..., Training]] = {
    "fast99": functools.partial(ours, flagfile="flags/fast99.flags"),
    "fast995": functools.partial(ours, flagfile="flags/fast995.flags"),
    "keras_convnet": keras_convnet,
    "pytorch_example": pytorch_example,
}
