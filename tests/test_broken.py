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
    (whole,) = join(found, FIVE, STROKE)
    assert (whole.left, whole.top, whole.pixels.shape) == (
        *(FIVE.left, FIVE.top),
        FIVE.pixels.shape,
    )
    assert whole.pixels.sum() == sum(mark.pixels.sum() for mark in found)


def test_digits_that_are_read_apart_stay_apart():
    found = marks(two_strokes)
    both = components.merged(found)
    assert join(found, STROKE, both) == found


def test_what_is_read_no_better_together_stays_apart():
    found = marks(five_in_two)
    assert join(found, STROKE) == found


def test_several_digits_are_joined_at_once():
    def draw(canvas):
        for x in range(6):
            five_in_two(canvas[:, 70 * x : 70 * x + 70])

    found = marks(draw, (60, 420))
    assert len(found) == 12
    assert len(join(found, FIVE, STROKE)) == 6


def test_far_pieces_are_not_tried():
    found = marks(lambda canvas: five_in_two(canvas, 27))
    assert list(broken._pairs(found, np.zeros(2))) == []
    assert join(found, components.merged(found)) == found


@pytest.mark.parametrize("count", [0, 1])
def test_one_mark_has_nothing_to_be_joined_to(count):
    found = marks(five_in_two)[:count]
    assert join(found, FIVE) == found
