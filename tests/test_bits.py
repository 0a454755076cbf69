# SPDX-License-Identifier: Apache-2.0
"""Tests of tests/bits.py: the comparison of weights notices the last bit."""

import numpy as np
import pytest
import tensorflow as tf

from tests import bits
from training import checkpoints


@pytest.mark.parametrize(
    "value, equal",
    [(1.0, True), (np.nextafter(np.float32(1), np.float32(2)), False), (-1.0, False)],
)
def test_a_difference_in_the_last_bit_is_noticed(tmp_path, value, equal):
    def saved(name, value):
        folder = tmp_path / name
        state = tf.train.Checkpoint(w=tf.Variable([value, 0.0]))
        checkpoints.save(state, folder, 1)
        return bits.of_variables(folder)

    assert (saved("ours", 1.0) == saved("theirs", value)) is equal


def test_a_tree_that_cannot_train_is_reported():
    with pytest.raises(bits.BitsError, match="nonesuch"):
        bits.digest(bits.ROOT, ["--nonesuch"])
