# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmarks/hard_pages.py, its pictures, and benchmarks/thresholds.py."""

import numpy as np
import pytest

from benchmarks import hard_pages, photos, pictures, thresholds
from photos import paper, reading


@pytest.mark.parametrize("kind", hard_pages.KINDS)
def test_a_page_is_drawn_by_its_seed(digits, kind):
    images = digits.test_images[:40]
    page = hard_pages.draw(kind, images, 1)
    assert page.picture.dtype == np.uint8
    assert page.picture.shape == (hard_pages.HEIGHT, hard_pages.WIDTH)
    count = hard_pages.LINES * (hard_pages.DIGITS - (kind == "crossed out"))
    assert len(page.digits) == len(set(page.digits)) == count
    again = hard_pages.draw(kind, images, 1)
    np.testing.assert_array_equal(page.picture, again.picture)
    assert (page.picture != hard_pages.draw(kind, images, 2).picture).any()
    ink = "light" if kind == "light ink" else "dark"
    assert paper.polarity(page.picture[60:-60, 60:-60]) == ink


def test_pictures_have_the_digits_of_their_pages(digits, tmp_path):
    found = list(pictures.hard(tmp_path, digits, [4]))
    assert [picture.kinds[1] for picture in found] == [
        f"hard: {kind}" for kind in hard_pages.KINDS
    ]
    assert all(picture.path.exists() and picture.ordered for picture in found)
    assert {len(picture.digits) for picture in found} == {40, 35}
    (order,) = {picture.digits for picture in found if len(picture.digits) == 40}
    assert found[-1].digits == "".join(order[i] for i in range(40) if i % 8 < 7)


def test_each_threshold_is_one_of_the_reader_and_among_its_values():
    for threshold in thresholds.THRESHOLDS:
        chosen = getattr(threshold.module, threshold.name)
        assert chosen in threshold.values
        assert list(threshold.values) == sorted(set(threshold.values))


def test_a_threshold_is_changed_for_a_while_and_drawn(digits, tmp_path):
    page = pictures.Picture([thresholds.ALL], tmp_path / "1.png", "12", None, True)

    def program(path):  # reads what the least probability lets through
        box = (0, 0, 9, 9)
        read = ((1, 0.9), (2, 0.6), (3, 0.3))
        return [photos.Found(box, d) for d, p in read if p >= reading.REJECT]

    found = thresholds.measure(program, [page])
    rejects = found[thresholds.THRESHOLDS[0].label]
    assert [(v, c.right, c.besides) for v, c in rejects] == [
        *((0.2, 2, 1), (0.35, 2, 0), (0.5, 2, 0), (0.65, 1, 0), (0.8, 1, 0))
    ]
    assert reading.REJECT == 0.5
    figure = thresholds.plot(found)
    assert [axes.get_xlabel() for axes in figure.axes] == list(found)
    right, besides, chosen = figure.axes[0].lines
    assert list(right.get_ydata()) == [100, 100, 100, 50, 50]
    assert list(besides.get_ydata()) == [50, 100, 100, 100, 100]
    assert set(chosen.get_xdata()) == {reading.REJECT}
