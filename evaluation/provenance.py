# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from, in the words of report.html.

Which command trained the run, which settings are not the defaults, which weights were
scored, and what the digits that were scored had to do with the training.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from config import Config
from system import console
from training import runs


class Setting(NamedTuple):
    """A setting of a run."""

    name: str
    value: Any
    default: Any
    by_machine: bool  # whether the machine chose it


def settings(result: Mapping[str, Any]) -> tuple[list[Setting], list[Setting]]:
    """Settings that differ from their defaults, and the others.

    Those that are not set are what the network or the update rule has in their place;
    those that these do not know are left out.
    """
    config = Config.recorded(result["config"])
    own, default = config.deciding(), _default(config).deciding()
    machine = result.get("chosen", {})
    different: list[Setting] = []
    same: list[Setting] = []
    for name, value in own.items():
        if value is not None:
            entry = Setting(name, value, default[name], name in machine)
            (same if value == default[name] else different).append(entry)
    return different, same


def _default(config: Config) -> Config:
    """The defaults for a network and an update rule, which have their own, too."""
    own = Config(network=config.network, optimizer=config.optimizer).resolved()
    return dataclasses.replace(own, network=Config.network, optimizer=Config.optimizer)


def flags(result: Mapping[str, Any]) -> list[str]:
    """The flags with which train.py trains the run again, quoted for the shell.

    Those that the machine chose are left out, and so are folders, which would say where
    the run was trained.
    """
    different, _ = settings(result)
    return [console.quote(_flag(entry)) for entry in different if not entry.by_machine]


def _flag(entry: Setting) -> str:
    """--name=value, as the command line takes it."""
    if isinstance(entry.value, bool):
        return f"--{'' if entry.value else 'no'}{entry.name}"
    value = entry.value
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    return f"--{entry.name}={text}"


def describe_weights(split: str, result: Mapping[str, Any]) -> str:
    """Sentences on the weights that were scored: whose, from when, and how chosen."""
    config, epochs = Config.recorded(result["config"]), result["epochs"]
    weights = "the network"
    if config.weight_average:
        weights = (
            "the exponential average of the network’s weights"
            f" (decay {config.weight_average:g})"
        )
    if config.keep_best:
        which = "epoch {}, the one with the best validation accuracy"
    elif result["scored_epoch"] == epochs:  # the epoch after the last complete one
        which = f"step {result['steps']:,}, within epoch {{}}"
    else:
        which = "the last step, at the end of epoch {}"
    which = which.format(result["scored_epoch"])
    sentences = [f"Scored: {weights} after {which} (epochs count from 0)."]
    if init := result.get("init_sha256"):
        sentences.append(
            f"It started from weights of another run (SHA-256 {init[:8]}…)."
        )
    if taught := result.get("teachers_sha256"):
        hashes = ", ".join(f"{sha256[:8]}…" for sha256 in taught)
        sentences.append(f"It learned from other runs as its teachers ({hashes}).")
    progress = f"{epochs} of {config.epochs} epochs"
    if not result["finished"]:
        sentences.append(f"Training is unfinished: {progress} so far.")
    elif epochs < config.epochs:
        sentences.append(f"Training stopped early, after {progress}.")
    return " ".join([*sentences, describe_split(split, result)])


def describe_split(split: str, result: Mapping[str, Any]) -> str:
    """Sentences on what the images scored had to do with the training."""
    config = Config.recorded(result["config"])
    steered = config.schedule == "plateau" or config.keep_best
    steered = steered or config.early_stopping > 0
    if split == "test":
        return " ".join(_describe_test(result, config, steered))
    if steered:
        return (
            "The images scored are held-out training images, and training used their"
            " accuracy to make choices, so the figures are somewhat optimistic."
        )
    return (
        "The images scored are held-out training images: the test set of this dataset"
        " has no labels."
    )


def _describe_test(
    result: Mapping[str, Any], config: Config, steered: bool
) -> list[str]:
    """Sentences on the influence of the test images."""
    if not result["finished"]:
        return [
            "The test accuracy is that of an unfinished run: whoever stops where it"
            " looks best chooses by the test images."
        ]
    said = [
        (
            "Training made its choices by held-out images, and none by the test images."
            if steered
            else "Training made no choice by the test images."
        )
    ]
    planned = runs.identity(result)["epochs"]
    if planned != config.epochs:
        said.append(
            f"But the run was first planned for {planned} epochs, and its test"
            " accuracy was known when it was given another number: if that was the"
            " reason, the test images chose it."
        )
    if result.get("init_sha256") or result.get("teachers_sha256"):
        said.append("What the other runs were chosen by is not known here.")
    return said
