# SPDX-License-Identifier: Apache-2.0
"""Trains a network: flags → data → network → the loop.

    python train.py --flagfile=lenet.flags

Every operation of a step is in `make_train_steps`; the same command goes on where an
interrupted run stopped, bit for bit. Ctrl-C and SIGTERM save first, and leave with exit
code 130 or 143; a second Ctrl-C leaves at once.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()
    from native import compile

    compile.foresee()

from system import device  # isort: skip  (first: it loads TensorFlow)

import contextlib
import dataclasses
import math
import os
import string
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import data
import models
from augment import online, online_settings, plan
from augment.enlarged import enlarge, store
from data.dataset import empty
from evaluation import gallery, result, scoring
from models import layers
from native import ops
from system import cli, console, errors, flagfiles
from training import (
    batches,
    checkpoints,
    cluster,
    events,
    history,
    interruption,
    learning,
    losses,
    machine,
    optimizers,
    profiling,
    replicas,
    runs,
    schedules,
    summaries,
    windows,
)
from training.environment import current_environment
from training.workers import ALONE, Workers

FLAGS = flags.FLAGS

# Where things lie and how often a run speaks: everything else decides the result.
HOUSEKEEPING = (
    "augmented_dir",
    "checkpoint_epochs",
    "data_dir",
    "distribute",
    "log_steps",
    "profile_steps",
    "run_dir",
    "wait_seconds",
)

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

# Of those, what each worker of a run may have otherwise.
PLACES = ("augmented_dir", "data_dir", "run_dir", "wait_seconds")

MAX_THREADS = 1024  # TensorFlow starts all of them
HISTOGRAM_IMAGES = 32  # 65,000 activations of LeNet's first layer


class TrainingError(errors.UserError):
    """Training cannot go on."""


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


class Sets(NamedTuple):
    """uint8 images [N, 28, 28, 1] and labels [N].

    Attributes:
      train_images: enlarged, the held-out ones left out.
      train_labels: of these.
      scored: images and labels of "validation" and "test", where there are any.
      stored: the training set if it stays on disk; the two above are then empty.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]]
    stored: windows.Source | None = None

    @property
    def train_count(self) -> int:
        """How many images there are to train on."""
        return len(self.train_labels if self.stored is None else self.stored)


class Totals(NamedTuple):
    """What a call of `train_steps` returns.

    Attributes:
      step: int64 [], the next step; less than asked for if a loss or a gradient was
        not finite.
      loss: float32 [], sum of the losses of the steps.
      correct: int64 [], how many images were classified rightly.
      gradient_norms: float32 [trainable variables], of the last step.
      rate: float32 [], of the last step.
    """

    step: tf.Tensor
    loss: tf.Tensor
    correct: tf.Tensor
    gradient_norms: tf.Tensor
    rate: tf.Tensor


def load_sets(
    dataset: data.Dataset, config: Mapping[str, Any], augmented_dir: str
) -> Sets:
    """The dataset, held-out images set apart, the rest enlarged offline."""
    size, seed = config["validation_size"], config["split_seed"]
    settings, most = plan.settings_from(config), config["memory_mb"]
    train, _ = data.split(len(dataset.train_labels), size, seed)
    scored = data.scored(dataset, size, seed)
    if most:
        stored = store(dataset, settings, augmented_dir, train)
        if not windows.fits(len(stored), most):
            return Sets(empty((0, 28, 28, 1)), empty((0,)), scored, stored)
    enlarged = enlarge(dataset, settings, augmented_dir, train if size else None)
    return Sets(enlarged.images, enlarged.labels, scored)


class State(NamedTuple):
    """All that training changes, and the checkpoint that holds it together.

    Attributes:
      network: that is trained.
      average: of its weights, if there is to be one.
      optimizer: with its slots.
      watch: of the validation accuracy.
      best: what was scored best so far, with --keep_best.
      checkpoint: of all these.
    """

    network: tf.Module
    average: tf.Module | None
    optimizer: optimizers.Optimizer
    watch: schedules.Watch
    best: tf.Module | None
    checkpoint: tf.train.Checkpoint

    @property
    def scored(self) -> tf.Module:
        """What is scored: the weight average if there is one."""
        return self.average or self.network

    @property
    def variables(self) -> list[tf.Variable]:
        """Of all parts."""
        parts = (self.network, self.average, self.optimizer, self.watch, self.best)
        return [v for part in parts if part for v in part.variables]


