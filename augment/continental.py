# SPDX-License-Identifier: Apache-2.0
"""Ones with an upstroke and sevens with a bar, as most of the world writes them.

MNIST's digits are from the United States, where a one is a bare stroke and a seven has
no bar; a network that knows only these takes a one with an upstroke for a seven.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from augment.geometry import SIDE
from augment.xla import compiled

ONE, SEVEN = 1, 7

# Number of these draws among the random draws of a step, next to that of
# `outliers.from_config`.
_NUMBER = 5

Change = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def from_config(config: Any) -> Change:
    """Returns change(images, labels, step seed) → images, for a `config.Config`.

    The share `config.continental` of the ones and sevens among the images, uint8
    [N, 28, 28, 1], is drawn on. If it is 0, the images are returned as they are.
    """
    share = config.continental

    def change(images, labels, seed):
        if not share:
            return images
        return draw(images, labels, seed + [0, _NUMBER << 28], share)

    return change


# Bounds of uniform draws; lengths are shares of the digit's height.
_UPSTROKE_RADIANS = 0.45, 1.05  # from the one's stroke, to its left; but …
_MOST_LEVEL_RADIANS = 1.05  # … no nearer the level, as a seven's top is: from upright
_UPSTROKE_LENGTH = 0.2, 0.6
_BAR_HEIGHT = 0.4, 0.65  # from the top
_BAR_RADIANS = -0.35, 0.15  # from the level; below 0, it rises to the right
_BAR_LENGTH = 0.3, 0.6


def draw(
    images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, share: float
) -> tf.Tensor:
    """Draws the second stroke on a share of the ones and sevens.

    Args:
      images: uint8 [N, 28, 28, 1].
      labels: integers [N].
      seed: int32 [2].
      share: of the ones and sevens.

    Returns:
      uint8 [N, 28, 28, 1].
    """
    # Drawn here because XLA would take longer for it than for all the rest.
    draws = tf.random.stateless_uniform([4, tf.shape(images)[0]], seed)
    return _draw(images, labels, draws, share)


@compiled
def _draw(
    images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, share: float
) -> tf.Tensor:
    ink = tf.cast(images[..., 0], tf.float32) / 255  # [N, 28, 28]
    drawn, *draws = tf.unstack(draws)

    def amount(bounds: tuple[float, float], draw: tf.Tensor) -> tf.Tensor:
        return bounds[0] + draw * (bounds[1] - bounds[0])

    place = tf.range(float(SIDE))
    row_ink = tf.reduce_sum(ink, 2)  # [N, 28]
    rows = tf.cast(row_ink > 0.5, tf.float32)
    top = tf.cast(tf.argmax(rows, 1), tf.float32)  # [N]
    bottom = SIDE - 1 - tf.cast(tf.argmax(rows[:, ::-1], 1), tf.float32)
    height = tf.maximum(bottom - top, 1)

    def middle(y: tf.Tensor) -> tf.Tensor:
        """Mean column of the ink of a row, [N]."""
        of_row = tf.gather(ink, tf.cast(y, tf.int32), batch_dims=1)  # [N, 28]
        sums = tf.maximum(tf.reduce_sum(of_row, 1), 1e-3)
        return tf.reduce_sum(of_row * place, 1) / sums

    is_one = tf.cast(labels, tf.int32) == ONE
    # The one's upstroke: from its top, turned from its direction to the left.
    foot, head = middle(bottom), middle(top)
    downwards = tf.atan2(foot - head, height)  # 0: straight down; above: to the right
    turn = downwards - amount(_UPSTROKE_RADIANS, draws[0])
    turn = tf.maximum(turn, -_MOST_LEVEL_RADIANS)
    length = height * amount(_UPSTROKE_LENGTH, draws[1])
    one = (head, top, head + length * tf.sin(turn), top + length * tf.cos(turn))
    # The seven's bar: through its stem.
    y = tf.round(top + height * amount(_BAR_HEIGHT, draws[0]))
    stem = middle(y)
    turn = amount(_BAR_RADIANS, draws[2])
    half = height * amount(_BAR_LENGTH, draws[1]) / 2
    x_half, y_half = half * tf.cos(turn), half * tf.sin(turn)
    seven = (stem - x_half, y - y_half, stem + x_half, y + y_half)
    # As wide as the digit's own: its ink over its length, with the seven's top.
    strokes = tf.where(is_one, 1.0, 1.6) * height
    radius = tf.clip_by_value(tf.reduce_sum(row_ink, 1) / strokes / 2, 0.6, 2.5)
    ends = [tf.where(is_one, a, b) for a, b in zip(one, seven)]
    stroke = tf.clip_by_value(radius[:, None, None] + 0.5 - _distance(*ends), 0, 1)
    wanted = (is_one | (tf.cast(labels, tf.int32) == SEVEN)) & (drawn < share)
    levels = tf.where(wanted[:, None, None], tf.maximum(ink, stroke), ink)
    return tf.cast(tf.round(255 * levels), tf.uint8)[..., tf.newaxis]


def _distance(x0: tf.Tensor, y0: tf.Tensor, x1: tf.Tensor, y1: tf.Tensor) -> tf.Tensor:
    """Distance of each pixel from a straight stroke: [N, 28, 28], from ends [N]."""
    place = tf.range(float(SIDE))
    x0, y0, x1, y1 = (end[:, tf.newaxis, tf.newaxis] for end in (x0, y0, x1, y1))
    across, down = x1 - x0, y1 - y0
    from_x, from_y = place - x0, place[:, tf.newaxis] - y0
    per_square = 1 / (across**2 + down**2 + 1e-6)  # by image, not by pixel
    along = from_x * (across * per_square) + from_y * (down * per_square)
    along = tf.clip_by_value(along, 0, 1)
    return tf.sqrt((from_x - along * across) ** 2 + (from_y - along * down) ** 2 + 1e-9)
