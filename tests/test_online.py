# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/online.py."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from augment import online
from augment.online_settings import OnlineSettings

ELASTIC = OnlineSettings(elastic_alpha=34.0, elastic_sigma=4.0)
ALONE = {
    "rotation": OnlineSettings(rotation=10.0),
    "zoom": OnlineSettings(zoom=0.1),
    "shift": OnlineSettings(shift=0.1),
    "shear": OnlineSettings(shear=10.0),
    "elastic": ELASTIC,
}
ALL = dataclasses.replace(ELASTIC, rotation=10.0, zoom=0.1, shift=0.1, shear=10.0)
EACH = pytest.mark.parametrize("settings", [*ALONE.values(), ALL], ids=[*ALONE, "all"])


def noise(count):
    """Images without equal neighbours, so that any movement changes them."""
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)


def smooth(count):
    """Blots that keep away from the border, as digits do."""
    images = np.zeros((count, 28, 28, 1), np.float32)
    images[:, 9:19, 9:19] = noise(count)[:, 9:19, 9:19]
    return ndimage.gaussian_filter(images, (0, 1, 1, 0)).astype(np.uint8)


def transform(images, step, settings, seed=5):
    seeds = tf.constant([seed, step])
    return online.transform(tf.constant(images), seeds, settings).numpy()


def mean_places(images):
    """Centre of mass (y, x) of each image."""
    return np.array([ndimage.center_of_mass(image[..., 0]) for image in images])


# --- resampling ---


@pytest.mark.parametrize(
    "matrix, image, expected",
    [
        # Clockwise by 90 degrees: the first row becomes the last column.
        (
            online.rotation(tf.constant([[90.0], [0.0]])),
            noise(1),
            np.rot90(noise(1), -1, (1, 2)),
        ),
        (
            online.shift(tf.constant([[3 / 28], [-2 / 28]])),
            noise(1),
            ndimage.shift(noise(1), (0, -2, 3, 0), order=0),
        ),
    ],
    ids=["rotation", "shift"],
)
def test_whole_pixels_are_exact(matrix, image, expected):
    x, y = online.positions(matrix)
    # cos 90° is not quite 0 in floats; bilinear weights of 1e-6 are rounded away.
    np.testing.assert_array_equal(online.sample(tf.constant(image), x, y), expected)


@pytest.mark.parametrize(
    "affine, amounts, point",
    [
        # Where (0, −10), ten pixels above the centre, is to be seen.
        (online.rotation, (30.0, 9.0), (5.0, -10 * math.cos(math.radians(30)))),
        (online.shear, (45.0, 9.0), (10.0, -10.0)),
        (online.zoom, (0.5, -0.2), (0.0, -8.0)),
        (online.shift, (0.25, -0.5), (7.0, -24.0)),
    ],
    ids=["rotation", "shear", "zoom", "shift"],
)
def test_matrices_invert_the_visible_transform(affine, amounts, point):
    (matrix,) = affine(tf.constant(amounts)[:, tf.newaxis]).numpy()
    np.testing.assert_allclose(matrix @ [*point, 1], [0, -10, 1], atol=1e-5)


def test_zoom_has_a_factor_for_each_axis():
    (matrix,) = online.zoom(tf.constant([[0.25], [-0.5]])).numpy()
    np.testing.assert_allclose(matrix, np.diag([1 / 1.25, 2, 1]))


def test_affine_matches_scipy():
    amounts = tf.constant([[25.0, -70.0], [0.0, 0.0]])
    matrices = online.shift(amounts / 500) @ online.rotation(amounts)
    images = noise(2)
    ours = online.sample(tf.constant(images), *online.positions(matrices)).numpy()
    for image, matrix, own in zip(images, matrices.numpy(), ours, strict=True):
        swapped = matrix[[1, 0]][:, [1, 0, 2]].astype(float)  # scipy counts (y, x)
        offset = swapped[:, 2] + 13.5 - swapped[:, :2] @ [13.5, 13.5]
        expected = ndimage.affine_transform(
            image[..., 0].astype(float),
            swapped[:, :2],
            offset,
            order=1,
            mode="grid-constant",
        )
        assert abs(own[..., 0] - expected).max() <= 0.501


