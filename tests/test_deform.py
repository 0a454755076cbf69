# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/deform.py."""

import hashlib

import numpy as np
import pytest

from augment import deform as module
from augment import geometry
from augment.deform import KINDS, Deformation, deform
from augment.shift import shift

STILL = Deformation(0, 4, 0, 0, 0, 0)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), np.uint8)


def moved(images, *draws, **how):
    """The images, deformed by their random draws."""
    how = Deformation(**{**vars(STILL), **how})
    return module._sample(images, module._affine(np.array([draws] * len(images)), how))


@pytest.mark.parametrize("kinds", [(), *[(kind,) for kind in KINDS], KINDS])
def test_zero_deformation_changes_nothing(kinds):
    np.testing.assert_array_equal(deform(noise(3), kinds, 0, 1, STILL), noise(3))


def test_shift():
    images = noise(4)
    down = moved(images, 0, 0, 0, 0, 1, 0, shift=2)
    np.testing.assert_array_equal(down, shift(images, 2, 0))
    left = moved(images, 0, 0, 0, 0, 0, -1, shift=3)
    np.testing.assert_array_equal(left, shift(images, 0, -3))


def test_rotation_is_clockwise():
    turned = moved(noise(4), 1, 0, 0, 0, 0, 0, rotation=90)
    np.testing.assert_array_equal(turned, np.rot90(noise(4), -1, axes=(1, 2)))


def test_shear_moves_the_upper_half_to_the_right():
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[:, :, 14] = 255
    slanted = moved(images, 0, 1, 0, 0, 0, 0, shear=45)[0, ..., 0]
    assert slanted[:14, 15:].any() and not slanted[:14, :14].any()
    assert slanted[14:, :14].any() and not slanted[14:, 15:].any()


def test_zoom_enlarges():
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[:, 10:18, 10:18] = 255
    large = moved(images, 0, 0, 1, -0.5, 0, 0, zoom=1)[0, ..., 0] > 127
    rows, columns = np.flatnonzero(large.any(1)), np.flatnonzero(large.any(0))
    assert (len(rows), len(columns)) == (16, 4)  # twice as high, half as wide
    assert rows.mean() == columns.mean() == geometry.CENTRE


def test_sampling_is_bilinear_and_separate_for_each_image():
    images = noise(50)
    places = np.random.default_rng(1).uniform(-20, 20, (50, 2, 28, 28))
    units = np.clip(np.rint(32 * (places + 13.5)), -32, 28 * 32).astype(int)
    (y, x), (down, right) = (np.moveaxis(a, 1, 0) for a in np.divmod(units, 32))
    framed = np.pad(images[..., 0].astype(int), [(0, 0), (1, 2), (1, 2)])
    image = np.arange(50)[:, np.newaxis, np.newaxis]

    def at(dy, dx):
        return framed[image, y + 1 + dy, x + 1 + dx]

    upper = (32 - right) * at(0, 0) + right * at(0, 1)
    lower = (32 - right) * at(1, 0) + right * at(1, 1)
    expected = ((32 - down) * upper + down * lower + 512) // 1024
    sampled = module._sample(images, places)
    np.testing.assert_array_equal(sampled[..., 0], expected)


def test_elastic_displacements_follow_the_docstring():
    draws = np.random.default_rng(0).uniform(-1, 1, (200, 2, 28, 28))
    field = module._elastic(draws.astype(np.float32), Deformation())
    middle = field[..., 10:18, 10:18]
    assert np.sqrt((middle**2).mean()) == pytest.approx(1.4, abs=0.1)
    impulse = np.zeros((1, 2, 28, 28), np.float32)
    impulse[0, 1, 14, 14] = 1
    field = module._elastic(impulse, Deformation(elastic_alpha=3, elastic_sigma=2))
    assert not field[0, 0].any()
    assert field[0, 1, 14, 14] == pytest.approx(3 / (2 * np.pi * 2**2), rel=1e-3)


def test_no_two_images_share_a_draw():
    same = np.repeat(noise(1), 300, axis=0)
    results = [
        deform(same, KINDS, seed, copy) for seed in (0, 1) for copy in (0, 1, 2**40)
    ]
    results = np.concatenate(results).reshape(6 * 300, -1)
    assert len(np.unique(results, axis=0)) == 6 * 300


def test_an_image_does_not_depend_on_later_ones(monkeypatch):
    whole = deform(noise(300), KINDS, 3, 5)
    np.testing.assert_array_equal(deform(noise(300)[:150], KINDS, 3, 5), whole[:150])
    monkeypatch.setattr(module, "IMAGES_AT_A_TIME", 7)
    np.testing.assert_array_equal(deform(noise(300), KINDS, 3, 5), whole)


def test_draws_do_not_depend_on_the_kinds():
    how = Deformation(elastic_alpha=0)
    np.testing.assert_array_equal(
        deform(noise(5), KINDS, 0, 1, how), deform(noise(5), ("affine",), 0, 1)
    )


def test_the_bytes_of_a_set_are_golden():
    images = np.frombuffer(hashlib.shake_256(b"").digest(9 * 784), np.uint8)
    result = deform(images.reshape(9, 28, 28, 1), KINDS, 1, 2)
    assert hashlib.sha256(result).hexdigest().startswith("fc3b0ce344ddff3c")
