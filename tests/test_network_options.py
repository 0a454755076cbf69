# SPDX-License-Identifier: Apache-2.0
"""Tests of the networks' options and flags in models/__init__.py."""

import json

import pytest
from absl import flags

import models
from system import errors


@pytest.fixture(params=sorted(models.NETWORKS))
def name(request):
    return request.param


def test_options():
    assert set(models.OPTIONS) == {
        *("seed", "activation", "hidden_units", "dropout", "dropout_kind"),
        *("batch_norm", "batch_norm_first", "batch_norm_decay"),
        *("bn_axis", "conv_dropout", "kernels", "maps", "normalise_grey"),
        *("residual", "separable", "squeeze_excite", "sync_batch_norm", "width"),
    }


def test_missing_options_take_the_networks_defaults(name):
    options = models.options(name, {})
    nothing = {**dict.fromkeys(models.OPTIONS), "epochs": 3}
    assert models.options(name, nothing) == options
    assert set(options) <= set(models.OPTIONS)
    assert options["seed"] == 0
    assert None not in options.values()
    assert json.loads(json.dumps(options)) == options
    assert models.options(name, options) == options


def test_given_options_are_kept():
    given = {"seed": 3, "hidden_units": (7, 5), "activation": None}
    options = {"seed": 3, "activation": "relu", "hidden_units": [7, 5]}
    assert models.options("mlp", given) == options
    # False and 0 are values, not missing.
    given = {"batch_norm_first": False, "seed": 0}
    assert models.options("lenet", given)["batch_norm_first"] is False
    assert models.options("double_conv", {"dropout": 0.0})["dropout"] == 0.0


def test_options_of_other_networks_are_refused(name):
    own = models.options(name, {})
    foreign = set(models.OPTIONS) - set(own)
    assert foreign
    for option in foreign:
        for refuse in (models.options, lambda name, given: models.build(name, **given)):
            with pytest.raises(errors.UsageError) as error:
                refuse(name, {option: 0})
            takes = ", ".join(f"--{o}" for o in sorted(own))
            message = f"--network={name} has no --{option}; it takes {takes}; "
            assert str(error.value).startswith(message)
            assert f" --unset={option} " in str(error.value)


def parse(text):
    """Parses the text of --hidden_units."""
    values = flags.FlagValues()
    parser = models.UnitsParser()
    flags.DEFINE(parser, "hidden_units", None, "", flag_values=values)
    values(["", f"--hidden_units={text}"])
    return values["hidden_units"].value


def test_units_are_parsed():
    assert parse("150,100") == [150, 100]
    assert parse("64") == [64]
    assert parse("") == []


@pytest.mark.parametrize("wrong", ["0", "-3", "1.5", "64,", "many", "64,,10", " 64"])
def test_invalid_units_are_refused(wrong):
    with pytest.raises(flags.Error, match="whole numbers above 0, such as 150,100"):
        parse(wrong)
