# SPDX-License-Identifier: Apache-2.0
"""Tests of training/trials.py, with values computed by hand."""

import types

import pytest

from training import children, trials
from training.children import DIVERGED, FINISHED, PRUNED, Outcome


def rows(*accuracies):
    return [
        {"epoch": epoch, "validation_accuracy": a, "validation_loss": round(2 - a, 6)}
        for epoch, a in enumerate(accuracies)
    ]


def trial(number, *outcomes, keep_best=False, seeds=(0, 1, 2)):
    config = types.SimpleNamespace(epochs=3, keep_best=keep_best)
    return trials.trial(
        number, {"rotation": str(number)}, seeds, outcomes, config, "accuracy"
    )


def test_a_trial_is_the_mean_over_its_seeds():
    ended = trial(
        4,
        Outcome(FINISHED, rows(0.1, 0.7, 0.6)),
        Outcome(FINISHED, rows(0.2, 0.3, 0.8)),
    )
    assert ended.value("accuracy") == pytest.approx(0.7)
    assert ended.value("loss") == pytest.approx(1.3)
    assert ended.curve == {0: 0.1, 1: 0.7, 2: 0.6, 3: 0.2, 4: 0.3, 5: 0.8}
    # sd of 60 and 80 is 14.14, over √2
    assert trials.accuracy(ended, 2, 100) == "70.00 ± 10.00"
    assert trials.loss(ended) == "1.3000 ± 0.1000"
    best = trial(4, Outcome(FINISHED, rows(0.1, 0.7, 0.6)), keep_best=True)
    assert best.value("accuracy") == 0.7
    assert best == trials.restored(4, trials.stored(best), best.curve)


def test_one_seed_has_the_binomial_error():
    ended = trial(0, Outcome(FINISHED, rows(0.9)), seeds=[0])
    assert trials.accuracy(ended, 1, 100) == "90.00 ± 3.00"  # √(0.9 · 0.1 / 100)
    assert trials.loss(ended) == "1.1000"
    assert "binomial" in trials.uncertainty(1, 100)
    # The only seed of three, as the others were not trained: neither error is known.
    assert trials.accuracy(ended, 3, 100) == "90.00"


def test_the_median_rule_goes_by_finished_trials():
    def curve(number, *accuracies, state=FINISHED):
        return trial(number, Outcome(state, rows(*accuracies)))

    ended = [curve(n, 0.1 * n, 0.2 * n, 0.3) for n in range(4)]
    ended.append(curve(4, 0.9, 0.9, state=PRUNED))
    rule = trials.rule(ended, 0, 3, 1, "accuracy")
    assert rule.limits == pytest.approx({0: 0.15, 1: 0.3})  # never at the last epoch
    assert trials.rule(ended, 0, 3, 2, "accuracy").limits == pytest.approx({1: 0.3})
    assert trials.rule(ended, 0, 3, 0, "accuracy") is None
    assert trials.rule(ended, 1, 3, 1, "accuracy") is None  # no second seed yet
    assert trials.rule(ended[1:], 0, 3, 1, "accuracy") is None  # too few
    assert trials.rule(ended, 0, 3, 1, "loss").sign == -1


def test_the_best_is_finished_and_the_first_of_equals():
    ended = [
        trial(0, Outcome(PRUNED, rows(0.99))),
        trial(1, Outcome(FINISHED, rows(0.8))),
        trial(2, Outcome(FINISHED, rows(0.9))),
        trial(3, Outcome(FINISHED, rows(0.9))),
        trial(4, Outcome(DIVERGED)),
    ]
    assert trials.best(ended, "accuracy").number == 2
    assert trials.best(ended, "loss").number == 2
    assert trials.best(ended[:1], "accuracy") is None
    lines = trials.table(ended, "accuracy", 1, 100).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["2", "3", "1", "0", "4"]
    entries = trials.record(ended, "accuracy")
    assert entries[2]["value"] == 0.9 and entries[4]["value"] is None
    assert entries[2]["seeds"] == [
        {"seed": 0, "epochs": 1, "accuracy": 0.9, "loss": 1.1}
    ]
    assert children.DIVERGED == entries[4]["state"]
