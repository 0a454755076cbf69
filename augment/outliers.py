# SPDX-License-Identifier: Apache-2.0
"""What is no digit, made of digits, so that a network learns to be unsure.

Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with Outlier Exposure", 2019;
for halves and pairs of handwritten digits, LeCun et al., "Gradient-Based Learning
Applied to Document Recognition", 1998, section VI. A photo's reader asks about such
images wherever it tries to cut digits that touch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from augment import online
from augment.geometry import CENTRE, SIDE

NO_CLASS = -1  # label of an outlier: its target is the same for all classes

# Number of these draws among the random draws of a step, next to that of
# `online.from_config`.
_NUMBER = 6

Mix = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class View(NamedTuple):
    """How to look at two digits side by side; pairs are bounds of a uniform draw."""

    pitch: tuple[float, float]  # from one digit's centre to the next one's, in pixels
    centre: tuple[float, float]  # of the view, in pitches from the left digit's centre
    reach: tuple[float, float]  # from the view's centre to either side, in pixels
    zoom: tuple[float, float]


# Ink of MNIST's digits is up to 20 pixels wide, and 12 to 15 of most.
VIEWS = (
    # Two digits that touch, taken for one.
    View(pitch=(12, 20), centre=(0.45, 0.55), reach=(18, 20), zoom=(0.55, 0.75)),
    # The right of one and the left of the next: two cuts, both in the wrong place.
    View(pitch=(12, 20), centre=(0.4, 0.6), reach=(6, 10), zoom=(0.9, 1.3)),
    # Most of one, and a bit of the next.
    View(pitch=(12, 20), centre=(-0.1, 0.1), reach=(8, 12), zoom=(0.9, 1.2)),
    # Half a digit, the left and the right one.
    View(pitch=(60, 60), centre=(-0.12, -0.07), reach=(4, 7), zoom=(1, 1.4)),
    View(pitch=(60, 60), centre=(0.07, 0.12), reach=(4, 7), zoom=(1, 1.4)),
    # Strokes and blots.
    View(pitch=(60, 60), centre=(-0.08, 0.08), reach=(2, 4), zoom=(2.5, 4)),
)

# Shares of a digit's ink.
_WHOLE = 0.9  # with that much of it in view, it can be read, …
_REMNANT = 0.15  # … if there is no more of the other one beside it
_PARTIAL = 0.65  # with no more than that of either, it cannot


def from_config(config: Any) -> Mix:
    """Returns mix(images, labels, step seed) → images, labels, for a `config.Config`.

    Of the images, uint8 [N, 28, 28, 1], the share `config.outliers` is replaced by what
    `make` makes of them; labels become int32 [N]. If the share is 0, both are returned
    as they are.
    """
    share = config.outliers

    def mix(images, labels, seed):
        if not share:
            return images, labels
        size = tf.shape(images)[0]
        count = tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32)
        count = tf.minimum(count, size - 1)  # each needs a next one
        labels = tf.cast(labels, tf.int32)
        seed += [0, _NUMBER << 28]
        # The first ones, as a batch is in random order.
        made, made_labels = make(images[: count + 1], labels[: count + 1], seed)
        return (
            tf.concat([made, images[count:]], 0),
            tf.concat([made_labels, labels[count:]], 0),
        )

    return mix


def make(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks at each image and the next one, side by side, through one of the `VIEWS`.

    Args:
      images: uint8 [N + 1, 28, 28, 1].
      labels: int32 [N + 1].
      seed: int32 [2].

    Returns:
      uint8 [N, 28, 28, 1] and int32 [N]: the label of the digit that is whole in view,
      and `NO_CLASS` if it is none or two. Where a person might go either way, the first
      image as it was.
    """
    count = tf.shape(images)[0] - 1
    draws = tf.unstack(tf.random.stateless_uniform([5, count], seed))
    kind = tf.cast(draws[0] * len(VIEWS), tf.int32)

    def drawn(name: str, draw: tf.Tensor) -> tf.Tensor:
        bounds = tf.constant([getattr(view, name) for view in VIEWS], tf.float32)
        bounds = tf.gather(bounds, kind)  # [N, 2]
        return bounds[:, 0] + draw * (bounds[:, 1] - bounds[:, 0])

    names = ("pitch", "centre", "reach", "zoom")
    pitch, centre, reach, zoom = map(drawn, names, draws[1:])
    first = _seen(images[:-1], pitch * centre, reach, zoom)
    second = _seen(images[1:], pitch * (centre - 1), reach, zoom)
    all_ink = _ink(images)
    ink, other_ink = (_ink(part) / tf.square(zoom) for part in (first, second))
    whole = (ink >= _WHOLE * all_ink[:-1]) & (other_ink <= _REMNANT * ink)
    partial = (ink <= _PARTIAL * all_ink[:-1]) & (other_ink <= _PARTIAL * all_ink[1:])
    both = (ink >= _PARTIAL * all_ink[:-1]) & (other_ink >= _PARTIAL * all_ink[1:])
    made = tf.where(
        (whole | partial | both)[:, None, None, None],
        tf.maximum(first, second),
        images[:-1],
    )
    return made, tf.where(partial | both, NO_CLASS, labels[:-1])


def _ink(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(images, tf.float32), [1, 2, 3])


def _seen(
    images: tf.Tensor, x: tf.Tensor, reach: tf.Tensor, zoom: tf.Tensor
) -> tf.Tensor:
    """Images from x pixels to the right of their centres, cropped and magnified.

    The other arguments are float32 [N]; the crop reaches so far to either side.
    """
    zero, scale = tf.zeros_like(x), 1 / zoom
    one = tf.ones_like(x)
    rows = [[scale, zero, x], [zero, scale, zero], [zero, zero, one]]
    matrices = tf.stack([tf.stack(row, 1) for row in rows], 1)
    seen = online.sample(images, *online.positions(matrices))
    from_centre = tf.abs(tf.range(float(SIDE)) - CENTRE)  # of each column
    inside = from_centre <= (reach * zoom)[:, tf.newaxis]  # [N, 28]
    return tf.where(inside[:, tf.newaxis, :, tf.newaxis], seen, tf.zeros_like(seen))
