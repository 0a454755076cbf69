# SPDX-License-Identifier: Apache-2.0
"""Random transforms of a batch, in the graph: a pure function of a seed.

Every image gets its own random numbers. Its affine transforms are multiplied into one
matrix, displacements are added to the places that the matrix gives, and the image is
resampled once. Then come changes of its grey levels. The formulas of the geometry are
in augment/geometry.py.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from augment import geometry, grey, normal
from augment.geometry import CENTRE, FRAMED, SIDE
from augment.online_settings import OnlineSettings, settings_from
from augment.xla import compiled
from native import ops

# Amounts float32 [2, N], uniform in ± the setting → matrices float32 [N, 3, 3], which
# map a pixel (x, y, 1) of the result, counted from the centre, to the place to read.
Affine = Callable[[tf.Tensor], tf.Tensor]

# Seed int32 [2] and N → displacements (x, y) of the places to read, in pixels, float32
# [N, 2, 28, 28].
Displacement = Callable[[tf.Tensor, tf.Tensor, OnlineSettings], tf.Tensor]

# Grey levels float32 [N, 28, 28, 1], 0 paper to 1 ink, and a seed int32 [2] → the next
# grey levels; what is beyond 0 or 1 is cut off.
Grey = Callable[[tf.Tensor, tf.Tensor, OnlineSettings], tf.Tensor]


def zoom(shares: tf.Tensor) -> tf.Tensor:
    """Magnifies width and height by factors 1 + share (Keras: by 1 / (1 + share))."""
    x, y = tf.unstack(1 / (1 + shares))
    return _matrices([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def shear(degrees: tf.Tensor) -> tf.Tensor:
    """Slants upright strokes by the first angle, to the right if it is positive."""
    slant = tf.tan(math.radians(1) * degrees[0])
    return _matrices([[1, slant, 0], [0, 1, 0], [0, 0, 1]])


def rotation(degrees: tf.Tensor) -> tf.Tensor:
    """Rotates by the first angle, clockwise if it is positive."""
    angle = math.radians(1) * degrees[0]
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _matrices([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def shift(shares: tf.Tensor) -> tf.Tensor:
    """Shifts by shares of the side, right and down if they are positive."""
    x, y = tf.unstack(-SIDE * shares)
    return _matrices([[1, 0, x], [0, 1, y], [0, 0, 1]])


def elastic(seed: tf.Tensor, count: tf.Tensor, settings: OnlineSettings) -> tf.Tensor:
    """Displacements alpha · (noise * Gaussian of sigma).

    What a Gaussian leaves of noise is smooth, so a few numbers tell it: we draw these,
    with the covariance of the blurred noise, and interpolate between them.
    """
    spread = _spread(settings.elastic_sigma)  # [28, nodes]
    nodes = spread.shape[1]
    drawn = normal.numbers(normal.octets(seed, count, 2 * nodes * nodes))
    drawn = tf.reshape(drawn, [-1, 2, nodes, nodes])
    deviation = settings.elastic_alpha * _NOISE_DEVIATION
    return (deviation * spread) @ (drawn @ spread.T)


# Online augmentations by the setting that turns each on, affine ones in the order in
# which the eye sees them happen. To add one: a function, a line at the end of a table,
# and its setting in augment/online_settings.py. See docs/extending.md.
AFFINES: dict[str, Affine] = {
    "zoom": zoom,
    "shear": shear,
    "rotation": rotation,
    "shift": shift,
}
DISPLACEMENTS: dict[str, Displacement] = {"elastic_alpha": elastic}
GREYS: dict[str, Grey] = {
    "thickness": grey.thickness,
    "cutout": grey.cutout,
    "blur": grey.blur,
    "contrast": grey.contrast,
    "brightness": grey.brightness,
    "noise": grey.noise,
}
NATIVE_GREYS: dict[str, Grey] = {"blur": grey.native_blur}  # by `native.ops`


# Number of the online transforms among the random draws of a step: the layers' dropout
# masks have lower ones (`models.layers.MASKS`, which augment/ may not import).
_NUMBER = 7


def from_config(config: Any) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the online augmentation: uint8 [N, 28, 28, 1], step seed → the same.

    The settings are those of a `config.Config`. The step seed, int32 [2], also seeds
    dropout; `models.layers.mask_seed` makes sure that both draw different numbers.
    """
    settings, native = settings_from(config), config.kernels == "native"

    def augment(images, seed):
        return transform(images, seed + [0, _NUMBER << 28], settings, native=native)

    return augment


