# SPDX-License-Identifier: Apache-2.0
"""The settings of a run: their flags, and what a machine adds to them."""

import dataclasses
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

import data
import models
from augment import online_settings, plan
from native import ops
from system import cli, errors, flagfiles
from training import (
    batches,
    cluster,
    losses,
    machine,
    optimizers,
    profiling,
    replicas,
    runs,
    schedules,
    settings,
    windows,
)

FLAGS = flags.FLAGS

# For --help; what is in no group comes last.
FLAG_GROUPS: cli.Groups = {
    "What matters most": (
        *("network", "dataset", "data_dir", "run_dir", "seed", "epochs", "batch_size"),
        *("learning_rate", "schedule", "validation_size", "threads"),
    ),
    "Training": (
        *("optimizer", "momentum", "rho", "epsilon", "weight_decay", "weight_average"),
        *("loss", "label_smoothing", "sampler", "epoch_images", "decay_factor"),
        *("decay_epochs", "plateau_patience", "plateau_floor", "early_stopping"),
        *("keep_best", "split_seed", "replicas", "distribute", "wait_seconds"),
    ),
    "The network; what is not given is as its file in models/ has it": [
        name for name in models.OPTIONS if name != "seed"
    ],
    "The training set, enlarged once before training": [
        *(field.name for field in dataclasses.fields(plan.Settings)),
        *("augmented_dir", "memory_mb"),
    ],
    "Each batch, transformed while training": [
        field.name for field in dataclasses.fields(online_settings.OnlineSettings)
    ],
}

MAX_THREADS = 1024  # TensorFlow starts all of them


def define_flags() -> None:
    """The flags of a run; each part of it defines those of its own settings."""
    parts = (plan, online_settings, models, optimizers, schedules, profiling)
    for part in (*parts, cluster):
        part.define_flags()
        flags.adopt_module_key_flags(part)
    cli.define_path(
        "run_dir",
        "runs/{network}-s{seed}",
        "Run directory; created, or resumed if it exists. {seed} and any other flag's"
        " name in braces stands for its value. --flagfile=RUN/flags.txt stands for"
        " --run_dir=RUN too, wherever RUN is now; a --run_dir after it trains a new run"
        " with the same flags.",
    )
    flags.DEFINE_enum("dataset", "mnist", sorted(data.DATASETS), "What to train on.")
    cli.define_path("data_dir", None, "Where the data lie; default: see BUILD.md.")
    flags.DEFINE_integer(
        "validation_size",
        0,
        "Training images held out, with all their shifted and flipped copies, to make"
        " choices on; drawn at random, not stratified by class. 0 trains on all.",
        lower_bound=0,
    )
    flags.DEFINE_integer("epochs", 20, "How many to train for.", lower_bound=1)
    flags.DEFINE_integer(
        "epoch_images",
        0,
        "Images that one epoch counts; 0: as many as the (enlarged) training set has.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "batch_size", 128, "Images per step.", lower_bound=1, upper_bound=2**16
    )
    flags.DEFINE_enum(
        "sampler",
        "random",
        sorted(batches.SAMPLERS),
        "random: each image of a batch drawn at random, as in the write-up; epochs:"
        " every image once before any comes again.",
    )
    flags.DEFINE_integer(
        "memory_mb",
        0,
        "Megabytes for the images of the enlarged set: if it has more, windows of it"
        " are read from --augmented_dir while training. 0: all of it in memory.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "loss", "softmax_cross_entropy", sorted(losses.LOSSES), "What is made small."
    )
    flags.DEFINE_float(
        "weight_average",
        0.0,
        "Decay of an exponential average of the weights, which is then what is scored;"
        " in [0, 1), 0: none.",
    )
    flags.DEFINE_float(
        "label_smoothing", 0.0, "Share of the target spread over all digits, in [0, 1)."
    )
    flags.DEFINE_integer(
        "seed",
        0,
        "Of weights, batches, dropout and online augmentation.",
        lower_bound=0,
        upper_bound=2**31 - 1,
    )
    flags.DEFINE_integer(
        "split_seed",
        0,
        "Of the held-out images: apart from --seed, so that all seeds of a recipe hold"
        " out the same and can be compared.",
        lower_bound=0,
        upper_bound=plan.MAX_SEED,
    )
    flags.DEFINE_integer(
        "threads",
        0,
        "CPU threads; 0: one per core. Bits of the result depend on it.",
        lower_bound=0,
        upper_bound=MAX_THREADS,
    )
    flags.DEFINE_bool(
        "deterministic",
        False,
        "TensorFlow's op determinism: only kernels that promise the same bits, also"
        " where repeated runs have shown no others.",
    )
    flags.DEFINE_integer(
        "replicas",
        0,
        "Parts of a batch that are trained on side by side, each with batch-norm"
        " statistics of its own, those of all workers counted; 1: none, the exact"
        " variant; 0: as many as are fast.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "checkpoint_epochs", 1, "Epochs between checkpoints.", lower_bound=1
    )
    flags.DEFINE_integer(
        "log_steps", 100, "Steps per call of the graph and per log line.", lower_bound=1
    )

    cli.require_share("label_smoothing", "weight_average")
    flags.register_multi_flags_validator(
        ["batch_size", "replicas"],
        lambda values: values["replicas"] <= values["batch_size"],
        "more --replicas than --batch_size has images",
    )
    flags.register_multi_flags_validator(
        ["memory_mb", "batch_size"], cli.validator(windows.check)
    )
    flags.register_multi_flags_validator(
        ["validation_size", "schedule", "early_stopping", "keep_best"],
        _has_validation,
        "--schedule=plateau, --early_stopping and --keep_best go by the validation"
        " accuracy: set --validation_size",
    )


