# SPDX-License-Identifier: Apache-2.0
"""What is shown as fed is what the network was fed, replica by replica."""

import json

import numpy as np
import pytest
import tensorflow as tf

import train
from config import Config
from models.lenet import LeNet
from training import fed, replicas
from training.state import State
from training.windows import Window

CONFIG = Config(
    batch_size=50,
    replicas=3,
    seed=7,
    rotation=30.0,
    outliers=0.1,
    kernels="tensorflow",
)
STEP = 5


def test_what_is_shown_is_what_the_network_gets(monkeypatch):
    config, given = CONFIG.resolved(), []
    images = np.random.default_rng(0).integers(0, 256, (90, 28, 28, 1), np.uint8)
    labels = (np.arange(90) % 10).astype(np.uint8)
    state = State(config)

    class Spy(LeNet):
        def __call__(self, x, **arguments):
            given.append(x)
            return super().__call__(x, **arguments)

    state.network.__class__ = Spy
    monkeypatch.setattr(replicas, "function", lambda step, in_line: step)  # no graph
    step = train.make_train_step(state, config, 100)
    step(tf.constant(images), tf.constant(labels), tf.constant(STEP, tf.int64), True)
    whole = Window(tf.constant(images), tf.constant(labels), 100)
    shown = fed.draw(config, whole, STEP, "abcdefghij")
    assert [len(part) for part in given] == [17, 17, 16]
    np.testing.assert_array_equal(shown.images, tf.concat(given, 0)[: fed.MAX_SHOWN])
    # Without the transform, each is an image of the class that it is shown as.
    bare = Config(**{**vars(config), "rotation": 0.0, "outliers": 0.0})
    plain = fed.draw(bare, whole, STEP, "abcdefghij")
    place = {image.tobytes(): label for image, label in zip(images, labels)}
    names = ["abcdefghij"[place[image.tobytes()]] for image in plain.images]
    assert names == plain.labels
    # And with it, the first of each part may be outliers.
    mixed = [a != b for a, b in zip(names, shown.labels)]
    assert 1 <= sum(mixed) <= 6 and not any(mixed[2:17]) and "–" in shown.labels


def test_inputs_are_read_back(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    fed.write(tmp_path, fed.Fed(images, ["a", "b", "a"]))
    found = fed.read(tmp_path)
    assert found.labels == ["a", "b", "a"]
    np.testing.assert_array_equal(found.images, images)


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", '{"labels": [], "pixels": 3}', '{"labels": ["a"]}', "short"],
)
def test_damaged_inputs_are_none(tmp_path, content):
    if content == "short":
        content = json.dumps({"labels": ["a"], "pixels": "AAAA"})
    if content:
        (tmp_path / fed.FED).write_text(content)
    assert fed.read(tmp_path) is None
