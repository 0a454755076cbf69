# SPDX-License-Identifier: Apache-2.0
"""Tests of photos/broken.py: the network's word joins what distance does not."""

import cv2
import numpy as np
import pytest

from photos import broken, components
from tests.test_touching import knows, normalised


def marks(draw, shape=(60, 160)):
    canvas = np.zeros(shape, np.uint8)
    draw(canvas)
    return components.find(canvas)


def five_in_two(canvas, gap=12):
    cv2.ellipse(canvas, (30, 40), (12, 12), 0, -120, 120, 1, 3)
    cv2.line(canvas, (24, 28 - gap), (44, 28 - gap), 1, 3)


def two_strokes(canvas):
    for x in (90, 108):
        cv2.line(canvas, (x, 10), (x, 50), 1, 3)


FIVE = components.merged(marks(five_in_two))
STROKE = marks(two_strokes)[0]


def join(found, *known):
    return broken.join(found, normalised, knows(*known))


def test_pieces_that_are_read_together_are_joined():
    found = marks(five_in_two)
    assert len(found) == 2
    other, whole = join([*found, STROKE], FIVE, STROKE)
    assert other is STROKE  # a digit that shows the usual size
    assert (whole.left, whole.top, whole.pixels.shape) == (
        *(FIVE.left, FIVE.top),
        FIVE.pixels.shape,
    )
    assert whole.pixels.sum() == sum(mark.pixels.sum() for mark in found)


def test_a_digit_in_four_pieces():
    def draw(canvas):
        five_in_two(canvas)
        canvas[38:41] = 0  # cuts the belly in two
        canvas[10:20, 34:37] = 0  # and the bar

    found = marks(draw)
    assert len(found) == 4
    assert len(join([*found, STROKE], components.merged(found), STROKE)) == 2


def test_digits_that_are_read_apart_stay_apart():
    found = marks(two_strokes)
    both = components.merged(found)
    assert join(found, STROKE, both) == found


def test_what_is_read_no_better_together_stays_apart():
    found = [*marks(five_in_two), STROKE]
    assert join(found, STROKE) == found


def test_without_a_digit_to_compare_with_nothing_is_joined():
    found = marks(five_in_two)
    assert join(found, FIVE, STROKE) == found


def test_a_union_is_as_large_as_the_other_digits():
    found = marks(five_in_two)
    for factor in (2.5, 0.4):
        size = round(factor * STROKE.height)
        other = components.Mark(200, 0, np.ones((size, 5), bool), 5.0)
        assert len(join([*found, other], FIVE, other)) == 3


def test_several_digits_are_joined_at_once():
    def draw(canvas):
        for x in range(6):
            five_in_two(canvas[:, 70 * x : 70 * x + 70])

    found = marks(draw, (60, 420))
    assert len(found) == 12
    assert len(join([*found, STROKE], FIVE, STROKE)) == 7


def test_far_pieces_are_not_tried():
    found = marks(lambda canvas: five_in_two(canvas, 33), (70, 160))
    assert list(broken._pairs(found, np.zeros(2))) == []
    every = [*found, STROKE]
    assert join(every, components.merged(found), STROKE) == every


def test_groups_hang_together_and_are_bounded(monkeypatch):
    chain = [(0.1, i, i + 1) for i in range(6)]
    groups = broken._groups(chain)
    assert frozenset((0, 1)) in groups and frozenset((0, 1, 2, 3)) in groups
    assert frozenset((0, 2)) not in groups and max(map(len, groups)) == 4
    monkeypatch.setattr(broken, "_MOST_GROUPS", 3)
    assert broken._groups(chain) == [frozenset((i, i + 1)) for i in range(3)]


@pytest.mark.parametrize("count", [0, 1])
def test_one_mark_has_nothing_to_be_joined_to(count):
    found = marks(five_in_two)[:count]
    assert join(found, FIVE) == found
