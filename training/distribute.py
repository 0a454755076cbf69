# SPDX-License-Identifier: Apache-2.0
"""Training by several devices or workers at once, on `tf.distribute`.

    --distribute=none           one process, one device
    --distribute=mirrored       one process, a logical CPU for each replica
    --distribute=multi_worker   as many processes as TF_CONFIG names, on any machines

A run is the same whichever it is: the flags give the whole batch and how many replicas
it is cut into, and each worker takes its share of these, with the images and the random
numbers that they would get in one process. What the replicas find, gradients, moving
averages and counts, is packed into one vector and added up over all, once a step.

The variables are plain ones, and each worker has its own. They begin as worker 0's,
bit for bit, are changed by equal sums in equal ways, and so stay equal: an epoch ends
with a comparison of their hashes. So nothing that a strategy would mirror has to be
kept in step, no save is a collective operation that hangs if one stays away, and a
checkpoint is that of one process. Worker 0 alone has the run directory. The others go
through the same motions in a scratch directory, which is as fast as waiting, and are
told by worker 0 what it restored and what its scores are.

TensorFlow takes a worker for lost whose process has ended, or that has given no sign of
life for ten seconds: a stopped or suspended one, not one that is merely slow. Its
servers, one on each worker at the port that TF_CONFIG names, do whatever they are told
by anyone who reaches them: they belong into a network of one's own.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from tensorflow.python.eager import context

from system import cli, device, errors, untrusted
from training import interruption, rendezvous, runs, strategy

KINDS = ("none", "mirrored", "multi_worker")

WAIT_SECONDS = 300  # for other workers to start
CONNECT_SECONDS = 60  # for TensorFlow's servers to connect, when all have started

# How a worker shows that another one is gone: which it is depends on what it was at.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)

# (images, labels, indices int64 [B], seed int32 [2], training) → Part of the batch
Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, bool], strategy.Part]


class DistributeError(errors.UserError):
    """Workers that cannot train together, or no longer."""


def define_flags() -> None:
    """The flags; TF_CONFIG is read from the environment."""
    flags.DEFINE_enum(
        "distribute",
        "none",
        KINDS,
        "What the --replicas are: parts of one graph; a device each, in one process; or"
        " shared by the workers of TF_CONFIG, as training.launch starts them.",
    )
    flags.DEFINE_integer(
        "wait_seconds",
        WAIT_SECONDS,
        "How long a worker waits for the others to start.",
        lower_bound=1,
        upper_bound=10**9,
    )


@dataclasses.dataclass(frozen=True)
class Place:
    """Of a worker among all.

    Attributes:
      workers: how many there are.
      number: of this one, from 0, which has the run directory.
      addresses: host:port of all, in their order; none if this one is alone.
      on_host: how many there are at the host of this one, which share its cores.
    """

    workers: int = 1
    number: int = 0
    addresses: tuple[str, ...] = ()
    on_host: int = 1

    @property
    def address(self) -> str:
        """Of this worker; "" if it is alone."""
        return self.addresses[self.number] if self.addresses else ""

    def cores(self) -> int:
        """How many cores are for this worker."""
        return max(1, device.cores() // self.on_host)


def place(kind: str, tf_config: str | None) -> Place:
    """Where this process stands.

    Args:
      kind: one of `KINDS`.
      tf_config: the environment variable, or None.

    Raises:
      DistributeError: it is missing or makes no sense.
    """
    if kind != "multi_worker":
        return Place()
    if not tf_config:
        raise DistributeError(
            "--distribute=multi_worker goes by TF_CONFIG, which is not set: set it for"
            " each worker, leave --distribute out, or start some here by "
            + cli.command("-m", "training.launch", "--", "--flagfile=lenet.flags")
        )
    try:
        parsed = untrusted.parse_json(tf_config.encode())
        cluster, task = parsed["cluster"], parsed["task"]
        if not cluster.keys() <= {"chief", "worker"}:
            raise ValueError("jobs other than chief and worker")
        if task["type"] not in cluster:
            raise ValueError(f"no job of the cluster is called {task['type']}")
        tasks = [
            (kind, n) for kind in sorted(cluster) for n in range(len(cluster[kind]))
        ]
        number = tasks.index((task["type"], int(task["index"])))
        addresses = tuple(str(cluster[kind][n]) for kind, n in tasks)
        if len(set(addresses)) < len(addresses):
            raise ValueError("an address twice")
        hosts = [rendezvous.host_and_port(address)[0] for address in addresses]
        return Place(len(tasks), number, addresses, hosts.count(hosts[number]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DistributeError(
            f"TF_CONFIG is {tf_config[:500]!r}, where a JSON object with the addresses"
            ' of "cluster": {"worker": […]} and of "task" the type and index was'
            f" expected ({cli.one_line(str(error))}): mend it"
        ) from None


def check_alone(tf_config: str | None) -> None:
    """Makes sure that TF_CONFIG does not count on this process as one of several.

    On a cluster it is set for every job, also for one of a single process.

    Args:
      tf_config: the environment variable, or None.

    Raises:
      errors.UsageError: it names others, or makes no sense.
    """
    what = "makes no sense"
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        parsed = untrusted.parse_json((tf_config or "{}").encode())
        jobs, task = parsed.get("cluster") or {}, parsed.get("task") or {}
        count = sum(len(addresses) for addresses in jobs.values())
        if count <= 1 and task.get("type") != "evaluator":
            return
        what = f"makes this process {task.get('type')} {task.get('index')} of {count}"
        what = cli.one_line(what)
    raise errors.UsageError(
        f"TF_CONFIG {what}, and --distribute is not given: give"
        " --distribute=multi_worker to train with the others, or --distribute=none to"
        " train a run in this process alone"
    )


def check(kind: str, place: Place, values: Mapping[str, Any]) -> None:
    """Makes sure that a batch can be shared as the flags say.

    Raises:
      errors.UsageError: it cannot.
    """
    replicas, workers = values["replicas"], place.workers
    if replicas > values["batch_size"]:
        raise errors.UsageError(
            f"--batch_size={values['batch_size']} is less than one image for each of"
            f" {replicas} replicas on {workers} workers: give more images"
        )
    if replicas % workers:
        raise errors.UsageError(
            f"--replicas={replicas} cannot be shared by {workers} workers, which take"
            f" equally many: give a multiple of {workers}"
        )
    of_graph = 1 if kind == "mirrored" else replicas // workers
    if values.get("sync_batch_norm") and of_graph > 1:
        raise errors.UsageError(
            f"--sync_batch_norm with --distribute={kind} and {of_graph} replicas in a"
            f" process: give --replicas={workers}, or --distribute=mirrored"
        )


@contextlib.contextmanager
def heard(place: Place) -> Iterator[None]:
    """What is done in here prints nothing, if it is not worker 0, but errors."""
    if place.number == 0:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        with contextlib.redirect_stdout(nowhere):
            yield


def _mirrored(replicas: int) -> tf.distribute.Strategy:
    """A logical CPU for each replica; before TensorFlow's first operation."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    return tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])


