# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/preview.py."""

import dataclasses

import cv2
import numpy as np
import pytest

import data
from augment import preview
from augment.online_settings import OnlineSettings
from augment.plan import Settings
from system import errors
from tests.test_online import noise, transform
from tests.test_plan import DEFORMED


def test_preview_rows(dataset):
    settings = Settings(shift_directions=(), flip_labels=(0, 7))
    (first, originals), (second, mirrored) = preview.preview_rows(dataset, settings)
    assert (first, second) == ("original", "flip(1)")
    for digit in range(10):
        np.testing.assert_array_equal(originals[digit], dataset.train_images[digit])
    np.testing.assert_array_equal(mirrored[7], dataset.train_images[7, :, ::-1])
    assert [digit for digit in range(10) if mirrored[digit] is not None] == [0, 7]


def test_preview_shows_some_copies(dataset):
    settings = dataclasses.replace(DEFORMED, multiply=500)
    labels = [label for label, _ in preview.preview_rows(dataset, settings)]
    assert labels[:2] == ["original", "elastic+affine #1"]
    assert len(labels) == 1 + preview.COPY_ROWS


def test_online_rows():
    images = noise(20)
    labels = np.tile(np.arange(0, 10, 2, dtype=np.uint8), 4)  # even digits only
    dataset = data.Dataset("noise", images, labels, images, labels, {}, "")
    assert preview.online_rows(dataset, OnlineSettings()) == []
    rows = preview.online_rows(dataset, OnlineSettings(rotation=20.0, zoom=0.2))
    assert [label for label, _ in rows] == [
        "rotation ±20°",
        "zoom 1 ± 0.2",
        "online, step 0",
        "online, step 1",
        "online, step 2",
    ]
    for _, cells in rows:
        assert [cell is None for cell in cells] == [False, True] * 5
    expected = transform(images[:5], 1, OnlineSettings(rotation=20.0, zoom=0.2), seed=0)
    np.testing.assert_array_equal(rows[3][1][::2], expected)


def test_preview_shows_the_mirrored_digit(dataset, tmp_path):
    path = tmp_path / "sheet.png"
    settings = Settings(shift_directions=(), flip_labels=(7,))
    preview.write(dataset, settings, OnlineSettings(), path)
    sheet = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    seven = 255 - dataset.train_images[7, ..., 0].repeat(2, 0).repeat(2, 1)
    for image, row in ((seven, 0), (seven[:, ::-1], 1)):
        match = cv2.matchTemplate(
            sheet, np.ascontiguousarray(image), cv2.TM_SQDIFF_NORMED
        )
        _, _, (_, y), _ = cv2.minMaxLoc(match)
        assert match.min() < 1e-3
        assert y // 62 == row
    assert (sheet[-60:-4, 250:600] == 255).all()  # digits that are not flipped
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_an_unwritable_preview_gives_one_line(dataset, tmp_path):
    with pytest.raises(errors.UserError, match="--preview"):
        preview.write(
            dataset, Settings(), OnlineSettings(), tmp_path / "no" / "sheet.png"
        )
