# SPDX-License-Identifier: Apache-2.0
"""Trains a network: settings → data → network → the loop.

    python train.py --flagfile=lenet.flags

`make_train_steps` holds every operation of a training step, `train` the loop around it.
The same command resumes an interrupted run, bit for bit. Ctrl-C and SIGTERM save first
and exit with 130 or 143; a second Ctrl-C exits at once.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()
    from native import compile

    compile.foresee()

from system import device  # isort: skip  (first: it loads TensorFlow)

import time
from collections.abc import Callable

import tensorflow as tf
from absl import flags

import data
from config import HEADINGS, Config, define_flags, from_flags
from evaluation import gallery, result, scoring, trained
from system import cli
from training import (
    batches,
    learning,
    losses,
    machine,
    optimizers,
    profiling,
    replicas,
    runs,
    schedules,
    session,
    sets,
    windows,
)
from training.log import HISTOGRAM_IMAGES, Log
from training.session import Session
from training.sets import Sets
from training.state import State, Totals
from training.workers import ALONE, Workers

FLAGS = flags.FLAGS


def make_train_steps(
    state: State,
    images: tf.Tensor,
    labels: tf.Tensor,
    config: Config,
    epoch_steps: int,
    workers: Workers = ALONE,
) -> Callable[..., Totals]:
    """Builds the training loop as one graph.

    Args:
      state: what is trained.
      images: uint8 [N, 28, 28, 1], on the device.
      labels: uint8 [N].
      config: settings of the run.
      epoch_steps: length of an epoch, for the schedule.
      workers: processes that share each batch.

    Returns:
      train_steps(first, count, training=False, images=…, labels=…) → Totals: takes
      `count` steps from step `first`. `training` is the write-up's placeholder. Other
      images and labels must have the same shapes.
    """
    network, optimizer = state.network, state.optimizer
    weights = network.trainable_variables
    sample = batches.SAMPLERS[config.sampler]
    augment = batches.make_augment(config)
    schedule = schedules.build(
        config,
        state.watch,
        total_steps=config.epochs * epoch_steps,
        epoch_steps=epoch_steps,
    )
    loss_function = losses.LOSSES[config.loss]
    averaged = state.averaged_statistics()
    seed, batch_size = config.seed, config.batch_size

    moving_averages: list[tf.Variable] = []  # filled when `part_step` is traced

    def part_step(images, labels, indices, seed, share, training):
        """Forward and backward pass of one replica's share of the batch, [b] of [B]."""
        x = augment(tf.gather(images, indices), seed)  # [b, 28, 28, 1]
        y = tf.gather(labels, indices)  # [b]
        with tf.GradientTape() as tape:
            logits, update_ops = network(x, training=training, seed=seed)
            loss = share * loss_function(logits, y, config.label_smoothing)
        gradients = tape.gradient(loss, weights)
        moving_averages[:] = [average for average, _ in update_ops]
        averages = [value for _, value in update_ops]
        return replicas.Part(loss, losses.correct(logits, y), gradients, averages)

    batch_step = workers.step(
        part_step,
        config.replicas,
        sync=bool(config.sync_batch_norm),
        in_line=getattr(network, "native_pools", False),
    )

    def train_step(images, labels, step, training):
        """One step: sample, forward and backward, then all assignments."""
        indices = sample(seed, step, batch_size, labels.shape[0])  # [B]
        step_seed = tf.stack([seed, tf.cast(step, tf.int32)])
        loss, correct, gradients, averages = batch_step(
            images, labels, indices, step_seed, training
        )
        rate = config.learning_rate * schedule(step)
        norms = optimizer.apply(gradients, step=step, rate=rate)
        for moving_average, value in zip(moving_averages, averages, strict=True):
            moving_average.assign(value)
        for slow, fast in averaged:
            decay = config.weight_average
            slow.assign(optimizers.weight_average(slow, fast, step=step, decay=decay))
        return loss, correct, norms, rate

    def loop(first, count, images, labels, training):
        """`count` steps, or up to the first that is not finite."""

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

        # One iteration at a time: a step starts once the one before has assigned.
        return tf.while_loop(go_on, body, [start], parallel_iterations=1)[0]

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
        # Decided once, outside the loop: every layer below knows whether it trains.
        return tf.cond(
            training,
            lambda: loop(first, count, images, labels, training=True),
            lambda: loop(first, count, images, labels, training=False),
        )

    def train_steps(first, count, training=False, images=images, labels=labels):
        first, count = tf.constant(first, tf.int64), tf.constant(count, tf.int64)
        return graph(first, count, tf.constant(training), images, labels)

    graph.get_concrete_function()  # trace now, so that it is not timed as a step
    return train_steps