def _multi_worker(_: int) -> tf.distribute.Strategy:
    """The workers of TF_CONFIG, which have just met."""
    _limit_registration(context.context())
    ring = tf.distribute.experimental.CollectiveCommunication.RING
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=ring
        )
    )


def _limit_registration(eager: context.Context) -> None:
    """Lets TensorFlow's servers fail if one does not come within `CONNECT_SECONDS`.

    They would wait for ever. TensorFlow has the limit, but MultiWorkerMirroredStrategy
    does not pass it on.
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


def _start(kind: str, replicas: int) -> tf.distribute.Strategy:
    """Starts the strategy of a kind.

    Raises:
      DistributeError: TensorFlow's servers do not come together.
    """
    with device.quiet(), interruption.native_call():
        try:
            return _STRATEGIES[kind](replicas)
        except tf.errors.OpError as error:
            failure = error
    raise DistributeError(
        "TensorFlow could not connect this worker with the others, which were there a"
        f" moment ago ({cli.reason(failure)}): see what they said, then start all again"
    )


def _sum(vector: tf.Tensor) -> tf.Tensor:
    """A replica's vector → the sum of those of all."""
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, vector)


def _distributed(
    distribution: tf.distribute.Strategy,
    part_step: strategy.PartStep,
    indices: tf.Tensor,
    seed: tf.Tensor,
    replicas: int,
) -> strategy.Part:
    """`strategy.run` on all replicas of a distribution, with one exchange."""
    own = replicas // distribution.num_replicas_in_sync
    shapes: list[tf.TensorShape] = []  # filled when `on_replica` is traced
    weights: list[int] = []

    def on_replica():
        replica = tf.distribute.get_replica_context()
        first = own * int(tf.get_static_value(replica.replica_id_in_sync_group))
        part = strategy.run(
            part_step, indices, seed, replicas, range(first, first + own)
        )
        # The count in float32, too: exact up to 2²⁴ images.
        values = [part.loss, tf.cast(part.correct, tf.float32)]
        values += [*part.gradients, *part.averages]
        shapes[:] = [value.shape for value in values]
        weights[:] = [len(part.gradients)]
        return _sum(tf.concat([tf.reshape(v, [-1]) for v in values], axis=0))

    packed = distribution.experimental_local_results(distribution.run(on_replica))[0]
    flat = tf.split(packed, [shape.num_elements() for shape in shapes])
    loss, correct, *values = map(tf.reshape, flat, shapes)
    gradients, averages = values[: weights[0]], values[weights[0] :]
    return strategy.Part(loss, tf.cast(correct, tf.int64), gradients, averages)


