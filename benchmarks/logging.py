# SPDX-License-Identifier: Apache-2.0
"""Loss of speed by logging at the default frequency.

We train epochs of lenet.flags and log all that train.py logs to the progress bar and to
TensorBoard. No step runs meanwhile, so the time of logging is the time lost. Comparing
with epochs without logging would give the same, but drowns in the noise of a shared
machine. Scoring and saving are in neither. The goal is a loss of at most 3 %. Tracing
and the first calls are not timed.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours, peers, results

STEPS = 469  # of an epoch of lenet.flags
LOG_STEPS = 100  # the default
TEST_IMAGES = 10_000
TEST = "test"
METRICS = [
    f"{split}_{name}" for split in ("train", TEST) for name in ("loss", "accuracy")
]
STEPPING, LOGGING = "stepping", "logging"


def epochs() -> Callable[[int], dict[str, float]]:
    """Our loop with its logging, on one thread per core.

    Returns a function from the number of steps of an epoch to the seconds of its steps
    and of its logging, by name.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    import train
    from evaluation import gallery, scoring
    from training.log import HISTOGRAM_IMAGES, Log
    from training.session import Session
    from training.state import Progress, Resumed

    config, state = ours.prepare()
    images, labels = map(device.tensor, ours.noise())
    train_steps = train.make_train_steps(state, images, labels, config, STEPS)
    test_images, test_labels = ours.noise(TEST_IMAGES)
    guesses = np.full((TEST_IMAGES, 10), 0.1, np.float32)
    scores = scoring.Scores(test_labels, guesses, 2.3)
    step = 0

    def answer(steps: int) -> dict[str, float]:
        nonlocal step
        seconds, end = {STEPPING: 0.0, LOGGING: 0.0}, step + steps
        splits, start = ["train", TEST], Resumed(Progress(step), [], {})
        with (
            tempfile.TemporaryDirectory() as folder,
            Log(Session(Path(folder)), splits, start, end, config) as log,
        ):
            while step < end:
                count = min(LOG_STEPS, end - step)
                with _timed(seconds, STEPPING), log.timed(step):
                    totals = train_steps(step, count, training=True)
                    step = int(totals.step)  # waits for the result
                with _timed(seconds, LOGGING):
                    log.steps(totals, count)
            with _timed(seconds, LOGGING):
                log.summaries.errors(step, TEST, gallery.draw(test_images, scores))
                row = {"epoch": step, "images": step} | dict.fromkeys(METRICS, 0.5)
                row |= {"seconds": log.seconds}
                log.epoch(row, state, totals, images[:HISTOGRAM_IMAGES])
        return seconds

    answer(ours.WARM_UP_STEPS)
    return answer


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - began


PEERS = {"epochs": epochs}


def measure(rounds: int, steps: int = STEPS) -> dict[str, Any]:
    """Measures an epoch in each round: `seconds` of each by name, and `steps`."""
    with peers.Peer(__name__, "epochs", {}) as peer:
        answers = [peer.ask(steps) for _ in range(rounds)]
    seconds = {name: [answer[name] for answer in answers] for name in answers[0]}
    return {"steps": steps, "batch_size": ours.BATCH_SIZE, "seconds": seconds}


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a table; the loss is the median of the rounds' losses."""
    seconds = result["seconds"]
    pairs = zip(seconds[STEPPING], seconds[LOGGING], strict=True)
    losses = [logging / (stepping + logging) for stepping, logging in pairs]
    row = [
        f"{statistics.median(seconds[STEPPING]):.2f} s",
        f"{1e3 * statistics.median(seconds[LOGGING]):.0f} ms",
        *(f"{f(losses):.1%}" for f in (statistics.median, min, max)),
    ]
    headers = ["steps, median", "logging, median", "loss of speed", "min", "max"]
    table = results.table([row], headers, texts=0)
    sizes = f"{result['steps']:,} steps of {result['batch_size']} images"
    return f"## Logging\n\nAn epoch of {sizes}.\n\n{table}"
