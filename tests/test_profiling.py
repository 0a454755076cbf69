# SPDX-License-Identifier: Apache-2.0
"""Tests of training/profiling.py."""

import pytest
import tensorflow as tf

from system import errors
from training import profiling, runs


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["1"],
        ["1", "2", "3"],
        ["a", "2"],
        ["-1", "2"],
        ["2", "2"],
        ["1", "9" * 5000],
    ],
)
def test_bad_ranges_are_refused(words):
    with pytest.raises(errors.UserError, match="expected"):
        profiling.parse(words)


def test_a_range_is_parsed():
    assert profiling.parse(["100", "120"]) == (100, 120)
    assert profiling.parse(None) is None


def calls(profile, total, at_most):
    """Steps at which the calls of a loop start, and its last step."""
    step, found = 0, []
    while step < total:
        found.append(step)
        step += profile.cut(step, min(at_most, total - step))
    return [*found, step]


@pytest.mark.parametrize(
    "steps, wanted",
    [
        (None, [0, 100, 200, 250]),
        ((0, 10), [0, 10, 110, 210, 250]),
        ((130, 140), [0, 100, 130, 140, 240, 250]),
        ((90, 220), [0, 90, 190, 220, 250]),
        ((300, 310), [0, 100, 200, 250]),
    ],
)
def test_calls_end_where_the_range_begins_or_ends(tmp_path, steps, wanted):
    assert calls(profiling.Profile(steps, tmp_path), 250, 100) == wanted


def test_the_profile_is_where_tensorboard_looks(tmp_path):
    with profiling.Profile((1, 2), tmp_path) as profile:
        for step in range(4):
            profile.begin(step)
            assert profile.running == (step == 1)
            tf.linalg.matmul(tf.ones([8, 8]), tf.ones([8, 8]))
            profile.finish(step + 1)
            assert not profile.running
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


def test_an_interrupted_loop_ends_the_profile(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with profiling.Profile((0, 9), tmp_path) as profile:
            profile.begin(0)
            raise KeyboardInterrupt
    assert not profile.running
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


def test_a_range_that_is_never_reached_is_reported(tmp_path, capsys):
    with profiling.Profile((5, 9), tmp_path) as profile:
        profile.begin(0)
        profile.finish(5)
    assert "since step 5 was not trained" in capsys.readouterr().err


def test_an_unwritable_profile_gives_one_line(tmp_path):
    (tmp_path / "plugins").write_text("in the way")
    with pytest.raises(
        runs.RunError, match="cannot write the profile to .*; make room"
    ):
        with profiling.Profile((0, 9), tmp_path) as profile:
            profile.begin(0)
