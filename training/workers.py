# SPDX-License-Identifier: Apache-2.0
"""The workers of a run, and what they do together.

    --distribute=none           one process, one graph
    --distribute=mirrored       one process, a logical CPU for each replica
    --distribute=multi_worker   as many processes as TF_CONFIG names, on any machines

All three train the same run. Flags set the batch and the number of replicas that share
it; each worker takes its share of the replicas, with the images and random numbers that
these would get in one process.

Each worker has plain variables of its own. They start with worker 0's bits and are
updated in the same way with the same sums, so they stay equal; we compare their hashes
after each epoch. With a strategy's mirrored variables, every save would be a collective
operation, which hangs if one worker is missing. Our checkpoints are those of a single
process: worker 0 writes them, and tells the others its restored weights and its scores.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from training import rendezvous, replicas, strategies
from training.cluster import WAIT_SECONDS, ClusterError, Place

# (images, labels, indices int64 [B], seed int32 [2], training) → Part of the batch
Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, bool], replicas.Part]


class Workers:
    """All workers of a run, seen by one of them; a single process is one worker.

    Args:
      kind: one of `cluster.KINDS`.
      place: this worker's place.
      count: number of replicas of the run.
      wait_seconds: how long to wait for the other workers.

    Raises UserError if a worker does not start in time, or cannot be connected.
    """

    def __init__(
        self,
        kind: str = "none",
        place: Place = Place(),
        count: int = 1,
        wait_seconds: float = WAIT_SECONDS,
    ):
        self.kind = kind
        self.place = place
        if place.workers > 1:
            rendezvous.meet(place.addresses, place.number, wait_seconds)
        self.strategy = None if kind == "none" else strategies.start(kind, count)

    @property
    def environment(self) -> dict[str, Any]:
        """Entries for the environment in run.json; none with --distribute=none."""
        if not self.strategy:
            return {}
        return {"distribute": f"{self.kind}, {self.place.workers} workers"}

    def step(
        self,
        part_step: Callable[..., replicas.Part],
        config: Any,
        *,
        in_line: bool,
    ) -> Step:
        """Turns a step on part of a batch into a step on the whole batch.

        Args:
          part_step: function of images, labels, the arguments of a `replicas.PartStep`,
            and `training`.
          config: the run's `config.Config`.
          in_line: see `replicas.function`.
        """
        # TensorFlow lets replicas exchange statistics in the outermost function only.
        if not config.sync_batch_norm:
            part_step = replicas.function(part_step, in_line=in_line)
        run: Callable[..., replicas.Part] = replicas.run
        if self.strategy:
            run = functools.partial(strategies.run_distributed, self.strategy)
        return lambda images, labels, indices, seed, training: run(
            functools.partial(part_step, images, labels, training=training),
            indices,
            seed,
            config.replicas,
        )

    def gather(self, value: Any) -> list[Any]:
        """Collects a value of JSON types from each worker; all workers must call this.

        Returns the values by worker number, the same list on every worker.
        """
        if self.place.workers == 1:
            return [value]
        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self._stack(np.array([len(content)]))
        padded = np.pad(content, (0, lengths.max() - len(content)))
        rows: np.ndarray = self._stack(padded).astype(np.uint8)
        return [
            json.loads(row[:length].tobytes())
            for row, (length,) in zip(rows, lengths, strict=True)
        ]

    def agree(self, number: int) -> int:
        """Returns the highest of all workers' numbers; all workers must call this."""
        if self.place.workers == 1:
            return number
        return int(self._stack(np.array([number])).max())

    def follow_first(self, variables: Sequence[tf.Variable]) -> None:
        """Copies worker 0's variables to all workers, bit for bit."""
        if self.place.workers == 1:
            return
        content = b"".join(v.numpy().tobytes() for v in variables)
        numbers = np.frombuffer(content + bytes(-len(content) % 4), np.int32)
        # Summed as integers: as floats, 0 + -0 is 0, and NaNs lose their bits.
        content = self._sum(
            numbers if self.place.number == 0 else 0 * numbers
        ).tobytes()
        for v in variables:
            dtype = v.dtype.as_numpy_dtype
            value = np.frombuffer(content, dtype, v.shape.num_elements())
            v.assign(value.reshape(v.shape))
            content = content[value.nbytes :]

    def check_equal(self, variables: Sequence[tf.Variable], when: str) -> None:
        """Raises ClusterError if the variables of any two workers differ in a bit."""
        digest = hashlib.sha256()
        for v in variables:
            digest.update(v.numpy().tobytes())
        hashes = self.gather(digest.hexdigest())
        others = [n for n, theirs in enumerate(hashes) if theirs != hashes[0]]
        if others:
            raise ClusterError(
                f"the weights of worker {others[0]} differ from those of worker 0"
                f" {when}: their machines compute differently, or one is faulty; start"
                " all again on machines of one kind, and they resume from the last"
                " checkpoint"
            )

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """Raises ClusterError unless all workers are about to train the same run.

        `facts` are values of JSON types that must be equal, by names for the user. If
        some differ, all workers name the same one.
        """
        first, *others = self.gather(dict(facts))
        for number, other in enumerate(others, 1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise ClusterError(
                        f"worker {number} has {name} {other.get(name)}, but worker 0"
                        f" has {first.get(name)}: start all with the same flags,"
                        " version and data"
                    )

    def _stack(self, values: np.ndarray) -> np.ndarray:
        """Collects each worker's integers [n] into int32 [workers, n]."""
        table = np.zeros([self.place.workers, *values.shape], np.int32)
        table[self.place.number] = values
        return self._sum(table)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Adds up int32 arrays over all workers, modulo 2³²."""
        return (
            self._sum_graph(tf.constant(values.reshape(-1)))
            .numpy()
            .reshape(values.shape)
        )

    @functools.cached_property
    def _sum_graph(self) -> Callable[[tf.Tensor], tf.Tensor]:
        strategy = self.strategy
        assert strategy  # a single worker has nothing to add up

        def graph(values):
            # Copied, because TensorFlow does not know the device of an argument.
            return strategy.run(lambda: strategies.all_sum(tf.identity(values)))

        signature = [tf.TensorSpec([None], tf.int32)]
        return tf.function(graph, autograph=False, input_signature=signature)


ALONE = Workers()
