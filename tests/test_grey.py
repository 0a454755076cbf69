# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/grey.py."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from augment import grey, online
from augment.online_settings import OnlineSettings
from tests.test_online import smooth, transform

SETTINGS = {name: OnlineSettings(**{name: 0.5}) for name in online.GREYS}
COUNT = 40


def levels(count=COUNT):
    return smooth(count).astype(np.float32) / 255


def change(name, x, seed=3, **settings):
    settings = OnlineSettings(**(settings or {name: 0.5}))
    return getattr(grey, name)(tf.constant(x), tf.constant([seed, 1]), settings).numpy()


@pytest.mark.parametrize("name", online.GREYS)
def test_half_of_the_images_stay_and_the_others_differ(name):
    images = smooth(COUNT)
    changed = transform(images, 0, SETTINGS[name])
    np.testing.assert_array_equal(changed, transform(images, 0, SETTINGS[name]))
    same = (changed == images).all((1, 2, 3)).sum()
    # Thickness changes all; a cut-out may miss the ink, a slight blur be rounded away.
    assert same <= 3 if name == "thickness" else COUNT / 4 <= same <= 0.9 * COUNT
    assert (changed != transform(images, 1, SETTINGS[name])).any()


@pytest.mark.parametrize("name", online.GREYS)
def test_an_image_does_not_depend_on_the_others(name):
    both = change(name, levels(2))
    other = levels(2)
    other[1] = 0
    np.testing.assert_array_equal(change(name, other)[0], both[0])


def amounts(x, changed, of):
    """How much of the change `of` explains each image: [N]."""
    of = of - x
    shares = ((changed - x) * of).sum((1, 2, 3)) / (of**2).sum((1, 2, 3))
    fitted = x + shares[:, None, None, None] * of
    np.testing.assert_allclose(changed, fitted, atol=1e-5)
    return shares


def test_contrast_makes_ink_fainter():
    x = levels()
    shares = amounts(x, change("contrast", x), np.zeros_like(x))
    assert 0 <= shares.min() and 0.4 < shares.max() <= 0.5


def test_brightness_lifts_all_levels():
    x = levels()
    shares = amounts(x, change("brightness", x), x + 1)
    assert 0 <= shares.min() and 0.4 < shares.max() <= 0.5


def test_thickness_is_between_erosion_and_dilation_by_a_cross():
    x = levels()
    cross = ndimage.generate_binary_structure(2, 1)[None, ..., None]
    thick, thin = (
        extreme(x, footprint=cross, mode="constant")
        for extreme in (ndimage.grey_dilation, ndimage.grey_erosion)
    )
    changed = change("thickness", x)
    grows = changed.sum((1, 2, 3)) > x.sum((1, 2, 3))
    assert 0.25 < grows.mean() < 0.75
    assert 0.4 < amounts(x[grows], changed[grows], thick[grows]).max() <= 0.5
    assert 0.4 < amounts(x[~grows], changed[~grows], thin[~grows]).max() <= 0.5


def test_blur_is_a_gaussian():
    x = np.zeros((COUNT, 28, 28, 1), np.float32)
    x[:, 14, 14] = 1
    changed = change("blur", x, blur=1.5)
    np.testing.assert_allclose(changed.sum((1, 2, 3)), 1, atol=1e-4)
    place = np.arange(28) - 14
    deviations = np.sqrt((changed[..., 0].sum(1) * place**2).sum(1))
    assert 1.2 < deviations.max() <= 1.51 and deviations.min() < 0.01
    widest = changed[deviations.argmax()]
    expected = ndimage.gaussian_filter(x[0], (deviations.max(), deviations.max(), 0))
    np.testing.assert_allclose(widest, expected, atol=2e-3)


def test_noise_is_close_to_a_gaussian_of_the_amount():
    x = np.zeros((COUNT, 28, 28, 1), np.float32)
    added = change("noise", x).reshape(COUNT, -1)
    deviations = added.std(1)
    assert deviations.min() == 0 and 0.4 < deviations.max() < 0.53
    one = added[deviations.argmax()] / deviations.max()
    assert abs(one.mean()) < 0.12
    assert abs((np.abs(one) < 1).mean() - 0.68) < 0.06
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.12


def test_cutout_erases_a_square():
    x = np.ones((COUNT, 28, 28, 1), np.float32)
    erased = change("cutout", x)[..., 0] == 0
    for image in erased[erased.any((1, 2))]:
        rows, columns = image.any(1), image.any(0)
        np.testing.assert_array_equal(image, rows[:, None] & columns)
        assert rows.sum() <= 14 and columns.sum() <= 14
    assert erased.sum((1, 2)).max() > 50


def test_one_transform_moves_no_draw_of_another():
    images = smooth(8)
    alone = transform(images, 0, SETTINGS["contrast"]).astype(int)
    both = dataclasses.replace(SETTINGS["contrast"], cutout=0.2)
    both = transform(images, 0, both).astype(int)
    inside = both > 0  # not cut out
    np.testing.assert_array_equal(both[inside], alone[inside])
    assert (both != alone).any()
