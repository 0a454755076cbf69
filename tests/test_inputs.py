# SPDX-License-Identifier: Apache-2.0
"""Images in every form that is taken, the same to the byte; all others are refused."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import decode, inputs
from data.normalise import normalise
from evaluation import scoring
from models.lenet import LeNet
from system import errors

BYTES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
BYTES[0, 0, :2, 0] = 0, 255  # the whole range, in each image that is tested alone
ONE = BYTES[0, ..., 0]


@pytest.mark.parametrize(
    "given",
    [
        BYTES,
        BYTES[..., 0],
        BYTES.astype(np.int64),
        BYTES.astype(np.uint16)[..., 0],
        BYTES / 255,
        (BYTES / 255).astype(np.float32),
        (BYTES / 255).astype(np.float16),
        BYTES.astype(np.float32),
        (BYTES / 255).tolist(),
        [image[..., 0] for image in BYTES],
        tf.constant(BYTES),
        np.asfortranarray(BYTES),
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'dtype', '')}",
)
def test_bytes_and_floats_in_each_shape(given):
    images = inputs.images(given)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, BYTES)


@pytest.mark.parametrize("given", [ONE, ONE / 255, Image.fromarray(ONE)])
def test_one_image_alone(given):
    np.testing.assert_array_equal(inputs.images(given), BYTES[:1])


def test_edges_of_the_ranges():
    blank = np.zeros((28, 28))
    assert not inputs.images(blank).any()
    assert inputs.images(np.zeros((0, 28, 28))).shape == (0, 28, 28, 1)
    blank[0, 0] = 1  # a float: ink
    assert inputs.images(blank)[0, 0, 0, 0] == 255
    assert inputs.images(blank.astype(int))[0, 0, 0, 0] == 1  # a byte
    blank[0, 0] = 0.5
    assert inputs.images(blank)[0, 0, 0, 0] == 128


def spoiled(value):
    image = ONE / 255
    image[3, 3] = value
    return image


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (spoiled(np.nan), "float64 [28, 28] from 0 to 1 with NaN or infinity"),
        (np.full((28, 28), np.nan), "float64 [28, 28] with NaN or infinity"),
        (spoiled(np.inf), "from 0 to 1 with NaN or infinity"),
        (spoiled(-0.5), "float64 [28, 28] from -0.5 to 1"),
        (spoiled(1.5), "from 0 to 1.5"),
        (spoiled(1.0000001), "from 0 to 1.0000001"),
        ((BYTES / 255 - 0.13) / 0.31, "float64 [3, 28, 28, 1] from -0.41"),
        (BYTES * 0.5, "from 0 to 127.5"),
        (BYTES.astype(int) + 1, "int64 [3, 28, 28, 1] from 1 to 256"),
        (BYTES.astype(np.uint64) << 56, "uint64"),
        (BYTES.astype(int) - 1, "from -1 to 254"),
        (ONE > 9, "bool [28, 28]"),
        (ONE.astype(complex), "complex128"),
        (ONE.astype(str), "str"),
        (ONE.astype(object), "ndarray [28, 28]"),
        (BYTES[0], "uint8 [28, 28, 1] from 0 to 255"),
        (BYTES.reshape(3, 784), "uint8 [3, 784]"),
        (np.zeros((2, 28, 28, 3), np.uint8), "uint8 [2, 28, 28, 3]"),
        (np.zeros((2, 32, 32), np.uint8), "uint8 [2, 32, 32]"),
        (np.zeros((1, 2, 28, 28, 1), np.uint8), "uint8 [1, 2, 28, 28, 1]"),
        ([], "float64 [0]"),
        ([[1, 2], [3]], "inhomogeneous"),
        (None, "NoneType"),
        (7, "int64 [] from 7 to 7"),
        (b"three.png", "bytes"),
        ({"images": ONE}, "dict"),
        (["three.png", ONE], "paths and other things"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_else_is_refused_in_one_line(given, got):
    with pytest.raises(inputs.InputError) as caught:
        inputs.images(given)
    message = str(caught.value)
    assert message.startswith("not images: ") and got in message
    assert message.endswith(inputs.EXPECTED) and message.isprintable()
    assert isinstance(caught.value, errors.UserError)
    assert isinstance(caught.value, ValueError)


def test_a_picture_of_28_pixels_stays_as_it_is(tmp_path):
    image = np.zeros((28, 28), np.uint8)
    image[5:20, 12:15] = np.arange(45).reshape(15, 3) + 200
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    cv2.imwrite(str(light), image)
    cv2.imwrite(str(dark), 255 - image)
    given = [str(light), dark]
    np.testing.assert_array_equal(inputs.images(given)[..., 0], [image, image])
    np.testing.assert_array_equal(inputs.images(light)[0, ..., 0], image)


@pytest.mark.parametrize("ink", ["dark", "light"])
def test_a_picture_of_another_size_is_normalised(tmp_path, ink):
    """The paper is a little uneven, as JPEG leaves it, and the ink not quite black."""
    drawn = np.zeros((90, 120), np.uint8)
    cv2.line(drawn, (70, 20), (62, 75), 255, 7, cv2.LINE_AA)
    paper = 20 + np.random.default_rng(0).integers(0, 6, drawn.shape)
    grey = paper + (0.7 * drawn).astype(int)
    grey = (grey if ink == "light" else 255 - grey).astype(np.uint8)
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), np.dstack([grey] * 3))
    image = inputs.images(path)[0, ..., 0]
    rows, columns = np.nonzero(image)
    assert np.ptp(rows) == 19 and 4 <= np.ptp(columns) <= 7
    assert image.max() > 240 and image.sum() == pytest.approx(
        normalise(drawn).sum(dtype=int), rel=0.1
    )


def test_pictures_that_cannot_be_read_are_refused(tmp_path):
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((40, 40), 200, np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    for path, message in [
        (blank, "no ink"),
        (tmp_path / "text.png", "not a photo"),
        (tmp_path / "three.png", "No such file"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(decode.PhotoError, match=message) as caught:
            inputs.images(path)
        assert str(path) in str(caught.value)


def test_a_network_and_its_graph_take_arrays():
    network = LeNet()
    logits, _ = network(BYTES, training=False)
    predict = scoring.Predict(network)
    np.testing.assert_allclose(predict(BYTES / 255), logits, rtol=1e-4, atol=1e-6)
    with pytest.raises(inputs.InputError):
        predict(BYTES * 0.5)
    with pytest.raises(ValueError, match="LeNet takes uint8 .* given float64"):
        network(BYTES / 255, training=False)
