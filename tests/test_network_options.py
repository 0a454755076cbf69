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
        *("bn_axis", "conv_dropout", "kernels", "sync_batch_norm", "width"),
    }


def test_missing_options_take_the_networks_defaults(name):
    bare = {"network": name}
    nothing = {**bare, **dict.fromkeys(models.OPTIONS), "epochs": 3}
    options = models.options(bare)
    assert models.options(nothing) == options
    assert set(options) <= set(models.OPTIONS)
    assert options["seed"] == 0
    assert None not in options.values()
    assert json.loads(json.dumps(options)) == options
    assert models.options({**bare, **options}) == options


def test_given_options_are_kept():
    config = {"network": "mlp", "seed": 3, "hidden_units": (7, 5), "activation": None}
    options = {"seed": 3, "activation": "relu", "hidden_units": [7, 5]}
    assert models.options(config) == options
    # False and 0 are values, not missing.
    config = {"network": "lenet", "batch_norm_first": False, "seed": 0}
    assert models.options(config)["batch_norm_first"] is False
    config = {"network": "double_conv", "dropout": 0.0}
    assert models.options(config)["dropout"] == 0.0


def test_options_of_other_networks_are_refused(name):
    own = models.options({"network": name})
    foreign = set(models.OPTIONS) - set(own)
    assert foreign
    for option in foreign:
        for refuse in (models.options, models.build):
            with pytest.raises(errors.UsageError) as error:
                refuse({"network": name, option: 0})
            takes = ", ".join(f"--{o}" for o in sorted(own))
            message = f"--network={name} has no --{option}; it takes {takes}; "
            assert str(error.value).startswith(message)
            assert f" --unset={option} " in str(error.value)


def parse(text):
    """Parses the text of --hidden_units."""
    values = flags.FlagValues()
    parser = models._UnitsParser()
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