def test_sampling_matches_scipy():
    rng = np.random.default_rng(1)
    # From far beyond one border to far beyond the other.
    x, y = rng.uniform(-40, 70, (2, 3, 784)).astype(np.float32)
    x[:, :400], y[:, :400] = rng.uniform(-1.5, 28.5, (2, 3, 400))
    images = noise(3)
    ours = online.sample(tf.constant(images), x, y).numpy()
    for image, own, across, down in zip(images, ours, x, y, strict=True):
        expected = ndimage.map_coordinates(
            image[..., 0].astype(float), [down, across], order=1, mode="grid-constant"
        )
        assert abs(own.ravel() - expected).max() <= 0.501


def test_everything_outside_the_frame_is_0():
    line = np.float32([-1e9, -1.5, -1, *range(21), 27, 28, 28.5, 1e9])
    x, y = (places.reshape(1, 784) for places in np.meshgrid(line, line))
    images = np.full((1, 28, 28, 1), 255, np.uint8)
    seen = online.sample(tf.constant(images), tf.constant(x), tf.constant(y)).numpy()
    inside = (line >= 0) & (line <= 27)
    np.testing.assert_array_equal(seen[0, ..., 0], 255 * np.outer(inside, inside))


# --- elastic deformation ---


def displacements(count, settings, seed=(1, 2)):
    return online.elastic(tf.constant(seed), tf.constant(count), settings).numpy()


@pytest.mark.parametrize("sigma", [0.01, 0.5, 1.0, 4.0, 28.0])
def test_displacements_have_the_covariance_of_noise_that_scipy_blurs(sigma):
    line = ndimage.gaussian_filter1d(np.eye(28), sigma, mode="constant")
    spread = online._spread(sigma).astype(float)
    expected = line @ line.T
    np.testing.assert_allclose(spread @ spread.T, expected, atol=2e-4 * expected.max())


@pytest.mark.parametrize("sigma, nodes", [(0.5, 28), (4.0, 8), (28.0, 2)])
def test_smooth_displacements_take_few_numbers(sigma, nodes):
    assert online._spread(sigma).shape == (28, nodes)


def test_displacements_are_distributed_like_noise_that_scipy_blurs():
    """Mean, variance, correlation with neighbours and the other axis, and tails."""
    uniform = np.random.default_rng(2).uniform(-1, 1, (2000, 2, 28, 28))
    plain = 34 * ndimage.gaussian_filter(uniform, (0, 0, 4, 4), mode="constant")
    ours = statistics(displacements(2000, ELASTIC))
    assert abs(ours["mean"]) < 0.1 and abs(ours["axes"]) < 0.1
    for name, expected in statistics(plain).items():
        assert ours[name] == pytest.approx(expected, abs=0.1), name
    # Blurred white noise a distance of d apart correlates by exp(−d² / 4 σ²).
    assert ours["right"] == pytest.approx(math.exp(-0.25), abs=0.03)


def statistics(field):
    """Statistics of displacements [N, 2, 28, 28], in the middle and the corner."""
    middle = field[:, :, 14, 14]

    def correlation(x):
        return np.corrcoef(middle.ravel(), x.ravel())[0, 1]

    return {
        "mean": middle.mean(),
        "deviation": middle.std(),
        "deviation in the corner": field[:, :, 0, 0].std(),
        "right": correlation(field[:, :, 14, 18]),
        "below": correlation(field[:, :, 18, 14]),
        "far": correlation(field[:, :, 26, 26]),
        "axes": correlation(field[:, ::-1, 14, 14]),
        "within a deviation": (abs(middle) < middle.std()).mean(),
        "kurtosis": (middle**4).mean() / middle.std() ** 4 / 3,
    }


def test_simards_displacements_have_the_stated_size():
    field = displacements(200, ELASTIC)
    # 34 · √(1/3) · Σ of the squares of the weights of a line, 1 / (2 σ √π).
    expected = 34 / math.sqrt(3) / (8 * math.sqrt(math.pi))
    assert round(expected, 1) == 1.4
    middle = field[..., 13:15, 13:15]
    assert math.sqrt((middle**2).mean()) == pytest.approx(expected, rel=0.1)
    assert abs(middle.mean()) < 0.3


