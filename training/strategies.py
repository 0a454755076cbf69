# SPDX-License-Identifier: Apache-2.0
"""`tf.distribute` strategies: one device per replica, or several processes.

TensorFlow counts a worker as lost if its process has ended, or has shown no sign of
life for ten seconds, for example because it is suspended; a slow worker is not lost.
Each worker runs a TensorFlow server at its port in TF_CONFIG. The server obeys anyone
who can reach it, so it belongs in a private network.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from system import device, errors
from training import interruption
from training.cluster import ClusterError
from training.replicas import Part, PartStep, run

CONNECT_SECONDS = 60  # for TensorFlow's servers to connect, once all have started


def _mirrored(replicas: int) -> tf.distribute.Strategy:
    """One logical CPU per replica; call it before TensorFlow's first operation."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])


def _multi_worker(_: int) -> tf.distribute.Strategy:
    """The workers of TF_CONFIG, all of which have started."""
    _limit_registration(context.context())
    ring = tf.distribute.experimental.CollectiveCommunication.RING
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=ring
        )
    )


def _limit_registration(eager: context.Context) -> None:
    """Makes TensorFlow's servers fail if one is missing after `CONNECT_SECONDS`.

    Otherwise they would wait for ever. TensorFlow has a setting for this, but
    MultiWorkerMirroredStrategy does not pass it on.
    """
    configure = eager.configure_coordination_service

    def with_limit(**settings: Any) -> None:
        limit = 1000 * CONNECT_SECONDS
        configure(**settings, cluster_register_timeout_in_ms=limit)
        eager.coordination_service.cluster_register_with_barrier = True

    eager.configure_coordination_service = with_limit


_STRATEGIES: dict[str, Callable[[int], tf.distribute.Strategy]] = {
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
}


def start(kind: str, replicas: int) -> tf.distribute.Strategy:
    """Starts a strategy; raises ClusterError if TensorFlow's servers do not connect."""
    with device.quiet(), interruption.native_call():
        try:
            return _STRATEGIES[kind](replicas)
        except tf.errors.OpError as error:
            failure = error
    raise ClusterError(
        "TensorFlow could not connect this worker to the others, which were there a"
        f" moment ago ({errors.reason(failure)}): see what they printed, then start all"
        " again"
    )


def all_sum(vector: tf.Tensor) -> tf.Tensor:
    """Adds up a vector over all replicas; call it inside a replica."""
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, vector)


def run_distributed(
    strategy: tf.distribute.Strategy,
    part_step: PartStep,
    indices: tf.Tensor,
    seed: tf.Tensor,
    replicas: int,
) -> Part:
    """Does what `replicas.run` does, on all devices and with a single exchange.

    Loss, count, gradients and moving averages are packed into one vector, which is
    added up over all devices.
    """
    own = replicas // strategy.num_replicas_in_sync
    shapes: list[tf.TensorShape] = []  # filled when `on_replica` is traced
    weights: list[int] = []

    def on_replica():
        replica = tf.distribute.get_replica_context()
        first = own * int(tf.get_static_value(replica.replica_id_in_sync_group))
        part = run(part_step, indices, seed, replicas, range(first, first + own))
        with tf.name_scope("exchange"):
            # The count is float32 as well, which is exact up to 2²⁴ images.
            values = [part.loss, tf.cast(part.correct, tf.float32)]
            values += [*part.gradients, *part.averages]
            shapes[:] = [value.shape for value in values]
            weights[:] = [len(part.gradients)]
            return all_sum(tf.concat([tf.reshape(v, [-1]) for v in values], axis=0))

    packed = strategy.experimental_local_results(strategy.run(on_replica))[0]
    with tf.name_scope("unpack"):
        flat = tf.split(packed, [shape.num_elements() for shape in shapes])
        loss, correct, *values = map(tf.reshape, flat, shapes)
        correct = tf.cast(correct, tf.int64)
    return Part(loss, correct, values[: weights[0]], values[weights[0] :])
