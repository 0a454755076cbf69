# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of online augmentation measures and reports."""

import math

import pytest

from augment import online as augment
from benchmarks import online
from config import Config
from tests.helpers import cells


@pytest.mark.usefixtures("forked_peers")
def test_it_measures_the_step_and_transforms(monkeypatch):
    monkeypatch.setattr(online, "THREADS", (1,))
    result = online.measure(rounds=1, steps=2, names=["elastic", "outliers"])
    seconds = result["threads"]["1"]
    assert list(seconds) == ["training step", "elastic", "outliers"]
    for values in seconds.values():
        assert len(values) == 1 and 0 < values[0] < math.inf


def test_it_measures_every_transform():
    measured = {name for flags in online.TRANSFORMS.values() for name in flags}
    registered = {*augment.AFFINES, *augment.DISPLACEMENTS, *augment.GREYS}
    others = {"elastic_sigma", "outliers", "continental", "mixup"}
    assert measured == registered | others
    for flags in online.TRANSFORMS.values():
        Config(**flags).checked()


def test_it_transforms_in_parts():
    assert online.transform_loop({"shift": 0.1}, [43, 43, 42])(2) > 0


def test_table():
    seconds = {"training step": [0.01, 0.02, 0.01], "zoom": [0.001, 0.001, 0.003]}
    text = online.markdown({"threads": {"0": seconds}})
    assert text.startswith("## Online augmentation\n")
    assert cells(text)[1:] == [
        ["0", "training step", "10.00", "100.0%", "100.0%", "100.0%"],
        ["0", "zoom", "1.00", "10.0%", "5.0%", "30.0%"],
    ]
