# SPDX-License-Identifier: Apache-2.0
"""Every setting of a run, declared once: type, default, help, limits.

Those of the training loop, the network and the augmentation are declared in the
settings.py of their packages, and `Config` has them all. A field is a flag of train.py,
an entry of run.json, and an attribute of the `Config` that the loop reads.
`Config(epochs=2)` in a script has the same defaults as the command line. A class is a
heading of --help. None stands for the default of the network or the update rule, or for
what the machine chooses: `training.machine` fills it in.

`setting(default, help, …)` makes a field. `system.settings.setting` explains the limits
that follow, such as `decides=False` for what cannot change the result of a run.
"""

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import flags

import augment.settings
import data
import models
import training.settings
from augment.settings import Offline, Online
from data.settings import Data
from models.settings import Network
from system import settings
from system.settings import setting
from training import profiling, rules, schedules
from training.settings import Training

MAX_THREADS = 1024  # TensorFlow starts all of them


@dataclasses.dataclass(frozen=True)
class Main:
    """What matters most"""

    network: str = setting(
        "lenet", "Network to train.", choices=sorted(models.NETWORKS)
    )
    dataset: str = setting(
        "mnist", "Data set to train on.", choices=sorted(data.DATASETS)
    )
    data_dir: str | None = setting(
        None,
        "Folder of the data; default: see BUILD.md.",
        path=True,
        decides=False,
        local=True,
    )
    run_dir: str = setting(
        "runs/{network}-s{seed}",
        "Run directory; created, or resumed if it exists. {seed} and any other flag's"
        " name in braces stands for its value. --flagfile=RUN/flags.txt stands for"
        " --run_dir=RUN too, wherever RUN is now; a --run_dir after it trains a new run"
        " with the same flags.",
        path=True,
        decides=False,
        local=True,
    )
    seed: int = setting(
        0,
        "Seed of weights, batches, dropout and online augmentation.",
        least=0,
        most=2**31 - 1,
    )
    epochs: int = setting(20, "Number of epochs.", least=1)
    batch_size: int = setting(128, "Images per step.", least=1, most=2**16)
    learning_rate: float = setting(1e-3, "Peak learning rate, above 0.", positive=True)
    schedule: str = setting(
        "constant",
        "Schedule of the learning rate. step: times --decay_factor every"
        " --decay_epochs; plateau: times --decay_factor after --plateau_patience epochs"
        " without a better validation accuracy.",
        choices=sorted(schedules.NAMES),
    )
    validation_size: int = setting(
        0,
        "Training images to hold out, with all their shifted and flipped copies, for"
        " making choices; drawn at random, not stratified by class. 0: train on all.",
        least=0,
    )
    shifts: int = setting(
        0,
        "Score the trained network once more, averaged over all shifts of an image by"
        " up to so many pixels: 9 of them for 1, 25 for 2.",
        least=0,
        most=2,
        decides=False,
    )
    threads: int = setting(
        0,
        "CPU threads; 0: one per core. The last bits of the result depend on it.",
        least=0,
        most=MAX_THREADS,
    )


@dataclasses.dataclass(frozen=True)
class Housekeeping:
    """Housekeeping"""

    checkpoint_epochs: int = setting(
        1, "Epochs between checkpoints.", least=1, decides=False
    )
    log_steps: int = setting(
        100, "Steps per call of the graph and per log line.", least=1, decides=False
    )
    profile_steps: list[str] | None = setting(
        None,
        "Steps a,b: profile from step a up to but not including b, to see where the"
        " time goes; a few dozen steps are enough. TensorBoard shows it with the extra"
        " `profile`.",
        check=profiling.parse,
        decides=False,
    )


@dataclasses.dataclass(frozen=True)
class Instead:
    """Instead of training; not settings of a run"""

    dry_run: bool = setting(
        False,
        "Print the settings that are not the defaults, the layers, the number of steps,"
        " memory and expected time; then stop. Nothing is written.",
    )
    find_rate: str | None = setting(
        None,
        "Train 400 throw-away steps while the learning rate grows from 1e-6 to 10, or"
        " until the loss diverges; draw the losses to this .png or .svg file, write"
        " them to a .csv file next to it, and suggest a rate.",
        path=True,
    )


_GROUPS = (Main, Data, Training, Network, Offline, Online, Housekeeping)
HEADINGS = settings.headings(*_GROUPS, Instead)


# Bases backwards: a dataclass takes its fields from the last of them first.
@dataclasses.dataclass(frozen=True)
class Config(Housekeeping, Online, Offline, Network, Training, Data, Main):
    """All settings of a run."""

    @classmethod
    def recorded(cls, entries: Mapping[str, Any]) -> "Config":
        """The settings that a run.json records.

        Settings newer than the run have their defaults, which change nothing: it can
        still be resumed.

        Raises:
          errors.UserError: an entry is unknown, of the wrong type, or impossible.
        """
        return settings.read(cls, entries).resolved()

    def deciding(self) -> dict[str, Any]:
        """The settings that the result depends on, with JSON types, for run.json."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name not in HOUSEKEEPING
        }

    def chosen(self) -> dict[str, Any]:
        """The deciding settings that are not the defaults, with network and rule."""
        main: dict[str, Any] = {"network": self.network, "optimizer": self.optimizer}
        default = type(self)(**main).resolved().deciding()
        own = self.deciding()
        return main | {k: v for k, v in own.items() if v != default[k]}

    def shared(self) -> dict[str, Any]:
        """The settings that all workers of a run must have in common, by flag."""
        return {f"--{k}": v for k, v in vars(self).items() if k not in LOCAL}

    def resolved(self) -> "Config":
        """The same settings, with the network's and the update rule's own defaults.

        Raises:
          UsageError: an option is set that belongs to another network or rule.
        """
        options = models.options(self.network, vars(self))
        options |= rules.options(self.optimizer, vars(self))
        return dataclasses.replace(self, **options)

    def arguments(self) -> dict[str, str]:
        """Each setting as an argument of train.py, "" if it is None, by name."""
        values = flags.FlagValues()
        define_flags(values)
        return settings.arguments(self, values)

    def checked(self) -> "Config":
        """The same settings as train.py would take them from its command line.

        Raises:
          UsageError: a value is of the wrong type, beyond its limits, or contradicts
            another.
        """
        values = flags.FlagValues()
        define_flags(values)
        settings.parse(filter(None, self.arguments().values()), values)
        return from_flags(values)


def from_flags(values: flags.FlagValues = flags.FLAGS) -> Config:
    """The settings that a command line gives."""
    return Config(**settings.values_of_flags(values, *_GROUPS))


def _named(limit: str, value: bool, default: bool) -> tuple[str, ...]:
    """Settings whose `limit` has this value; `default` if it is not declared."""
    fields = dataclasses.fields(Config)
    return tuple(f.name for f in fields if f.metadata.get(limit, default) == value)


# Settings that cannot change the result: those of `Housekeeping`, folders and so on.
HOUSEKEEPING = _named("decides", False, True)
LOCAL = _named("local", True, False)  # workers of one run may differ in them


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of a run, in `values`."""
    checks = (*training.settings.CHECKS, *augment.settings.CHECKS)
    settings.define_flags(*_GROUPS, Instead, checks=checks, values=values)
