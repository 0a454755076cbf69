# SPDX-License-Identifier: Apache-2.0
"""Training from windows of a set on disk beside training with all of it in memory.

Speed and memory: the same enlarged set of noise by two processes in turns, so that a
slow minute of the machine falls on both; a turn is many windows long, so that next to
none of their reading falls between turns. The goal is at least 95 % of the speed. The
first calls are not timed, nor is the check of the shards, which a run does once.

Shuffling: how a pass over copies of MNIST's many digits is ordered, beside an order of
which all are equally likely. That is arithmetic and the same each time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import growth, peers, results, step_peers

MEMORY_MB = (0, 16)  # the whole set; windows of 76 steps
LOG_STEPS = 100
WARM_UP_STEPS = 200
STEPS = 1200  # of each, in a round
MB = growth.MB
ITEM_BYTES = 28 * 28 + 1  # an image and its label

COPIES = 16  # of each original
ORIGINALS = 60_000
SHUFFLED_MB = (0, 16, 60, 250)
NEAR_STEPS = 100  # between two copies of one original
BATCHES = 500  # whose pairs are looked at


def loop(
    *, memory_mb: int, augmented_dir: str, images: int
) -> Callable[[int], dict[str, Any]]:
    """train.py's loop on an enlarged set of noise.

    Args:
      memory_mb: as of train.py.
      augmented_dir: where the set is kept; it is built there if need be.
      images: that are enlarged.

    Returns:
      From a number of steps to images per second; bytes resident before the set was
      loaded and after the steps.
    """
    import train  # isort: skip  (now: its memory would be taken for the set's)
    import data
    from config import choose
    from system import device
    from training import sets, windows
    from training.state import State

    config = step_peers.train_config(memory_mb=memory_mb, sampler="epochs")
    config |= choose(config)
    device.set_threads(config["threads"], config["replicas"])
    state = State(config)
    before = growth.resident_bytes()
    noise = step_peers.noise(images)
    dataset = data.Dataset("noise", *noise, noise[0][:0], None, {}, "")
    enlarged = sets.load(dataset, config, augmented_dir)
    del dataset, noise
    feed = windows.feed(*enlarged.train, config, steps=1 << 40)
    window = feed.at(0)
    train_steps = train.make_train_steps(state, window.images, window.labels, config, 1)
    feed.verified()
    step = 0

    def answer(steps: int) -> dict[str, Any]:
        nonlocal step
        end, began = step + steps, time.perf_counter()
        while step < end:
            images, labels, window_end = feed.at(step)
            count = min(LOG_STEPS, end - step, window_end - step)
            step = int(train_steps(step, count, True, images, labels).step)
        seconds = time.perf_counter() - began
        return {
            "images_per_second": steps * config["batch_size"] / seconds,
            "resident_bytes_before": before,
            "resident_bytes": growth.resident_bytes(),
            "set_images": enlarged.train_count,
        }

    answer(WARM_UP_STEPS)
    return answer


PEERS = {"loop": loop}


def measure(
    rounds: int, steps: int = STEPS, images: int = step_peers.IMAGES
) -> dict[str, Any]:
    """Measures both in turns.

    Returns:
      loops: for each memory_mb, as lists, with an item for each round, what `loop`
        answers.
      shuffling: for each memory_mb, what `shuffling` finds.

    Raises:
      peers.BenchmarkError: a process failed.
    """
    loops: dict[str, dict[str, list]] = {str(mb): {} for mb in MEMORY_MB}
    with tempfile.TemporaryDirectory() as folder:
        common = {"augmented_dir": folder, "images": images}
        whole, bounded = (
            peers.Peer(__name__, "loop", {"memory_mb": mb, **common})
            for mb in MEMORY_MB
        )
        with whole, bounded:
            for number in range(rounds):
                both = [(whole, MEMORY_MB[0]), (bounded, MEMORY_MB[1])]
                # Each is the first in turn, lest one always find a warmer machine.
                for peer, mb in both[:: -1 if number % 2 else 1]:
                    for name, value in peer.ask(steps).items():
                        loops[str(mb)].setdefault(name, []).append(value)
    found = {str(mb): shuffling(mb) for mb in SHUFFLED_MB}
    return {"loops": loops, "shuffling": found}


def drawn(window: int, window_size: int, set_size: int) -> np.ndarray:
    """A window's images, int64 [W], in the order in which --sampler=epochs draws them.

    Args:
      window: its number.
      window_size: its images.
      set_size: those of the set.
    """
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    from training import batches, windows

    pieces, places = windows.shuffled_blocks(0, window, window_size, set_size)
    images = np.concatenate([np.arange(first, first + n) for first, n in pieces])
    if places is not None:
        images[places] = images.copy()
    # All its steps at once, as if they were one.
    number = tf.constant(window, tf.int64)
    order = batches.shuffled_epochs(0, number, window_size, window_size)
    return images[order.numpy()] % set_size


def shuffling(memory_mb: int) -> dict[str, float]:
    """How well a pass over `COPIES` of `ORIGINALS` is shuffled.

    Args:
      memory_mb: as of train.py; 0: an order of which all are equally likely.
    """
    set_size, batch_size = COPIES * ORIGINALS, step_peers.BATCH_SIZE
    if not memory_mb:
        return statistics_of(np.random.default_rng(0).permutation(set_size), batch_size)
    from training import windows

    window_size = batch_size * windows.length(memory_mb, batch_size)
    count = set_size // window_size + 1
    order = np.concatenate([drawn(w, window_size, set_size) for w in range(count)])
    return statistics_of(order[:set_size], batch_size)


def statistics_of(order: np.ndarray, batch_size: int) -> dict[str, float]:
    """What is measured of an order of images.

    Args:
      order: int64 [M], the images of a pass in the order in which they are drawn.
      batch_size: images per step.

    Returns:
      missing: images that do not come.
      pairs: share of the pairs of a batch that lie less than a block apart in the set.
      gap: median number of steps from one copy of an original to the next.
      near: share of these that are less than `NEAR_STEPS`.
    """
    from training.windows import BLOCK

    set_size = len(order)
    some: np.ndarray = order[: len(order) // batch_size * batch_size]
    some = some.reshape(-1, batch_size)
    some = some[:: max(1, len(some) // BATCHES)]
    apart = abs(some[:, :, np.newaxis] - some[:, np.newaxis])
    apart = np.minimum(apart, set_size - apart)
    close = (apart < BLOCK).sum() - some.size  # each is close to itself
    originals = order % ORIGINALS
    by_original = np.argsort(originals, kind="stable")  # then by when it is drawn
    gaps = np.diff(by_original)[np.diff(originals[by_original]) == 0] / batch_size
    return {
        "missing": set_size - len(np.unique(order)),
        "pairs": float(close / (some.size * (batch_size - 1))),
        "gap": float(np.median(gaps)),
        "near": float((gaps < NEAR_STEPS).mean()),
    }


def ratios(loops: Mapping[str, Mapping[str, Sequence[float]]]) -> list[float]:
    """Speed with windows, as a share of the speed without, in each round."""
    whole, bounded = (loops[str(mb)]["images_per_second"] for mb in MEMORY_MB)
    return [own / of for own, of in zip(bounded, whole, strict=True)]


def markdown(result: Mapping[str, Any]) -> str:
    """A section with a table of speed and memory, and one of shuffling."""
    rows = []
    for mb, values in result["loops"].items():
        grown = max(values["resident_bytes"]) - values["resident_bytes_before"][0]
        rows.append(
            [
                "all of it" if mb == "0" else f"windows, {mb} MB",
                f"{values['set_images'][0] * ITEM_BYTES / MB:,.0f} MB",
                f"{statistics.median(values['images_per_second']):,.0f}",
                f"{grown / MB:,.0f} MB",
            ]
        )
    shares = ratios(result["loops"])
    headers = ["in memory", "set", "median images/s", "growth of memory"]
    speed = results.table(rows, headers)
    rows = [
        [
            "all of it" if mb == "0" else f"{mb} MB",
            f"{found['missing']:,.0f}",
            f"{found['pairs']:.4%}",
            f"{found['gap']:,.0f}",
            f"{found['near']:.2%}",
        ]
        for mb, found in result["shuffling"].items()
    ]
    headers = ["in memory", "images left out", "pairs of a batch from a block's reach"]
    headers += ["median steps between copies", f"less than {NEAR_STEPS}"]
    shuffled = results.table(rows, headers)
    return (
        f"## Windows of a set on disk\n\n{speed}\n\nSpeed with windows over that"
        f" without: {statistics.median(shares):.1%} (median; {min(shares):.1%} to"
        f" {max(shares):.1%}).\n\n{shuffled}\n\nA pass over {COPIES}"
        f" copies of {ORIGINALS:,} digits, in batches of {step_peers.BATCH_SIZE}."
        " Memory grows by the graph as well, by as much in both."
    )


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """None: the tables say it all."""
    return {}
