# SPDX-License-Identifier: Apache-2.0
"""Training from windows of a set on disk, next to training with all of it in memory.

Speed and memory: two processes train on the same enlarged set of noise, in turns, so
that a slow minute of the machine hits both. A turn spans many windows, so that hardly
any reading happens between turns. The goal is at least 95 % of the speed. We do not
time the first calls, nor the check of the shards, which a run does once.

Shuffling: how well a pass over copies of MNIST is shuffled, next to a uniformly random
order. That is arithmetic and the same each time.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import growth, ours, peers, results

MEMORY_MB = (0, 16)  # 0: the whole set; 16: windows of 76 steps
LOG_STEPS = 100
WARM_UP_STEPS = 200
STEPS = 1200  # per process and round
MB = growth.MB
ITEM_BYTES = 28 * 28 + 1  # an image and its label

COPIES = 16  # per original
ORIGINALS = 60_000
SHUFFLED_MB = (0, 16, 60, 250)
NEAR_STEPS = 100  # two copies of an original in fewer steps are near
BATCHES = 500  # whose pairs we look at


def loop(
    *, memory_mb: int, augmented_dir: str, images: int
) -> Callable[[int], dict[str, Any]]:
    """train.py's loop on an enlarged set of noise.

    Args:
      memory_mb: value of train.py's flag.
      augmented_dir: folder of the enlarged set, which is built if it is missing.
      images: number of originals.

    Returns:
      Function from a number of steps to images per second, bytes resident before the
      set was loaded and after the steps, images in the set.
    """
    import train  # isort: skip  (now, so that its memory does not count as the set's)
    import data
    from system import device
    from training import machine, sets, windows
    from training.state import State

    config = ours.train_config(
        memory_mb=memory_mb, sampler="epochs", augmented_dir=augmented_dir
    )
    config = dataclasses.replace(config, **machine.choose(config))
    device.set_threads(config.threads, config.replicas)
    state = State(config)
    before = growth.resident_bytes()
    noise = ours.noise(images)
    dataset = data.Dataset("noise", *noise, noise[0][:0], None, {}, "")
    enlarged = sets.load(dataset, config)
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
            "images_per_second": steps * config.batch_size / seconds,
            "resident_bytes_before": before,
            "resident_bytes": growth.resident_bytes(),
            "set_images": enlarged.train_count,
        }

    answer(WARM_UP_STEPS)
    return answer


PEERS = {"loop": loop}


def measure(
    rounds: int, steps: int = STEPS, images: int = ours.IMAGES
) -> dict[str, Any]:
    """Measures both in turns.

    Returns:
      loops: {memory_mb: {name: answers of `loop` in each round}}.
      shuffling: {memory_mb: result of `shuffling`}.

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
                # They take turns to be first, as the machine may be warmer then.
                for peer, mb in both[:: -1 if number % 2 else 1]:
                    for name, value in peer.ask(steps).items():
                        loops[str(mb)].setdefault(name, []).append(value)
    found = {str(mb): shuffling(mb) for mb in SHUFFLED_MB}
    return {"loops": loops, "shuffling": found}


def drawn(window: int, window_size: int, set_size: int) -> np.ndarray:
    """Indices int64 [W] of a window's images, in the order of --sampler=epochs.

    Args:
      window: number of the window.
      window_size: images in a window.
      set_size: images in the set.
    """
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    from training import batches, windows

    pieces, places = windows.shuffled_blocks(0, window, window_size, set_size)
    images = np.concatenate([np.arange(first, first + n) for first, n in pieces])
    if places is not None:
        images[places] = images.copy()
    # All steps of the window at once, as one large batch.
    number = tf.constant(window, tf.int64)
    order = batches.shuffled_epochs(0, number, window_size, window_size)
    return images[order.numpy()] % set_size


def shuffling(memory_mb: int) -> dict[str, float]:
    """How well a pass over `COPIES` of `ORIGINALS` is shuffled.

    Args:
      memory_mb: value of train.py's flag; 0: a uniformly random order.
    """
    set_size, batch_size = COPIES * ORIGINALS, ours.BATCH_SIZE
    if not memory_mb:
        return statistics_of(np.random.default_rng(0).permutation(set_size), batch_size)
    from training import windows

    window_size = batch_size * windows.length(memory_mb, batch_size)
    count = set_size // window_size + 1
    order = np.concatenate([drawn(w, window_size, set_size) for w in range(count)])
    return statistics_of(order[:set_size], batch_size)


def statistics_of(order: np.ndarray, batch_size: int) -> dict[str, float]:
    """Statistics of an order of images.

    Args:
      order: int64 [M], indices of a pass in the order in which they are drawn.
      batch_size: images per step.

    Returns:
      missing: number of images that are never drawn.
      pairs: share of pairs within a batch that lie less than a block apart in the set.
      gap: median number of steps from one copy of an original to the next.
      near: share of gaps of less than `NEAR_STEPS`.
    """
    from training.windows import BLOCK

    set_size = len(order)
    batches: np.ndarray = order[: len(order) // batch_size * batch_size]
    batches = batches.reshape(-1, batch_size)
    batches = batches[:: max(1, len(batches) // BATCHES)]
    apart = abs(batches[:, :, np.newaxis] - batches[:, np.newaxis])
    apart = np.minimum(apart, set_size - apart)
    close = (apart < BLOCK).sum() - batches.size  # without pairs of an image and itself
    originals = order % ORIGINALS
    by_original = np.argsort(originals, kind="stable")  # then in order of drawing
    gaps = np.diff(by_original)[np.diff(originals[by_original]) == 0] / batch_size
    return {
        "missing": set_size - len(np.unique(order)),
        "pairs": float(close / (batches.size * (batch_size - 1))),
        "gap": float(np.median(gaps)),
        "near": float((gaps < NEAR_STEPS).mean()),
    }


def ratios(loops: Mapping[str, Mapping[str, Sequence[float]]]) -> list[float]:
    """Speed with windows over speed without, in each round."""
    whole, bounded = (loops[str(mb)]["images_per_second"] for mb in MEMORY_MB)
    return [own / of for own, of in zip(bounded, whole, strict=True)]


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a table of speed and memory, and one of shuffling."""
    rows = []
    for mb, values in result["loops"].items():
        grown = max(values["resident_bytes"]) - values["resident_bytes_before"][0]
        rows.append(
            [
                "everything" if mb == "0" else f"windows, {mb} MB",
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
            "everything" if mb == "0" else f"{mb} MB",
            f"{found['missing']:,.0f}",
            f"{found['pairs']:.4%}",
            f"{found['gap']:,.0f}",
            f"{found['near']:.2%}",
        ]
        for mb, found in result["shuffling"].items()
    ]
    headers = ["in memory", "images left out", "pairs of a batch closer than a block"]
    headers += ["median steps between copies", f"fewer than {NEAR_STEPS}"]
    shuffled = results.table(rows, headers)
    return (
        f"## Windows of a set on disk\n\n{speed}\n\nSpeed with windows over speed"
        f" without: {statistics.median(shares):.1%} (median; {min(shares):.1%} to"
        f" {max(shares):.1%}). The graph adds the same memory to both.\n\n{shuffled}"
        f"\n\nA pass over {COPIES} copies of {ORIGINALS:,} digits, in batches of"
        f" {ours.BATCH_SIZE}."
    )
