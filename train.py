# SPDX-License-Identifier: Apache-2.0
"""Trains a network: settings → data → network → the loop.

    python train.py --flagfile=lenet.flags

`make_train_step` has every operation of a step, `make_train_steps` the loop inside the
graph, `train` the loop around it, `run` all of it, for scripts. The same command
resumes an interrupted run, bit for bit. Ctrl-C and SIGTERM save first and exit with 130
or 143; a second Ctrl-C exits now.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()
    from native import compile

    compile.foresee()  # starts the C++ compiler if native/ is likely to be needed

    import threading

    def read_ahead() -> None:
        """Reads MNIST, if that is likely to be needed, while TensorFlow loads."""
        from data import mnist

        mnist.foresee()

    threading.Thread(target=read_ahead, daemon=True).start()

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import os
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import tensorflow as tf
from absl import flags

from augment import batch
from config import HEADINGS, Config, define_flags, from_flags
from evaluation import find_rate, gallery, result, scoring, trained
from system import cli
from training import (
    batches,
    cluster,
    dry_run,
    fed,
    learning,
    losses,
    machine,
    optimizers,
    replicas,
    runs,
    schedules,
    session,
    sets,
    teachers,
)
from training.log import HISTOGRAM_IMAGES, Log
from training.session import Session
from training.state import State, Totals
from training.workers import ALONE, Workers


def make_train_step(
    state: State,
    config: Config,
    epoch_steps: int,
    workers: Workers = ALONE,
    teach: teachers.Teach | None = None,
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns train_step(images, labels, step, training): every operation of a step.

    A step returns loss [], correct [], gradient norms [weights] and learning rate [].
    The schedule depends on `epoch_steps`; the `workers` share each batch; `teach` gives
    the teachers' probabilities, if there are teachers.
    """
    network, optimizer = state.network, state.optimizer
    sample = batches.SAMPLERS[config.sampler]  # (seed, step, …) → indices of a batch
    augment = batch.from_config(config)  # the online transforms
    schedule = schedules.build(config, state.watch, epoch_steps)  # step → factor
    loss_function = losses.build(config)  # (logits, labels, …) → []
    seed, batch_size = config.seed, config.batch_size

    # A traced function returns only tensors, so `part_step` leaves the variables here.
    moving_averages: list[tf.Variable] = []

    def part_step(images, labels, indices, seed, share, training):
        """Forward and backward pass on a replica's part of the batch, b of B images."""
        with tf.name_scope("augment"):
            x, y = tf.gather(images, indices), tf.gather(labels, indices)
            x, y, kept = augment(x, y, seed)  # [b, 28, 28, 1], [b], [] or None
        with tf.name_scope("teachers"):
            taught = teach(x, indices) if teach else None  # [b, classes]
        with tf.GradientTape() as tape:
            logits, update_ops = network(x, training=training, seed=seed)
            with tf.name_scope("loss"):
                # Times b / B, so that the parts' means add up to the batch's mean.
                loss = share * loss_function(logits, y, taught, kept)
        gradients = tape.gradient(loss, state.trained)
        moving_averages[:] = [average for average, _ in update_ops]
        averages = [value for _, value in update_ops]
        return replicas.Part(loss, losses.correct(logits, y), gradients, averages)

    in_line = getattr(network, "native_pools", False)  # why: `replicas.function`
    batch_step = workers.step(part_step, config, in_line=in_line)

    def train_step(images, labels, step, training):
        with tf.name_scope("sample"):
            indices = sample(seed, step, batch_size, labels.shape[0])  # [B]
            step_seed = tf.stack([seed, tf.cast(step, tf.int32)])  # of all random draws
        loss, correct, gradients, averages = batch_step(
            images, labels, indices, step_seed, training
        )
        gradients = optimizers.clip(gradients, config.clip_norm)
        with tf.name_scope("schedule"):
            rate = config.learning_rate * schedule(step)
        with tf.name_scope("optimizer"):
            norms = optimizer.apply(gradients, step=step, rate=rate)
        with tf.name_scope("moving_averages"):
            for moving_average, value in zip(moving_averages, averages, strict=True):
                moving_average.assign(value)
            state.average_statistics(step)  # batch norm's, with --weight_average
        return loss, correct, norms, rate

    return train_step