def transform(
    images: tf.Tensor,
    seed: tf.Tensor,
    settings: OnlineSettings,
    *,
    native: bool = False,
) -> tf.Tensor:
    """Transforms each image at random.

    The random numbers of a transform do not depend on which others are on.

    Args:
      images: uint8 [N, 28, 28, 1]; anything else raises ValueError.
      seed: int32 or int64 [2], used for nothing else.
      settings: bounds of the transforms; if all are 0, `images` itself is returned.
      native: whether to use `native.ops`: the same but for roundings, in half the time.

    Returns:
      uint8 [N, 28, 28, 1]: sampled bilinearly, 0 beyond the border, rounded.
    """
    if images.dtype != tf.uint8 or images.shape[1:] != [SIDE, SIDE, 1]:
        raise ValueError(
            "online augmentation expects uint8 images [N, 28, 28, 1], got"
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
        displace(noise_seed, count, settings)
        for noise_seed, (name, displace) in zip(noise_seeds, DISPLACEMENTS.items())
        if getattr(settings, name)
    ]
    if native and (amounts or displacements):
        moved = tf.add_n(displacements) if displacements else tf.zeros([0])
        matrices = _product(amounts) if amounts else tf.eye(3, batch_shape=[count])
        images = ops.resample(images, matrices, moved)
    elif amounts or displacements:
        images = _read(images, *_places(amounts, displacements))
    return _shade(images, seed, settings, GREYS | NATIVE_GREYS if native else GREYS)


def _shade(
    images: tf.Tensor,
    seed: tf.Tensor,
    settings: OnlineSettings,
    greys: dict[str, Grey],
) -> tf.Tensor:
    """Changes grey levels: uint8 [N, 28, 28, 1] → the same, by all that are on.

    Their seeds are apart from those of `transform`, whose draws do not change.
    """
    changes = [
        (number, change)
        for number, (name, change) in enumerate(greys.items())
        if getattr(settings, name)
    ]
    if not changes:
        return images
    levels = tf.cast(images, tf.float32) / 255
    for number, change in changes:
        grey_seed = tf.random.fold_in(seed, tf.cast(number, seed.dtype))
        levels = change(levels, grey_seed, settings)
    return _to_bytes(levels)


# The stages are compiled one by one: in a single loop the gather would keep everything
# else from being vectorised, and take twice as long.
@compiled
def _to_bytes(levels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(255 * tf.clip_by_value(levels, 0, 1)), tf.uint8)


@compiled
def _product(amounts: dict[str, tf.Tensor]) -> tf.Tensor:
    """Product of the matrices of affine transforms: [N, 3, 3].

    Amounts are float32 [2, N] for each affine transform that is on.
    """
    return functools.reduce(
        tf.matmul,
        [affine(amounts[name]) for name, affine in AFFINES.items() if name in amounts],
    )


