# SPDX-License-Identifier: Apache-2.0
"""The graph that TensorBoard draws has the operations that train, and no calls."""

import pytest
import tensorflow as tf

import train
from config import Config
from training import graph
from training.state import State

CONFIG = Config(
    batch_size=4, replicas=2, network="lenet", rotation=10.0, weight_average=0.9
)


@pytest.fixture(scope="module")
def nodes():
    """Nodes by name."""
    config = Config(**{**vars(CONFIG), "kernels": "tensorflow"}).resolved()
    state, traced = State(config), []
    images, labels = tf.zeros([8, 28, 28, 1], tf.uint8), tf.zeros([8], tf.uint8)
    train.make_train_steps(state, images, labels, config, 10, show=traced.append)
    drawn = graph.flatten(traced[0], state.parts)
    return {node.name: node for node in drawn.node}


def test_all_of_the_step_is_there(nodes):
    scopes = {name.partition("/")[0] for name in nodes}
    assert scopes >= {
        *("part_step", "part_step_1", "add_up", "optimizer", "schedule", "sample"),
        *("totals", "variables"),
    }
    parts = {"/".join(name.split("/")[:2]) for name in nodes}
    assert parts >= {
        *("part_step/augment", "part_step/lenet", "part_step/loss"),
        *("part_step/gradient_tape", "variables/network", "variables/average"),
        "variables/optimizer",
    }
    assert any(
        node.op == "Conv2DBackpropFilter" and "gradient_tape/lenet/conv2" in node.name
        for node in nodes.values()
    )
    kinds = {node.op for node in nodes.values()}
    assert "ResourceApplyAdam" in kinds
    assert not kinds & {"PartitionedCall", "StatefulPartitionedCall", "While", "If"}
    assert len(nodes) < 1500


def test_every_edge_leads_somewhere(nodes):
    for node in nodes.values():
        for name in node.input:
            assert name.removeprefix("^") in nodes, (node.name, name)


def test_a_step_leads_from_images_to_weights(nodes):
    """The update of a weight depends on both parts, the images and the schedule."""
    (update,) = [
        node
        for node in nodes.values()
        if node.op == "ResourceApplyAdam" and "variables/network/conv1/w" in node.input
    ]
    found, waiting = set(), list(update.input)
    while waiting:
        name = waiting.pop().removeprefix("^")
        if name not in found:
            found.add(name)
            waiting += nodes[name].input
    assert {"images", "labels", "part_step/loss/mul", "part_step_1/loss/mul"} <= found
    assert any(name.startswith("schedule/") for name in found)
