# SPDX-License-Identifier: Apache-2.0
"""Replicas: parts of a batch that are trained on side by side, in one graph.

The networks here are so small that a second thread inside an operation saves next to
nothing. So a batch is cut into parts; each goes through the same weights on a thread of
its own, and the gradients are added up. A network is told nothing of it, and so batch
norm takes its statistics over a replica's part of the batch; with one replica over the
whole, which is the exact variant. The moving averages become the mean of those of the
replicas. All else is the same mathematics, whatever the number of replicas.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

# Of a replica: with fewer, an operation costs more to begin than to carry out.
LEAST_IMAGES = 16


class Part(NamedTuple):
    """What a step on a part of a batch comes to.

    Attributes:
      loss: float32 [], mean over the part's images, times the part's share.
      correct: int64 [], how many images were classified rightly.
      gradients: of that loss, one for each trainable variable.
      averages: next value of each moving average.
    """

    loss: tf.Tensor
    correct: tf.Tensor
    gradients: Sequence[tf.Tensor]
    averages: Sequence[tf.Tensor]


# (indices int64 [part of B], seed int32 [2], share of the batch float32 []) → Part
PartStep = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Part]


def choose(config: Mapping[str, Any], cores: int, workers: int = 1) -> int:
    """How many replicas a run has: as its flags say or, of 0, as many as are fast.

    That is one a thread, of `LEAST_IMAGES` at the least, and equally many on each
    worker.

    Args:
      config: the run's flags.
      cores: that the process may use: as many threads, unless the flags say otherwise.
      workers: processes that share the batch.
    """
    if config["replicas"]:
        return config["replicas"]
    threads = config["threads"] or cores
    of_worker = min(threads, config["batch_size"] // workers // LEAST_IMAGES)
    return workers * max(1, of_worker)


def sizes(batch_size: int, replicas: int) -> list[int]:
    """How many images each replica takes: they differ by one at most."""
    least, more = divmod(batch_size, replicas)
    return [least + 1] * more + [least] * (replicas - more)


def function(step: Callable[..., Part], *, in_line: bool) -> Callable[..., Part]:
    """A step on a part of a batch as one `tf.function`, traced once for all replicas.

    Args:
      step: with the arguments of `PartStep`, and others that are the same for all.
      in_line: spares a twentieth of a step, the call. But in the cyclic graph of a
        loop, whether TensorFlow gives a max pool's gradient to oneDNN depends on the
        order in which it meets the nodes, so that about one graph in forty differed
        from the others in the last bits: with a max pool of TensorFlow's, False.
    """
    return tf.function(
        step,
        autograph=False,
        experimental_attributes={"_noinline": not in_line},
    )


def run(
    step: PartStep,
    indices: tf.Tensor,
    seed: tf.Tensor,
    replicas: int,
    own: range | None = None,
) -> Part:
    """Takes a step on a batch, or on some replicas' parts of it.

    Args:
      step: takes it on a part of the batch. Best one `tf.function`, traced but once
        for parts of one size.
      indices: int64 [B], the images of the batch; B is known to the graph.
      seed: int32 [2], of the step. The first replica gets it as it is, each other one
        that folds in its number: so one replica draws what there was to draw before.
      replicas: how many; 1 to B.
      own: the numbers of those that are run here; None: of all.

    Returns:
      The sums of the parts' losses, counts and gradients; of each next moving average
      the mean, weighted by the parts' shares: a summand of it, if `own` are not all.
    """
    batch_size = indices.shape[0]
    counts = sizes(batch_size, replicas)
    shares = [tf.constant(count / batch_size) for count in counts]
    fold = tf.random.experimental.stateless_fold_in
    seeds = [seed] + [fold(seed, number) for number in range(1, replicas)]
    pieces = tf.split(indices, counts)
    if own is not None:
        pieces, seeds, shares = (
            [all_[n] for n in own] for all_ in (pieces, seeds, shares)
        )
    parts = list(map(step, pieces, seeds, shares))
    if replicas == 1:
        return parts[0]
    losses, corrects, gradients, averages = zip(*parts, strict=True)
    # Not `tf.add_n` of the losses. On MNIST, with parts in line, TensorFlow joined it
    # with the loop's total into one sum, and turned that into an AssignAdd for each
    # summand. They run in the order in which they are ready: other bits in each run. We
    # believe that its memory optimizer may do so to each sum of three or more tensors,
    # where it thinks that a graph takes more than four fifths of a CPU's 256 MB.
    return Part(
        tf.reduce_sum(tf.stack(losses)),
        tf.add_n(corrects),
        [tf.add_n(of_weight) for of_weight in zip(*gradients, strict=True)],
        [
            tf.add_n([v * share for v, share in zip(values, shares, strict=True)])
            for values in zip(*averages, strict=True)
        ],
    )
