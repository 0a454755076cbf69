# SPDX-License-Identifier: Apache-2.0
"""Training sets that are larger than memory, a window of their images at a time.

The set is thought of as a ring, cut anew in each pass into blocks of images that follow
each other. Blocks are shuffled; so many steps' worth of them make a window, and within
it the sampler of `training.batches` draws as it does from a whole set. So a batch
remains a function of (seed, step). A thread reads a window while the one before is
trained on: there are never more than two.

How well that shuffles, with --sampler=epochs: each image comes once in a pass. Of
960,000 images in windows of 36,608 (60 MB) 0.18 % of the pairs of a batch lie within a
block of each other, by pure chance 0.01 %; copies of one original come a median of 321
steps apart, 318 by chance; the digits of a window are as mixed (chi-square 6.7, 7.6 by
chance). After 600 steps on 240,000 images system A1, seeds 1 to 5, misread 145, 145,
152, 168 and 145 digits with windows of 9,728 (16 MB); 140, 166, 134, 161 and 154 with
all in memory.
"""

import concurrent.futures
import math
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from data.dataset import empty
from system import device, errors
from training import batches

BLOCK = 64  # images; half of it takes twice as long to read, and shuffles twice as well
LEAST = 64 * BLOCK  # images of a window
ITEM_BYTES = 28 * 28 + 1  # an image and its label
ORDER_BYTES = 64  # per image, while a window's order is worked out
MB = 10**6


class Source(Protocol):
    """A set that can be read from anywhere on, such as augment.stored.Stored."""

    def __len__(self) -> int: ...

    def read(
        self, pieces: Sequence[tuple[int, int]], images: np.ndarray, labels: np.ndarray
    ) -> None:
        """Fills uint8 [n, 28, 28, 1] and [n] with pieces, one behind the other.

        Args:
          pieces: of images that follow each other: number of the first, and how many.

        Raises:
          errors.UserError: they cannot be read.
        """

    def verify(self, stop: threading.Event) -> None:
        """Raises UserError if it is damaged; is left early when `stop` is set."""


class Window(NamedTuple):
    """What is trained on for some steps.

    Attributes:
      images: uint8 [W, 28, 28, 1], on the device; all windows of a set have one W.
      labels: uint8 [W].
      end: the first step that it is not for.
    """

    images: tf.Tensor
    labels: tf.Tensor
    end: int