@compiled
def _places(
    amounts: dict[str, tf.Tensor], displacements: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Places to read for each pixel of the result: x, y [N, 784], for `_read`.

    Amounts are float32 [2, N] for each affine transform that is on, displacements
    float32 [N, 2, 28, 28] each. At least one of the two is not empty.
    """
    x, y = positions(_product(amounts) if amounts else tf.eye(3)[tf.newaxis])
    for displacement in displacements:
        dx, dy = tf.unstack(tf.reshape(displacement, [-1, 2, SIDE * SIDE]), axis=1)
        x, y = x + dx, y + dy
    return _onto_frame(x), _onto_frame(y)


def positions(matrices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Places that matrices [N, 3, 3] of an `Affine` map each pixel to: x, y [N, 784].

    Places are in pixels from the upper left one; pixels are in row-major order.
    """
    row, column = geometry.grid().reshape(2, -1)

    def at(axis: int) -> tf.Tensor:
        by_column, by_row, fixed = tf.split(matrices[:, axis], 3, axis=1)  # [N, 1]
        return by_column * column + by_row * row + fixed + CENTRE

    return at(0), at(1)


def sample(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Reads images, uint8 [N, 28, 28, 1], bilinearly and rounded, 0 beyond the border.

    The places x and y, float32 [N, 784], are from `positions`.
    """
    return _read(images, _onto_frame(x), _onto_frame(y))


def _onto_frame(places: tf.Tensor) -> tf.Tensor:
    """Moves places beyond the frame onto it, where pixels are 0 as well."""
    return tf.clip_by_value(places, -1, SIDE)


def _read(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Does what `sample` does, for places that are not beyond the frame."""
    values = _blend(_gather(_squares(images), x, y), x, y)
    return tf.reshape(values, [-1, SIDE, SIDE, 1])


@compiled
def _squares(images: tf.Tensor) -> tf.Tensor:
    """Packs every 2 × 2 pixels into one number, so that one gather reads all four.

    Returns uint32 [N, 900], for each pixel of the framed images in row-major order.
    From the lowest byte up: the pixel, its right, lower and lower right neighbours.
    Wrong neighbours, of pixels at the edge of the frame, are only read with weight 0.
    """
    framed = tf.pad(images[..., 0], [[0, 0], [1, 3], [1, 1]])
    pixels = tf.cast(tf.reshape(framed, [-1, (FRAMED + 2) * FRAMED]), tf.uint32)

    def ahead(distance: int) -> tf.Tensor:
        return pixels[:, distance : distance + FRAMED * FRAMED]

    upper = ahead(0) + 2**8 * ahead(1)
    lower = ahead(FRAMED) + 2**8 * ahead(FRAMED + 1)
    return upper + 2**16 * lower


@compiled
def _gather(squares: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Picks the squares, of [N, 900], around each place: [N, 784]."""
    index = (tf.floor(y) + 1) * FRAMED + tf.floor(x) + 1
    return tf.gather(squares, tf.cast(index, tf.int32), batch_dims=1)


@compiled
def _blend(squares: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Interpolates between the pixels around each place: uint8 [N, 784]."""
    # Do not rewrite: which product is fused with which sum, hence the last bit, depends
    # on how this is written. The published runs were made with it as it is.
    across, down = x - tf.floor(x), y - tf.floor(y)  # weights of right and lower pixels
    pixels = tf.cast(tf.bitcast(squares, tf.uint8), tf.float32)  # [N, 784, 4]
    upper_left, upper_right, lower_left, lower_right = tf.unstack(pixels, axis=-1)
    upper = upper_left * (1 - across) + upper_right * across
    lower = lower_left * (1 - across) + lower_right * across
    return tf.cast(tf.round(upper * (1 - down) + lower * down), tf.uint8)


# Standard deviation of the noise that is blurred, uniform in ±1.
_NOISE_DEVIATION = 3**-0.5


def _spread(sigma: float) -> np.ndarray:
    """Matrix S, float32 [28, nodes]: S @ normal numbers @ Sᵀ is blurred noise.

    Namely with the covariance that white noise of variance 1 has when it is blurred by
    `_blur_matrix`: C along each axis. The nodes are evenly spaced lines, as few as keep
    all but 1e-4 of the variance, eight for a sigma of 4. With L Lᵀ the covariance of
    the nodes, S is C's columns of the nodes times L⁻ᵀ, so S Sᵀ is C at the nodes, and
    the best estimate by them elsewhere.
    """
    blur = _blur_matrix(sigma).astype(np.float64)
    covariance = blur @ blur.T
    for count in range(1, SIDE + 1):
        nodes = ((np.arange(count) + 0.5) * SIDE / count).astype(int)
        of_nodes = np.linalg.cholesky(covariance[np.ix_(nodes, nodes)])
        spread = np.linalg.solve(of_nodes, covariance[nodes]).T
        kept = (spread**2).sum() / np.trace(covariance)
        if kept > 1 - 1e-4:
            break
    return spread.astype(np.float32)


def _blur_matrix(sigma: float) -> np.ndarray:
    """Matrix B, float32 [28, 28], for which B @ field @ B is the blurred field.

    Equals `scipy.ndimage.gaussian_filter(mode="constant")`: the Gaussian is cut off at
    4 sigma and sums to 1; beyond the border the field counts as 0.
    """
    radius = int(4 * sigma + 0.5)
    total = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).sum()
    distance = np.subtract.outer(np.arange(SIDE), np.arange(SIDE))
    with np.errstate(over="ignore"):  # for a tiny sigma, where exp(−inf) is right
        weights = np.exp(-0.5 * (distance / sigma) ** 2) / total
    return np.where(abs(distance) <= radius, weights, 0).astype(np.float32)


def _matrices(rows: list[list[tf.Tensor | float]]) -> tf.Tensor:
    """Stacks entries, each [N] or a number, into matrices [N, 3, 3]."""
    count = next(tf.shape(e) for row in rows for e in row if tf.is_tensor(e))
    entries = [
        tf.broadcast_to(tf.cast(e, tf.float32), count) for row in rows for e in row
    ]
    return tf.reshape(tf.stack(entries, axis=1), [-1, 3, 3])
