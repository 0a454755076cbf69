# SPDX-License-Identifier: Apache-2.0
"""Tests of models/structure.py: the layers of every network, by their variables."""

import pytest

import models
from models import layers, lenet, structure


@pytest.mark.parametrize("name", sorted(models.NETWORKS))
def test_layers_share_out_all_variables(name):
    network = models.build(name)
    found = structure.layers(network)
    assert [layer.name for layer in found] and found[-1].name == "logits"
    assert sum(layer.parameters for layer in found) == layers.count_parameters(network)
    owned = [v.ref() for layer in found for v in (*layer.weights, *layer.averages)]
    assert len(owned) == len(set(owned)) == len(network.variables)


def test_ends_are_the_kernels_of_the_first_and_the_last_layer():
    network = lenet.LeNet(batch_norm="all")
    found = [v.ref() for v in structure.ends(network)]
    assert found == [network.conv1.w.ref(), network.logits.w.ref()]
    linear = models.build("mlp", hidden_units=[])
    assert {v.ref() for v in structure.ends(linear)} == {linear.logits.w.ref()}


def test_a_batch_norm_belongs_to_its_layer():
    conv1, conv2, dense1, dense2, logits = structure.layers(
        lenet.LeNet(batch_norm="all", batch_norm_first=False)
    )
    assert (conv1.kind, logits.kind) == ("Conv, BatchNorm", "Dense")
    assert [layer.shape for layer in (conv1, conv2, dense1, dense2, logits)] == [
        *((13, 13, 12), (6, 6, 16), (288,), (144,), (10,)),
    ]
    # kernel 3·3·1·12, bias 12, scale 12, offset 12; mean and variance
    assert conv1.parameters == 108 + 36
    assert [v.name.split("/")[-2] for v in conv2.averages] == ["norm2", "norm2"]
    assert [v.name.split("/")[-1] for v in logits.weights] == ["w:0", "b:0"]
