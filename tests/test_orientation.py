# SPDX-License-Identifier: Apache-2.0
"""Tests of photos/orientation.py, and of turned pages in photos/reading.py."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from photos import orientation, reading, segment


def page():
    """Three marks like an L, in a row."""
    grey = np.full((100, 240), 255, np.uint8)
    for left in (20, 90, 160):
        cv2.line(grey, (left, 20), (left, 80), 0, 8)
        cv2.line(grey, (left, 80), (left + 30, 80), 0, 8)
    return grey


UPRIGHT = segment.find(page())[0].image.astype(float)


def predict(images):
    """Knows an upright L as a 4, and nothing else."""
    wrong = tf.reduce_mean(
        tf.abs(tf.cast(images, tf.float32)[..., 0] - UPRIGHT), (1, 2)
    )
    return 9 * tf.exp(-wrong[:, tf.newaxis] / 20) * tf.one_hot([4], 10)


def stored(tmp_path, turn):
    path = tmp_path / f"{turn}.png"
    cv2.imwrite(str(path), np.rot90(page(), -turn // 90))
    return path


@pytest.mark.parametrize("turn", orientation.TURNS)
def test_a_page_on_its_side_is_turned_as_it_is_read_best(tmp_path, turn):
    path = stored(tmp_path, turn)
    found = reading.read(predict, path, turn=None)
    assert found.turned == turn
    assert [(one.row, one.column, one.digit) for one in found.readings] == [
        *((1, 1, 4), (1, 2, 4), (1, 3, 4))
    ]
    assert (f"turned by {turn}° to the left" in reading.show([found])) == (turn > 0)
    # Boxes are those of the page as it is.
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    for left, top, width, height in (one.box for one in found.readings):
        ink = picture[top : top + height, left : left + width] < 128
        assert ink.any(0)[[0, -1]].all() and ink.any(1)[[0, -1]].all()
        assert (
            sorted(ink.shape) == [38, 68]
            or abs(np.sort(ink.shape) - (38, 68)).max() < 4
        )
    assert reading.read(predict, path, turn=turn).readings == found.readings


def test_a_page_that_is_read_no_better_stays(tmp_path):
    nothing = tf.zeros([1, 10])

    def unsure(images):
        return tf.repeat(nothing, len(images), 0)

    assert reading.read(unsure, stored(tmp_path, 90), turn=None).turned == 0
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((50, 50), 255, np.uint8))
    assert reading.read(predict, blank, turn=None).turned == 0