def build_state(config: Mapping[str, Any]) -> State:
    """The network, its weight average and best if there are to be, its optimizer."""
    network, watch = models.build(config), schedules.Watch()
    average = models.build(config) if config["weight_average"] else None
    best = models.build(config) if config["keep_best"] else None
    optimizer = optimizers.build(
        config,
        network.trainable_variables,
        average.trainable_variables if average else (),
    )
    checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer, watch=watch)
    if average:
        checkpoint.average = average
    if best:
        checkpoint.best = best
    return State(network, average, optimizer, watch, best, checkpoint)


def make_augment(
    config: Mapping[str, Any],
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The configured online augmentation: uint8 [N, 28, 28, 1], step seed → the same.

    The step seed, int32 [2], also seeds dropout, which keeps clear of these numbers:
    see models.layers.mask_seed.
    """
    settings = online_settings.settings_from(config)
    return lambda images, seed: online.transform(
        images, seed + [0, layers.MASKS << 28], settings
    )


def make_train_steps(
    state: State,
    images: tf.Tensor,
    labels: tf.Tensor,
    config: Mapping[str, Any],
    epoch_steps: int,
    workers: Workers = ALONE,
) -> Callable[..., Totals]:
    """Builds the training loop as one graph.

    Args:
      state: the network that is trained. Its average, if any, follows its weights and
        batch-norm averages.
      images: uint8 [N, 28, 28, 1], on the device.
      labels: uint8 [N].
      config: the run's flags.
      epoch_steps: length of an epoch, for the schedule.
      workers: that share each batch.

    Returns:
      train_steps(first, count, training=False) → Totals: takes `count` steps from
      step `first` on. `training` is the placeholder of the write-up. Named `images`
      and `labels`, of the same shapes, take the place of those here.
    """
    sample = batches.SAMPLERS[config["sampler"]]
    augment = make_augment(config)
    schedule = schedules.build(
        config,
        state.watch,
        total_steps=config["epochs"] * epoch_steps,
        epoch_steps=epoch_steps,
    )
    loss_function = losses.LOSSES[config["loss"]]
    network, optimizer = state.network, state.optimizer
    weights = network.trainable_variables
    slow_and_fast = []  # of batch norm; those of the weights are the optimizer's
    if state.average:
        pairs = zip(state.average.variables, network.variables, strict=True)
        slow_and_fast = [(slow, fast) for slow, fast in pairs if not fast.trainable]
    seed, batch_size = config["seed"], config["batch_size"]

    moving_averages: list[tf.Variable] = []  # filled when `part_step` is traced

    def part_step(images, labels, indices, seed, share, training):
        x = augment(tf.gather(images, indices), seed)  # [part of B, 28, 28, 1]
        y = tf.gather(labels, indices)  # [part of B]
        with tf.GradientTape() as tape:
            logits, update_ops = network(x, training=training, seed=seed)
            loss = share * loss_function(logits, y, config["label_smoothing"])
        gradients = tape.gradient(loss, weights)
        moving_averages[:] = [average for average, _ in update_ops]
        averages = [value for _, value in update_ops]
        return replicas.Part(loss, losses.correct(logits, y), gradients, averages)

    batch_step = workers.step(
        part_step,
        config["replicas"],
        sync=bool(config.get("sync_batch_norm")),
        in_line=getattr(network, "native_pools", False),
    )

    def train_step(images, labels, step, training):
        indices = sample(seed, step, batch_size, labels.shape[0])  # [B]
        step_seed = tf.stack([seed, tf.cast(step, tf.int32)])
        loss, correct, gradients, averages = batch_step(
            images, labels, indices, step_seed, training
        )
        rate = config["learning_rate"] * schedule(step)
        norms = optimizer.apply(gradients, step=step, rate=rate)
        for moving_average, value in zip(moving_averages, averages, strict=True):
            moving_average.assign(value)
        for slow, fast in slow_and_fast:
            slow.assign(
                optimizers.weight_average(
                    slow, fast, step=step, decay=config["weight_average"]
                )
            )
        return loss, correct, norms, rate

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([], tf.int64, name="first"),
            tf.TensorSpec([], tf.int64, name="count"),
            tf.TensorSpec([], tf.bool, name="training"),
            tf.TensorSpec(images.shape, tf.uint8, name="images"),
            tf.TensorSpec(labels.shape, tf.uint8, name="labels"),
        ],
    )
    def graph(first, count, training, images, labels):
        # Decided once: each step and layer knows whether it trains, and so may take the
        # operations that are made for it.
        return tf.cond(
            training,
            lambda: loop(first, count, images, labels, training=True),
            lambda: loop(first, count, images, labels, training=False),
        )

    def loop(first, count, images, labels, training):
        def body(so_far):
            loss, correct, norms, rate = train_step(
                images, labels, so_far.step, training
            )
            loss, correct = so_far.loss + loss, so_far.correct + correct
            return (Totals(so_far.step + 1, loss, correct, norms, rate),)

        zero, none = tf.constant(0.0), tf.constant(0, tf.int64)
        start = Totals(first, zero, none, tf.zeros([len(weights)]), zero)

        def go_on(so_far):
            health = so_far.loss + tf.reduce_sum(so_far.gradient_norms)
            return (so_far.step < first + count) & tf.math.is_finite(health)

        return tf.while_loop(
            go_on,
            body,
            [start],
            parallel_iterations=1,  # a step begins when the one before has assigned
        )[0]

    def train_steps(first, count, training=False, images=images, labels=labels):
        return graph(
            tf.constant(first, tf.int64),
            tf.constant(count, tf.int64),
            tf.constant(training),
            images,
            labels,
        )

    graph.get_concrete_function()  # traced now, so that no one's clock counts it
    return train_steps


@dataclasses.dataclass
class Progress:
    """How far a run has come; a checkpoint keeps all of it.

    Attributes:
      step: steps taken.
      loss: sum of the losses of the steps of this epoch.
      correct: images of this epoch that were classified rightly.
      seconds: spent in the graph.
    """

    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= number < math.inf for number in dataclasses.astuple(self)):
            raise ValueError("a number that counts nothing")

    def add(self, totals: Totals, elapsed: float) -> None:
        """Takes in a call of the graph."""
        self.step = int(totals.step)
        self.loss += float(totals.loss)
        self.correct += int(totals.correct)
        self.seconds += elapsed

    def end_epoch(self, epoch_steps: int, batch_size: int) -> dict[str, float]:
        """What metrics.csv gets of the epoch; the sums begin anew."""
        row = {
            "step": self.step,
            "images": self.step * batch_size,
            "seconds": self.seconds,
            "train_loss": self.loss / epoch_steps,
            "train_accuracy": self.correct / (epoch_steps * batch_size),
        }
        self.loss, self.correct = 0.0, 0
        return row


def train(
    config: Mapping[str, Any],
    sets: Sets,
    run_dir: Path,
    *,
    log_steps: int = 100,
    checkpoint_epochs: int = 1,
    profile_steps: tuple[int, int] | None = None,
    asked_to_stop: Callable[[], int] = lambda: 0,
    workers: Workers = ALONE,
) -> scoring.Predict:
    """Trains to the end of the last epoch, from the last checkpoint if there is one.

    Args:
      config: the flags that decide the result.
      sets: training, validation and test data.
      run_dir: gets checkpoints, metrics.csv and TensorBoard events.
      log_steps: steps per call of the graph.
      checkpoint_epochs: epochs between checkpoints.
      profile_steps: see `profiling.parse`.
      asked_to_stop: asked before each call of the graph; the number of a signal, 0 to
        go on. All workers are to get the same answer.
      workers: that train the run together. Each has a directory of its own.

    Returns:
      The trained network's graph, with the weights that are to be scored.

    Raises:
      TrainingError: a loss or a gradient became NaN or infinite.
      ClusterError: the workers' weights are not equal.
      interruption.Stopped: it was asked to, and has saved.
      data.DataError: a set that stays on disk is damaged.
      CheckpointError, RunError: the directory cannot be written, or holds a run whose
        checkpoints cannot be used.
    """
    state = build_state(config)
    predict = scoring.Predict(state.scored)
    batch_size = config["batch_size"]
    epoch_steps, total_steps = schedules.count_steps(config, sets.train_count)
    splits = ["train", *sets.scored]
    at, rows, lengths = _resume(state, config, run_dir, sets.scored, epoch_steps)
    at = Progress(**workers.gather(dataclasses.asdict(at))[0])
    workers.follow_first(state.variables)
    if at.step == total_steps or _stopped_early(config, state.watch):
        print(f"{run_dir} is trained to its last step, {at.step:,}")
        _take_best(state)
        return predict
    if at.step:
        print(f"resuming {run_dir} from step {at.step:,}")

    training_set = sets.train_images, sets.train_labels, sets.stored
    with (
        windows.feed(*training_set, config, total_steps) as feed,
        summaries.Summaries(run_dir, splits, lengths) as log,
        profiling.Profile(profile_steps, run_dir / "train") as profile,
        _bar(at.step * batch_size, total_steps * batch_size, workers) as bar,
    ):
        images, labels, _ = feed.at(at.step)
        train_steps = make_train_steps(
            state, images, labels, config, epoch_steps, workers
        )
        if at.step == 0:
            log.start(config, predict.graph, _some_inputs(config, images))
        saved = at.step
        judge = learning.Judge(labels.numpy(), config, epoch_steps * batch_size)
        for epoch in range(at.step // epoch_steps, config["epochs"]):
            bar.set_description(f"epoch {epoch}")
            end = (epoch + 1) * epoch_steps
            while at.step < end:
                if signal := asked_to_stop():
                    if at.step > saved:
                        feed.verified()
                        _save(state, config, run_dir, at, log)
                    raise _stopped(
                        at.step, signal, cluster.resume_command(workers.place, run_dir)
                    )
                profile.begin(at.step)
                began = time.perf_counter()
                images, labels, window_end = feed.at(at.step)
                count = min(log_steps, end - at.step, window_end - at.step)
                count = profile.cut(at.step, count)
                totals = train_steps(at.step, count, True, images, labels)
                _check_finite(totals, state.network, run_dir)  # waits for the step
                elapsed = time.perf_counter() - began
                at.add(totals, elapsed)
                profile.finish(at.step)
                log_call(log, bar, totals, count, batch_size, elapsed)
                if not rows and at.step == count:
                    since_start = time.perf_counter() - console.START
                    bar.write(f"step {count} done {since_start:.1f} s after the start")
            row = {
                "epoch": epoch,
                **at.end_epoch(epoch_steps, batch_size),
                "learning_rate": float(totals.rate),
                **_evaluate(predict, sets, config["loss"], log, epoch),
            }
            row = workers.gather(row)[0]  # one score, whatever the machines
            rows.append(row)
            bar.write(_describe(row))
            log_epoch(log, state.network, row, totals, feed.first(HISTOGRAM_IMAGES))
            history.write(run_dir, rows)
            _watch(config, state, row)
            workers.check_equal(state.variables, f"at step {at.step:,}")
            stop = _stopped_early(config, state.watch)
            if (epoch + 1) % checkpoint_epochs == 0 or at.step == total_steps or stop:
                feed.verified()
                _save(state, config, run_dir, at, log)
                saved = at.step
            fault = judge.judge(row, last=stop or at.step == total_steps)
            if fault and workers.place.number == 0:
                with bar.external_write_mode(file=sys.stderr):
                    console.warn(fault)
            if stop:
                bar.write("stopped early: the validation accuracy gets no better")
                break
    _take_best(state)
    return predict


def _bar(done: int, total: int, workers: Workers) -> tqdm:
    """Counts images, on worker 0."""
    return tqdm(
        initial=done,
        total=total,
        unit="img",
        unit_scale=True,
        dynamic_ncols=True,
        disable=workers.place.number > 0,
    )


def _some_inputs(config: Mapping[str, Any], images: tf.Tensor) -> np.ndarray:
    """A hundred training images as the network is fed them, uint8 [100, 28, 28, 1]."""
    some = np.random.default_rng(0).integers(len(images), size=100)
    seed = tf.zeros([2], tf.int32)
    return make_augment(config)(tf.gather(images, some), seed).numpy()


def _resume(
    state: State,
    config: Mapping[str, Any],
    run_dir: Path,
    scored: Iterable[str],
    epoch_steps: int,
) -> tuple[Progress, list[dict[str, float]], dict[str, int]]:
    """Goes back to the last checkpoint; at the very start of a run, saves one.

    That one comes before all else, so that whatever else there is shows that there
    was a checkpoint: a run that has lost it is never begun again in silence.

    Returns:
      How far the run has come, its row of each epoch up to there, and the length of
      each split's events there.
    """
    folder = run_dir / checkpoints.FOLDER
    with contextlib.suppress(OSError):  # saving will say so, if there is need
        checkpoints.tidy(folder)
    step = checkpoints.restore(state.checkpoint, folder, config)
    if step is not None:
        progress = checkpoints.progress(folder, step)
        lengths = progress.pop("events", {})
        try:
            at = Progress(step, **progress)
            lost = events.lost(run_dir, lengths)
        except (TypeError, ValueError) as error:
            raise checkpoints.CheckpointError(
                f"{checkpoints.path(folder, step)} is not of this version ({error}):"
                " train again in another --run_dir"
            ) from None
        columns = history.columns(scored)
        rows = history.epochs(run_dir, step, columns, epoch_steps)
        for split in lost:
            console.warn(
                f"{run_dir / split} has lost TensorBoard's events from before step"
                f" {step:,}, and its curves lack them; nothing else depends on them"
            )
        return at, [{name: row[name] for name in columns} for row in rows], lengths
    for name in runs.TRACES:
        if (run_dir / name).exists():
            raise checkpoints.CheckpointError(
                f"{run_dir} holds a run, for there is {name}, but {folder} no"
                " checkpoint: put one back, or train again in another --run_dir"
            )
    at = Progress()
    _save(state, config, run_dir, at)
    return at, [], {}


def _save(
    state: State,
    config: Mapping[str, Any],
    run_dir: Path,
    at: Progress,
    log: summaries.Summaries | None = None,
) -> None:
    """A checkpoint, with what else the loop needs to go on as if never stopped."""
    progress = {**dataclasses.asdict(at), "events": log.flush() if log else {}}
    step = progress.pop("step")
    folder = run_dir / checkpoints.FOLDER
    checkpoints.save(state.checkpoint, folder, step, config, progress)


def _stopped(step: int, signal: int, resume: str) -> interruption.Stopped:
    return interruption.Stopped(
        f"stopped at step {step:,}, which is saved; to resume: {resume}", signal
    )


def log_epoch(
    log: summaries.Summaries,
    network: tf.Module,
    row: Mapping[str, float],
    totals: Totals,
    images: tf.Tensor,
) -> None:
    """TensorBoard after an epoch; the activations are those of `images`."""
    log.epoch(row)
    taps: dict[str, tf.Tensor] = {}
    network(images, training=False, taps=taps)
    log.network(int(row["epoch"]), network, totals.gradient_norms, taps)
    log.flush()


def _watch(config: Mapping[str, Any], state: State, row: Mapping[str, float]) -> None:
    """What the validation accuracy after an epoch decides: rate, best weights."""
    if "validation_accuracy" not in row:
        return
    better = state.watch.update(row["validation_accuracy"])
    if config["schedule"] == "plateau":
        state.watch.plateau(
            config["plateau_patience"],
            config["decay_factor"],
            config["plateau_floor"] / config["learning_rate"],
        )
    if better and state.best:
        _copy(state.scored, state.best)


def _stopped_early(config: Mapping[str, Any], watch: schedules.Watch) -> bool:
    patience = config["early_stopping"]
    return bool(patience and watch.waited >= patience)


def _take_best(state: State) -> None:
    """Goes back to the best weights, if those are to be scored."""
    if state.best:
        _copy(state.best, state.scored)


def _copy(source: tf.Module, target: tf.Module) -> None:
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(value)


def _check_finite(totals: Totals, network: tf.Module, run_dir: Path) -> None:
    """Raises TrainingError if the last steps were the ruin of the network."""
    if not np.isfinite(totals.loss):
        offence = "the loss"
    elif not np.isfinite(totals.gradient_norms).all():
        offence = "a gradient"
    elif not np.isfinite(tf.linalg.global_norm(network.variables)):
        offence = "a weight"
    else:
        return
    folder = run_dir / checkpoints.FOLDER
    kept = checkpoints.steps(folder)
    last = checkpoints.path(folder, kept[-1]) if kept else "none yet"
    raise TrainingError(
        f"{offence} became NaN or infinite at step {int(totals.step) - 1} of"
        f" {run_dir}; last good checkpoint: {last}; try a lower --learning_rate in"
        " another --run_dir"
    )


def log_call(
    log: summaries.Summaries,
    bar: tqdm,
    totals: Totals,
    count: int,
    batch_size: int,
    elapsed: float,
) -> None:
    """Progress bar and TensorBoard after `count` steps that took `elapsed` seconds."""
    loss = float(totals.loss) / count
    accuracy = int(totals.correct) / (count * batch_size)
    bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.2%}", refresh=False)
    bar.update(count * batch_size)
    log.steps(
        int(totals.step),
        {
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": totals.rate,
            "images_per_second": count * batch_size / elapsed,
            "gradient_norm": float(np.linalg.norm(totals.gradient_norms)),
        },
    )


def _evaluate(
    predict: scoring.Predict,
    sets: Sets,
    loss: str,
    log: summaries.Summaries,
    epoch: int,
) -> dict[str, float]:
    """Loss and accuracies on the validation and the test set, where there is one.

    TensorBoard gets the digits that are misread.
    """
    row = {}
    for split, (images, labels) in sets.scored.items():
        scores = scoring.score(predict, images, labels, loss)
        log.errors(epoch, split, gallery.draw(images, scores))
        row[f"{split}_loss"] = scores.loss
        row[f"{split}_accuracy"] = scores.accuracy
        row[f"{split}_binary_accuracy"] = scores.binary_accuracy
    return row


def _describe(row: Mapping[str, float]) -> str:
    figures = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in row.items()
        if name.endswith(("loss", "accuracy")) and "binary" not in name
    ]
    return f"epoch {row['epoch']:3d}  {'  '.join(figures)}  {row['seconds']:.0f} s"


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
        raise TrainingError(
            f"--run_dir={values['run_dir']}: braces may hold the name of a flag only,"
            " such as {seed}; --replicas, --kernels and --threads only if they are set"
        ) from None


def main(_: list[str]) -> None:
    """Trains the run that the flags describe, and scores it."""
    kind = FLAGS.distribute
    tf_config = os.environ.get("TF_CONFIG")
    if not FLAGS["distribute"].present:
        cluster.check_alone(tf_config)
    place = cluster.place(kind, tf_config)
    alone = place.workers == 1
    signals = contextlib.nullcontext() if alone else interruption.Departure()
    with cluster.quiet_unless_first(place), signals:
        run_flags = FLAGS.get_key_flags_for_module(sys.argv[0])
        values: dict[str, Any] = {flag.name: flag.value for flag in run_flags}
        run_dir = _run_dir(values)
        left = [name for name in machine.CHOICES if not values[name]]
        if begun := machine.begun(run_dir):
            values |= machine.keep(values, models.options(values), begun)
        else:
            values |= choose(values, place)
        # Written out, so that another version's defaults cannot change their meaning.
        values |= models.options(values) | optimizers.options(values)
        for flag in run_flags:
            flag.value = values[flag.name]
        cluster.check(kind, place, values)
        threads = machine.threads(begun) if begun else 0
        threads = values["threads"] or threads or place.cores()
        device.set_threads(threads, values["replicas"] // place.workers)
        workers = Workers(kind, place, values["replicas"], values["wait_seconds"])
        lines = {f.name: flagfiles.line(f.serialize()) for f in run_flags}
        del lines["run_dir"]  # that which flags.txt lies in
        in_force = {**values, "threads": threads}
        chosen = {name: in_force[name] for name in left if in_force[name]}
        with cluster.reporting_lost_workers(place, run_dir):
            run(values, runs.flags_text(lines, left), chosen, run_dir, workers)


def run(
    values: Mapping[str, Any],
    flags_text: str,
    chosen: Mapping[str, Any],
    run_dir: Path,
    workers: Workers,
) -> None:
    """Trains and scores a run.

    Args:
      values: of all flags, by name.
      flags_text: for flags.txt.
      chosen: those of the values that the machine chose.
      run_dir: of the run.
      workers: that train it.
    """
    config = {k: v for k, v in values.items() if k not in HOUSEKEEPING}
    if values["deterministic"]:
        tf.config.experimental.enable_op_determinism()
    with cluster.own_directory(workers.place, run_dir) as run_dir, runs.lock(run_dir):
        # First what the directory alone can refuse: the data may take minutes.
        runs.check_settings(run_dir, config)
        finished = result.finished(run_dir)
        if workers.agree(bool(finished)):
            print(f"{finished}; to score it again: {_score_command(run_dir, values)}")
            return
        if (run_dir / runs.RUN).exists():
            machine.resume(run_dir, values["kernels"], chosen)
        began = time.perf_counter()
        dataset = data.load(values["dataset"], values["data_dir"])
        sets = load_sets(dataset, config, values["augmented_dir"])
        schedules.count_steps(config, sets.train_count)  # refuses before a run is made
        data_seconds = time.perf_counter() - began
        print(
            f"{dataset.name}: {dataset.source}; {sets.train_count:,} images to train"
            f" on after {data_seconds:.1f} s"
        )
        kernels = machine.settle(values["kernels"], chosen)
        if kernels != values["kernels"]:
            values, config, chosen = (
                {**given, "kernels": kernels} for given in (values, config, chosen)
            )
            flags_text = flags_text.replace(
                "\n--kernels=native\n", f"\n--kernels={kernels}\n"
            )
        facts = {
            "chosen": dict(chosen),
            "data": dict(dataset.hashes),
            "data_seconds": data_seconds,
            "environment": current_environment() | workers.environment,
        }
        del dataset  # with its training images, which an enlarged set has, too
        workers.check_alike(
            {
                "version": cli.VERSION,
                "TensorFlow": tf.__version__,
                "files": facts["data"],
                "training images": sets.train_count,
                **{f"--{k}": v for k, v in values.items() if k not in PLACES},
            }
        )
        runs.open_run(run_dir, config, flags_text, facts)
        train_and_score(values, config, sets, run_dir, workers)


def _score_command(run_dir: Path, values: Mapping[str, Any]) -> str:
    data_dir = [f"--data_dir={values['data_dir']}"] if values["data_dir"] else []
    return console.command("eval.py", f"--run_dir={run_dir}", *data_dir)


def train_and_score(
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    sets: Sets,
    run_dir: Path,
    workers: Workers,
) -> None:
    """What `run` does once the run directory and the data are there."""
    with interruption.Interruption() as asked:
        predict = train(
            config,
            sets,
            run_dir,
            log_steps=values["log_steps"],
            checkpoint_epochs=values["checkpoint_epochs"],
            profile_steps=profiling.parse(values["profile_steps"]),
            asked_to_stop=lambda: workers.agree(asked.received),
            workers=workers,
        )
        signal = workers.agree(asked.received)
    if signal:  # in the last epoch
        raise interruption.Stopped(
            f"stopped with {run_dir} trained to its last step; to score it:"
            f" {cluster.resume_command(workers.place, run_dir)}",
            signal,
        )
    if sets.scored and workers.place.number == 0:
        result.evaluate(run_dir, predict, sets.scored)
    elif not sets.scored:
        print("nothing to score: the test set has no labels, and none were held out")
    workers.agree(0)  # that the score is written


if __name__ == "__main__":
    define_flags()
    cli.run(main, groups=FLAG_GROUPS)
