# SPDX-License-Identifier: Apache-2.0
"""Tests of photos/touching.py."""

import cv2
import numpy as np
import pytest

from data.normalise import normalise
from photos import components, touching
from photos.touching import Line, cut, lines


def mark(draw, width=80, height=40, left=5, top=7):
    """The ink of a drawing, as one mark."""
    canvas = np.zeros((height, width), np.uint8)
    draw(canvas)
    (one,) = components.find(canvas)
    one.left += left
    one.top += top
    return one


def ring(canvas, x, y=20, width=12, height=17):
    cv2.ellipse(canvas, (x, y), (width, height), 0, 0, 360, 1, 3)


def two_rings(canvas):
    ring(canvas, 20)
    ring(canvas, 46)


def normalised(one):
    return normalise(one.pixels.astype(np.uint8) * 255)


def knows(*shapes):
    """A classifier that is sure of images of these marks, and of nothing else."""
    known = [normalised(one).astype(float) for one in shapes]

    def classify(images):
        wrong = [min(np.abs(i - k).mean() for k in known) for i in images]
        sure = np.exp(-np.array(wrong) / 8)
        return np.stack([sure, *[(1 - sure) / 9] * 9], 1)

    return classify


RING = mark(lambda canvas: ring(canvas, 20))
UPRIGHT = mark(lambda canvas: cv2.line(canvas, (20, 3), (20, 37), 1, 3))


def test_digits_that_touch_are_cut_where_they_touch():
    both = mark(two_rings)
    pieces = cut([both], normalised, knows(RING))
    assert len(pieces) == 2
    for piece, middle in zip(pieces, (20, 46)):
        assert piece.left + piece.width / 2 - 5 == pytest.approx(middle, abs=2)
        assert abs(piece.width - RING.width) <= 3
        assert piece.top == both.top


def test_slanted_digits_may_be_cut_along_their_slant():
    def draw(canvas):
        for x in (20, 29):
            cv2.line(canvas, (x, 36), (x + 18, 4), 1, 3)
        cv2.line(canvas, (29, 21), (37, 21), 1, 1)  # what joins them

    both = mark(draw)
    between = min(lines(both), key=lambda line: line.ink)
    assert between.slant >= 0.4 and between.ink <= 2
    for sides in ((None, between), (between, None)):
        piece = touching._between(both, *sides)
        assert piece.width >= 18 and piece.height >= 35
        assert piece.pixels.sum() == pytest.approx(both.pixels.sum() / 2, rel=0.1)


def test_a_wide_digit_that_the_network_knows_stays_whole():
    wide = mark(lambda canvas: ring(canvas, 30, width=20))
    assert cut([wide], normalised, knows(wide, UPRIGHT)) == [wide]


def test_narrow_marks_are_not_shown_to_the_network():
    def classify(images):
        raise AssertionError("asked")

    assert cut([UPRIGHT], normalised, classify) == [UPRIGHT]
    assert cut([], normalised, classify) == []


def test_pieces_share_no_ink_and_lie_in_the_mark():
    both = mark(two_rings)
    page = np.zeros((60, 100), int)
    for piece in cut([both], normalised, knows(RING)):
        rows = slice(piece.top, piece.top + piece.height)
        page[rows, piece.left : piece.left + piece.width] += piece.pixels
    assert page.max() == 1
    outside = page.copy()
    outside[7 : 7 + 40, 5 : 5 + 80] = 0
    assert not outside.any()


def test_lines_are_apart_few_and_have_little_ink():
    rng = np.random.default_rng(0)
    noise = (rng.random((40, 200)) < 0.55).astype(np.uint8)
    largest = max(components.find(noise), key=lambda one: one.size)
    found = lines(largest)
    most = round(12 * largest.width / largest.height)
    assert 0 < len(found) <= most
    places = [line.place for line in found]
    assert places == sorted(places) and min(np.diff(places)) >= 2
    assert all(line.ink <= largest.height / 2 for line in found)


def test_a_line_counts_the_strokes_it_crosses():
    both = mark(two_rings)
    middle = touching._along(both.pixels, 0.0, 12.0)  # through the first ring
    assert int((np.diff(middle, prepend=0) == 1).sum()) == 2
    contact = [line for line in lines(both) if abs(line.place - 26) < 4]
    assert min(line.crossed for line in contact) == 1


@pytest.mark.parametrize("crossed, cost", [(0, 0.125), (1, 0.25), (2, 1.0), (9, 1.5)])
def test_a_piece_costs_more_behind_a_line_through_a_loop(crossed, cost):
    side = Line(0.0, 10.0, crossed, 5)
    assert touching._cost(UPRIGHT, UPRIGHT, 1.0, [None, side]) == pytest.approx(cost)
    unsure = touching._cost(UPRIGHT, UPRIGHT, 0.55, [None, side])
    assert unsure - cost == pytest.approx(np.log(2))  # half of it is a digit


def test_what_could_be_anything_is_no_digit():
    nothing, half, sure = touching.unlikeliness([0.1, 0.55, 1.0])
    assert nothing > 6 and half == pytest.approx(np.log(2)) and sure == 0


def test_a_gap_has_one_line():
    def draw(canvas):
        for x in (10, 60):
            cv2.line(canvas, (x, 4), (x, 36), 1, 3)
        cv2.line(canvas, (60, 4), (70, 4), 1, 3)

    halves = components.find(np.pad(mark_of(draw), 1))
    both = components.merged(halves)
    found = [line for line in lines(both) if line.crossed == 0]
    assert len(found) == 1 and 2 < found[0].place < 50


def mark_of(draw):
    canvas = np.zeros((40, 80), np.uint8)
    draw(canvas)
    return canvas