def test_elastic_is_sampled_where_the_displacements_say():
    images, step = noise(4), 3
    seeds = tf.random.split(tf.constant([5, step]), 2)
    dx, dy = np.moveaxis(displacements(4, ELASTIC, seeds[1]), 1, 0)
    row, column = np.indices((28, 28))
    for image, own, across, down in zip(
        images, transform(images, step, ELASTIC), dx, dy, strict=True
    ):
        places, ink = [row + down, column + across], image[..., 0].astype(float)
        expected = ndimage.map_coordinates(ink, places, order=1, mode="grid-constant")
        assert abs(own[..., 0] - expected).max() <= 0.51


# --- by native operations ---


@pytest.mark.native
@EACH
def test_native_operations_resample_alike(settings):
    images, seed = tf.constant(noise(20)), tf.constant([5, 3])
    ours = online.transform(images, seed, settings, native=True).numpy()
    plain = online.transform(images, seed, settings).numpy()
    assert abs(ours.astype(int) - plain).max() <= 1
    assert (ours != plain).mean() < 0.01


@pytest.mark.native
def test_native_operations_blur_alike():
    images, seed = tf.constant(noise(20)), tf.constant([5, 3])
    settings = OnlineSettings(blur=5.0)
    ours = online.transform(images, seed, settings, native=True).numpy()
    plain = online.transform(images, seed, settings).numpy()
    assert abs(ours.astype(int) - plain).max() <= 1
    assert (ours != plain).mean() < 0.01
    assert 5 < (ours == images.numpy()).all((1, 2, 3)).sum() < 15  # half of them stay


# --- draws ---


def test_without_transforms_the_tensor_is_the_same():
    images = tf.constant(noise(3))
    assert online.transform(images, tf.constant([0, 0]), OnlineSettings()) is images


@EACH
def test_images_are_a_function_of_the_seed(settings):
    images = noise(4)
    first = transform(images, 0, settings)
    assert first.dtype == np.uint8 and first.shape == images.shape
    np.testing.assert_array_equal(transform(images, 0, settings), first)
    others = [transform(images, 1, settings), transform(images, 0, settings, seed=6)]
    for other in others:
        assert (other != first).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    "name, means",
    {
        "rotation": [117.07, 119.52, 119.63, 124.03],
        "zoom": [122.94, 116.14, 128.01, 114.58],
        "shift": [119.37, 112.64, 115.81, 116.43],
        "shear": [123.93, 121.31, 124.51, 127.60],
        "elastic": [115.42, 122.16, 126.79, 123.84],
    }.items(),
)
def test_draws_are_golden(name, means):
    # Published results depend on them.
    images = transform(noise(4), 3, ALONE[name])
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), means, atol=0.02)


@EACH
def test_every_image_has_its_own_draw(settings):
    images = transform(np.repeat(noise(1), 20, axis=0), 0, settings)
    assert len({image.tobytes() for image in images}) == 20


def test_seed_may_be_int64():
    images = tf.constant(noise(2))
    seed = tf.constant([5, 1 << 40], tf.int64)
    assert (online.transform(images, seed, ALL) != images).numpy().any()


def test_a_transform_draws_the_same_next_to_others():
    images = smooth(3)
    alone = transform(images, 0, OnlineSettings(rotation=30.0))
    company = transform(images, 0, OnlineSettings(rotation=30.0, zoom=1e-6))
    assert abs(alone.astype(int) - company).max() <= 1


def test_shifts_fill_exactly_their_range():
    images = np.zeros((400, 28, 28, 1), np.uint8)
    images[:, 14, 14] = 255
    moves = mean_places(transform(images, 0, OnlineSettings(shift=0.25))) - 14
    # Bilinear weights, rounded to 1 / 255, tell the place to about 0.01 pixels.
    assert (abs(moves) < 7.02).all()
    assert (moves.min(axis=0) < -6.5).all() and (moves.max(axis=0) > 6.5).all()
    assert (abs(moves.mean(axis=0)) < 0.8).all()  # four standard deviations
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.2


