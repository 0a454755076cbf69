# SPDX-License-Identifier: Apache-2.0
"""The settings of a network; one that is None is as its file here has it."""

import dataclasses

import models
from models import conv6
from models import kernels as kernel_sets
from models import layers, lenet
from models.batch_norm import check_axis
from system.settings import setting


@dataclasses.dataclass(frozen=True)
class Network:
    """The network; what is not given is as its file in models/ has it"""

    activation: str | None = setting(
        None, "Activation after each hidden layer.", choices=sorted(layers.ACTIVATIONS)
    )
    batch_norm: str | None = setting(
        None,
        "Layers with batch norm: none, the convolutions, or all hidden layers.",
        choices=lenet.BATCH_NORM_PLACES,
    )
    batch_norm_decay: float | None = setting(
        None,
        "Decay of batch norm's moving averages, in [0, 1); nearer 1 is smoother, but"
        " slower to follow the weights.",
        share=True,
    )
    batch_norm_first: bool | None = setting(
        None,
        "Put batch norm before activation and pool, as in the paper, or, with"
        " --nobatch_norm_first, after them.",
    )
    bn_axis: int | None = setting(
        None,
        "Axis that batch norm keeps: -1 normalises each channel, 1 each row of the"
        " image, as one of the published systems does.",
        check=check_axis,
    )
    conv_dropout: float | None = setting(
        None, "Dropout rate after blocks of convolutions.", check=layers.check_rate
    )
    dropout: float | None = setting(
        None, "Dropout rate after hidden dense layers.", check=layers.check_rate
    )
    dropout_kind: str | None = setting(
        None,
        "standard, or alpha, which keeps the mean and variance that SELU needs.",
        choices=sorted(layers.DROPOUTS),
    )
    hidden_units: list[int] | None = setting(
        None,
        "Units of each hidden layer, such as 150,100; empty for a linear classifier.",
        parser=models.UnitsParser(),
    )
    kernels: str | None = setting(
        None,
        "Operations that lenet and conv6 train with, online transforms included: native"
        " (our own in C++, about twice as fast) or tensorflow; by default native, where"
        " it compiles and is faster. lenet is scored and used with them, too: three"
        " times as fast, with the same values up to rounding. Exports have TensorFlow's"
        " only.",
        choices=kernel_sets.KERNELS,
    )
    maps: list[int] | None = setting(
        None,
        "Channels of conv6's six convolutions, such as 32,32,64,64,96,96. Fewer are"
        " faster: the time of a step grows with the products of neighbours.",
        check=conv6.check_maps,
        parser=models.UnitsParser(),
    )
    normalise_grey: bool | None = setting(
        None,
        "Make each image's paper white and its ink black, as the network's first"
        " operation: for digits that are not as dark as MNIST's, such as photos.",
    )
    residual: bool | None = setting(
        None,
        "Add its input to the second convolution of each pair of conv6; --maps then"
        " needs equal pairs.",
    )
    separable: bool | None = setting(
        None,
        "Split each convolution of conv6 but the first into one of each channel by"
        " itself and one of single pixels, with a fraction of the weights.",
    )
    squeeze_excite: bool | None = setting(
        None,
        "Let conv6 weigh the channels of each pair of convolutions by a small network"
        " that sees their means.",
    )
    sync_batch_norm: bool | None = setting(
        None,
        "With --distribute, normalise over the whole batch, not over each replica's"
        " part; each batch norm then exchanges its statistics between replicas.",
    )
    width: int | None = setting(
        None,
        "Factor on the channels of the convolutions; a step takes about twice as long"
        " with twice as many.",
        least=1,
        most=models.MAX_WIDTH,
    )
