# SPDX-License-Identifier: Apache-2.0
"""All that is done to a batch in the graph before the network sees it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from augment import continental, online, outliers

Augment = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def from_config(config: Any) -> Augment:
    """Returns augment(images, labels, step seed) → images, labels.

    Images are uint8 [N, 28, 28, 1], labels integers [N], and the seed int32 [2]. With
    the settings of a `config.Config` that are off, both are returned as they are.
    """
    write = continental.from_config(config)
    mix = outliers.from_config(config)
    transform = online.from_config(config)

    def augment(images, labels, seed):
        images = write(images, labels, seed)
        images, labels = mix(images, labels, seed)
        return transform(images, seed), labels

    return augment
