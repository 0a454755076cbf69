# SPDX-License-Identifier: Apache-2.0
"""Random transforms of a batch in the graph, as a pure function of a seed.

Every image has draws of its own. Its affine transforms are multiplied into one matrix,
the displacements are added to where that matrix reads, and it is resampled once.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from augment.online_settings import OnlineSettings

SIDE = 28
CENTRE = (SIDE - 1) / 2
FRAMED = SIDE + 2  # with a frame of one pixel

# XLA makes one loop of many small operations; products of matrices are left to
# TensorFlow, which is faster at those on a CPU. Parts are compiled one by one, lest XLA
# make one loop of all: a loop that also reads pixels from all over an image does
# nothing for eight pixels at a time, and takes twice as long.
_compiled = tf.function(autograph=False, jit_compile=True)

# Amounts float32 [2, N], each uniform in ± its setting and in its unit → float32
# matrices [N, 3, 3]. They map a pixel (x, y, 1) of the result, counted from the centre,
# to the place in the image where its value is read: the inverse of what the eye sees.
Affine = Callable[[tf.Tensor], tf.Tensor]

# Noise float32 [N, 2, 28, 28], uniform in (-1, 1) → by how many pixels (x, y) each
# value is to be read elsewhere, the same shape.
Displacement = Callable[[tf.Tensor, OnlineSettings], tf.Tensor]


def zoom(shares: tf.Tensor) -> tf.Tensor:
    """Magnifies width and height by factors 1 + share. Keras': 1 / (1 + share)."""
    x, y = tf.unstack(1 / (1 + shares))
    return _matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def shear(degrees: tf.Tensor) -> tf.Tensor:
    """Slants upright strokes by the first angle, to the right if it is positive."""
    slant = tf.tan(math.radians(1) * degrees[0])
    return _matrices([[1, slant, 0], [0, 1, 0], [0, 0, 1]])