def test_rotations_fill_exactly_their_range():
    images = np.zeros((400, 28, 28, 1), np.uint8)
    images[:, 3, 13:15] = 255  # above the centre
    y, x = (mean_places(transform(images, 0, OnlineSettings(rotation=40.0))) - 13.5).T
    angles = np.degrees(np.arctan2(x, -y))
    assert abs(angles).max() < 40.1
    assert angles.min() < -38 and angles.max() > 38
    assert abs(angles.mean()) < 5
    # What turns neither nears the centre nor leaves it.
    np.testing.assert_allclose(np.hypot(x, y), 10.5, atol=0.15)


def test_draws_of_the_transforms_are_independent():
    images = np.zeros((400, 28, 28, 1), np.uint8)
    images[:, 3, 13:15] = 255
    angle = mean_places(transform(images, 0, OnlineSettings(rotation=20.0)))[:, 1]
    slant = mean_places(transform(images, 0, OnlineSettings(shear=20.0)))[:, 1]
    move = mean_places(transform(images, 0, OnlineSettings(shift=0.1)))[:, 1]
    correlations = np.corrcoef([angle, slant, move]) - np.eye(3)
    assert abs(correlations).max() < 0.2


# --- grey levels ---


@pytest.fixture
def grey(monkeypatch):
    """Registers a change of grey levels, turned on by --elastic_sigma alone."""

    def change(levels, seed, settings):
        assert levels.dtype == tf.float32
        draws = tf.random.stateless_uniform([tf.shape(levels)[0], 1, 1, 1], seed)
        return settings.elastic_sigma * levels + draws / 4

    monkeypatch.setitem(online.GREYS, "elastic_sigma", change)
    return OnlineSettings(elastic_sigma=1.0)


def test_grey_levels_change_by_the_seed_and_stay_in_range(grey):
    images = np.full((4, 28, 28, 1), 128, np.uint8)
    first = transform(images, 0, grey)
    assert first.dtype == np.uint8 and first.shape == images.shape
    np.testing.assert_array_equal(transform(images, 0, grey), first)
    added = first[:, 0, 0, 0].astype(int) - 128
    assert len(set(added)) == 4 and added.min() >= 0 and added.max() <= 64
    assert (transform(images, 1, grey)[:, 0, 0, 0] != first[:, 0, 0, 0]).any()
    assert (transform(np.full_like(images, 255), 0, grey) == 255).all()


def test_grey_levels_change_after_the_geometry_and_move_no_draw(grey):
    images = smooth(3)
    both = dataclasses.replace(grey, rotation=30.0)
    turned = transform(images, 0, OnlineSettings(rotation=30.0))
    np.testing.assert_array_equal(
        transform(images, 0, both), transform(turned, 0, grey)
    )


# --- in the graph ---


def test_transforms_work_in_a_loop_of_the_graph():
    images = tf.constant(smooth(4))

    @tf.function(autograph=False)
    def loop(count):
        def body(step, results):
            seed = tf.stack([5, step])
            return step + 1, results.write(step, online.transform(images, seed, ALL))

        results = tf.TensorArray(tf.uint8, count)
        start = [tf.constant(0), results]
        return tf.while_loop(lambda s, _: s < count, body, start)[1].stack()

    for step, result in enumerate(loop(tf.constant(3)).numpy()):
        np.testing.assert_array_equal(result, transform(images, step, ALL))


def test_no_image():
    assert transform(noise(1)[:0], 0, ALL).shape == (0, 28, 28, 1)


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ([2, 28, 28, 1], tf.float32),
        ([2, 28, 28], tf.uint8),
        ([2, 27, 28, 1], tf.uint8),
        ([2, 28, 28, 3], tf.uint8),
    ],
)
def test_other_images_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=f"uint8 images .*{dtype.name}"):
        online.transform(tf.zeros(shape, dtype), tf.constant([0, 0]), ALL)