class Whole:
    """A set that is in memory: one window for all steps.

    Args:
      images: uint8 [N, 28, 28, 1].
      labels: uint8 [N].
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        # Once over to the device, as bytes.
        self._window = Window(device.tensor(images), device.tensor(labels), sys.maxsize)

    def at(self, step: int) -> Window:
        """The window of a step."""
        return self._window

    def first(self, count: int) -> tf.Tensor:
        """The first images of the set, uint8 [count or less, 28, 28, 1]."""
        return self._window.images[:count]

    def verified(self) -> None:
        """It was when it was read."""

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Windows:
    """A set that is not; a context manager, of the interface of `Whole`.

    Args:
      source: the set; larger than a window.
      sampler: a key of `ORDERS`.
      seed: of the run.
      batch_size: images per step.
      length: of a window, in steps.
      steps: of the run; no window is read that begins after them.
    """

    def __init__(
        self,
        source: Source,
        *,
        sampler: str,
        seed: int,
        batch_size: int,
        length: int,
        steps: int,
    ):
        self._source, self._order, self._seed = source, ORDERS[sampler], seed
        self._length, self._steps = length, steps
        size = length * batch_size
        self._arrays = [(empty((size, 28, 28, 1)), empty((size,))) for _ in range(2)]
        # In the same memory, written to only while no step reads it.
        self._tensors = [tuple(map(device.tensor, pair)) for pair in self._arrays]
        self._fills: dict[int, concurrent.futures.Future] = {}
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(2, "windows")
        self._verified = self._pool.submit(source.verify, self._stop)

    def at(self, step: int) -> Window:
        """The window of a step, whose images hold until the next one is asked for.

        Waits for it, and lets the one behind it be read.

        Raises:
          errors.UserError: it cannot be read, or the set was meanwhile found damaged.
        """
        if self._verified.done():
            self._verified.result()
        number = step // self._length
        if number not in self._fills:  # the run begins, or goes on, with it
            concurrent.futures.wait(self._fills.values())
            self._fills = {number: self._pool.submit(self._fill, number)}
        self._fills[number].result()
        end = (number + 1) * self._length
        if number + 1 not in self._fills and end < self._steps:
            coming = self._pool.submit(self._fill, number + 1)
            self._fills = {number: self._fills[number], number + 1: coming}
        images, labels = self._tensors[number % 2]
        return Window(images, labels, end)

    def _fill(self, number: int) -> None:
        """Reads a window into its place."""
        images, labels = self._arrays[number % 2]
        content = self._order(self._seed, number, len(labels), len(self._source))
        if content.places is None:
            self._read(content.pieces, images, labels)
            return
        done = 0
        for piece in content.pieces:  # one at a time: they go to many places
            some = empty((piece[1], 28, 28, 1)), empty((piece[1],))
            self._read([piece], *some)
            places = content.places[done : done + piece[1]]
            images[places], labels[places] = some
            done += piece[1]

    def _read(
        self, pieces: Sequence[tuple[int, int]], images: np.ndarray, labels: np.ndarray
    ) -> None:
        """Reads pieces of the ring."""
        set_size, whole = len(self._source), []
        for first, count in pieces:
            first %= set_size
            before_end = min(count, set_size - first)
            whole.append((first, before_end))
            if before_end < count:
                whole.append((0, count - before_end))
        self._source.read(whole, images, labels)

    def first(self, count: int) -> tf.Tensor:
        """As of `Whole`: the same images, whatever the step."""
        count = min(count, len(self._source))
        images = empty((count, 28, 28, 1))
        self._source.read([(0, count)], images, empty((count,)))
        return device.tensor(images)

    def verified(self) -> None:
        """Waits until every byte of the set is known to be as it was written.

        To be asked before what it was trained on is kept.

        Raises:
          errors.UserError: one is not.
        """
        self._verified.result()

    def __enter__(self) -> "Windows":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


class Content(NamedTuple):
    """What a window is filled with.

    Attributes:
      pieces: of images that follow each other in the ring: number of the first one, to
        be taken modulo the size of the set, and how many.
      places: int64 [W], where in the window each of their images goes; None: in order.
    """

    pieces: list[tuple[int, int]]
    places: np.ndarray | None = None


# (seed, number of the window, images of a window, images of the set) → its content
Order = Callable[[int, int, int, int], Content]


def shuffled_blocks(seed: int, window: int, window_size: int, set_size: int) -> Content:
    """Every image once per pass over the set, blocks in an order new in each pass.

    Image number n of the endless sequence of passes belongs to window n div
    window_size, of which `batches.shuffled_epochs` then draws each image once. A pass
    begins anywhere in the ring, so that its blocks are others than those of the pass
    before. What is left when the ring has been cut into whole blocks, less than one,
    comes last.
    """
    pieces, ends = [], []
    at, end = window * window_size, (window + 1) * window_size
    while at < end:
        number, start = divmod(at, set_size)
        stop = min(set_size, start + end - at)
        pieces += _of_pass(seed, number, start, stop, set_size)
        at += stop - start
        ends.append(at - window * window_size)
    if len(ends) == 1:
        return Content(pieces)
    # The rest of a pass goes where the sampler draws first. A window is a pass to it.
    number = tf.constant(window, tf.int64)
    drawn = batches.shuffled_epochs(seed, number, window_size, window_size).numpy()
    return Content(pieces, np.concatenate([*map(np.sort, np.split(drawn, ends))]))


def _of_pass(
    seed: int, number: int, start: int, stop: int, set_size: int
) -> list[tuple[int, int]]:
    """The pieces that hold images `start` to `stop` of a pass."""
    *key, turn = _random(seed, number, 4)
    blocks = set_size // BLOCK
    places = np.arange(start // BLOCK, math.ceil(stop / BLOCK))
    # As in `batches.shuffled_epochs`: no shuffled list exists.
    order = tf.raw_ops.RandomIndexShuffle(
        index=np.minimum(places, blocks - 1),
        seed=np.array(key),
        max_index=np.int64(blocks - 1),
        rounds=8,
    ).numpy()
    order[places == blocks] = blocks  # what is left stays where it is
    firsts = np.maximum(start, places * BLOCK)
    counts = np.minimum(stop, (places + 1) * BLOCK) - firsts
    firsts += turn % set_size + (order - places) * BLOCK
    return list(zip(firsts.tolist(), counts.tolist(), strict=True))


def drawn_blocks(seed: int, window: int, window_size: int, set_size: int) -> Content:
    """Blocks that begin anywhere in the ring, each drawn independently."""
    firsts = _random(seed, window, math.ceil(window_size / BLOCK))
    counts = [min(BLOCK, window_size - BLOCK * i) for i in range(len(firsts))]
    return Content(list(zip(firsts, counts, strict=True)))


# By the sampler that draws from the window.
ORDERS: dict[str, Order] = {"epochs": shuffled_blocks, "random": drawn_blocks}


def _random(seed: int, number: int, count: int) -> list[int]:
    """Random int64; none that a step draws, because those have numbers from 0 up."""
    shape, seeds = [count], tf.constant([seed, -1 - number], tf.int64)
    drawn = tf.random.stateless_uniform(shape, seeds, None, None, tf.int64)
    return drawn.numpy().tolist()


def length(memory_mb: int, batch_size: int) -> int:
    """The steps of a window, if two windows are to have so much memory.

    Raises:
      errors.UserError: it is too little for windows that are worth shuffling.
    """
    step_bytes = (2 * ITEM_BYTES + ORDER_BYTES) * batch_size
    steps = memory_mb * MB // step_bytes
    least = math.ceil(LEAST / batch_size)
    if steps < least:
        needed = math.ceil(step_bytes * least / MB)
        raise errors.UserError(
            f"memory_mb={memory_mb} is too little for two windows of"
            f" {least * batch_size:,} images: give {needed} or more, or 0 for the whole"
            " set in memory"
        )
    return steps


def fits(count: int, memory_mb: int) -> bool:
    """Whether so many images can be in memory all together."""
    return count * ITEM_BYTES <= memory_mb * MB


def feed(
    images: np.ndarray,
    labels: np.ndarray,
    source: Source | None,
    config: Any,
    steps: int,
) -> Whole | Windows:
    """What a run is trained on, by step.

    Args:
      images, labels: the set if it is in memory, as of `Whole`.
      source: the set if it is not.
      config: the run's `config.Config`.
      steps: of the run.
    """
    if source is None:
        return Whole(images, labels)
    return Windows(
        source,
        sampler=config.sampler,
        seed=config.seed,
        batch_size=config.batch_size,
        length=length(config.memory_mb, config.batch_size),
        steps=steps,
    )