class Workers:
    """Those that train together, seen from one of them; one process alone, too.

    Args:
      kind: one of `KINDS`.
      place: of this worker.
      replicas: of the run.
      wait_seconds: to wait for other workers to come.

    Raises:
      errors.UserError: they did not, or cannot be connected.
    """

    def __init__(
        self,
        kind: str = "none",
        place: Place = Place(),
        replicas: int = 1,
        wait_seconds: float = WAIT_SECONDS,
    ):
        self.kind = kind
        self.place = place
        if place.workers > 1:
            rendezvous.meet(place.addresses, place.number, wait_seconds)
        self.strategy = None if kind == "none" else _start(kind, replicas)

    @property
    def environment(self) -> dict[str, Any]:
        """What a result depends on, for run.json; of one alone nothing."""
        if not self.strategy:
            return {}
        return {"distribute": f"{self.kind}, {self.place.workers} workers"}

    def step(
        self,
        part_step: Callable[..., strategy.Part],
        replicas: int,
        *,
        sync: bool,
        in_line: bool,
    ) -> Step:
        """A step on the whole batch out of one on a part of it.

        Args:
          part_step: takes images and labels, what a `strategy.PartStep` takes, and
            `training`.
          replicas: of the run.
          sync: whether the replicas exchange something within a part: TensorFlow allows
            that in no function within the graph's.
          in_line: as of `strategy.function`.
        """
        if not sync:
            part_step = strategy.function(part_step, in_line=in_line)
        run: Callable[..., strategy.Part] = strategy.run
        if self.strategy:
            run = functools.partial(_distributed, self.strategy)
        return lambda images, labels, indices, seed, training: run(
            functools.partial(part_step, images, labels, training=training),
            indices,
            seed,
            replicas,
        )

    def gather(self, value: Any) -> list[Any]:
        """A value of each worker, in their order; each calls, and gets, the same.

        Args:
          value: of JSON types.
        """
        if self.place.workers == 1:
            return [value]
        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self._of_all(np.array([len(content)]))
        padded = np.pad(content, (0, lengths.max() - len(content)))
        rows: np.ndarray = self._of_all(padded).astype(np.uint8)
        return [
            json.loads(row[:length].tobytes())
            for row, (length,) in zip(rows, lengths, strict=True)
        ]

    def agree(self, number: int) -> int:
        """The highest of the numbers of all workers."""
        if self.place.workers == 1:
            return number
        return int(self._of_all(np.array([number])).max())

    def follow_first(self, variables: Sequence[tf.Variable]) -> None:
        """Gives all workers the values of worker 0's variables, bit for bit."""
        if self.place.workers == 1:
            return
        content = b"".join(v.numpy().tobytes() for v in variables)
        numbers = np.frombuffer(content + bytes(-len(content) % 4), np.int32)
        # Whole numbers, for 0 + -0 is 0, and no NaN keeps its bits.
        content = self._sum(
            numbers if self.place.number == 0 else 0 * numbers
        ).tobytes()
        for v in variables:
            dtype = v.dtype.as_numpy_dtype
            value = np.frombuffer(content, dtype, v.shape.num_elements())
            v.assign(value.reshape(v.shape))
            content = content[value.nbytes :]

    def check_equal(self, variables: Sequence[tf.Variable], where: str) -> None:
        """Makes sure that all workers have the same variables, bit for bit.

        Raises:
          DistributeError: they have not.
        """
        digest = hashlib.sha256()
        for v in variables:
            digest.update(v.numpy().tobytes())
        hashes = self.gather(digest.hexdigest())
        others = [n for n, found in enumerate(hashes) if found != hashes[0]]
        if others:
            raise DistributeError(
                f"the weights of worker {others[0]} are not those of worker 0 {where}:"
                " their machines compute differently, or one of them wrongly; start all"
                " again on like ones, and they go on from the last checkpoint"
            )

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """Makes sure that all workers are about to train the same run.

        Args:
          facts: of JSON types; what must be equal, by the name that a user knows.

        Raises:
          DistributeError: something is not; all workers name the same first thing.
        """
        first, *others = self.gather(dict(facts))
        for number, other in enumerate(others, 1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise DistributeError(
                        f"worker {number} has {name} {other.get(name)}, and worker 0"
                        f" {first.get(name)}: start all with the same flags, version"
                        " and data"
                    )

    @contextlib.contextmanager
    def own_directory(self, run_dir: Path) -> Iterator[Path]:
        """Where this worker writes: worker 0 in the run directory.

        Another one writes into a folder that is gone afterwards; its errors name the
        run directory all the same.
        """
        if self.place.number == 0:
            yield run_dir
            return
        with tempfile.TemporaryDirectory(prefix="worker-") as scratch:
            own = Path(scratch) / run_dir.name
            try:
                yield own
            except errors.UserError as error:
                error.args = (str(error).replace(str(own), str(run_dir)),)
                raise

    @contextlib.contextmanager
    def together(self, run_dir: Path) -> Iterator[None]:
        """What is done in here is done by all workers, or by none.

        Raises:
          DistributeError: another one is gone.
        """
        try:
            yield
        except _LOST as error:
            if self.place.workers == 1:
                raise
            raise DistributeError(
                f"worker {self.place.number} of {self.place.workers}"
                f" ({self.place.address}) has lost another one, which has ended or"
                f" cannot be reached ({type(error).__name__}): see what that one said,"
                " then start all again with the same flags, and they go on from the"
                f" last checkpoint in {run_dir}"
            ) from None

    def resume_command(self, run_dir: Path) -> str:
        """Resumes a run with as many workers, which are all started here.

        Where each has a machine of its own, they are started as the first time.
        """
        place = self.place
        if place.workers == 1 or place.on_host < place.workers:
            return runs.resume_command(run_dir)
        launch = ("-m", "training.launch", f"--workers={place.workers}", "--")
        return cli.command(*launch, f"--flagfile={run_dir / runs.FLAGS}")

    def _of_all(self, values: np.ndarray) -> np.ndarray:
        """Whole numbers [n] of each worker → int32 [workers, n]."""
        table = np.zeros([self.place.workers, *values.shape], np.int32)
        table[self.place.number] = values
        return self._sum(table)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """int32, of all workers, modulo 2³²."""
        return (
            self._sum_graph(tf.constant(values.reshape(-1)))
            .numpy()
            .reshape(values.shape)
        )

    @functools.cached_property
    def _sum_graph(self) -> Callable[[tf.Tensor], tf.Tensor]:
        distribution = self.strategy
        assert distribution  # one worker alone has nobody to ask

        def graph(values):
            # A copy: of an argument TensorFlow knows no device.
            return distribution.run(lambda: _sum(tf.identity(values)))

        signature = [tf.TensorSpec([None], tf.int32)]
        return tf.function(graph, autograph=False, input_signature=signature)


ALONE = Workers()
