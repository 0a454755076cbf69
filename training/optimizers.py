# SPDX-License-Identifier: Apache-2.0
"""Update rules as pure functions, and a thin holder of their slot variables.

Slots are what a rule remembers of the gradients of a weight, such as Adam's m and v. A
rule takes a weight, its gradient and its slots, all float32 and of one shape, and
`step`, a scalar integer counted from 0, and `rate`, a float32 scalar. It returns the
next weight and the next slots.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from native import ops
from system import cli, errors

# Adam's constants, from its paper.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def adam(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    beta1: float = BETA1,
    beta2: float = BETA2,
    epsilon: float = EPSILON,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Adam, with slots m and v, and t = step + 1:

        m ← β1 m + (1 − β1) g
        v ← β2 v + (1 − β2) g²
        w ← w − rate · √(1 − β2ᵗ) / (1 − β1ᵗ) · m / (√v + ε)

    Kingma and Ba, "Adam", 2015, in the efficient form at the end of section 2, which
    TensorFlow 1 used, too.
    """
    rate *= adam_correction(step, beta1, beta2)
    m = m + (gradient - m) * (1 - beta1)
    v = v + (tf.square(gradient) - v) * (1 - beta2)
    return weight - rate * m / (tf.sqrt(v) + epsilon), m, v


def adam_correction(step: tf.Tensor, beta1: float, beta2: float) -> tf.Tensor:
    """√(1 − β2ᵗ) / (1 − β1ᵗ), t = step + 1: corrects for slots that start at 0."""
    t = tf.cast(step + 1, tf.float32)
    return tf.sqrt(1 - beta2**t) / (1 - beta1**t)


def adam_in_place(
    weight: tf.Variable,
    gradient: tf.Tensor,
    m: tf.Variable,
    v: tf.Variable,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    beta1: float = BETA1,
    beta2: float = BETA2,
    epsilon: float = EPSILON,
) -> None:
    """`adam` in a single pass over the variables, by TensorFlow's own kernel."""
    t = tf.cast(step + 1, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=weight.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=beta1**t,
        beta2_power=beta2**t,
        lr=rate,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        grad=gradient,
    )


def rmsprop(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    v: tf.Tensor,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    rho: float = 0.9,
    epsilon: float = 1e-7,
) -> tuple[tf.Tensor, tf.Tensor]:
    """RMSprop, with slot v:

        v ← ρ v + (1 − ρ) g²
        w ← w − rate · g / (√v + ε)

    Tieleman and Hinton, "Lecture 6.5 - rmsprop", 2012, with ε outside the root, as in
    the Keras that the published systems used.
    """
    v = v + (tf.square(gradient) - v) * (1 - rho)
    return weight - rate * gradient / (tf.sqrt(v) + epsilon), v


