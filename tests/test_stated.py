# SPDX-License-Identifier: Apache-2.0
"""Counts or measures again the figures that docstrings and comments state."""

import inspect
import math
import re

import numpy as np
import pytest

import models
from augment import deform, geometry, online, online_settings, plan
from data import idx
from evaluation import predictions
from models import bn_cnn, conv6, double_conv, lenet
from training import losses


def stated(thing, pattern):
    """Numbers in a docstring or source that match the groups of a pattern."""
    text = thing if isinstance(thing, str) else inspect.getdoc(thing)
    found = re.search(pattern, " ".join(re.sub(r"\n *#", " ", text).split()))
    assert found, f"not stated any more: {pattern}"
    return [float(group.replace(",", "")) for group in found.groups()]


@pytest.mark.parametrize("module", [lenet, bn_cnn, conv6, double_conv])
def test_parameters_of_each_layer(module):
    """They are in the comment above their sum."""
    comment = re.search(r"# (conv1 \d.*?)(?:, and|\n)", inspect.getsource(module))[1]
    network = models.build(module.__name__.removeprefix("models."))
    for name, count in re.findall(r"(\w+) ([\d,]+)(?:,|$)", comment):
        layer = getattr(network, name)
        counts = (v.shape.num_elements() for v in layer.trainable_variables)
        assert sum(counts) == int(count.replace(",", "")), name


@pytest.mark.parametrize("function", [online.elastic, deform._elastic])
def test_elastic_moves_pixels_as_far_as_stated(function):
    stating = r"pixel by ([\d.]+) along each axis .*: by ([\d.]+) in the middle"
    whole, middle = stated(geometry, stating)
    if function is online.elastic:
        # S @ normal numbers @ Sᵀ: squares of its sums, with numbers of variance 1.
        along = (online._spread(4) ** 2).sum(1)
        squares = (34 * online._NOISE_DEVIATION) ** 2 * np.outer(along, along)
    else:
        # One pixel of noise at a time: the squares add up, times 1/3 for draws in ±1.
        noise = np.eye(28 * 28, dtype=np.float32).reshape(28 * 28 // 2, 2, 28, 28)
        squares = (deform._elastic(noise, deform.Deformation()) ** 2).sum((0, 1)) / 3
    assert math.sqrt(squares.mean()) == pytest.approx(whole, abs=0.005)
    assert math.sqrt(squares[14, 14]) == pytest.approx(middle, abs=0.005)


def test_ink_at_the_border_is_as_stated(mnist):
    text = inspect.getsource(plan)
    share = r"([\d.]+) %"
    shares = stated(text, f"training images {share}.*? {share}.*? {share}.*? {share}")
    ink = mnist.train_images[..., 0] > 0
    for pixels, share in zip((4, 3, 2, 1), shares, strict=True):
        inner = ink[:, pixels:-pixels, pixels:-pixels].sum((1, 2))
        lost = (ink.sum((1, 2)) > inner).sum()
        assert 100 * lost / len(ink) == pytest.approx(share, abs=0.5)
    (on_border,) = stated(online_settings.OnlineSettings, r"in ([\d,]+) of MNIST's")
    assert lost == on_border


def test_sizes_are_as_stated():
    (millions,) = stated(inspect.getsource(idx), r"([\d.]+) million images of 28×28")
    assert idx.MAX_BYTES / 784e6 == pytest.approx(millions, abs=0.05)
    (millions,) = stated(inspect.getsource(predictions), r"([\d.]+) million digits")
    assert predictions._MAX_BYTES / 41e6 > millions  # a label, ten probabilities
    (nats,) = stated(inspect.getsource(losses), r"costs more than ([\d.]+) nats")
    assert nats - 0.1 < -math.log(losses.CLIP) < nats
