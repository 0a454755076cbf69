# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/plan.py."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from augment import plan as planning
from augment.plan import Settings, plan
from system import errors

DEFORMED = Settings((), flip_codes=(), deform=("elastic", "affine"), multiply=6)


def settings_from(values):
    return planning.settings_from(SimpleNamespace(**values))


def names(parts):
    return [part.name for part in parts]


def strings(settings):
    """Settings as values of flags."""
    values = dataclasses.asdict(settings)
    return {
        name: [str(item) for item in value] if isinstance(value, tuple) else value
        for name, value in values.items()
    }


# --- settings ---


def test_settings_from_flags_and_from_json():
    settings = Settings(("up", "left"), 2, True, (0, 1), (0, 1, 8), True, False)
    assert settings_from(strings(settings)) == settings
    stored = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert settings_from(stored) == settings


def test_lists_count_as_sets():
    values = strings(Settings())
    values["shift_directions"] = ["right", "up", "right"]
    values["flip_labels"] = ["8", "0"]
    settings = settings_from(values)
    assert settings.shift_directions == ("up", "right")
    assert settings.flip_labels == (0, 8)


@pytest.mark.parametrize(
    "name, value",
    [
        ("shift_directions", ["upp"]),
        ("shift_pixels", 0),
        ("shift_pixels", 5),
        ("flip_codes", ["-1"]),
        ("flip_labels", ["1000"]),
        ("flip_labels", [""]),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(errors.UserError, match=name):
        settings_from({**strings(Settings()), name: value})


def test_classes_are_flipped_by_name():
    def flipped(names, classes):
        values = {**strings(Settings()), "flip_labels": names}
        settings = planning.settings_from(SimpleNamespace(**values), classes)
        return settings.flip_labels

    digits = list("0123456789")
    assert flipped(digits, tuple(digits)) == planning.DIGITS
    assert flipped(["8", "0"], tuple(digits)) == (0, 8)
    assert flipped(["O", "8"], ("O", "Q", "8")) == (0, 2)
    # The default mirrors no letter.
    assert flipped(digits, ("O", "Q", "8")) == (2,)
    assert flipped(digits, ("O", "Q")) == ()
    with pytest.raises(errors.UserError, match="'X' is no class .* some of O, Q$"):
        flipped(["O", "X"], ("O", "Q"))


# --- plan ---


def test_plan_of_the_write_up(dataset):
    assert names(plan(dataset.train_labels, Settings())) == [
        "original",
        "shift(-1,+0)",
        "shift(+0,-1)",
        "shift(+0,+1)",
        "shift(+1,+0)",
        "flip(1)",
    ]


def test_plan_flips_only_the_labels_named(dataset):
    settings = Settings(flip_labels=(0, 1, 8), flip_shifted=True)
    parts = plan(dataset.train_labels, settings)
    assert [len(part.indices) for part in parts] == [40] * 5 + [12] * 5
    assert parts[-1].name == "flip(1) of shift(+1,+0)"
    chosen = dataset.train_labels[parts[-1].indices]
    assert set(chosen.tolist()) == {0, 1, 8}


@pytest.mark.parametrize("empty", ["flip_codes", "flip_labels"])
def test_plan_without_flips(dataset, empty):
    settings = dataclasses.replace(Settings(flip_shifted=True), **{empty: ()})
    assert len(plan(dataset.train_labels, settings)) == 5


def test_plan_skips_parts_without_images():
    settings = Settings(shift_directions=(), flip_labels=(3,))
    assert names(plan(np.array([1, 2], np.uint8), settings)) == ["original"]


def test_empty_plan_is_refused(dataset):
    settings = Settings(shift_directions=(), flip_codes=(), keep_originals=False)
    with pytest.raises(errors.UserError, match="would be empty"):
        plan(dataset.train_labels, settings)


# --- deformations ---


def deformation(**changed):
    return {"deform": ("elastic", "affine"), "multiply": 6, **changed}


def test_settings_of_deformations():
    plain = {**vars(Settings()), "deform": None, "multiply": None, "deform_seed": None}
    assert settings_from(plain) == Settings()
    given = {**plain, "deform": ["affine", "elastic"], "multiply": 6}
    assert settings_from(given) == DEFORMED
    assert settings_from(json.loads(json.dumps(vars(DEFORMED)))) == DEFORMED


@pytest.mark.parametrize(
    "changed, word",
    [
        ({"deform": ()}, "multiply"),
        ({"multiply": None}, "multiply"),
        ({"multiply": 10**9}, "multiply"),
        ({"deform": ("elastics",)}, "elastics"),
        ({"deform_seed": -1}, "deform_seed"),
        ({"deform": None, "multiply": None, "deform_seed": 1}, "deform_seed"),
        ({"shift_pixels": 2}, "shift_pixels"),
        ({"flip_labels": (0, 8)}, "flip_labels"),
    ],
)
def test_impossible_deformations_are_refused(changed, word):
    with pytest.raises(errors.UserError, match=word):
        settings_from({**vars(Settings()), **deformation(), **changed})
