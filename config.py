# SPDX-License-Identifier: Apache-2.0
"""Every setting of a run, declared once: type, default, help, limits.

A field is a flag of train.py, an entry of run.json, and an attribute of the `Config`
that the loop reads. `Config(epochs=2)` in a script has the same defaults as the command
line. A class is a heading of --help. None stands for the default of the network or the
update rule, or for what the machine chooses: `training.machine` fills it in.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import flags

import data
import models
from augment import plan
from augment.settings import CHECKS, Offline, Online
from models.settings import Network
from system import errors, settings
from system.settings import setting
from training import (
    batches,
    cluster,
    losses,
    optimizers,
    profiling,
    schedules,
    windows,
)

MAX_THREADS = 1024  # TensorFlow starts all of them
_MAX_EPOCHS = schedules.MAX_STEPS - 1  # no run has more epochs than steps


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
    threads: int = setting(
        0,
        "CPU threads; 0: one per core. The last bits of the result depend on it.",
        least=0,
        most=MAX_THREADS,
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """Training"""

    optimizer: str = setting("adam", "Update rule.", choices=sorted(optimizers.RULES))
    momentum: float | None = setting(None, "Momentum of SGD, in [0, 1).", share=True)
    rho: float | None = setting(
        None, "Decay of RMSprop's mean square, in [0, 1).", share=True
    )
    epsilon: float | None = setting(
        None, "Epsilon of Adam and RMSprop, above 0.", positive=True
    )
    weight_decay: float = setting(
        0.0, "Decoupled weight decay of the kernels, in [0, 1).", share=True
    )
    weight_average: float = setting(
        0.0,
        "Decay of an exponential average of the weights, which is then what is scored;"
        " in [0, 1), 0: none.",
        share=True,
    )
    loss: str = setting(
        "softmax_cross_entropy", "Training loss.", choices=sorted(losses.LOSSES)
    )
    label_smoothing: float = setting(
        0.0, "Share of the target spread over all digits, in [0, 1).", share=True
    )
    sampler: str = setting(
        "random",
        "random: each image of a batch drawn at random, as in the write-up; epochs:"
        " every image once before any comes again.",
        choices=sorted(batches.SAMPLERS),
    )
    epoch_images: int = setting(
        0, "Images per epoch; 0: as many as the training set has.", least=0
    )
    memory_mb: int = setting(
        0,
        "Megabytes for the images of the enlarged set: if it has more, windows of it"
        " are read from --augmented_dir while training. 0: all of it in memory.",
        least=0,
    )
    decay_factor: float = setting(
        0.5,
        "Factor of the schedules step and plateau, in (0, 1].",
        check=schedules.check_factor,
    )
    decay_epochs: int = setting(
        10, "Epochs between two steps of the schedule step.", least=1, most=_MAX_EPOCHS
    )
    plateau_patience: int = setting(
        3,
        "Epochs without improvement before the schedule plateau lowers the rate.",
        least=1,
        most=_MAX_EPOCHS,
    )
    plateau_floor: float = setting(
        1e-5, "Lowest rate of the schedule plateau, above 0.", positive=True
    )
    early_stopping: int = setting(
        0,
        "Stop after so many epochs without a better validation accuracy; 0: never.",
        least=0,
        most=_MAX_EPOCHS,
    )
    keep_best: bool = setting(
        False,
        "Score the weights of the epoch with the best validation accuracy instead of"
        " the last.",
    )
    split_seed: int = setting(
        0,
        "Seed of the held-out images: apart from --seed, so that all seeds of a recipe"
        " hold out the same images and can be compared.",
        least=0,
        most=plan.MAX_SEED,
    )
    replicas: int = setting(
        0,
        "Parts of a batch to train on side by side, over all workers, each with its own"
        " batch-norm statistics; 1: the exact variant; 0: as many as are fast.",
        least=0,
    )
    deterministic: bool = setting(
        False,
        "Use TensorFlow's op determinism: only kernels that promise the same bits. It"
        " costs speed, and our runs repeat without it.",
    )
    distribute: str = setting(
        "none",
        "Where the --replicas run. none: in one graph, the fastest on one machine;"
        " mirrored: each on a device of its own, in one process; multi_worker: shared"
        " by the processes that TF_CONFIG names, on any machines, as training.launch"
        " starts them.",
        choices=cluster.KINDS,
        decides=False,
    )
    wait_seconds: int = setting(
        cluster.WAIT_SECONDS,
        "How long a worker waits for the others to start.",
        least=1,
        most=10**9,
        decides=False,
        local=True,
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


_GROUPS = (Main, Training, Network, Offline, Online, Housekeeping)
HEADINGS = settings.headings(*_GROUPS)


@dataclasses.dataclass(frozen=True)
class Config(Housekeeping, Online, Offline, Network, Training, Main):
    """All settings of a run."""

    @classmethod
    def recorded(cls, entries: Mapping[str, Any]) -> "Config":
        """The settings that a run.json records.

        Those that were added after it was written have their defaults, with which the
        run was trained: a new setting makes no older run foreign.

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
        options |= optimizers.options(self.optimizer, vars(self))
        return dataclasses.replace(self, **options)


def from_flags(values: flags.FlagValues = flags.FLAGS) -> Config:
    """The settings that a command line gives."""
    return Config(**settings.values_of_flags(values, *_GROUPS))


def _named(limit: str, value: bool, default: bool) -> tuple[str, ...]:
    fields = dataclasses.fields(Config)
    return tuple(f.name for f in fields if f.metadata.get(limit, default) == value)


HOUSEKEEPING = _named("decides", False, True)  # they cannot change the result
LOCAL = _named("local", True, False)  # workers of one run may differ in them


def _check_replicas(config: Any) -> None:
    if config.replicas > config.batch_size:
        raise errors.UsageError("more --replicas than --batch_size has images")


def _check_memory(config: Any) -> None:
    if config.memory_mb:
        windows.length(config.memory_mb, config.batch_size)


def _check_held_out(config: Any) -> None:
    chooses = config.schedule == "plateau" or config.keep_best
    if (chooses or config.early_stopping) and not config.validation_size:
        raise errors.UsageError(
            "--schedule=plateau, --early_stopping and --keep_best go by the validation"
            " accuracy: set --validation_size"
        )


def _check_floor(config: Any) -> None:
    plateau = config.schedule == "plateau"
    if plateau and config.plateau_floor > config.learning_rate:
        raise errors.UsageError(
            "--plateau_floor is above --learning_rate, so that --schedule=plateau could"
            " never lower it: set a lower floor"
        )


def _check_decay(config: Any) -> None:
    if config.learning_rate * config.weight_decay >= 1:
        raise errors.UsageError(
            "--learning_rate times --weight_decay is the share that a step takes off"
            " each kernel: expected less than 1"
        )


_CHECKS: tuple[settings.Check, ...] = (
    (("batch_size", "replicas"), _check_replicas),
    (("memory_mb", "batch_size"), _check_memory),
    (("validation_size", "schedule", "early_stopping", "keep_best"), _check_held_out),
    (("schedule", "plateau_floor", "learning_rate"), _check_floor),
    (("learning_rate", "weight_decay"), _check_decay),
)


def define_flags() -> None:
    """Defines the flags of a run."""
    settings.define_flags(*_GROUPS, checks=(*_CHECKS, *CHECKS))
