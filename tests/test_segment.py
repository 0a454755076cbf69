# SPDX-License-Identifier: Apache-2.0
"""Tests of photos/segment.py: all digits of a page, nothing else, in order."""

import cv2
import numpy as np
import pytest

import data
from data.normalise import normalise
from photos import components, paper, segment


@pytest.fixture(scope="module")
def digits():
    """Handwriting, uint8 [n, 28, 28], one of each class first."""
    return data.load("digits").train_images[..., 0]


def lay_out(rows, side=84, height=None):
    """Draws rows of digits on a white page, uint8, in square frames of this side."""
    height = height or side
    columns = max(len(row) for row in rows)
    page = np.full((height * len(rows), side * columns), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, digit in enumerate(row):
            drawn = cv2.resize(digit, (side, side), interpolation=cv2.INTER_LINEAR)
            page[y * height :, x * side :][:side, :side] = 255 - drawn
    return page


def places(found):
    return [(digit.row, digit.column) for digit in found]


def difference(image, digit):
    """Measures the mean difference in grey levels."""
    return np.abs(image.astype(int) - digit).mean()


def same_digits(found, expected, most=12):
    assert len(found) == len(expected)
    for digit, image in zip(found, expected, strict=True):
        assert digit.image.dtype == np.uint8 and digit.image.shape == (28, 28)
        assert difference(digit.image, image) < most


def test_three_rows_in_reading_order(digits):
    page = lay_out([digits[:4], digits[4:6], digits[6:9]])
    found = segment.find(page)
    assert places(found) == [
        *((1, 1), (1, 2), (1, 3), (1, 4)),
        *((2, 1), (2, 2)),
        *((3, 1), (3, 2), (3, 3)),
    ]
    same_digits(found, digits[:9])
    for digit in found:
        left, top, width, height = digit.box
        assert (left // 84, top // 84) == (digit.column - 1, digit.row - 1)
        window = page[top : top + height, left : left + width]
        assert max(width, height) == pytest.approx(60, abs=3) and window.min() < 50


def test_sloping_rows_are_in_reading_order(digits):
    page = lay_out([digits[:8], digits[8:16], digits[16:24]], height=120)
    height, width = page.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 6, 1)
    page = cv2.warpAffine(page, turn, (width, height), borderValue=255)
    assert places(segment.find(page)) == [
        (y, x) for y in (1, 2, 3) for x in range(1, 9)
    ]


def test_digits_of_different_sizes_share_a_row(digits):
    page = np.full((320, 700), 255, np.uint8)
    left = 20
    for digit, side in zip(digits[:5], (28, 280, 40, 140, 60)):
        page[160 - side // 2 :, left:][:side, :side] = 255 - cv2.resize(
            digit, (side, side)
        )
        left += side
    found = segment.find(page)
    assert places(found) == [(1, column) for column in range(1, 6)]
    same_digits(found, digits[:5])


@pytest.mark.parametrize("invert", [False, True])
def test_polarity_is_detected(digits, invert):
    page = lay_out([digits[:5]])
    page = 255 - page if invert else page
    same_digits(segment.find(page), digits[:5])
    forced = segment.find(page, "light" if invert else "dark")
    assert len(forced) == 5


def test_polarity_is_forced(digits):
    """We may guess wrong if ink covers half of the page, so the user can decide."""
    page = lay_out([digits[:5]])
    assert not np.array_equal(
        paper.lift_ink(page, "light"), paper.lift_ink(page, "dark")
    )
    same_digits(segment.find(255 - page, "light"), digits[:5])


def test_digits_are_found_in_uneven_light_and_noise(digits):
    page = lay_out([digits[:6], digits[6:12], digits[12:18]]).astype(np.float64)
    height, width = page.shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    light = 0.25 + 0.6 * x * y + 0.1 * np.sin(6 * y)
    noise = np.random.default_rng(0).normal(0, 3, page.shape)
    lit = (page * light + noise).clip(0, 255).astype(np.uint8)
    same_digits(segment.find(lit), digits[:18], most=15)


def rows_of(digits):
    """Draws three rows of eight; returns the page and the place of each digit."""
    page = lay_out([digits[:8], digits[8:16], digits[16:24]], height=110)
    return page, [(y, x) for y in (1, 2, 3) for x in range(1, 9)]


@pytest.mark.parametrize("depth", [0.3, 0.6])
def test_digits_are_found_in_the_shadow_of_a_hand(digits, depth):
    """The edge of the shadow is sharp, and runs between and across digits."""
    page, expected = rows_of(digits)
    height, width = page.shape
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(x - width, y - height) - 0.6 * width
    shadow = 1 - depth / (1 + np.exp(inside / 3))
    found = segment.find((page * shadow).astype(np.uint8))
    assert places(found) == expected
    same_digits(found, digits[:24], most=15)


@pytest.mark.parametrize("grey", [100, 200])
def test_digits_are_found_on_squared_paper_in_a_shadow(digits, grey):
    page, expected = rows_of(digits)
    page = cv2.resize(page, None, fx=2, fy=2)
    height, width = page.shape
    ruled = np.full_like(page, 255)
    for y in range(7, height, 40):
        ruled[y : y + 2] = grey
    for x in range(7, width, 40):
        ruled[:, x : x + 2] = grey
    page = np.minimum(page, ruled)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 2, 0.95)
    page = cv2.warpAffine(page, turn, (width, height), borderValue=255)
    shadow = np.linspace(1, 0.6, width)
    noise = np.random.default_rng(0).normal(0, 3, page.shape)
    lit = (page * shadow + noise).clip(0, 255).astype(np.uint8)
    assert places(segment.find(lit)) == expected


