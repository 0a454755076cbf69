# SPDX-License-Identifier: Apache-2.0
"""Training on sets that are larger than memory, one window of images at a time.

The set is a ring, which each pass cuts into blocks of neighbouring images. The blocks
are shuffled, and enough of them for some steps make a window. Within a window, the
sampler of `training.batches` draws as it would from a whole set, so a batch is still a
function of (seed, step). A thread reads the next window while we train on this one;
there are never more than two.

With --sampler=epochs, each image comes once per pass, shuffled nearly as well as in
memory; docs/scaling.md has figures.
"""

import concurrent.futures
import math
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import DTypeLike

from data.dataset import empty
from system import device, errors
from training import batches

BLOCK = 64  # images; half as many would read half as fast and shuffle twice as well
MIN_WINDOW_IMAGES = 64 * BLOCK
ITEM_BYTES = 28 * 28 + 1  # an image and its label
ORDER_BYTES = 64  # per image, while we compute a window's order
MB = 10**6


class Source(Protocol):
    """A set that can be read from any image on, such as augment.stored.Stored."""

    def __len__(self) -> int: ...

    def read(
        self, pieces: Sequence[tuple[int, int]], images: np.ndarray, labels: np.ndarray
    ) -> None:
        """Fills images, uint8 [n, 28, 28, 1], and labels [n] with pieces of the set.

        A piece is the number of its first image and a count. Raises UserError if the
        set cannot be read.
        """

    def verify(self, stop: threading.Event) -> None:
        """Raises UserError if the set is damaged; returns early once `stop` is set."""


class Window(NamedTuple):
    """Images to train on for some steps."""

    # uint8 [W, 28, 28, 1], on the device; W is the same for all windows
    images: tf.Tensor
    labels: tf.Tensor  # [W]
    end: int  # first step after this window