def rotation(degrees: tf.Tensor) -> tf.Tensor:
    """Turns by the first angle, clockwise if it is positive."""
    angle = math.radians(1) * degrees[0]
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _matrices([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def shift(shares: tf.Tensor) -> tf.Tensor:
    """Moves by shares of the side, right and down if they are positive."""
    x, y = tf.unstack(-SIDE * shares)
    return _matrices([[1, 0, x], [0, 1, y], [0, 0, 1]])


def elastic(noise: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Displacements alpha · (noise * Gaussian of sigma).

    Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks
    Applied to Visual Document Analysis", 2003; best there: sigma 4, alpha 34. The paper
    leaves open how the field is normalised before alpha multiplies it. Here the
    Gaussian sums to 1 and nothing else is done. So sigma 4 and alpha 34 move a pixel by
    1.27 along each axis (root mean square over all pixels): by 1.38 in the middle and
    less at the border, beyond which the noise counts as 0.
    """
    blur = _blur_matrix(settings.elastic_sigma)
    return (settings.elastic_alpha * blur) @ (noise @ blur)


# The online augmentations, by the setting that turns each on; the affine ones in the
# order in which the eye sees them happen. To add one: a function, its line here (at
# the end of the displacements, or anywhere in the affine ones), and its setting with
# its flag in augment/online_settings.py.
AFFINES: dict[str, Affine] = {
    "zoom": zoom,
    "shear": shear,
    "rotation": rotation,
    "shift": shift,
}
DISPLACEMENTS: dict[str, Displacement] = {"elastic_alpha": elastic}


def transform(
    images: tf.Tensor, seed: tf.Tensor, settings: OnlineSettings
) -> tf.Tensor:
    """Transforms each image at random.

    A transform's draws depend on the seed alone, not on which others are on.

    Args:
      images: uint8 [N, 28, 28, 1].
      seed: int32 or int64 [2]; the same seed gives the same images. No other random
        numbers may share it.
      settings: how far to go; if it turns nothing on, the result is `images` itself.

    Returns:
      uint8 [N, 28, 28, 1]: sampled bilinearly, 0 beyond the border, rounded.

    Raises:
      ValueError: images of another dtype or shape.
    """
    if images.dtype != tf.uint8 or images.shape[1:] != [SIDE, SIDE, 1]:
        raise ValueError(
            "online augmentation takes uint8 images [N, 28, 28, 1] and was given"
            f" {images.dtype.name} {images.shape.as_list()}"
        )
    if settings == OnlineSettings():
        return images
    count = tf.shape(images)[0]
    affine_seed, *noise_seeds = tf.unstack(
        tf.random.split(seed, 1 + len(DISPLACEMENTS))
    )
    draws = tf.random.stateless_uniform([len(AFFINES), 2, count], affine_seed, -1, 1)
    amounts = {
        name: getattr(settings, name) * draw
        for name, draw in zip(AFFINES, tf.unstack(draws), strict=True)
        if getattr(settings, name)
    }
    displacements = [
        displace(_noise(noise_seed, count), settings)
        for noise_seed, (name, displace) in zip(noise_seeds, DISPLACEMENTS.items())
        if getattr(settings, name)
    ]
    return _read(images, *_places(amounts, displacements))


@_compiled
def _places(
    amounts: dict[str, tf.Tensor], displacements: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each pixel of the result is read: x, y [N, 784] as `_read` takes them.

    Args:
      amounts: float32 [2, N] for each affine transform that is on.
      displacements: float32 [N, 2, 28, 28] each; at least one of both kinds.
    """
    matrices = [
        affine(amounts[name]) for name, affine in AFFINES.items() if name in amounts
    ]
    x, y = positions(functools.reduce(tf.matmul, matrices or [tf.eye(3)[tf.newaxis]]))
    for displacement in displacements:
        dx, dy = tf.unstack(tf.reshape(displacement, [-1, 2, SIDE * SIDE]), axis=1)
        x, y = x + dx, y + dy
    return _onto_frame(x), _onto_frame(y)


def positions(matrices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where matrices [N, 3, 3] as of `Affine` read each pixel: x, y [N, 784].

    They count pixels of the image, row by row, from its upper left one.
    """
    row, column = np.indices((SIDE, SIDE), np.float32).reshape(2, -1) - CENTRE

    def at(axis: int) -> tf.Tensor:
        by_column, by_row, fixed = tf.split(matrices[:, axis], 3, axis=1)  # [N, 1]
        return by_column * column + by_row * row + fixed + CENTRE

    return at(0), at(1)


def sample(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Reads images bilinearly, 0 beyond the border.

    Args:
      images: uint8 [N, 28, 28, 1].
      x, y: float32 [N, 784], in pixels, as of `positions`.

    Returns:
      uint8 [N, 28, 28, 1], rounded.
    """
    return _read(images, _onto_frame(x), _onto_frame(y))


def _onto_frame(places: tf.Tensor) -> tf.Tensor:
    """Moves x or y of places beyond the frame onto it: both read 0."""
    return tf.clip_by_value(places, -1, SIDE)


def _read(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Reads as `sample` does, but from places none of which is beyond the frame."""
    values = _blend(_gather(_squares(images), x, y), x, y)
    return tf.reshape(values, [-1, SIDE, SIDE, 1])


@_compiled
def _squares(images: tf.Tensor) -> tf.Tensor:
    """Packs each 2 × 2 pixels into one number, so that they are read at once.

    Returns:
      uint32 [N, 900]: for each pixel of the framed images, row by row, from the lowest
      byte on: itself, its right, lower and lower right neighbours. The frame is 0;
      what stands for neighbours beyond it is only ever read with weight 0.
    """
    framed = tf.pad(images[..., 0], [[0, 0], [1, 3], [1, 1]])
    pixels = tf.cast(tf.reshape(framed, [-1, (FRAMED + 2) * FRAMED]), tf.uint32)

    def ahead(distance: int) -> tf.Tensor:
        return pixels[:, distance : distance + FRAMED * FRAMED]

    upper = ahead(0) + 2**8 * ahead(1)
    lower = ahead(FRAMED) + 2**8 * ahead(FRAMED + 1)
    return upper + 2**16 * lower


@_compiled
def _gather(squares: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Of squares [N, 900] those around each place, [N, 784]."""
    index = (tf.floor(y) + 1) * FRAMED + tf.floor(x) + 1
    return tf.gather(squares, tf.cast(index, tf.int32), batch_dims=1)


@_compiled
def _blend(squares: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Interpolates between the pixels around each place: uint8 [N, 784]."""
    # Which product is fused with the sum behind it, and so the last bit, depends on how
    # this is written. So written, affine transforms are those of the published runs.
    across, down = x - tf.floor(x), y - tf.floor(y)  # weights of right and lower pixels
    pixels = tf.cast(tf.bitcast(squares, tf.uint8), tf.float32)  # [N, 784, 4]
    upper_left, upper_right, lower_left, lower_right = tf.unstack(pixels, axis=-1)
    upper = upper_left * (1 - across) + upper_right * across
    lower = lower_left * (1 - across) + lower_right * across
    return tf.cast(tf.round(upper * (1 - down) + lower * down), tf.uint8)


def _noise(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Uniform in (-1, 1), float32 [count, 2, 28, 28].

    Of 256 levels only, eight to a random integer: that takes a fraction of the time,
    and a sum of many does not show it.
    """
    levels = tf.bitcast(_random_words(seed, count), tf.quint8)
    levels = tf.reshape(levels, [count, 2, SIDE, SIDE])
    return tf.quantization.dequantize(levels, -127.5 / 128, 127.5 / 128)


@_compiled
def _random_words(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """uint64 [count, 196].

    By Threefry: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
    1, 2, 3", 2011. Compiled by XLA, and only so can it be had on a CPU, it takes half
    the time of Philox, TensorFlow's usual choice from the same paper.
    """
    return tf.random.stateless_uniform(
        [count, 2 * SIDE * SIDE // 8], seed, None, None, tf.uint64, alg="threefry"
    )


def _blur_matrix(sigma: float) -> np.ndarray:
    """B, float32 [28, 28], such that B @ field @ B is the field blurred.

    As `scipy.ndimage.gaussian_filter(mode="constant")` does it: the Gaussian is cut
    off at 4 sigma and sums to 1; beyond the border the field counts as 0.
    """
    radius = int(4 * sigma + 0.5)
    total = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).sum()
    distance = np.subtract.outer(np.arange(SIDE), np.arange(SIDE))
    with np.errstate(over="ignore"):  # of a sigma next to 0, where exp(−inf) is right
        weights = np.exp(-0.5 * (distance / sigma) ** 2) / total
    return np.where(abs(distance) <= radius, weights, 0).astype(np.float32)


def _matrices(rows: list[list[tf.Tensor | float]]) -> tf.Tensor:
    """Stacks entries, each [N] or one number for all, into [N, 3, 3]."""
    count = next(tf.shape(e) for row in rows for e in row if tf.is_tensor(e))
    entries = [
        tf.broadcast_to(tf.cast(e, tf.float32), count) for row in rows for e in row
    ]
    return tf.reshape(tf.stack(entries, axis=1), [-1, 3, 3])
