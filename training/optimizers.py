# SPDX-License-Identifier: Apache-2.0
"""An update rule with its slot variables, and what is done to gradients before it.

The rules themselves are in training/rules.py.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from native import ops
from system import errors
from training import rules


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


class Optimizer(tf.Module):
    """Holds the slot variables of an update rule.

    Args:
      rule: key of `rules.RULES`.
      variables: variables to update, in the order of the gradients.
      ends: kernels of the first and the last layer. Rules for hidden layers leave them
        to another rule, as they do biases, scales and offsets.
      weight_decay: share of each kernel that is taken off per step and unit of rate;
        biases, scales and offsets do not decay. Loshchilov and Hutter, "Decoupled
        Weight Decay Regularization", 2019.
      bias_rate: factor on the rate of biases, scales and offsets.
      averages: a `rules.weight_average` of each variable, or none at all.
      average_decay: decay of these averages.
      lookahead: number of steps between two steps back, each to where
        `rules.look_back` says; 0: none. The averages see the weights before it.
      lookahead_share: its share.
      threads: number of threads for `ops.adam`, which does everything at once; 0 to
        use TensorFlow's operations, as all other rules do.
      options: arguments of the rule, in place of its defaults.

    Raises UserError if the rule is for hidden layers, and there are none.
    """

    def __init__(
        self,
        rule: str,
        variables: Sequence[tf.Variable],
        *,
        ends: Sequence[tf.Variable] = (),
        weight_decay: float = 0.0,
        bias_rate: float = 1.0,
        averages: Sequence[tf.Variable] = (),
        average_decay: float = 0.0,
        lookahead: int = 0,
        lookahead_share: float = 0.5,
        threads: int = 0,
        **options: float,
    ):
        super().__init__(rule)
        self.weight_decay = weight_decay
        self.bias_rate = bias_rate
        self.average_decay = average_decay
        self.lookahead = lookahead
        self.lookahead_share = lookahead_share
        self._threads = threads if rule == "adam" else 0
        self._options = options
        own = _rule_of_each(rule, variables, ends)
        updates = [_update(one, options) for one in own]
        slots: dict[str, list[tf.Variable]] = {}
        with self.name_scope:
            for w, one in zip(variables, own):
                for name in one.slots:
                    slots.setdefault(name, []).append(_zeros(w, name))
            if lookahead:
                slots["slow"] = [
                    tf.Variable(w, trainable=False, name="slow") for w in variables
                ]
        self.slots = slots
        # In functions, because the weights belong to the network: as attributes they
        # would be tracked here as well, and stored twice in a checkpoint.
        self._weights = lambda: variables
        self._averages = lambda: averages
        self._updates = lambda: updates
        self._rules = lambda: own

    def apply(
        self, gradients: Sequence[tf.Tensor], *, step: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        """Assigns the next weights, slots and averages.

        Returns the norm of each gradient, float32 [variables].
        """
        update = self._adam_at_once if self._threads else self._one_by_one
        norms = update(gradients, step, rate)
        if self.lookahead:
            is_last = (step + 1) % self.lookahead == 0
            tf.cond(is_last, self._look_back, lambda: None)
        return norms

    def _one_by_one(
        self, gradients: Sequence[tf.Tensor], step: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        slots = {name: iter(of_weights) for name, of_weights in self.slots.items()}
        for w, g, rule, update in zip(
            self._weights(), gradients, self._rules(), self._updates(), strict=True
        ):
            if self._decays(w):
                # No rule's step depends on the weight, so this may come first.
                w.assign(w * (1 - rate * self.weight_decay))
            own = [next(slots[name]) for name in rule.slots]
            update(w, g, *own, step=step, rate=rate * self._factor(w))
        for slow, w in zip(self._averages(), self._weights()):
            decay = self.average_decay
            slow.assign(rules.weight_average(slow, w, step=step, decay=decay))
        # l2_loss is half the sum of squares.
        return tf.sqrt(2 * tf.stack([tf.nn.l2_loss(g) for g in gradients]))

    def _look_back(self) -> None:
        for slow, w in zip(self.slots["slow"], self._weights(), strict=True):
            value = rules.look_back(slow, w, share=self.lookahead_share)
            slow.assign(value)
            w.assign(value)

    def _decays(self, weight: tf.Variable) -> bool:
        return weight.shape.rank > 1 and self.weight_decay > 0

    def _factor(self, weight: tf.Variable) -> float:
        """Factor on the rate of a weight."""
        return 1.0 if weight.shape.rank > 1 else self.bias_rate

    def _adam_at_once(
        self, gradients: Sequence[tf.Tensor], step: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        defaults = {"beta1": rules.BETA1, "beta2": rules.BETA2}
        constants = {**defaults, "epsilon": rules.EPSILON, **self._options}
        betas = constants["beta1"], constants["beta2"]
        return ops.adam(
            self._weights(),
            self.slots["m"],
            self.slots["v"],
            gradients,
            rate=rate * rules.adam_correction(step, *betas),
            factors=[self._factor(w) for w in self._weights()],
            **constants,
            decays=[self._decays(w) for w in self._weights()],
            shrink=1 - rate * self.weight_decay,  # factor of weights that decay
            averages=self._averages(),
            # See `rules.weight_average`.
            approach=1 - rules.warm_decay(step, self.average_decay),
            threads=self._threads,
        )


def _rule_of_each(
    rule: str, variables: Sequence[tf.Variable], ends: Sequence[tf.Variable]
) -> list[rules.Rule]:
    """The rule of each variable: that of its name, or the one beside it."""
    chosen, at_an_end = rules.RULES[rule], {w.ref() for w in ends}
    if chosen.beside is None:
        return [chosen] * len(variables)
    hidden = [w.shape.rank > 1 and w.ref() not in at_an_end for w in variables]
    if not any(hidden):
        raise errors.UserError(
            f"--optimizer={rule} is for kernels between the first layer and the last,"
            " but there are none to train: choose another"
        )
    return [chosen if is_hidden else chosen.beside for is_hidden in hidden]


def _update(rule: rules.Rule, options: Mapping[str, float]) -> Callable[..., None]:
    """What applies a rule to variables, with those of the options that are its own."""
    parameters = inspect.signature(rule.update).parameters
    own = {name: value for name, value in options.items() if name in parameters}
    return functools.partial(
        rule.in_place or functools.partial(_assign, rule.update), **own
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


def build(
    config: Any,
    variables: Sequence[tf.Variable],
    averages: Sequence[tf.Variable] = (),
    ends: Callable[[], Sequence[tf.Variable]] = tuple,
) -> Optimizer:
    """Creates the optimizer of a run out of its `config.Config`.

    `ends` finds the kernels of the first and the last layer, if the rule wants them.
    """
    return Optimizer(
        config.optimizer,
        variables,
        ends=ends() if rules.RULES[config.optimizer].beside else (),
        weight_decay=config.weight_decay,
        bias_rate=config.bias_rate,
        averages=averages,
        average_decay=config.weight_average,
        lookahead=config.lookahead,
        lookahead_share=config.lookahead_share,
        threads=config.replicas if config.kernels == "native" else 0,
        **rules.options(config.optimizer, vars(config)),
    )
