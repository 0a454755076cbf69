# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's digits, MNIST's normalisation, and the registry and split of `data`.

The registry and the split are tested here because these digits are always there.
"""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

import data
from data.normalise import normalise, resize
from system import errors


def centre_of_mass(image):
    grid = np.indices(image.shape[:2]).reshape(2, -1)
    return np.average(grid, axis=1, weights=image.reshape(-1))


def ink_size(image):
    rows, columns = np.nonzero(image)
    return np.ptp(rows) + 1, np.ptp(columns) + 1


def test_digits_have_the_form_of_mnist(digits):
    assert digits.train_images.shape == (1437, 28, 28, 1)
    assert digits.test_images.shape == (360, 28, 28, 1)
    assert digits.train_images.dtype == digits.train_labels.dtype == np.uint8
    assert digits.train_labels[:10].tolist() == list(range(10))
    assert set(np.bincount(digits.test_labels)) <= set(range(33, 38))


def test_digits_are_centred_as_in_mnist(digits):
    for image in digits.test_images[..., 0]:
        centre = centre_of_mass(image)
        assert np.all((centre > 13.5) & (centre <= 14.5))
        assert max(ink_size(image)) == 20


def test_digits_are_the_same_each_time(digits):
    again = data.load("digits")
    assert digits.hashes == again.hashes
    for name, digest in digits.hashes.items():
        array = getattr(digits, name)
        assert digest == hashlib.sha256(array.tobytes()).hexdigest()
    assert len(digits.hashes) == 4


def test_digits_need_no_folder(tmp_path):
    with pytest.raises(data.DataError, match="comes with scikit-learn"):
        data.load("digits", str(tmp_path))


@pytest.mark.parametrize("shape", [(200, 100), (100, 200), (8, 6), (20, 3), (1, 90)])
def test_normalise_keeps_the_aspect(shape):
    ink = np.zeros((300, 400), np.uint8)
    ink[50 : 50 + shape[0], 7 : 7 + shape[1]] = 255
    image = normalise(ink)
    scale = 20 / max(shape)
    assert image.shape == (28, 28) and image.dtype == np.uint8
    assert ink_size(image) == tuple(max(1, round(side * scale)) for side in shape)
    assert np.all(np.abs(centre_of_mass(image) - 14) <= 0.5)
    assert image.max() == 255


def test_normalise_averages_when_shrinking():
    stripes = np.zeros((40, 40), np.uint8)
    stripes[:, ::2] = 200
    stripes[:, -1] = 200
    assert np.all(normalise(stripes)[5:25, 5:23] == 100)


def test_normalise_never_cuts_ink_off():
    ink = np.full((20, 20), 1, np.uint8)
    ink[0, 0] = 255  # alone it would pull the centre into a corner
    image = normalise(ink)
    assert np.all(image[8:, 8:] == ink)
    assert image.sum(dtype=int) == ink.sum(dtype=int)


def test_normalise_refuses_an_empty_image():
    with pytest.raises(ValueError, match="every pixel is 0"):
        normalise(np.zeros((9, 9), np.uint8))
    specks = np.zeros((900, 900), np.uint8)
    specks[0, 0] = specks[-1, -1] = 255
    with pytest.raises(ValueError, match="no ink left"):
        normalise(specks)


def test_an_unknown_name_lists_the_known_ones():
    known = ", ".join(data.DATASETS)
    with pytest.raises(data.DataError, match=f"'cifar'; expected one of {known}$"):
        data.load("cifar")


@pytest.mark.parametrize("size", [0, 1, 300, 999])
def test_split_is_a_partition(size):
    training, validation = data.split(1000, size, seed=3)
    assert len(validation) == size
    assert training.dtype == validation.dtype == np.int64
    assert np.all(np.diff(training) > 0) and np.all(np.diff(validation) > 0)
    assert sorted([*training, *validation]) == list(range(1000))


def test_split_is_a_function_of_its_arguments():
    first, again, other = (data.split(1000, 100, seed)[1] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [-1, 10, 11])
def test_split_leaves_something_to_train_on(size):
    with pytest.raises(errors.UserError, match="expected 0 to 9"):
        data.split(10, size, seed=0)


def test_importing_data_is_light():
    heavy = ["tensorflow", "sklearn", "cv2", "pandas", "pooch", "requests"]
    code = f"import sys, data; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output == "[]\n"


def test_enlarging_is_opencvs_cubic_interpolation_with_halves_to_even():
    grey = np.random.default_rng(0).integers(0, 256, (9, 8), np.uint8)
    for height, width in ((20, 18), (9, 8), (27, 8)):
        ours = resize(grey, height, width).astype(int)
        theirs = cv2.resize(grey, (width, height), interpolation=cv2.INTER_CUBIC)
        assert np.abs(ours - theirs).max() <= 1
    # A quarter of a pixel on either side of a step of 64, 29 / 128 and 99 / 128 of it.
    step = np.array([[0, 0, 0, 0, 64, 64, 64, 64]], np.uint8)
    assert resize(step, 1, 16)[0, 6:10].tolist() == [0, 14, 50, 71]  # 14.5, 49.5, 70.75


def test_shrinking_averages_areas():
    grey = np.array([[0, 10, 20, 30], [40, 50, 60, 70]], np.uint8)
    assert resize(grey, 1, 2).tolist() == [[25, 45]]