def momentum_sgd(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    momentum: float = 0.9,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient descent with momentum μ, with slot m:

        m ← μ m + g
        w ← w − rate · m

    Polyak, "Some Methods of Speeding up the Convergence of Iteration Methods", 1964,
    in the form of Sutskever, Martens, Dahl and Hinton 2013, but with the rate outside
    the sum, so that a new rate acts at once. μ = 0 is plain gradient descent.
    """
    m = momentum * m + gradient
    return weight - rate * m, m


def weight_average(
    average: tf.Tensor, weight: tf.Tensor, *, step: tf.Tensor, decay: float
) -> tf.Tensor:
    """average ← d · average + (1 − d) · weight; d = min(decay, (1 + t) / (10 + t)).

    Polyak and Juditsky 1992, with the exponential average and the warm-up of
    TensorFlow 1's `ExponentialMovingAverage`; t is the step.
    """
    return average + (weight - average) * (1 - warm_decay(step, decay))


def warm_decay(step: tf.Tensor, decay: float) -> tf.Tensor:
    """Decay d of `weight_average` at a step."""
    t = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1 + t) / (10 + t))


def clip(gradients: Sequence[tf.Tensor], norm: float) -> Sequence[tf.Tensor]:
    """Scales gradients by `norm` / max(`norm`, their norm together); 0: as they are.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
    networks", 2013, algorithm 1.
    """
    return tf.clip_by_global_norm(gradients, norm)[0] if norm else gradients


def check_clip_norm(norm: float) -> None:
    """Raises UserError if this cannot be a --clip_norm."""
    if norm != 0 and not 1e-37 <= norm <= 1e38:
        raise errors.UserError("expected 0, or a number above 0, 1e-37 to 1e+38")


class Rule(NamedTuple):
    """An update rule.

    Attributes:
      update: the rule, a pure function.
      slots: names of its slots, in the order of its arguments.
      in_place: does the same to variables, where that is faster than to assign what
        `update` returns; or None.
    """

    update: Callable[..., tuple[tf.Tensor, ...]]
    slots: tuple[str, ...]
    in_place: Callable[..., None] | None = None


RULES = {
    "adam": Rule(adam, ("m", "v"), adam_in_place),
    "momentum": Rule(momentum_sgd, ("m",)),
    "rmsprop": Rule(rmsprop, ("v",)),
}


class Optimizer(tf.Module):
    """Holds the slot variables of an update rule.

    Args:
      rule: key of `RULES`.
      variables: variables to update, in the order of the gradients.
      weight_decay: share of each kernel that is taken off per step and unit of rate;
        biases, scales and offsets do not decay. Loshchilov and Hutter, "Decoupled
        Weight Decay Regularization", 2019.
      averages: a `weight_average` of each variable, or none at all.
      average_decay: decay of these averages.
      threads: number of threads for `ops.adam`, which does everything at once; 0 to
        use TensorFlow's operations, as all other rules do.
      options: arguments of the rule, in place of its defaults.
    """

    def __init__(
        self,
        rule: str,
        variables: Sequence[tf.Variable],
        *,
        weight_decay: float = 0.0,
        averages: Sequence[tf.Variable] = (),
        average_decay: float = 0.0,
        threads: int = 0,
        **options: float,
    ):
        super().__init__(rule)
        self.weight_decay = weight_decay
        self.average_decay = average_decay
        self._threads = threads if rule == "adam" else 0
        self._options = options
        update, slots, in_place = RULES[rule]
        self._apply = functools.partial(
            in_place or functools.partial(_assign, update), **options
        )
        # In functions, because the weights belong to the network: as attributes they
        # would be tracked here as well, and stored twice in a checkpoint.
        self._weights = lambda: variables
        self._averages = lambda: averages
        with self.name_scope:
            self.slots = {name: [_zeros(w, name) for w in variables] for name in slots}

    def apply(
        self, gradients: Sequence[tf.Tensor], *, step: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        """Assigns the next weights, slots and averages.

        Returns the norm of each gradient, float32 [variables].
        """
        if self._threads:
            return self._adam_at_once(gradients, step, rate)
        slots_of_weights = zip(*self.slots.values(), strict=True)
        for w, g, slots in zip(
            self._weights(), gradients, slots_of_weights, strict=True
        ):
            if self._decays(w):
                # No rule's step depends on the weight, so this may come first.
                w.assign(w * (1 - rate * self.weight_decay))
            self._apply(w, g, *slots, step=step, rate=rate)
        for slow, w in zip(self._averages(), self._weights()):
            slow.assign(weight_average(slow, w, step=step, decay=self.average_decay))
        # l2_loss is half the sum of squares.
        return tf.sqrt(2 * tf.stack([tf.nn.l2_loss(g) for g in gradients]))

    def _decays(self, weight: tf.Variable) -> bool:
        return weight.shape.rank > 1 and self.weight_decay > 0

    def _adam_at_once(
        self, gradients: Sequence[tf.Tensor], step: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        epsilon = self._options.get("epsilon", EPSILON)
        return ops.adam(
            self._weights(),
            self.slots["m"],
            self.slots["v"],
            gradients,
            rate=rate * adam_correction(step, BETA1, BETA2),
            beta1=BETA1,
            beta2=BETA2,
            epsilon=epsilon,
            decays=[self._decays(w) for w in self._weights()],
            shrink=1 - rate * self.weight_decay,  # factor of weights that decay
            averages=self._averages(),
            approach=1 - warm_decay(step, self.average_decay),  # see `weight_average`
            threads=self._threads,
        )


def _assign(
    update: Callable[..., tuple[tf.Tensor, ...]],
    weight: tf.Variable,
    gradient: tf.Tensor,
    *slots: tf.Variable,
    **settings: Any,
) -> None:
    """Assigns what a rule returns."""
    next_weight, *next_slots = update(weight, gradient, *slots, **settings)
    weight.assign(next_weight)
    for slot, value in zip(slots, next_slots, strict=True):
        slot.assign(value)


def _zeros(weight: tf.Variable, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros_like(weight), trainable=False, name=name)


# Flags that are arguments of some rules and have the same name.
OPTIONS = ("epsilon", "momentum", "rho")


def options(rule: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """Arguments for a rule: those that the settings set, else its own defaults.

    Raises UserError if an option of another rule is set.
    """
    return cli.options(RULES[rule].update, OPTIONS, settings, f"--optimizer={rule}")


def build(
    config: Any,
    variables: Sequence[tf.Variable],
    averages: Sequence[tf.Variable] = (),
) -> Optimizer:
    """Creates the optimizer of a run out of its `config.Config`."""
    return Optimizer(
        config.optimizer,
        variables,
        weight_decay=config.weight_decay,
        averages=averages,
        average_decay=config.weight_average,
        threads=config.replicas if config.kernels == "native" else 0,
        **options(config.optimizer, vars(config)),
    )
