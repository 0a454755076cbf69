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
from augment.xla import compiled
from native import ops

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
    share, native = config.outliers, config.kernels == "native"

    def mix(images, labels, seed):
        if not share:
            return images, labels
        size = tf.shape(images)[0]
        count = tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32)
        count = tf.minimum(count, size - 1)  # each needs a next one
        labels = tf.cast(labels, tf.int32)
        seed += [0, _NUMBER << 28]
        # The first ones, as a batch is in random order.
        made, made_labels = make(images[: count + 1], labels[: count + 1], seed, native)
        return (
            tf.concat([made, images[count:]], 0),
            tf.concat([made_labels, labels[count:]], 0),
        )

    return mix


def make(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, native: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Looks at each image and the next one, side by side, through one of the `VIEWS`.

    Args:
      images: uint8 [N + 1, 28, 28, 1].
      labels: int32 [N + 1].
      seed: int32 [2].
      native: whether to resample by `native.ops`.

    Returns:
      uint8 [N, 28, 28, 1] and int32 [N]: the label of the digit that is whole in view,
      and `NO_CLASS` if it is none or two. Where a person might go either way, the first
      image as it was.
    """
    draws = tf.random.stateless_uniform([5, tf.shape(images)[0] - 1], seed)
    matrices, inside, zoom = _looks(draws, VIEWS)
    pairs = tf.concat([images[:-1], images[1:]], 0)
    if native:
        seen = ops.resample(pairs, matrices, tf.zeros([0]))
    else:
        seen = online.sample(pairs, *online.positions(matrices))
    return _judge(images, labels, seen, inside, zoom)


@compiled
def _looks(
    draws: tf.Tensor, views: tuple[View, ...]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """How to look at each digit and at the next one, for draws [5, N] in 0 to 1.

    Returns matrices float32 [2 N, 3, 3] for `online.positions`, of all first digits and
    then of all second ones; which columns are in view, bool [N, 28]; and the zoom, [N].
    """
    kind = tf.cast(draws[0] * len(views), tf.int32)

    def drawn(name: str, draw: tf.Tensor) -> tf.Tensor:
        bounds = tf.constant([getattr(view, name) for view in views], tf.float32)
        bounds = tf.gather(bounds, kind)  # [N, 2]
        return bounds[:, 0] + draw * (bounds[:, 1] - bounds[:, 0])

    names = ("pitch", "centre", "reach", "zoom")
    pitch, centre, reach, zoom = map(drawn, names, tf.unstack(draws)[1:])
    # From x pixels to the right of a digit's centre, magnified.
    x = tf.concat([pitch * centre, pitch * (centre - 1)], 0)
    scale = tf.tile(1 / zoom, [2])
    zero, one = tf.zeros_like(x), tf.ones_like(x)
    rows = [[scale, zero, x], [zero, scale, zero], [zero, zero, one]]
    matrices = tf.stack([tf.stack(row, 1) for row in rows], 1)
    from_centre = tf.abs(tf.range(float(SIDE)) - CENTRE)  # of each column
    return matrices, from_centre <= (reach * zoom)[:, tf.newaxis], zoom


@compiled
def _judge(
    images: tf.Tensor,
    labels: tf.Tensor,
    seen: tf.Tensor,
    inside: tf.Tensor,
    zoom: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts what is seen of two digits together; returns what `make` does."""
    inside = inside[:, tf.newaxis, :, tf.newaxis]
    first, second = (
        tf.where(inside, part, tf.zeros_like(part)) for part in tf.split(seen, 2)
    )
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
