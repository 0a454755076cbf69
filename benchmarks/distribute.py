# SPDX-License-Identifier: Apache-2.0
"""Training speed with two workers on this machine, and what their exchange costs.

We time the step of 128 images of `benchmarks.ours` in one process with one or two
replicas, with one device per replica (mirrored), and in two workers on loopback. To see
what the exchange costs, we also time two processes that each train on half a batch and
know nothing of each other. All take turns, so that a slow minute of the machine hits
all of them. Tracing and the first steps are not timed.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import ours, peers, results
from training import launch

STEPS = 200  # per process and round
WORKERS = 2

# Name: number of processes, settings of each.
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "one process, 1 replica": (1, {"replicas": 1}),
    "one process, 2 replicas": (1, {"replicas": WORKERS}),
    "mirrored, 2 replicas": (1, {"replicas": WORKERS, "distribute": "mirrored"}),
    "2 workers": (WORKERS, {"replicas": WORKERS, "distribute": "multi_worker"}),
    "2 apart": (
        WORKERS,
        {"replicas": 1, "batch_size": ours.BATCH_SIZE // WORKERS, "threads": 1},
    ),
}
FIRST, EXCHANGING, APART = "one process, 1 replica", "2 workers", "2 apart"


def loop(*, tf_config: str, **settings: Any) -> Callable[[int], dict[str, float]]:
    """train.py's loop in one process, of these TF_CONFIG and flags.

    Returns a function from a number of steps to the seconds per step and the bytes
    exchanged.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import train
    from training import cluster, machine
    from training.state import State
    from training.workers import Workers

    os.environ["TF_CONFIG"] = tf_config
    config = ours.train_config(**settings)
    place = cluster.find_place(config.distribute, tf_config)
    config = dataclasses.replace(config, **machine.choose(config, place))
    threads = config.threads or place.cores()
    device.set_threads(threads, config.replicas // place.workers)
    workers = Workers(config.distribute, place, config.replicas)
    images, labels = map(device.tensor, ours.noise())
    state = State(config)
    train_steps = train.make_train_steps(
        state, images, labels, config, len(labels) // config.batch_size, workers
    )
    numbers = sum(v.shape.num_elements() for v in state.network.variables)
    step = 0

    def answer(steps: int) -> dict[str, float]:
        nonlocal step
        began = time.perf_counter()
        step = int(train_steps(step, steps, training=True).step)  # waits for the result
        seconds = (time.perf_counter() - began) / steps
        return {"seconds": seconds, "bytes": 4 * (numbers + 2)}  # loss and count

    answer(ours.WARM_UP_STEPS)
    return answer


PEERS = {"loop": loop}


def measure(rounds: int, steps: int = STEPS) -> dict[str, Any]:
    """Measures all `WAYS` in turns.

    Returns:
      batch_size: images per step.
      bytes: size of the vector that the workers add up in each step.
      seconds: {name: seconds per step of its slowest process, in each round}.
    """
    pool = concurrent.futures.ThreadPoolExecutor()
    with pool, contextlib.ExitStack() as stack:

        def start(settings: dict[str, Any]) -> peers.Peer:
            return stack.enter_context(peers.Peer(__name__, "loop", settings))

        started = {}
        for name, (count, flags) in WAYS.items():
            ports = launch.free_ports(count)
            places = [launch.tf_config(ports, number) for number in range(count)]
            # All at once, as workers wait for each other.
            settings = [{"tf_config": place, **flags} for place in places]
            started[name] = list(pool.map(start, settings))
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, processes in started.items():
                answers = list(pool.map(lambda peer: peer.ask(steps), processes))
                seconds[name].append(max(answer["seconds"] for answer in answers))
                if name == EXCHANGING:
                    size = answers[0]["bytes"]
    return {"batch_size": ours.BATCH_SIZE, "bytes": size, "seconds": seconds}


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a table; ratios are medians of each round's ratio."""
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
    headers = ["", "median ms/step", "images/s", "speed-up", "min", "max"]
    table = results.table(rows, headers)
    pairs = zip(seconds[EXCHANGING], seconds[APART], strict=True)
    share = statistics.median(1 - apart / both for both, apart in pairs)
    sent = 2 * (WORKERS - 1) / WORKERS * result["bytes"]
    return (
        f"## Workers\n\n{table}\n\nThe workers add up {result['bytes']:,} bytes in each"
        f" step; one of n workers sends 2 (n − 1) / n times as many, here {sent:,.0f}."
        f" The exchange takes {share:.0%} of a step of {EXCHANGING}, compared with"
        f" {APART} on half a batch each."
    )
