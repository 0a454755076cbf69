# SPDX-License-Identifier: Apache-2.0
"""Tests of photos/make_page.py: which digits are on a page, and where."""

import numpy as np
import pytest

import data
from photos import make_page


def test_a_page_is_a_function_of_its_arguments(digits):
    first, again = (make_page.draw(digits.test_images, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.picture, again.picture)
    other = make_page.draw(digits.test_images, seed=4)
    assert not np.array_equal(first.boxes[:5], other.boxes[:5])


def test_digits_lie_in_their_boxes(digits):
    page = make_page.draw(digits.test_images, seed=0)
    assert page.picture.shape == (make_page.HEIGHT, make_page.WIDTH)
    order = [index for row in page.rows for index in row]
    assert order == list(range(len(page.boxes))) and len(page.rows) == 6
    sides = page.boxes[:, 2]
    assert sides.min() >= 28 and sides.max() <= 280 and np.ptp(sides) > 150
    taken = np.zeros(page.picture.shape, np.uint8)
    for left, top, width, height in page.boxes:
        taken[top : top + height, left : left + width] += 1
        window = page.picture[top : top + height, left : left + width]
        assert window.min() < 0.6 * np.median(window[0])  # ink inside, none at the rim
    assert taken.max() == 1


def test_pages_come_with_their_key(digits, tmp_path):
    folder = tmp_path / "pages"
    count = make_page.write(folder, digits.test_images, digits.test_labels, 2)
    header, *rows = (folder / make_page.KEY).read_text("utf-8").splitlines()
    assert header == "file,row,column,digit" and len(rows) == count
    assert {row.split(",")[0] for row in rows} == {
        *(str(folder / "page-0.png"), str(folder / "page-1.png"))
    }
    assert rows[0].split(",")[1:3] == ["1", "1"]
    assert {row.split(",")[3] for row in rows} == set("0123456789")


def test_a_folder_that_cannot_be_created_gives_one_line(digits, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(data.DataError, match="choose another --pages_dir"):
        make_page.write(
            tmp_path / "file" / "a", digits.test_images, digits.test_labels, 1
        )
