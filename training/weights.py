# SPDX-License-Identifier: Apache-2.0
"""Weights of a trained run: to score them, or to start another run from them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import data
import models
from models import layers as network_layers
from models import whitening
from system import console, errors
from training import checkpoints, history, runs


class Trained(NamedTuple):
    """A run with at least one epoch.

    Attributes:
      record: contents of run.json.
      config: its settings.
      network: the network with the weights to score.
      step: step of the checkpoint that these come from.
    """

    record: dict[str, Any]
    config: Any
    network: tf.Module
    step: int


def load(run_dir: Path, kind: Any) -> Trained:
    """Loads the last good checkpoint of a run, whose settings are a Config, `kind`.

    Raises:
      RunError: the directory holds no run, one without a checkpoint or an epoch, a
        damaged one, or a link.
      CheckpointError: the checkpoint is damaged or belongs to another network.
    """
    runs.check_contents(run_dir)
    record = runs.read_run(run_dir)
    config = runs.settings_of(run_dir, record, kind)
    try:
        network = models.build(**vars(config), classes=len(runs.classes_of(record)))
    except (LookupError, TypeError, ValueError) as error:
        raise no_network(run_dir, error) from None
    state = tf.train.Checkpoint(**{checkpoints.scored(config): network})
    folder = run_dir / checkpoints.FOLDER
    step = checkpoints.restore(state, folder, runs.identity(record), partial=True)
    if step is None:
        raise runs.RunError(f"{run_dir} has no checkpoint yet: train it first")
    # A run writes a checkpoint before its first step, which is of no use here.
    history.some_epochs(run_dir, step)
    return Trained(record, config, network, step)


def no_network(run_dir: Path, error: Exception) -> runs.RunError:
    """Error to raise when the settings in run.json make no network."""
    return runs.RunError(
        f"{run_dir / 'run.json'} is damaged, no network can be built from it"
        f" ({errors.reason(error)}): train again"
    )


# Variables of a network, or their values, by layer and name: ["conv1"]["w"].
Layers = Mapping[str, Mapping[str, Any]]


def by_layer(network: tf.Module) -> dict[str, dict[str, tf.Variable]]:
    """The variables of a network; a batch norm counts as a layer of its own."""
    found: dict[str, dict[str, tf.Variable]] = {}
    for variable in network.variables:
        path = variable.name.partition(":")[0].partition("/")[2]  # lenet/conv1/w:0
        layer, _, name = path.rpartition("/")
        found.setdefault(layer, {})[name] = variable
    return found


def sha256(layers: Layers) -> str:
    """SHA-256 of all values with their names and shapes, in hex."""
    digest = hashlib.sha256()
    for layer, variables in sorted(layers.items()):
        for name, value in sorted(variables.items()):
            digest.update(f"{layer}/{name} {list(value.shape)}\n".encode())
            digest.update(np.ascontiguousarray(value, "<f4").tobytes())
    return digest.hexdigest()


WHITENING_IMAGES = 2_000  # 1.4 million patches of 3 × 3 pixels


class Whitened(NamedTuple):
    """Kernels that conv1 starts from, with --whiten: float32 [h, w, 1, maps].

    If the layer has more maps, the others are drawn as usual.
    """

    kernels: np.ndarray

    def assign(self, network: tf.Module) -> None:
        """Gives a network these kernels."""
        w = network.conv1.w
        w.assign(tf.concat([self.kernels, w[..., self.kernels.shape[-1] :]], -1))


def whitened(config: Any, dataset: data.Dataset) -> Whitened | None:
    """Computes the kernels for a run's `config.Config`; None without --whiten.

    They are those of the first images that are not held out. Raises UserError if the
    network has no conv1.
    """
    if not config.whiten:
        return None
    network = models.build(**vars(config), classes=len(dataset.classes))
    if not hasattr(network, "conv1"):
        raise errors.UserError(
            f"--whiten is for the kernels of conv1, but --network={config.network} has"
            " no such layer: leave it out"
        )
    count = len(dataset.train_labels)
    train, _ = data.split(count, config.validation_size, config.split_seed)
    images = dataset.train_images[train[:WHITENING_IMAGES]]
    x = network_layers.scale_pixels(network, images)
    x = network_layers.normalise_grey(x) if config.normalise_grey else x
    size, _, _, maps = network.conv1.w.shape
    return Whitened(whitening.kernels(x.numpy(), size, maps))


class Start(NamedTuple):
    """Weights that a new run starts from.

    Attributes:
      source: run directory that they are from.
      layers: float32 arrays.
      sha256: their hash, which is recorded in run.json.
    """

    source: Path
    layers: Layers
    sha256: str

    def fitting(self, network: tf.Module) -> list[str]:
        """Layers of a network with the same names and shapes here as there."""
        return [
            layer
            for layer, variables in by_layer(network).items()
            if _shapes(variables) == _shapes(self.layers.get(layer, {}))
        ]

    def assign(self, network: tf.Module) -> None:
        """Gives a network the weights of the layers that fit."""
        layers = by_layer(network)
        for layer in self.fitting(network):
            for name, variable in layers[layer].items():
                variable.assign(self.layers[layer][name])

    def describe(self, network: tf.Module) -> str:
        """Sentence on which layers are taken; UserError if none fits."""
        taken = self.fitting(network)
        new = [layer for layer in by_layer(network) if layer not in taken]
        if not taken:
            raise errors.UserError(
                f"--init_from={self.source}: none of its layers has the name and the"
                f" shapes of one of this network's ({', '.join(new)}): give a run of"
                " the same --network and --width"
            )
        drawn = f"; drawn new: {', '.join(new)}" if new else ""
        return f"init_from: {', '.join(taken)} of {self.source}{drawn}"


def _shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in variables.items()}


def read_start(run_dir: Path, kind: Any) -> Start:
    """Reads the weights of a run that are scored; errors are those of `load`."""
    network = load(run_dir, kind).network
    layers = {
        layer: {name: variable.numpy() for name, variable in variables.items()}
        for layer, variables in by_layer(network).items()
    }
    return Start(run_dir, layers, sha256(layers))


def start(run_dir: Path, config: Any) -> Start | None:
    """Weights to start a run from; None if it draws its own or has begun already.

    A run that has begun does not need the other run any more. We warn if that can still
    be read, and has other weights now.

    Args:
      run_dir: run directory; it may hold the run.
      config: settings of the run, a `config.Config`.

    Raises:
      RunError: the run in the directory did not start as --init_from says, or the other
        one cannot be read.
    """
    run = runs.read_run(run_dir) if (run_dir / runs.RUN).exists() else {}
    recorded = run.get("init_sha256")
    if run and bool(recorded) != bool(config.init_from):
        which = "another run" if recorded else "its own, not of another run"
        raise runs.RunError(
            f"{run_dir} holds a run that started from weights of {which}: choose"
            " another --run_dir for this one, or resume that one by"
            f" {runs.resume_command(run_dir)}"
        )
    if not config.init_from:
        return None
    begun = bool(checkpoints.steps(run_dir / checkpoints.FOLDER))
    try:
        found = read_start(Path(config.init_from), type(config))
    except errors.UserError:
        if begun:
            return None
        raise
    if recorded and found.sha256 != recorded:
        others = f"{run_dir} started from other weights than {config.init_from} has now"
        if not begun:
            raise runs.RunError(f"{others}: delete it, or choose another --run_dir")
        console.warn(f"{others}; its own are resumed")
    return None if begun else found
