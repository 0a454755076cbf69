# SPDX-License-Identifier: Apache-2.0
"""Conv6: six 3×3 convolutions with batch norm, then the mean over places.

Pairs of convolutions between pools are from Simonyan and Zisserman, "Very Deep
Convolutional Networks", 2015; the mean over places is from Lin, Chen and Yan, "Network
In Network", 2014. There is no dense layer to learn the place of each stroke, so the
network bears digits that are written in other ways than MNIST's.

The second of each pair may add its input to its output (`residual`: He, Zhang, Ren and
Sun, "Deep Residual Learning for Image Recognition", 2016), and weigh its channels
(`squeeze_excite`). Networks of few weights get more channels for them if their
convolutions are `separable`.
"""

from collections.abc import Sequence
from functools import partial

import tensorflow as tf

from models import blocks
from models import kernels as kernel_sets
from models import layers
from models.batch_norm import BatchNorm
from system import errors

# conv1 288, conv2 9,216, conv3 18,432, conv4 36,864, conv5 55,296, conv6 82,944, logits
# 970, and scale and offset of 384 channels
PARAMETERS = 204_778
MAPS = (32, 32, 64, 64, 96, 96)


def check_maps(maps: Sequence[int] | None) -> None:
    """Raises UserError unless there is a number for each convolution."""
    if maps is not None and len(maps) != len(MAPS):
        raise errors.UserError(f"expected {len(MAPS)} numbers, got {len(maps)}")


class Conv6(tf.Module):
    """uint8 images [N, 28, 28, 1] → float32 logits [N, classes].

    Args:
      seed: seed of the initial weights.
      classes: number of classes.
      activation: a name in `layers.ACTIVATIONS`.
      maps: channels of the six convolutions.
      separable: make all but the first a `blocks.SeparableConv`.
      residual: add its input to the second convolution of each pair, before pool and
        batch norm; needs as many maps in both of a pair.
      squeeze_excite: put a `blocks.SqueezeExcite` after each pair.
      normalise_grey: see `layers.normalise_grey`.
      batch_norm_decay: decay of the moving averages.
      sync_batch_norm: see `sync` of `BatchNorm`.
      dropout: rate before the logits, 0 to `layers.MAX_DROPOUT`.
      kernels: "native" trains with our C++ operations, `native.ops`; "tensorflow" with
        TensorFlow's only.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        classes: int = 10,
        activation: str = "relu",
        maps: Sequence[int] = MAPS,
        separable: bool = False,
        residual: bool = False,
        squeeze_excite: bool = False,
        normalise_grey: bool = False,
        batch_norm_decay: float = 0.9,
        sync_batch_norm: bool = False,
        dropout: float = 0.0,
        kernels: str = "tensorflow",
    ):
        super().__init__("conv6")
        check_maps(maps)
        if residual and maps[::2] != maps[1::2]:
            raise errors.UserError(
                "--residual adds up maps of both convolutions of a pair: give --maps"
                " equal pairs, such as 32,32,64,64,96,96"
            )
        self.residual = residual
        self.activation = layers.ACTIVATIONS[activation]
        self.normalise_grey = normalise_grey
        self.dropout = layers.check_dropout(dropout)
        self.native = kernels == "native"

        norm = partial(BatchNorm, decay=batch_norm_decay, sync=sync_batch_norm)
        # Batch norm subtracts the mean, so a bias would do nothing.
        full_conv = partial(layers.Conv, init=layers.he_normal, bias=False)
        separable_conv = partial(blocks.SeparableConv, init=layers.he_normal)
        with self.name_scope:
            for number, (inputs, outputs) in enumerate(zip([1, *maps], maps), 1):
                conv = separable_conv if separable and number > 1 else full_conv
                layer = conv(
                    *(inputs, outputs, 3), seed=(seed, -number), name=f"conv{number}"
                )
                setattr(self, f"conv{number}", layer)
                setattr(self, f"norm{number}", norm(outputs, name=f"norm{number}"))
                if squeeze_excite and number % 2 == 0:
                    name = f"squeeze_excite{number}"
                    weigh = blocks.SqueezeExcite(
                        outputs, seed=(seed, -7 - number), name=name
                    )
                    setattr(self, name, weigh)
            self.logits = layers.Dense(
                maps[-1], classes, seed=(seed, -7), name="logits"
            )

        plain = not separable and not squeeze_excite
        if tuple(maps) == MAPS and classes == 10 and plain:
            count = layers.count_parameters(self)
            assert count == PARAMETERS, count

    @tf.Module.with_name_scope
    def __call__(
        self,
        images: tf.Tensor,
        *,
        training: layers.Training,
        seed: tf.Tensor | None = None,
        taps: dict[str, tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, layers.UpdateOps]:
        """Classifies images: see the contract in `models`."""
        update_ops: layers.UpdateOps = []
        taps = {} if taps is None else taps
        # TensorFlow's are faster at a single prediction, for which ours would have to
        # transform all kernels.
        native = self.native and training is True
        native = native or kernel_sets.predicts(self.native, training, many=True)

        def block(x, number, pool=False):
            conv = getattr(self, f"conv{number}")
            # Pool before batch norm: a quarter of the values is left to normalise.
            if self.residual and number % 2 == 0:
                y = x + kernel_sets.conv3x3(x, conv, native=native)
                y = layers.max_pool(y, 2, 2) if pool else y
            else:
                y = kernel_sets.conv3x3(x, conv, pool=pool, native=native)
            norm = getattr(self, f"norm{number}")
            y, updates = kernel_sets.normalise(
                y, norm, self.activation, training=training, native=native
            )
            update_ops.extend(updates)
            weigh = getattr(self, f"squeeze_excite{number}", None)
            taps[f"conv{number}"] = y = weigh(y) if weigh else y
            return y

        x = layers.scale_pixels(self, images)  # [N, 28, 28, 1], in [0, 1]
        x = layers.normalise_grey(x) if self.normalise_grey else x
        x = block(x, 1)  # [N, 28, 28, 32]
        x = block(x, 2, pool=True)  # [N, 14, 14, 32]
        x = block(x, 3)  # [N, 14, 14, 64]
        x = block(x, 4, pool=True)  # [N, 7, 7, 64]
        x = block(x, 5)  # [N, 7, 7, 96]
        x = block(x, 6)  # [N, 7, 7, 96]
        x = layers.mean_over_places(x)  # [N, 96]
        x = layers.dropout(
            x, self.dropout, training=training, seed=layers.mask_seed(seed, 1)
        )
        taps["logits"] = x = self.logits(x)  # [N, classes]
        return x, update_ops
