# SPDX-License-Identifier: Apache-2.0
"""Tests of `layers.normalise_grey`, the first operation of some networks."""

import numpy as np
import pytest
import tensorflow as tf

from models import layers
from tests import networks


def digit(ink=1.0, paper=0.0):
    """A thick stroke, float32 [1, 28, 28, 1]."""
    x = np.full((1, 28, 28, 1), paper, np.float32)
    x[:, 6:22, 12:15] = paper + ink
    return x


def normalised(x):
    return layers.normalise_grey(tf.constant(x)).numpy()


@pytest.mark.parametrize("ink, paper", [(1, 0), (0.25, 0), (0.4, 0.5), (0.06, 0)])
def test_ink_is_black_and_paper_is_white(ink, paper):
    np.testing.assert_allclose(normalised(digit(ink, paper)), digit(), atol=1e-5)


def test_blank_paper_and_its_grain_stay_faint():
    for level in (0, 0.5, 1):
        assert not normalised(np.full((1, 28, 28, 1), level, np.float32)).any()
    grain = np.random.default_rng(0).uniform(0, 0.02, (1, 28, 28, 1))
    assert normalised(grain.astype(np.float32)).max() < 0.5


def test_a_speck_does_not_decide_and_ink_at_one_edge_does_no_harm():
    x = digit(0.25)
    x[0, 3, 3] = 1
    middle = normalised(x)[0, 14, 13, 0]
    assert 0.9 < middle <= 1  # not 0.25: a speck fills a quarter of 2 × 2 pixels
    x = digit(0.5)
    x[0, :2] = 0.5
    np.testing.assert_allclose(normalised(x)[0, 14, 13], 1, atol=1e-5)


def test_each_image_is_normalised_by_itself():
    both = np.concatenate([digit(0.3), digit(0.9, 0.1)])
    np.testing.assert_allclose(normalised(both)[0], normalised(both[1:])[0], atol=1e-5)


@pytest.mark.parametrize("name", ["conv6", "lenet"])
def test_networks_read_faint_digits_as_they_read_black_ones(name):
    network = networks.build(name, normalise_grey=True)
    images = np.rint(255 * digit()).astype(np.uint8)
    faint = images // 5
    logits = [networks.call(network, x, False)[0] for x in (images, faint)]
    networks.close(*logits)
    plain = networks.build(name)
    logits = [networks.call(plain, x, False)[0] for x in (images, faint)]
    assert np.abs(logits[0] - logits[1]).max() > 0.01