def train(config: Config, data_sets: Sets, run: Session) -> scoring.Predict:
    """Trains to the last epoch, from the last checkpoint if there is one.

    Args:
      config: settings that decide the result.
      data_sets: training, validation and test data.
      run: where it is trained, and by whom.

    Returns:
      The trained network's graph, with the weights that are to be scored.

    Raises:
      TrainingError: a loss, gradient or weight is no longer finite.
      interruption.Stopped: a signal came, and the run is saved.
      data.DataError, CheckpointError, RunError, ClusterError: see there.
    """
    run_dir, workers, batch_size = run.run_dir, run.workers, config.batch_size
    splits = ["train", *data_sets.scored]
    state = State(config, run.record.get("config"))
    predict = scoring.Predict(state.scored)
    epoch_steps, total_steps = schedules.count_steps(config, data_sets.train_count)
    resumed = state.resume(run_dir, data_sets.scored, epoch_steps, workers)
    progress = resumed.progress
    if progress.step == total_steps or state.stopped_early():
        print(f"{run_dir} is trained to its last step, {progress.step:,}")
        state.take_best()
        return predict
    if progress.step:
        print(f"resuming {run_dir} from step {progress.step:,}")
    with (
        windows.feed(*data_sets.train, config, total_steps) as feed,
        Log(
            *(run_dir, splits, resumed, total_steps, batch_size),
            profile_steps=profiling.parse(config.profile_steps),
            quiet=workers.place.number > 0,
        ) as log,
    ):
        images, labels, _ = feed.at(progress.step)
        train_steps = make_train_steps(
            state, images, labels, config, epoch_steps, workers
        )
        if progress.step == 0:
            samples = batches.samples(config, images)
            log.summaries.start(config.deciding(), predict.graph, samples)
        judge = learning.Judge(labels.numpy(), config, epoch_steps * batch_size)
        saved = progress.step
        for epoch in range(progress.step // epoch_steps, config.epochs):
            log.begin_epoch(epoch)
            end = (epoch + 1) * epoch_steps
            while progress.step < end:
                if signal := run.signal():
                    if progress.step > saved:
                        feed.verified()
                        state.save(run_dir, progress, log.summaries)
                    saved_at = f"stopped at step {progress.step:,}, which is saved"
                    raise run.stopped(f"{saved_at}; to resume", signal)
                with log.timed(progress.step):
                    images, labels, window_end = feed.at(progress.step)
                    count = min(config.log_steps, min(end, window_end) - progress.step)
                    count = log.cut(progress.step, count)
                    totals = train_steps(progress.step, count, True, images, labels)
                    state.check_finite(totals, run_dir)  # waits for the steps
                progress.add(totals, log.seconds)
                log.steps(totals, count)
            row = {
                **progress.end_epoch(epoch, epoch_steps, batch_size),
                "learning_rate": float(totals.rate),
                **gallery.score(
                    predict, data_sets.scored, config.loss, log.summaries, epoch
                ),
            }
            row = workers.gather(row)[0]  # the same on all workers
            log.epoch(row, state.network, totals, feed.first(HISTOGRAM_IMAGES))
            stop = state.after_epoch(row)
            workers.check_equal(state.variables, f"at step {progress.step:,}")
            last = stop or progress.step == total_steps
            if last or (epoch + 1) % config.checkpoint_epochs == 0:
                feed.verified()
                state.save(run_dir, progress, log.summaries)
                saved = progress.step
            log.warn(judge.judge(row, last))
            if stop:
                log.say("stopped early: validation accuracy has stopped improving")
                break
    state.take_best()
    return predict


def main(_: list[str]) -> None:
    """Trains the run that the flags describe, and scores it."""
    given = bool(FLAGS["distribute"].present)
    with session.joined(FLAGS.distribute, given) as place:
        resolved = machine.resolve(from_flags(), place)
        config = resolved.config
        device.set_threads(resolved.threads, config.replicas // place.workers)
        with session.opened(config, place) as run:
            finished = result.finished(run.run_dir)
            if run.workers.agree(bool(finished)):
                again = runs.score_command(run.run_dir, config.data_dir)
                print(f"{finished}; to score it again: {again}")
                return
            if (run.run_dir / runs.RUN).exists():
                machine.resume(run.run_dir, config.kernels, resolved.chosen)
            start = time.perf_counter()
            dataset = data.load(config.dataset, config.data_dir)
            data_sets = sets.load(dataset, config)
            count = data_sets.train_count
            schedules.count_steps(config, count)  # refuse before a run is made
            seconds = time.perf_counter() - start
            print(
                f"{dataset.name}: {dataset.source}; {count:,} images to train on after"
                f" {seconds:.1f} s"
            )
            kernels = machine.settle(config.kernels, resolved.chosen)
            resolved = resolved.with_kernels(kernels)
            run.begin(resolved, dataset, count, seconds)
            del dataset  # its training images are in the enlarged set, too
            with run.listening():
                predict = train(resolved.config, data_sets, run)
            if data_sets.scored and place.number == 0:
                trained_run = trained.after_training(run, resolved.config, predict)
                result.evaluate(trained_run, data_sets.scored)
            elif not data_sets.scored:
                print("nothing to score: unlabelled test set, and no images held out")
            run.workers.agree(0)  # that the score is written


if __name__ == "__main__":
    define_flags()
    cli.run(main, groups=HEADINGS)