def make_train_steps(
    state: State,
    images: tf.Tensor,
    labels: tf.Tensor,
    config: Config,
    epoch_steps: int,
    workers: Workers = ALONE,
    show: Callable[[tf.Graph], object] = lambda graph: None,
    teach: teachers.Teach | None = None,
) -> Callable[..., Totals]:
    """Builds the training loop as one graph, which it hands to `show`.

    Images are uint8 [N, 28, 28, 1] and labels integers [N], on the device. Returns
    train_steps(first, count, training=False, images=…, labels=…) → Totals, which takes
    `count` steps from step `first`. `training` is the write-up's placeholder. Other
    images and labels must have the same shapes.
    """
    train_step = make_train_step(state, config, epoch_steps, workers, teach)
    weights = len(state.trained)

    def loop(first, count, images, labels, training):
        """`count` steps, or up to the first that is not finite."""

        def body(sums):
            loss, correct, norms, rate = train_step(images, labels, sums.step, training)
            with tf.name_scope("totals"):
                loss, correct = sums.loss + loss, sums.correct + correct
                return (Totals(sums.step + 1, loss, correct, norms, rate),)

        def go_on(sums):
            health = sums.loss + tf.reduce_sum(sums.gradient_norms)  # NaN if one is
            return (sums.step < first + count) & tf.math.is_finite(health)

        zero, none = tf.constant(0.0), tf.constant(0, tf.int64)
        start = Totals(first, zero, none, tf.zeros([weights]), zero)
        # One iteration at a time: a step starts once the one before has assigned.
        return tf.while_loop(go_on, body, [start], parallel_iterations=1)[0]

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([], tf.int64, "first"),
            tf.TensorSpec([], tf.int64, "count"),
            tf.TensorSpec([], tf.bool, "training"),
            tf.TensorSpec(images.shape, tf.uint8, "images"),
            tf.TensorSpec(labels.shape, labels.dtype, "labels"),
        ],
    )
    def graph(first, count, training, images, labels):
        # Decided once, outside the loop: every layer below knows whether it trains.
        return tf.cond(
            training,
            lambda: loop(first, count, images, labels, training=True),
            lambda: loop(first, count, images, labels, training=False),
        )

    def train_steps(first, count, training=False, images=images, labels=labels):
        first, count = tf.constant(first, tf.int64), tf.constant(count, tf.int64)
        return graph(first, count, tf.constant(training), images, labels)

    # Traced now, and optimised by a call that takes no step, so that neither is timed
    # as one. Python shows the graph meanwhile.
    traced = graph.get_concrete_function().graph
    with futures.ThreadPoolExecutor(1) as pool:
        optimised = pool.submit(train_steps, 0, 0)
        show(traced)
        optimised.result()
    return train_steps


