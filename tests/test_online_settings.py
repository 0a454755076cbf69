# SPDX-License-Identifier: Apache-2.0
"""Tests of augment/online_settings.py."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from augment import online
from augment.online_settings import OnlineSettings, each_alone, settings_from
from system import errors
from tests.test_online import ALL, ALONE


def test_settings_from_flags():
    values = dict.fromkeys(dataclasses.asdict(ALL), 0)
    values |= {"rotation": 10, "zoom": 0.1, "shift": 0.1, "shear": 0.0}
    values |= {"elastic_alpha": 34, "elastic_sigma": 4, "epochs": 3}
    assert settings_from(SimpleNamespace(**values)) == dataclasses.replace(
        ALL, shear=0.0
    )
    assert settings_from(ALL) == ALL


@pytest.mark.parametrize(
    "name, value",
    [
        ("rotation", -1.0),
        ("rotation", 181.0),
        ("zoom", 1.0),
        ("shift", math.nan),
        ("shear", 90.0),
        ("elastic_alpha", 34.0),
        ("elastic_alpha", math.inf),
        ("elastic_sigma", 4.0),
    ],
)
def test_impossible_settings(name, value):
    with pytest.raises(errors.UserError, match=name) as error:
        settings_from(dataclasses.replace(OnlineSettings(), **{name: value}))
    assert str(value) in str(error.value)


def test_every_registered_transform_is_turned_on_by_a_setting():
    names = {field.name for field in dataclasses.fields(OnlineSettings)}
    registered = {*online.AFFINES, *online.DISPLACEMENTS, *online.GREYS}
    assert registered == names - {"elastic_sigma"}


def test_each_setting_turns_on_one_transform():
    assert each_alone(OnlineSettings()) == []
    labels, settings = zip(*each_alone(ALL), strict=True)
    assert settings == tuple(ALONE.values())
    assert labels[0] == "rotation ±10°"
    assert labels[-1] == "elastic α 34, σ 4"
