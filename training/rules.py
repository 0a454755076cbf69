# SPDX-License-Identifier: Apache-2.0
"""Update rules as pure functions.

Slots are what a rule remembers of the gradients of a weight, such as Adam's m and v. A
rule takes a weight, its gradient and its slots, all float32 and of one shape, and
`step`, a scalar integer counted from 0, and `rate`, a float32 scalar. It returns the
next weight and the next slots.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

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
    nesterov: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient descent with momentum μ, with slot m:

        m ← μ m + g
        w ← w − rate · m, or, with `nesterov`, w ← w − rate · (g + μ m)

    Polyak, "Some Methods of Speeding up the Convergence of Iteration Methods", 1964,
    and Nesterov, "A Method of Solving a Convex Programming Problem with Convergence
    Rate O(1/k²)", 1983, in the form of Sutskever, Martens, Dahl and Hinton 2013, but
    with the rate outside the sum, as in PyTorch, so that a new rate acts at once. μ = 0
    is plain gradient descent.
    """
    m = momentum * m + gradient
    return weight - rate * (gradient + momentum * m if nesterov else m), m


# Coefficients of `orthogonalise`, which bring small singular values to about 1 in as
# few steps as possible, and leave all between 0.7 and 1.2 rather than at 1.
QUINTIC = 3.4445, -4.7750, 2.0315


def muon(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    momentum: float = 0.95,
    nesterov: bool = True,
    newton_schulz: int = 5,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Muon, with slot m, for a kernel: a matrix of r = inputs · field rows, c outputs.

        m ← μ m + g
        w ← w − rate · √max(1, c / r) · orthogonalised(g + μ m), or, without `nesterov`,
            of m

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, with
    the factor and the defaults of the code that came with it. (That of airbench has no
    factor and, before each step, scales the kernel to the norm √c, which suits only
    layers that are normalised at once. Its defaults are μ = 0.6 and 3 steps of
    `newton_schulz`.)
    """
    m = momentum * m + gradient
    direction = gradient + momentum * m if nesterov else m
    matrix = tf.reshape(direction, [-1, weight.shape[-1]])
    rows, columns = matrix.shape
    update = orthogonalise(matrix, newton_schulz) * max(1.0, columns / rows) ** 0.5
    return weight - rate * tf.reshape(update, weight.shape), m


def orthogonalise(matrix: tf.Tensor, steps: int) -> tf.Tensor:
    """Brings all singular values of a matrix, float32 [r, c], near 1, in few products.

    From X = M / |M|, each step is X ← a X + (b A + c A²) X with A = X Xᵀ: Newton–Schulz
    with the `QUINTIC` of Jordan et al. 2024. U S Vᵀ becomes about U Vᵀ; a matrix of
    zeros stays one.
    """
    a, b, c = QUINTIC
    rows, columns = matrix.shape
    x = matrix / (tf.norm(matrix) + 1e-7)
    x = tf.transpose(x) if rows > columns else x  # the smaller one of two X Xᵀ
    for _ in range(steps):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + (b * square + c * square @ square) @ x
    return tf.transpose(x) if rows > columns else x


def adam_beside(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    *,
    step: tf.Tensor,
    rate: tf.Tensor,
    adam_rate: float = 0.015,
    beta1: float = BETA1,
    beta2: float = 0.95,
    epsilon: float = 1e-10,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`adam` with `adam_rate` · rate, for the weights that are not for `muon`.

    The defaults are those of Muon's code: its rates are 0.02 and, for Adam, 3e-4.
    """
    constants = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
    return adam(weight, gradient, m, v, step=step, rate=adam_rate * rate, **constants)


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


def look_back(slow: tf.Tensor, weight: tf.Tensor, *, share: float) -> tf.Tensor:
    """slow + share · (weight − slow): where weights and slow weights go after K steps.

    Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back",
    2019, algorithm 1; the slots of the rule stay as they are.
    """
    return slow + share * (weight - slow)


def check_share(share: float) -> None:
    """Raises UserError if this cannot be a --lookahead_share."""
    if not 0 < share <= 1:
        raise errors.UserError("expected a number in (0, 1]")


class Rule(NamedTuple):
    """An update rule.

    Attributes:
      update: the rule, a pure function.
      slots: names of its slots, in the order of its arguments.
      in_place: does the same to variables, where that is faster than to assign what
        `update` returns; or None.
      beside: if `update` is for the kernels of hidden layers only, the rule for all
        other weights; or None.
    """

    update: Callable[..., tuple[tf.Tensor, ...]]
    slots: tuple[str, ...]
    in_place: Callable[..., None] | None = None
    beside: "Rule | None" = None


RULES = {
    "adam": Rule(adam, ("m", "v"), adam_in_place),
    "momentum": Rule(momentum_sgd, ("m",)),
    "muon": Rule(muon, ("m",), beside=Rule(adam_beside, ("m", "v"))),
    "rmsprop": Rule(rmsprop, ("v",)),
}


# Flags that are arguments of some rules and have the same name.
OPTIONS = (
    *("adam_rate", "beta1", "beta2", "epsilon", "momentum", "nesterov"),
    *("newton_schulz", "rho"),
)


def options(rule: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a rule: those that the settings set, else its own defaults.

    With those for the rule beside it. Raises UserError if an option of another rule is
    set.
    """
    chosen = RULES[rule]
    functions = [one.update for one in (chosen, chosen.beside) if one]
    return cli.options(functions, OPTIONS, settings, f"--optimizer={rule}")