def train(config: Config, data_sets: sets.Sets, run: Session) -> scoring.Predict:
    """Trains to the last epoch, from the last checkpoint if there is one.

    Returns the trained network's graph, with the weights to score. Raises TrainingError
    if a loss, gradient or weight is no longer finite, and interruption.Stopped if a
    signal came and the run is saved.
    """
    identity = runs.identity(run.record)  # the record is run.json
    state = State(config, identity, len(data_sets.classes), run.start or run.whitened)
    predict = scoring.Predict(state.scored)
    scored = data_sets.scored
    epoch_steps, total_steps = schedules.count_steps(config, data_sets.train_count)
    resumed = state.resume(run.run_dir, scored, epoch_steps, run.workers)
    first = state.progress.step
    if first == total_steps or state.stopped_early():
        print(f"{run.run_dir} is trained to its last step, {first:,}")
        state.take_best()
        return predict
    if first:
        print(f"resuming {run.run_dir} from step {first:,}")
    with (
        sets.feed(data_sets, config, total_steps) as feed,  # all or part of the set
        Log(run, ["train", *scored], resumed, total_steps, config) as log,
    ):
        images, labels, _ = feed.at(first)
        if first == 0:
            log.summaries.start(config.deciding())
        train_steps = make_train_steps(
            *(state, images, labels, config, epoch_steps, run.workers),
            *(lambda graph: log.graph(graph, state), run.teach),
        )
        # Finds the message to warn with if the network does no better than guessing.
        judge = learning.Judge(labels.numpy(), config, epoch_steps * config.batch_size)
        for epoch in range(first // epoch_steps, config.epochs):
            log.begin_epoch(epoch)
            if (step := state.progress.step) == epoch * epoch_steps:
                window, classes = feed.at(step), data_sets.classes
                log.fed(epoch, fed.draw(config, window, step, classes))
            end = (epoch + 1) * epoch_steps
            totals = train_to(end, train_steps, state, run, feed, log)
            row = state.progress.end_epoch(epoch, epoch_steps, config.batch_size)
            row["learning_rate"] = float(totals.rate)  # a row of metrics.csv
            row |= gallery.score(predict, data_sets, config.loss, log.summaries, epoch)
            row = run.workers.gather(row)[0]  # the same on all workers
            log.epoch(row, state, totals, feed.first(HISTOGRAM_IMAGES))
            stop = state.after_epoch(row)
            step = state.progress.step
            run.workers.check_equal(state.variables, f"at step {step:,}")
            last = stop or step == total_steps
            if last or (epoch + 1) % config.checkpoint_epochs == 0:
                feed.verified()  # before we keep what was trained on it
                state.save(run.run_dir, log.summaries)
            log.warn(judge.judge(row, last))
            if stop:
                log.say("stopped early: validation accuracy has stopped improving")
                break
    state.take_best()
    return predict


def train_to(
    end: int, steps: Callable, state: State, run: Session, feed: sets.Feed, log: Log
) -> Totals:
    """Trains up to step `end`; saves and raises Stopped if a signal comes.

    `steps` is what `make_train_steps` returns. Returns the totals of its last call.
    """
    while (step := state.progress.step) < end:
        if signal := run.signal():
            feed.verified()
            state.save(run.run_dir, log.summaries)
            saved = f"stopped at step {step:,}, which is saved; to resume"
            raise run.stopped(saved, signal)
        with log.timed(step):
            images, labels, window_end = feed.at(step)
            count = log.cut(step, min(end, window_end) - step)  # to the next log line
            totals = steps(step, count, True, images, labels)
            state.check_finite(totals, run.run_dir)  # waits for the steps
        state.progress.add(totals, log.seconds)
        log.steps(totals, count)
    return totals


def run(config: Config) -> Path:
    """Trains the run that a Config describes, or resumes it, and scores it.

    It does what the command line does with the same settings, to the last bit of the
    weights if TensorFlow has not been used before in this process. Returns the run
    directory. Raises UserError, in one line, for whatever the command line refuses.
    """
    config = config.checked()
    with session.joined(config.distribute) as place:  # among the workers
        resolved = machine.resolve(config, place)  # replicas, kernels, threads
        config = resolved.config
        machine.set_threads(resolved, place)
        with session.opened(config, place) as opened:
            train_and_score(resolved, opened)
    return Path(config.run_dir)


def train_and_score(resolved: machine.Resolved, run: Session) -> None:
    """Trains and scores a run, unless that is done."""
    finished = result.finished(run.run_dir, resolved.config)
    if run.workers.agree(bool(finished)):  # only worker 0 sees the directory
        print(finished)
        return
    config, data_sets = run.begin(resolved)
    with run.listening():
        predict = train(config, data_sets, run)
    if data_sets.scored and run.workers.place.number == 0:
        trained_run = trained.after_training(run, config, predict)
        result.evaluate(trained_run, data_sets.scored)
    elif not data_sets.scored:
        print("nothing to score: unlabelled test set, and no images held out")
    run.workers.agree(0)  # waits until worker 0 has written the score


def main(_: list[str]) -> None:
    """Trains the run that the flags describe, and scores it."""
    if not flags.FLAGS["distribute"].present:
        cluster.check_alone(os.environ.get("TF_CONFIG"))
    if flags.FLAGS["dry_run"].value:
        dry_run.show(from_flags(), make_train_steps)
    elif path := flags.FLAGS["find_rate"].value:
        find_rate.run(from_flags(), path, make_train_steps)
    else:
        run(from_flags())


if __name__ == "__main__":
    define_flags()
    cli.run(main, groups=HEADINGS)
