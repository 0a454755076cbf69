# SPDX-License-Identifier: Apache-2.0
"""All that is done to a batch in the graph before the network sees it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from augment import continental, mixup, online, outliers

Augment = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]
]


def from_config(config: Any) -> Augment:
    """Returns augment(images, labels, step seed) → images, labels, share.

    Images are uint8 [N, 28, 28, 1], labels integers [N], and the seed int32 [2]. With
    the settings of a `config.Config` that are off, both are returned as they are. The
    share, float32 [], is what each image has kept of itself in `mixup`, or None.
    """
    write = continental.from_config(config)
    replace = outliers.from_config(config)
    transform = online.from_config(config)
    mix = mixup.from_config(config)

    def augment(images, labels, seed):
        images = write(images, labels, seed)
        images, labels = replace(images, labels, seed)
        images, share = mix(transform(images, seed), seed)
        return images, labels, share

    return augment
