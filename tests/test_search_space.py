# SPDX-License-Identifier: Apache-2.0
"""Tests of training/search_space.py."""

import pytest

from config import Config
from system import errors
from training import search_space
from training.search_space import SpaceError


def read(tmp_path, text):
    path = tmp_path / "a.space"
    path.write_text(text)
    return search_space.read(path, Config)


def test_a_space(tmp_path):
    text = """
# rates
--learning_rate=log 1e-3..1e-2
--rotation = 5..20
// sizes
--batch_size=64, 128,256
--hidden_units=64 | 150,100
--shift_pixels=1..3
"""
    rate, rotation, batch, units, pixels = read(tmp_path, text)
    assert (rate.name, rate.line, rate.low, rate.high) == (
        "learning_rate",
        3,
        1e-3,
        0.01,
    )
    assert rate.log and not rate.whole and rate.ends() == ("0.001", "0.01")
    assert (rotation.low, rotation.high, rotation.log) == (5, 20, False)
    assert batch.choices == ("64", "128", "256") == batch.ends()
    assert units.choices == ("64", "150,100")
    assert pixels.whole and pixels.ends() == ("1", "3") and pixels.value(2) == "2"


def test_values_have_few_digits_and_stay_within(tmp_path):
    rate, decay, shear = read(
        tmp_path,
        "--learning_rate=log 1.23444e-3..1e-2\n--weight_average=.99..0.999\n"
        "--shear=1..30",
    )
    assert rate.value(0.0043215999) == "0.004322"
    assert rate.value(1.23444e-3) == "0.00123444"  # not rounded to below the low end
    assert decay.value(0.99123456) == "0.991235" and decay.value(0.999) == "0.999"
    assert shear.value(7.123456) == "7.12"


@pytest.mark.parametrize(
    "text, what",
    [
        ("", "no setting to search"),
        ("# nothing", "no setting to search"),
        ("--learning_rate", "line 1: '--learning_rate': expected a line such as"),
        ("\nlearning_rate=1..2", "line 2: 'learning_rate=1..2': expected a line"),
        ("--learning_rat=1..2", "--learning_rat: no setting has this name"),
        ("--seed=0,1", "--seed has to be the same .* give --seeds"),
        ("--validation_size=0..9", "--validation_size has to be the same"),
        ("--log_steps=1..9", "--log_steps does not change the result"),
        ("--run_dir=a,b", "--run_dir does not change the result"),
        ("--learning_rate=2..1", "expected the lower end first"),
        ("--learning_rate=1..1", "expected the lower end first"),
        ("--learning_rate=log 0..1", "the lower end first, above 0"),
        ("--learning_rate=log 1,2", "expected LOW..HIGH or log LOW..HIGH"),
        ("--learning_rate=1..2..3", "expected LOW..HIGH"),
        ("--learning_rate=nan..2", "expected LOW..HIGH"),
        ("--rotation=1..1e999", "expected the lower end first"),
        ("--batch_size=1.5..9", "expected whole numbers for --batch_size"),
        ("--network=a..b", "--network is no number: expected values"),
        ("--batch_size=64", "2 to 100 different values"),
        ("--batch_size=64,64", "2 to 100 different values"),
        ("--shear=1..2\n--rotation=1..2\n--shear=3..4", "line 3: --shear is in line 1"),
    ],
)
def test_what_is_no_space(tmp_path, text, what):
    with pytest.raises(SpaceError, match=what) as caught:
        read(tmp_path, text)
    assert "a.space" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(SpaceError, match="cannot be read .* line per setting"):
            search_space.read(path, Config)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SpaceError, match="cannot be read"):
        search_space.read(tmp_path / "binary", Config)


def test_all_pairs_of_ends_are_checked(tmp_path):
    text = "--learning_rate=1..2\n--rotation=3..4\n--batch_size=5,6,7"
    space = read(tmp_path, text)
    seen = []
    search_space.check(tmp_path, space, lambda arguments: seen.append(tuple(arguments)))
    rates = {(arguments[0], arguments[1]) for arguments in seen}
    assert len(rates) == 4 and len(seen) == len(set(seen))
    assert len({(arguments[1], arguments[2]) for arguments in seen}) == 6

    def refuse(arguments):
        if "--rotation=4" in arguments and "--batch_size=7" in arguments:
            raise errors.UserError("too much")

    with pytest.raises(SpaceError, match="line 2 and 3: too much"):
        search_space.check(tmp_path, space, refuse)
