# SPDX-License-Identifier: Apache-2.0
"""Tests of training/windows.py, and of how well its windows are shuffled."""

import json

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from benchmarks import peers
from benchmarks import windows as benchmark
from system import errors
from tests.helpers import cells, command
from training import batches, windows

BATCH, LENGTH = 20, 7
SIZE = BATCH * LENGTH  # of a window

REGISTRY = pytest.mark.parametrize("sampler", windows.ORDERS)


class Numbered:
    """A set whose images hold their numbers."""

    def __init__(self, size):
        self.size, self.most = size, 0

    def __len__(self):
        return self.size

    def read(self, pieces, images, labels):
        parts = [np.arange(first, first + n, dtype=np.uint32) for first, n in pieces]
        numbers = np.concatenate(parts)
        assert numbers.max() < self.size
        self.most += len(labels)
        images[:, 0, :4, 0] = numbers.view(np.uint8).reshape(-1, 4)
        labels[:] = numbers % 10

    def verify(self, stop):
        pass


def feed(source, sampler="epochs", steps=10**9, seed=3):
    return windows.Windows(
        source, sampler=sampler, seed=seed, batch_size=BATCH, length=LENGTH, steps=steps
    )


def content(window):
    """Numbers of the images in a window."""
    images = window.images.numpy()
    numbers = np.ascontiguousarray(images[:, 0, :4, 0]).view(np.uint32)[:, 0]
    np.testing.assert_array_equal(window.labels, numbers % 10)
    return numbers


def drawn(source, steps, sampler="epochs"):
    """Numbers of the images that a run draws."""
    found = []
    with feed(source, sampler) as some:
        for step in range(steps):
            window = some.at(step)
            assert step < window.end
            indices = batches.SAMPLERS[sampler](
                3, tf.constant(step, tf.int64), BATCH, SIZE
            )
            found.append(content(window)[indices])
    return np.concatenate(found)


def test_every_sampler_has_an_order():
    assert windows.ORDERS.keys() == batches.SAMPLERS.keys()


