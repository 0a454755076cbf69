# SPDX-License-Identifier: Apache-2.0
"""Tests of benchmarks/photos.py and pictures.py: what counts as right or besides."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import photos, pictures
from benchmarks.photos import Count, Found
from benchmarks.pictures import Picture
from data import DataError

BOX = (0, 0, 10, 20)


def compared(digits, read, *, boxes=None, found=None, ordered=True):
    picture = Picture(["all"], "photo.png", digits, boxes, ordered)
    found = [Found(BOX, digit) for digit in read] if found is None else found
    count = photos.compare(picture, found, 0.5)
    assert (count.pictures, count.digits, count.seconds) == (1, len(digits), 0.5)
    return count.exact, count.right, count.besides


@pytest.mark.parametrize(
    "digits, read, expected",
    [
        ("123", "123", (1, 3, 0)),
        ("123", "", (0, 0, 0)),
        ("123", "1723", (0, 3, 1)),
        ("123", "143", (0, 2, 0)),
        ("123", "13", (0, 2, 0)),
        ("123", "12345", (0, 3, 2)),
        ("12", "21", (0, 1, 1)),
        ("7", "178", (0, 1, 2)),
        ("", "5", (0, 0, 1)),
    ],
)
def test_digits_are_aligned_by_edit_distance(digits, read, expected):
    assert compared(digits, read) == expected


def test_scattered_digits_have_no_order():
    assert compared("123", "312", ordered=False) == (1, 3, 0)
    assert compared("123", "3312", ordered=False) == (0, 3, 1)
    assert compared("112", "222", ordered=False) == (0, 1, 0)


def test_boxes_decide_where_they_are_known():
    boxes = [(x, 0, 20, 40) for x in (0, 40, 80, 120)]
    found = [
        Found((2, 2, 18, 36), 7),  # right
        Found((41, 0, 18, 40), 1),  # another digit
        Found((80, 0, 8, 40), 2),  # two pieces, the larger of which counts
        Found((88, 0, 12, 40), 2),
        Found((200, 0, 20, 40), 1),  # where there is none
    ]
    assert compared("7823", "", boxes=boxes, found=found) == (0, 2, 2)
    assert compared("7", "", boxes=boxes[:1], found=found[:1]) == (1, 1, 0)


def test_digits_only_match_boxes_that_they_cover():
    assert photos._overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert photos._overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    found = [Found((0, 0, 5, 10), 1)]
    assert compared("1", "", boxes=[(0, 0, 20, 10)], found=found) == (0, 0, 1)


def test_kinds_are_rows_of_the_table():
    pages = [
        Picture(["a", "b"], "1", "12", None, True),
        Picture(["a"], "2", "3", None, True),
    ]
    counts = photos.measure(lambda path: [Found(BOX, 3)], pages)
    assert counts["a"][:5] == (2, 1, 3, 1, 0)
    assert counts["b"][:5] == (1, 0, 2, 0, 0)
    rows = photos.table({"ours": counts, "Otsu": counts}).splitlines()
    assert [cell.strip() for cell in rows[2].split("|")[1:8]] == [
        *("a", "2", "3", "50.0%", "50.0%", "33.33%", "33.33%")
    ]


def test_the_boxes_of_a_made_page_are_around_its_ink(digits, tmp_path):
    (page,) = pictures.made_pages(tmp_path, digits, [5])
    picture = cv2.imread(str(page.path), cv2.IMREAD_GRAYSCALE)
    assert len(page.digits) == len(page.boxes)
    for left, top, width, height in page.boxes:
        inside = picture[top : top + height, left : left + width]
        assert inside.min() < np.median(picture) - 60


def test_keys_of_photos(tmp_path):
    (tmp_path / "cheques").mkdir()
    (tmp_path / "key.csv").write_text(
        "file,digits,source,scattered,form\n1.png,12/34,scan,0,0\n2.png,5,photo,1,1\n"
        "109.png,7,screen,0,0\n"
    )
    (tmp_path / "cheques" / "key.csv").write_text(
        'file,digits,boxes\n1.jpg,90,"1,2,3,4 5,6,7,8"\n'
    )
    scan, form, screen, cheque = pictures.keyed(tmp_path)
    assert scan == (
        ["up to 108", "up to 108: scan"],
        tmp_path / "1.png",
        "1234",
        None,
        True,
    )
    assert form.kinds == ["photographed forms"] and not form.ordered
    assert screen.kinds == ["from 109", "from 109: screen"]
    assert cheque.boxes == [(1, 2, 3, 4), (5, 6, 7, 8)]
    with pytest.raises(DataError, match="expected the key of a folder of photos"):
        list(pictures.keyed(tmp_path / "cheques" / "nowhere"))


def test_otsu_reads_rows_from_left_to_right(tmp_path):
    """By a network that only measures the amount of ink."""

    def predict(images):
        share = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3]) / 255
        return tf.one_hot(tf.where(share > 0.15, 8, 1), 10) * 3

    page = np.full((200, 200), 250, np.uint8)
    page[20:80, 100:106] = page[125:185, 30:36] = 10
    page[25:85, 20:50] = page[120:180, 90:120] = 10
    cv2.imwrite(str(tmp_path / "page.png"), page)
    found = photos.otsu(predict)(tmp_path / "page.png")
    assert [one.digit for one in found] == [8, 1, 1, 8]
    assert compared("1", "", boxes=[(100, 20, 6, 60)], found=found[1:2]) == (1, 1, 0)


def test_counts_add_up():
    assert Count(1, 0, 3, 2, 1, 0.5) + Count(1, 1, 2, 2, 0, 0.25) == (
        2,
        1,
        5,
        4,
        1,
        0.75,
    )
