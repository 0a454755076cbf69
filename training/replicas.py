# SPDX-License-Identifier: Apache-2.0
"""Replicas: parts of a batch that are trained on side by side, in one graph.

Our networks are so small that a second thread inside an operation saves next to
nothing. So we cut a batch into parts. Each part goes through the same weights on its
own thread, and the gradients are added up. The network knows nothing of it. Batch norm
takes its statistics over a replica's part of the batch, and the moving averages become
the mean over the replicas; with one replica, batch norm is exact. Everything else
computes the same for any number of replicas.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

# With fewer images, an operation takes longer to start than to run.
MIN_IMAGES_PER_REPLICA = 16


class Part(NamedTuple):
    """Result of a step on part of a batch."""

    # float32 [], mean over the part's images, times the part's share of the batch
    loss: tf.Tensor
    correct: tf.Tensor  # int64 [], number of images classified correctly
    gradients: Sequence[tf.Tensor]  # gradients of that loss, of the weights that change
    averages: Sequence[tf.Tensor]  # next value of each moving average


# (indices int64 [part of B], seed int32 [2], share of the batch float32 []) → Part
PartStep = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Part]


def choose(config: Any, cores: int, workers: int = 1) -> int:
    """Number of replicas: --replicas, or a fast choice if that is 0.

    The choice is one per thread, the same number on each worker, with at least
    `MIN_IMAGES_PER_REPLICA` images each. There is a thread per core, unless --threads
    is given.
    """
    if config.replicas:
        return config.replicas
    threads = config.threads or cores
    batch_size = config.batch_size // workers
    return workers * max(1, min(threads, batch_size // MIN_IMAGES_PER_REPLICA))


def sizes(batch_size: int, replicas: int) -> list[int]:
    """Number of images for each replica; they differ by at most one."""
    smaller, larger_ones = divmod(batch_size, replicas)
    return [smaller + 1] * larger_ones + [smaller] * (replicas - larger_ones)


def function(step: Callable[..., Part], *, in_line: bool) -> Callable[..., Part]:
    """Turns a step on part of a batch into a `tf.function`, traced once for all parts.

    Args:
      step: function of the arguments of `PartStep`, and others that replicas share.
      in_line: whether to inline it, which saves a twentieth of a step. Must be False
        with TensorFlow's max pool: in a loop's cyclic graph, whether its gradient goes
        to oneDNN depends on the order in which TensorFlow visits the nodes, and about
        one graph in forty differed from the others in the last bits.
    """
    return tf.function(
        step,
        autograph=False,
        experimental_attributes={"_noinline": not in_line},
    )


def split(
    indices: tf.Tensor, seed: tf.Tensor, replicas: int
) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
    """Splits a batch: the indices, the seed and the share of each replica.

    Arguments: see `run`.
    """
    batch_size = indices.shape[0]
    counts = sizes(batch_size, replicas)
    shares = [tf.constant(count / batch_size) for count in counts]
    fold = tf.random.experimental.stateless_fold_in
    seeds = [seed] + [fold(seed, number) for number in range(1, replicas)]
    return tf.split(indices, counts), seeds, shares


def run(
    step: PartStep,
    indices: tf.Tensor,
    seed: tf.Tensor,
    replicas: int,
    own: range | None = None,
) -> Part:
    """Takes a step on a batch, or on the parts that belong to some replicas.

    Args:
      step: takes a step on part of the batch; best made by `function`, to be traced
        only once for all parts of one size.
      indices: int64 [B], the images of the batch; B is static.
      seed: int32 [2], the step's seed. Replica 0 gets it as it is, the others with
        their number folded in.
      replicas: number of replicas, 1 to B.
      own: numbers of the replicas to run here; None: all.

    Returns:
      Sums of the parts' losses, counts and gradients, and the mean of each moving
      average, weighted by the parts' shares. If `own` does not name all replicas, these
      are contributions to the batch's.
    """
    with tf.name_scope("split"):
        pieces, seeds, shares = split(indices, seed, replicas)
    if own is not None:
        pieces, seeds, shares = (
            [values[n] for n in own] for values in (pieces, seeds, shares)
        )
    parts = list(map(step, pieces, seeds, shares))
    with tf.name_scope("add_up"):
        return parts[0] if replicas == 1 else _add_up(parts, shares)


def _add_up(parts: Sequence[Part], shares: Sequence[tf.Tensor]) -> Part:
    losses, corrects, gradients, averages = zip(*parts, strict=True)
    # Not `tf.add_n` for the losses. With inlined parts on MNIST, TensorFlow merged it
    # with the loop's total into one sum and made an AssignAdd of each summand. These
    # run in whatever order they become ready, so the bits differed from run to run. We
    # believe that TensorFlow's memory optimizer may do this to any sum of three or more
    # tensors, once it estimates that a graph takes over four fifths of a CPU's 256 MB.
    return Part(
        tf.reduce_sum(tf.stack(losses)),
        tf.add_n(corrects),
        [tf.add_n(of_weight) for of_weight in zip(*gradients, strict=True)],
        [
            tf.add_n([v * share for v, share in zip(values, shares, strict=True)])
            for values in zip(*averages, strict=True)
        ],
    )
