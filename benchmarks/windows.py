# SPDX-License-Identifier: Apache-2.0
"""Training from windows of a set on disk, next to training with all of it in memory.

Two processes train on the same enlarged set of noise, in turns, so that a slow minute
of the machine hits both. A turn spans many windows, so that hardly any reading happens
between turns. The goal is at least 95 % of the speed. We do not time the first calls,
nor the check of the shards, which a run does once. How well windows are shuffled is
arithmetic, and tested in tests/test_windows.py.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import growth, ours, peers, results

MEMORY_MB = (0, 16)  # 0: the whole set; 16: windows of 76 steps
LOG_STEPS = 100
WARM_UP_STEPS = 200
STEPS = 1200  # per process and round
MB = growth.MB
ITEM_BYTES = 28 * 28 + 1  # an image and its label


def loop(
    *, memory_mb: int, augmented_dir: str, images: int
) -> Callable[[int], dict[str, Any]]:
    """train.py's loop on an enlarged set of so much noise, which is built if need be.

    Returns:
      Function from a number of steps to images per second, bytes resident before the
      set was loaded and after the steps, images in the set.
    """
    import train  # isort: skip  (now, so that its memory does not count as the set's)
    import data
    from training import sets

    config, state = ours.prepare(
        memory_mb=memory_mb, sampler="epochs", augmented_dir=augmented_dir
    )
    before = growth.resident_bytes()
    noise = ours.noise(images)
    dataset = data.Dataset("noise", *noise, noise[0][:0], None, {}, "")
    enlarged = sets.load(dataset, config)
    del dataset, noise
    feed = sets.feed(enlarged, config, steps=1 << 40)
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
    """Measures both: {"loops": {memory_mb: {name: answers of `loop`, by round}}}."""
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
    return {"loops": loops}


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a table of speed and memory."""
    rows = []
    for mb, figures in result["loops"].items():
        grown = max(figures["resident_bytes"]) - figures["resident_bytes_before"][0]
        rows.append(
            [
                "everything" if mb == "0" else f"windows, {mb} MB",
                f"{figures['set_images'][0] * ITEM_BYTES / MB:,.0f} MB",
                f"{statistics.median(figures['images_per_second']):,.0f}",
                f"{grown / MB:,.0f} MB",
            ]
        )
    whole, bounded = (result["loops"][str(mb)]["images_per_second"] for mb in MEMORY_MB)
    shares = [own / of for own, of in zip(bounded, whole, strict=True)]
    speed = results.table(
        rows, ["in memory", "set", "median images/s", "growth of memory"]
    )
    return (
        f"## Windows of a set on disk\n\n{speed}\n\nSpeed with windows over speed"
        f" without: {statistics.median(shares):.1%} (median; {min(shares):.1%} to"
        f" {max(shares):.1%}). The graph adds the same memory to both."
    )
