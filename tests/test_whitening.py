# SPDX-License-Identifier: Apache-2.0
"""First kernels that whiten patches of the training images: --whiten."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import data
import models
import train
from config import Config
from models import whitening
from system import errors
from training import weights
from training.state import State

CONFIG = Config(dataset="digits", validation_size=100, whiten=True)


@pytest.fixture(scope="module", name="dataset")
def fixture_dataset():
    return data.load("digits")


def test_the_maps_are_uncorrelated_and_of_variance_1():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(50, 14, 14, 1)).astype(np.float32)
    images[:, 1:] += images[:, :-1]  # neighbours correlate
    kernels = whitening.kernels(images, 3, 9)
    maps = tf.nn.conv2d(images, kernels, 1, "VALID").numpy().reshape(-1, 9)
    np.testing.assert_allclose(np.cov(maps.T), np.eye(9), atol=2e-3)


def test_the_largest_variance_comes_first_and_again_with_the_other_sign():
    rows = np.arange(1, 6, dtype=np.float32) ** 2
    images = np.tile(rows[:, np.newaxis, np.newaxis], (1, 1, 5, 1))  # [1, 5, 5, 1]
    kernels = whitening.kernels(images, 2, 99)
    assert kernels.shape == (2, 2, 1, 8) and kernels.dtype == np.float32
    np.testing.assert_array_equal(kernels[..., 4:], -kernels[..., :4])
    # The two columns of a patch are always the same.
    first = kernels[..., 0, 0]
    np.testing.assert_allclose(first[:, 0], first[:, 1], rtol=1e-4)


def test_patches_without_any_variance_make_no_infinite_kernel():
    assert np.isfinite(whitening.kernels(np.zeros((2, 5, 5, 1)), 3, 12)).all()


@pytest.mark.parametrize("network, drawn", [("lenet", 0), ("conv6", 32 - 18)])
def test_a_run_starts_from_them_and_draws_the_other_maps(network, drawn, dataset):
    config = dataclasses.replace(CONFIG, network=network, weight_average=0.9).resolved()
    state = State(config, start=weights.whitened(config, dataset))
    plain = State(dataclasses.replace(config, whiten=False))
    for one, other in (
        (state.network, plain.network),
        (state.average, plain.average),
    ):
        ours, theirs = one.conv1.w.numpy(), other.conv1.w.numpy()
        same = (ours == theirs).all((0, 1, 2))
        assert same.sum() == drawn == same[len(same) - drawn :].sum()
        for v, w in zip(one.variables, other.variables, strict=True):
            assert v is one.conv1.w or (v.numpy() == w.numpy()).all()


def test_held_out_images_have_no_part_in_them(dataset):
    ours = weights.whitened(CONFIG, dataset).kernels
    train, held_out = data.split(len(dataset.train_labels), 100, CONFIG.split_seed)
    for changed, is_same in ((held_out, True), (train, False)):
        images = dataset.train_images.copy()
        images[changed] = 255 - images[changed]
        other = dataclasses.replace(dataset, train_images=images)
        kernels = weights.whitened(CONFIG, other).kernels
        assert np.array_equal(ours, kernels) == is_same


def test_they_see_what_the_network_sees(dataset):
    grey = dataclasses.replace(CONFIG, normalise_grey=True)
    faint = dataclasses.replace(dataset, train_images=dataset.train_images // 4 + 60)
    ours, same = (weights.whitened(grey, each).kernels for each in (dataset, faint))
    np.testing.assert_allclose(ours, same, rtol=0.2, atol=0.2)


def test_without_the_setting_nothing_is_computed(dataset):
    assert weights.whitened(Config(), dataset) is None


def test_a_network_without_conv1_is_refused(dataset):
    assert not hasattr(models.build("mlp"), "conv1")
    with pytest.raises(errors.UserError, match="--network=mlp has no such layer"):
        weights.whitened(Config(network="mlp", whiten=True), dataset)


def test_it_contradicts_other_weights_to_start_from():
    with pytest.raises(errors.UsageError, match="both say what conv1 starts from"):
        Config(whiten=True, init_from="runs/a").checked()


def test_a_run_trains_from_them(dataset, tmp_path):
    small = {"batch_size": 32, "epoch_images": 32, "epochs": 1, "threads": 1}
    settings = {**small, "freeze": ["conv1"], "kernels": "tensorflow"}
    config = dataclasses.replace(CONFIG, run_dir=str(tmp_path / "run"), **settings)
    trained = weights.load(train.run(config), Config)
    assert trained.config.whiten and trained.record["config"]["whiten"]
    ours, given = trained.network.conv1.w, weights.whitened(CONFIG, dataset).kernels
    np.testing.assert_array_equal(ours, given)