@pytest.mark.parametrize("size", [1000, 960, SIZE + 1])
def test_each_pass_holds_every_image_once(size):
    numbers = drawn(Numbered(size), 3 * size // BATCH + 1)
    orders = numbers[: 3 * size].reshape(3, size)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    assert len(np.unique(orders, axis=0)) == 3


def test_images_are_drawn_at_random_from_all_over_the_set():
    numbers = drawn(Numbered(500), 1400, "random")
    # As often as one another: but those of a block come together, and each block's
    # images about as often as a window has draws for its places.
    tenths = np.bincount(numbers // 50, minlength=10)
    assert tenths.min() > 0.8 * tenths.mean() and tenths.max() < 1.2 * tenths.mean()
    assert len(np.unique(numbers)) == 500


@REGISTRY
def test_a_window_is_a_function_of_seed_and_number(sampler):
    source, found = Numbered(1000), []
    with feed(source, sampler) as some:
        for number in range(9):  # into the second pass
            window = some.at(number * LENGTH)
            assert window.end == (number + 1) * LENGTH
            found.append(content(window))
    for number in (8, 7, 3):
        end = (number + 1) * LENGTH  # of this run: with fewer epochs
        with feed(source, sampler, end) as some:
            again = some.at(number * LENGTH + 4)  # where a run resumes
            np.testing.assert_array_equal(content(again), found[number])
            np.testing.assert_array_equal(content(some.at(0)), found[0])
    with feed(source, sampler, seed=4) as some:
        assert (content(some.at(0)) != found[0]).any()
    assert len(np.unique(found, axis=0)) == 9


def test_two_windows_are_read_and_none_after_the_last_step():
    source = Numbered(1000)
    with feed(source, steps=2 * LENGTH) as some:
        for step in range(2 * LENGTH):
            some.at(step)
    assert source.most == 2 * SIZE


def test_the_first_images_are_those_of_the_set():
    with feed(Numbered(1000)) as some:
        some.at(LENGTH)
        np.testing.assert_array_equal(some.first(5)[:, 0, 0, 0], range(5))
        assert len(some.first(2000)) == 1000


class Damaged(Numbered):
    """A set whose damage is noticed on verifying, or on reading."""

    def verify(self, stop):
        raise errors.UserError("altered")


class Unreadable(Numbered):
    """A set whose images cannot be read."""

    def read(self, pieces, images, labels):
        raise errors.UserError("unreadable")


def test_a_damaged_set_is_not_trained_on():
    with feed(Damaged(1000)) as some:
        with pytest.raises(errors.UserError, match="altered"):
            some.verified()
        with pytest.raises(errors.UserError, match="altered"):
            some.at(0)
    with feed(Unreadable(1000)) as some:
        some.verified()
        with pytest.raises(errors.UserError, match="unreadable"):
            some.at(0)


def test_two_windows_fill_the_memory_that_is_allowed():
    # 60,000,000 / ((2 · 785 + 64) · 128) = 286.9
    assert windows.length(60, 128) == 286
    assert windows.length(7, 4096) == 1
    with pytest.raises(
        errors.UserError, match="4,096 images: give 7 or more"
    ) as caught:
        windows.length(6, 128)
    assert len(str(caught.value).splitlines()) == 1
    assert windows.fits(1000, 1) and not windows.fits(1274, 1)  # 1274 · 785 > 10⁶


# --- shuffling ---


def test_pieces_of_a_pass_cover_it_once():
    pieces, places = windows.shuffled_blocks(0, 0, 1000, 1000)
    assert places is None
    counts = [count for _, count in pieces]
    assert counts == [windows.BLOCK] * 15 + [40]
    images = np.concatenate([np.arange(f, f + n) for f, n in pieces]) % 1000
    assert sorted(images) == list(range(1000))
    others, _ = windows.shuffled_blocks(0, 1, 1000, 1000)
    # The next pass cuts elsewhere.
    assert {f % windows.BLOCK for f, _ in pieces} != {
        f % windows.BLOCK for f, _ in others
    }


def test_neighbouring_blocks_are_unrelated():
    pieces, _ = windows.shuffled_blocks(0, 0, 320_000, 320_000)
    order = [first for first, _ in pieces]
    assert abs(stats.pearsonr(order[1:], order[:-1]).statistic) < 0.05


def order_of(window, window_size, set_size):
    """Indices of a window's images, in the order of --sampler=epochs."""
    pieces, places = windows.shuffled_blocks(0, window, window_size, set_size)
    images = np.concatenate([np.arange(first, first + n) for first, n in pieces])
    if places is not None:
        images[places] = images.copy()
    # All steps of the window at once, as one large batch.
    number = tf.constant(window, tf.int64)
    order = batches.shuffled_epochs(0, number, window_size, window_size)
    return images[order.numpy()] % set_size


def statistics_of(order, batch_size, originals):
    """How well a pass over several copies of some originals is shuffled.

    Returns:
      Images left out; share of pairs within a batch that lie less than a block apart in
      the set; median number of steps from one copy of an original to the next.
    """
    drawn = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    apart = abs(drawn[:, :, np.newaxis] - drawn[:, np.newaxis])
    apart = np.minimum(apart, len(order) - apart)
    close = (apart < windows.BLOCK).sum() - drawn.size  # less each image and itself
    pairs = close / (drawn.size * (batch_size - 1))
    by_original = np.argsort(order % originals, kind="stable")  # then as drawn
    same = np.diff((order % originals)[by_original]) == 0
    gaps = np.diff(by_original)[same] / batch_size
    return len(order) - len(np.unique(order)), pairs, np.median(gaps)


def test_statistics_by_hand():
    # Each batch holds neighbours; the copy of an image comes 64 batches of 2 later.
    assert statistics_of(np.arange(256), 2, 128) == (0, 1, 64)
    paired = np.arange(256).reshape(2, 128).T.reshape(-1)  # 0, 128, 1, 129, …
    assert statistics_of(paired, 2, 128) == (0, 0, 0.5)
    assert statistics_of(paired // 2 * 2, 2, 128)[0] == 128


def test_pairs_from_a_block_are_as_rare_as_calculated():
    size, window = 64_000, 6_400
    order = np.concatenate([order_of(n, window, size) for n in range(10)])
    missing, pairs, gap = statistics_of(order, 128, size // 4)
    assert missing == 0
    # Of an image's 126 neighbours in reach, 63 share its block and so its window; the
    # others are in its window by chance.
    share = 63 / (window - 1) * (1 + window / size)
    assert pairs == pytest.approx(share, rel=0.1)
    uniform = np.random.default_rng(0).permutation(size)
    assert gap == pytest.approx(statistics_of(uniform, 128, size // 4)[2], rel=0.05)


# --- the benchmark ---


@pytest.mark.usefixtures("forked_peers")
def test_the_benchmark_trains_across_windows(tmp_path):
    settings = {"memory_mb": 7, "augmented_dir": str(tmp_path), "images": 500}
    with peers.Peer("benchmarks.windows", "loop", settings) as peer:
        answer = peer.ask(20)  # of 33 steps is a window; it has warmed up in several
    assert answer["set_images"] > 25 * 500  # shifts, and some flips
    assert 0 < answer["images_per_second"]
    assert 0 < answer["resident_bytes_before"] < answer["resident_bytes"]


def test_tables_of_stored_results():
    def loop(speeds, after):
        count = len(speeds)
        return {
            "images_per_second": speeds,
            "resident_bytes_before": [10**8] * count,
            "resident_bytes": [after] * count,
            "set_images": [10**6] * count,
        }

    result = {
        "loops": {
            "0": loop([10, 20, 40], 9 * 10**8),
            "16": loop([9, 19, 40], 10**8 + 2e7),
        }
    }
    section = benchmark.markdown(json.loads(json.dumps(result)))
    rows = cells(section)
    assert ["everything", "785 MB", "20", "800 MB"] in rows
    assert ["windows, 16 MB", "785 MB", "19", "20 MB"] in rows
    assert "95.0% (median; 90.0% to 100.0%)" in section


# --- memory ---


def test_memory_stays_within_its_bound(tmp_path):
    code = f"""
import train
from config import define_flags, from_flags
from training import sets
from training.state import State
import numpy as np
import tensorflow as tf
from absl import flags
from benchmarks import growth
from data import Dataset
from training import windows

define_flags()
flags.FLAGS(["train.py", "--network=mlp", "--memory_mb=20", "--replicas=1",
    "--flip_shifted", "--augmented_dir={tmp_path}", "--batch_size=100"])
config = from_flags()
noise = np.random.default_rng(0).integers(0, 256, (12_000, 28, 28, 1), np.uint8)
labels = np.zeros(len(noise), np.uint8)
dataset = Dataset("noise", noise, labels, noise[:0], None, {{}}, "")
training = sets.load(dataset, config)
steps = windows.length(20, 100)
no_images = tf.zeros([100 * steps, 28, 28, 1], tf.uint8)
no_labels = tf.zeros([100 * steps], tf.uint8)
state = State(config)
train_steps = train.make_train_steps(state, no_images, no_labels, config, 1)
train_steps(0, 10, training=True)
before, after = growth.resident_bytes(), []
with sets.feed(training, config, 10**6) as feed:
    for window in range(15):
        images, labels, _ = feed.at(steps * window)
        train_steps(steps * window, 2, True, images, labels)
        feed.verified()
        after.append(growth.resident_bytes())
print(training.train_count, max(after) - before)
"""
    done = command("-c", code)
    assert done.returncode == 0, done.stderr
    count, growth = map(int, done.stdout.split())
    assert count * windows.ITEM_BYTES > 90e6
    assert 10e6 < growth < 20e6 + 10e6  # of those 10, Python and TensorFlow themselves