def _has_validation(values: Mapping[str, Any]) -> bool:
    chooses = values["schedule"] == "plateau"
    chooses = chooses or values["early_stopping"] > 0 or values["keep_best"]
    return values["validation_size"] > 0 or not chooses


def choose(
    config: Mapping[str, Any], place: cluster.Place = cluster.Place()
) -> dict[str, Any]:
    """What the flags leave to the machine: replicas and kernels. Prints the choice."""
    count = replicas.choose(config, place.cores(), place.workers)
    chosen: dict[str, Any] = {"replicas": count}
    workers = f" on {place.workers} workers" if place.workers > 1 else ""
    print(f"replicas: {count}{workers}")
    if "kernels" in models.options(config):
        reason = "as asked for" if config["kernels"] else ops.unsuited()
        if config["kernels"] == "native":
            machine.start_kernels()
        chosen["kernels"] = config["kernels"] or ("tensorflow" if reason else "native")
        if chosen["kernels"] == "native" and config.get("sync_batch_norm"):
            reason = "batch norm: tensorflow, which can be synchronised"
        print(f"kernels: {chosen['kernels']}" + (f" ({reason})" if reason else ""))
    return chosen


def from_flags(place: cluster.Place) -> settings.Settings:
    """Settings out of the program's flags; the machine chooses what they leave open.

    A run that was begun keeps what was chosen for it.

    Args:
      place: where this process stands among the workers of the run.

    Raises:
      UserError: the flags name no run that can be trained here.
    """
    run_flags = FLAGS.get_key_flags_for_module(__name__)
    values: dict[str, Any] = {flag.name: flag.value for flag in run_flags}
    run_dir = _run_dir(values)
    open_ = [name for name in machine.CHOICES if not values[name]]
    threads = 0
    if begun := machine.begun(run_dir):
        values |= machine.keep(values, models.options(values), begun)
        threads = machine.threads(begun)
    else:
        values |= choose(values, place)
    # Written out, so that another version's defaults cannot change their meaning.
    values |= models.options(values) | optimizers.options(values)
    for flag in run_flags:
        flag.value = values[flag.name]
    cluster.check(values["distribute"], place, values)
    threads = values["threads"] or threads or place.cores()
    lines = {f.name: flagfiles.line(f.serialize()) for f in run_flags}
    del lines["run_dir"]  # the directory that flags.txt lies in
    in_force = {**values, "threads": threads}
    chosen = {name: in_force[name] for name in open_ if in_force[name]}
    text = runs.flags_text(lines, open_)
    return settings.Settings(values, chosen, text, run_dir, threads)


def _run_dir(values: Mapping[str, Any]) -> Path:
    named = {**values, **models.options(values), **optimizers.options(values)}
    # What a machine chooses is no part of a name: on another it would name another run.
    named = {k: v for k, v in named.items() if values[k] or k not in machine.CHOICES}
    try:
        # Not format(), which {seed:>9999999999} and {seed.real} mean something to.
        path = ""
        for text, name, spec, kind in string.Formatter().parse(values["run_dir"]):
            if spec or kind:
                raise ValueError(spec)
            path += text + ("" if name is None else str(named[name]))
        return Path(path)
    except (KeyError, ValueError):
        raise errors.UserError(
            f"--run_dir={values['run_dir']}: braces may hold the name of a flag only,"
            " such as {seed}; --replicas, --kernels and --threads only if they are set"
        ) from None
