# SPDX-License-Identifier: Apache-2.0
"""Speed of training by two workers of this machine, and what their exchange costs.

A step of 128 images, as `benchmarks.step_peers` has it, by one process of one and of
two replicas, by a device for each replica (mirrored), and by two workers on loopback;
and, for the share that the exchange takes, by two processes that each train on half of
a batch and know nothing of each other. All take turns, so that a slow minute of the
machine falls on all. Tracing and the first steps are not timed.
"""

import concurrent.futures
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks import peers, results, step_peers
from training import launch

STEPS = 200  # of each, in a round
WORKERS = 2

# Name → flags of each of its processes, whether these are workers of one run.
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "one process, 1 replica": (1, {"replicas": 1}),
    "one process, 2 replicas": (1, {"replicas": WORKERS}),
    "mirrored, 2 replicas": (1, {"replicas": WORKERS, "distribute": "mirrored"}),
    "2 workers": (WORKERS, {"replicas": WORKERS, "distribute": "multi_worker"}),
    "2 apart": (
        WORKERS,
        {"replicas": 1, "batch_size": step_peers.BATCH_SIZE // WORKERS, "threads": 1},
    ),
}
FIRST, EXCHANGING, APART = "one process, 1 replica", "2 workers", "2 apart"


def loop(*, tf_config: str, **settings: Any) -> Callable[[int], dict[str, float]]:
    """train.py's loop, in one process of its kind.

    Args:
      tf_config: TF_CONFIG.
      settings: values of train.py's flags.

    Returns:
      From a number of steps to the seconds of one, and the bytes of what is exchanged.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import train
    from config import choose
    from training import cluster
    from training.state import State
    from training.workers import Workers

    os.environ["TF_CONFIG"] = tf_config
    config = step_peers.train_config(**settings)
    place = cluster.find_place(config["distribute"], tf_config)
    config |= choose(config, place)
    threads = config["threads"] or place.cores()
    device.set_threads(threads, config["replicas"] // place.workers)
    workers = Workers(config["distribute"], place, config["replicas"])
    images, labels = map(device.tensor, step_peers.noise())
    state = State(config)
    train_steps = train.make_train_steps(
        state, images, labels, config, len(labels) // config["batch_size"], workers
    )
    numbers = sum(v.shape.num_elements() for v in state.network.variables)
    step = 0

    def answer(steps: int) -> dict[str, float]:
        nonlocal step
        began = time.perf_counter()
        step = int(train_steps(step, steps, training=True).step)  # waits for the result
        seconds = (time.perf_counter() - began) / steps
        return {"seconds": seconds, "bytes": 4 * (numbers + 2)}  # loss and count

    answer(step_peers.WARM_UP_STEPS)
    return answer


PEERS = {"loop": loop}


def measure(rounds: int, steps: int = STEPS) -> dict[str, Any]:
    """Measures all ways in turns.

    Returns:
      batch_size: images of a step.
      bytes: of the vector that is added up over all workers in a step.
      seconds: of a step of each way, by name, in each round: of its slowest process.

    Raises:
      peers.BenchmarkError: a process failed.
    """
    pool = concurrent.futures.ThreadPoolExecutor()
    with pool, contextlib.ExitStack() as stack:

        def start(settings: dict[str, Any]) -> peers.Peer:
            return stack.enter_context(peers.Peer(__name__, "loop", settings))

        started = {}
        for name, (count, flags) in WAYS.items():
            ports = launch.free_ports(count)
            places = [launch.tf_config(ports, number) for number in range(count)]
            # At once: workers wait for each other.
            settings = [{"tf_config": place, **flags} for place in places]
            started[name] = list(pool.map(start, settings))
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, processes in started.items():
                answers = list(pool.map(lambda peer: peer.ask(steps), processes))
                seconds[name].append(max(answer["seconds"] for answer in answers))
                if name == EXCHANGING:
                    size = answers[0]["bytes"]
    return {"batch_size": step_peers.BATCH_SIZE, "bytes": size, "seconds": seconds}


def markdown(result: Mapping[str, Any]) -> str:
    """A section with a table; ratios are medians of those of each round."""
    seconds = result["seconds"]
    rows = []
    for name, values in seconds.items():
        pairs = zip(values, seconds[FIRST], strict=True)
        ratios = [first / own for own, first in pairs]
        median = statistics.median(values)
        rows.append(
            [
                name,
                f"{1e3 * median:.2f}",
                f"{result['batch_size'] / median:,.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f}",
                f"{max(ratios):.2f}",
            ]
        )
    headers = ["", "median ms a step", "images/s", "to the first", "min", "max"]
    table = results.table(rows, headers)
    pairs = zip(seconds[EXCHANGING], seconds[APART], strict=True)
    share = statistics.median(1 - apart / both for both, apart in pairs)
    sent = 2 * (WORKERS - 1) / WORKERS * result["bytes"]
    return (
        f"## Workers\n\n{table}\n\nEach step adds up {result['bytes']:,} bytes over all"
        f" workers; of n, each sends 2 (n − 1) / n times as many: here {sent:,.0f}. The"
        f" exchange takes {share:.0%} of a step of {EXCHANGING}: what {APART}, on half"
        " of the batch each, do without."
    )


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """None: the table says it all."""
    return {}