def test_digits_are_found_on_dotted_paper(digits):
    page, expected = rows_of(digits)
    dotted = np.full_like(page, 255)
    for y in range(9, page.shape[0], 16):
        for x in range(9, page.shape[1], 16):
            cv2.circle(dotted, (x, y), 1, 120, cv2.FILLED)
    assert places(segment.find(np.minimum(page, dotted))) == expected


@pytest.mark.parametrize(("grey", "squared"), [(90, False), (190, False), (190, True)])
@pytest.mark.parametrize("tilt", [0, 5])
def test_ruled_lines_are_not_digits(digits, grey, squared, tilt):
    page = lay_out([digits[:8], digits[8:16]], height=110)
    ruled = np.full_like(page, 255)
    height, width = page.shape
    for y in range(-10, height, 32):
        cv2.line(ruled, (0, y), (width, y + tilt), grey, 2)
    for x in range(17, width, 32) if squared else ():
        cv2.line(ruled, (x, 0), (x - tilt // 2, height), grey, 2)
    found = segment.find(np.minimum(page, ruled))
    assert places(found) == [(y, x) for y in (1, 2) for x in range(1, 9)]
    same_digits(found, digits[:16], most=25)


def test_an_underline_is_not_a_digit(digits):
    page = lay_out([digits[:4]], height=120)
    cv2.line(page, (40, 105), (190, 107), 0, 3)
    same_digits(segment.find(page), digits[:4])


def test_specks_and_blots_are_dropped(digits):
    page = lay_out([digits[:5]], height=200)
    for number, x in enumerate(range(5, page.shape[1], 20)):
        for y in range(95, 200, 20):
            cv2.circle(page, (x, y), number % 4, 0, cv2.FILLED)
    cv2.circle(page, (200, 150), 12, 0, cv2.FILLED)  # a blot
    assert len(segment.find(page)) == 5


def test_flecks_are_of_the_digits_pen_but_much_smaller():
    def seven(left, top, size, pen):
        corner = left + size // 2, top
        cv2.line(page, (left, top), corner, 0, pen)
        cv2.line(page, corner, (left + size // 5, top + size), 0, pen)

    page = np.full((160, 500), 255, np.uint8)
    for left in range(40, 460, 100):
        seven(left, 20, 70, 5)
    for x in range(20, 480, 60):
        cv2.line(page, (x, 120), (x + 5, 125), 0, 5)
    assert len(segment.find(page)) == 5
    # A small digit, by a finer pen, is one.
    seven(250, 128, 22, 1)
    assert len(segment.find(page)) == 6


@pytest.mark.parametrize("tilt", [0, 1.5])
def test_digits_are_found_in_the_cells_of_a_form(digits, tilt):
    """Cells that span a third of the page; two digits touch a line."""
    rows, side = 6, 60
    page = np.full((900, 1500), 255, np.uint8)
    for y in range(rows + 1):
        cv2.line(page, (300, 200 + 80 * y), (300 + 5 * 100, 200 + 80 * y), 60, 2)
    for x in range(6):
        cv2.line(page, (300 + 100 * x, 200), (300 + 100 * x, 200 + 80 * rows), 60, 2)
    for y in range(rows):
        for x in range(5):
            drawn = cv2.resize(digits[5 * y + x], (side, side))
            top = 200 + 80 * y + (24 if (x, y) in ((1, 1), (3, 2)) else 10)
            window = page[top : top + side, 320 + 100 * x : 320 + 100 * x + side]
            np.minimum(window, 255 - drawn, out=window)
    turn = cv2.getRotationMatrix2D((750, 450), tilt, 1)
    page = cv2.warpAffine(page, turn, page.shape[::-1], borderValue=255)
    found = segment.find(page)
    assert len(found) == 30
    assert [digit.column for digit in found] == [*range(1, 6)] * rows


def test_level_strokes_of_large_digits_are_no_rules():
    page = np.full((267, 267), 255, np.uint8)
    cv2.line(page, (80, 45), (200, 45), 0, 4)
    cv2.line(page, (200, 45), (110, 230), 0, 4)
    (seven,) = segment.find(page)
    assert seven.box[2] > 115 and seven.box[3] > 180


@pytest.mark.parametrize("size", [40, 160])
def test_broken_strokes_are_joined(size):
    """A 0 in two halves, a 5 with a detached bar, a 1 with a gap."""
    page = np.full((2 * size, 5 * size), 255, np.uint8)
    pen = max(3, size // 9)
    middle = size
    cv2.ellipse(page, (size, middle), (size // 3, size // 2), 0, 0, 360, 0, pen)
    cv2.line(page, (size, 0), (size, 2 * size), 255, max(1, pen // 3))
    left, top = int(2.2 * size), middle - size // 2
    cv2.ellipse(
        page, (left, middle + size // 6), (size // 3, size // 3), 0, -120, 120, 0, pen
    )
    cv2.line(page, (left, top), (left + size // 2, top), 0, pen)
    left = 4 * size
    cv2.line(page, (left, top), (left, top + size), 0, pen)
    page[middle : middle + max(1, pen // 3), left - size // 4 : left + size // 4] = 255
    assert places(segment.find(page)) == [(1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("digit", "0123456789")
def test_a_digit_at_the_border_is_found(digit):
    page = np.zeros((150, 150), np.uint8)
    cv2.putText(page, digit, (30, 120), cv2.FONT_HERSHEY_SIMPLEX, 4, 255, 10)
    rows, columns = np.nonzero(page)
    tight = page[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    (found,) = segment.find(255 - tight, "dark")
    assert found.box == pytest.approx((0, 0, *tight.shape[::-1]), abs=1)
    assert difference(found.image, normalise(tight)) < 3


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (300, 200)])
def test_an_empty_page_has_no_digits(size):
    for value in (0, 128, 255):
        assert segment.find(np.full(size, value, np.uint8)) == []
    noise = np.random.default_rng(0).normal(200, 6, size).clip(0, 255)
    assert segment.find(noise.astype(np.uint8)) == []


def test_a_hair_is_not_a_digit():
    page = np.full((6000, 3000), 255, np.uint8)
    cv2.line(page, (100, 100), (2900, 5500), 200, 1)
    assert segment.find(page) == []


@pytest.mark.parametrize("scale", [1, 10])
def test_a_thin_pen_leaves_a_stroke(scale):
    """Simply scaled to 20 pixels, it would be a tenth as dark as in MNIST."""
    page = np.full((300 * scale, 300 * scale), 255, np.uint8)
    middle, axes = (150 * scale, 150 * scale), (60 * scale, 100 * scale)
    cv2.ellipse(page, middle, axes, 0, 0, 360, 0, 2 * scale)
    (found,) = segment.find(page)
    assert np.percentile(found.image[found.image > 0], 80) > 150


def test_a_page_of_too_many_marks_is_refused():
    page = np.full((1200, 1200), 255, np.uint8)
    for y in range(0, 1200, 12):
        for x in range(0, 1200, 12):
            page[y : y + 8, x : x + 2] = 0
    with pytest.raises(components.PageError, match="10,000 marks; expected a page of"):
        segment.find(page)


def test_mnist_digits_are_left_unchanged(mnist):
    """Each digit is a page of its own."""
    images = mnist.test_images[:1000, ..., 0]
    differences, torn = [], 0
    for image in images:
        np.testing.assert_array_equal(normalise(image), image)
        first, *others = segment.find(255 - image)
        torn += bool(others)  # some of MNIST's are in two pieces
        differences.append(difference(first.image, image))
    assert torn <= 2
    assert np.median(differences) < 0.5 and np.percentile(differences, 98) < 8


def nested(size, gap, stroke):
    """Draws a page of nested angles."""
    page = np.full((size + 40, size + 40), 255, np.uint8)
    for offset in range(0, size - gap, gap):
        end = 20 + size - offset
        page[20:end, 20 + offset : 20 + offset + stroke] = 0
        page[end - stroke : end, 20 + offset : 20 + size] = 0
    return page


@pytest.mark.parametrize(("size", "gap", "stroke"), [(500, 8, 3), (500, 60, 25)])
def test_nested_marks_are_refused(monkeypatch, size, gap, stroke):
    """Once, a file of 25 kB took minutes."""
    page = np.pad(nested(size, gap, stroke), 700, constant_values=255)
    monkeypatch.setattr(components, "_MAX_BOXES_AREA", 1 if gap == 8 else 4)
    monkeypatch.setattr(components, "_MAX_DISTANCE_PIXELS", 4_000_000)
    with pytest.raises(components.PageError, match="marks nested in one another"):
        segment.find(page)
