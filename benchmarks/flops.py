# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations of a training step of LeNet-SELU, layer by layer.

We count the products of convolutions and dense layers, a multiply-add as two. Pools,
activations, batch norm, dropout and the optimizer are left out: they take time but
hardly any operations, and so never flatter our share of the machine's speed.
"""

from collections.abc import Mapping

from benchmarks import results

KERNEL = 3 * 3

# Per image, of each layer's forward pass.
MULTIPLY_ADDS = {
    "conv1": 28 * 28 * KERNEL * 12,
    "conv2": 13 * 13 * KERNEL * 12 * 16,
    "dense1": 6 * 6 * 16 * 288,
    "dense2": 288 * 144,
    "logits": 144 * 10,
}


def training_step() -> dict[str, dict[str, int]]:
    """FLOPs per image of each layer, "forward" and "backward".

    Backward takes twice as many as forward: one product for the gradient of the
    weights, one for that of the layer's input. conv1 does not need the latter.
    """
    return {
        layer: {
            "forward": 2 * count,
            "backward": (2 if layer == "conv1" else 4) * count,
        }
        for layer, count in MULTIPLY_ADDS.items()
    }


def total(layers: Mapping[str, Mapping[str, int]]) -> int:
    """Sum over all layers and passes of `training_step`."""
    return sum(sum(passes.values()) for passes in layers.values())


def table(layers: Mapping[str, Mapping[str, int]]) -> str:
    """Markdown table of the result of `training_step`, with its sums."""
    counts = {layer: list(passes.values()) for layer, passes in layers.items()}
    counts["all"] = [sum(column) for column in zip(*counts.values())]
    rows = [
        [layer, *(f"{count:,}" for count in [*passes, sum(passes)])]
        for layer, passes in counts.items()
    ]
    return results.table(rows, ["FLOP per image", "forward", "backward", "step"])