class Windows:
    """A set on disk, with the interface of `sets.Whole`; a context manager.

    Args:
      source: the set; larger than a window.
      sampler: key of `ORDERS`.
      seed: seed of the run.
      batch_size: images per step.
      length: steps per window.
      steps: steps of the run; windows after its end are not read.
      label_type: type of the labels.
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
        label_type: DTypeLike = np.uint8,
    ):
        self._source, self._order, self._seed = source, ORDERS[sampler], seed
        self._length, self._steps = length, steps
        size = length * batch_size
        self._arrays = [_arrays(size, label_type) for _ in range(2)]
        # They share the arrays' memory, which we write to only while no step reads it.
        self._tensors = [tuple(map(device.tensor, pair)) for pair in self._arrays]
        self._fills: dict[int, concurrent.futures.Future] = {}
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(2, "windows")
        self._verified = self._pool.submit(source.verify, self._stop)

    def at(self, step: int) -> Window:
        """Returns the window of a step; it is valid until the next call.

        Waits for the window, and starts to read the one after it. Raises UserError if
        the window cannot be read or the set is damaged.
        """
        if self._verified.done():
            self._verified.result()
        number = step // self._length
        if number not in self._fills:  # the run starts or resumes here
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
        """Reads a window into one of the two pairs of arrays."""
        images, labels = self._arrays[number % 2]
        content = self._order(self._seed, number, len(labels), len(self._source))
        if content.places is None:
            self._read(content.pieces, images, labels)
            return
        done = 0
        for piece in content.pieces:  # each goes to scattered places
            buffers = _arrays(piece[1], labels.dtype)
            self._read([piece], *buffers)
            places = content.places[done : done + piece[1]]
            images[places], labels[places] = buffers
            done += piece[1]

    def _read(
        self, pieces: Sequence[tuple[int, int]], images: np.ndarray, labels: np.ndarray
    ) -> None:
        """Reads pieces of the ring; one may cross the end of the set."""
        set_size, in_set = len(self._source), []
        for first, count in pieces:
            first %= set_size
            before_end = min(count, set_size - first)
            in_set.append((first, before_end))
            if before_end < count:
                in_set.append((0, count - before_end))
        self._source.read(in_set, images, labels)

    def first(self, count: int) -> tf.Tensor:
        """Returns the first images of the set, as `Whole.first` does."""
        count = min(count, len(self._source))
        images, labels = _arrays(count, self._arrays[0][1].dtype)
        self._source.read([(0, count)], images, labels)
        return device.tensor(images)

    def verified(self) -> None:
        """Waits until the whole set has been verified; UserError if it is damaged.

        Call it before keeping anything that was trained on the set.
        """
        self._verified.result()

    def __enter__(self) -> "Windows":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


def _arrays(count: int, label_type: DTypeLike) -> tuple[np.ndarray, np.ndarray]:
    """Creates arrays for so many images and labels."""
    return empty((count, 28, 28, 1)), empty((count,), label_type)


class Content(NamedTuple):
    """Content of a window.

    Attributes:
      pieces: pieces of the ring, each a number of its first image and a count; numbers
        are modulo the size of the set.
      places: int64 [W], place of each of these images in the window; None: in order.
    """

    pieces: list[tuple[int, int]]
    places: np.ndarray | None = None


# (seed, number of the window, images per window, images of the set) → Content
Order = Callable[[int, int, int, int], Content]


def shuffled_blocks(seed: int, window: int, window_size: int, set_size: int) -> Content:
    """Takes every image once per pass over the set, in a new order of blocks each time.

    Passes follow each other without a gap, and each window takes the next `window_size`
    images; `batches.shuffled_epochs` then draws each of them once. Each pass starts
    somewhere else in the ring, so its blocks differ from those of other passes. The
    images that fill no block come last.
    """
    pieces, ends = [], []
    at, end = window * window_size, (window + 1) * window_size
    while at < end:
        number, start = divmod(at, set_size)
        stop = min(set_size, start + end - at)
        pieces += _pieces_of_pass(seed, number, start, stop, set_size)
        at += stop - start
        ends.append(at - window * window_size)
    if len(ends) == 1:
        return Content(pieces)
    # Images of the old pass go to the places that the sampler draws first.
    number = tf.constant(window, tf.int64)
    drawn = batches.shuffled_epochs(seed, number, window_size, window_size).numpy()
    return Content(pieces, np.concatenate([*map(np.sort, np.split(drawn, ends))]))


def _pieces_of_pass(
    seed: int, number: int, start: int, stop: int, set_size: int
) -> list[tuple[int, int]]:
    """Pieces that hold images `start` to `stop` of a pass."""
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
    order[places == blocks] = blocks  # the incomplete block stays at the end
    firsts = np.maximum(start, places * BLOCK)
    counts = np.minimum(stop, (places + 1) * BLOCK) - firsts
    firsts += turn % set_size + (order - places) * BLOCK
    return list(zip(firsts.tolist(), counts.tolist(), strict=True))


def drawn_blocks(seed: int, window: int, window_size: int, set_size: int) -> Content:
    """Draws blocks that start anywhere in the ring, independently of each other."""
    firsts = _random(seed, window, math.ceil(window_size / BLOCK))
    counts = [min(BLOCK, window_size - BLOCK * i) for i in range(len(firsts))]
    return Content(list(zip(firsts, counts, strict=True)))


# By the name of the sampler that draws from the window.
ORDERS: dict[str, Order] = {"epochs": shuffled_blocks, "random": drawn_blocks}


def _random(seed: int, number: int, count: int) -> list[int]:
    """Random int64, independent of those of steps, whose numbers are 0 or more."""
    shape, seeds = [count], tf.constant([seed, -1 - number], tf.int64)
    drawn = tf.random.stateless_uniform(shape, seeds, None, None, tf.int64)
    return drawn.numpy().tolist()


def length(memory_mb: int, batch_size: int) -> int:
    """Number of steps per window if two windows take `memory_mb`.

    Raises UserError if windows of that size would not shuffle well enough.
    """
    step_bytes = (2 * ITEM_BYTES + ORDER_BYTES) * batch_size
    steps = memory_mb * MB // step_bytes
    least = math.ceil(MIN_WINDOW_IMAGES / batch_size)
    if steps < least:
        needed = math.ceil(step_bytes * least / MB)
        raise errors.UserError(
            f"memory_mb={memory_mb} is too little for two windows of"
            f" {least * batch_size:,} images: give {needed} or more, or 0 to keep the"
            " whole set in memory"
        )
    return steps


def fits(count: int, memory_mb: int) -> bool:
    """Whether `count` images fit into `memory_mb`."""
    return count * ITEM_BYTES <= memory_mb * MB
