# SPDX-License-Identifier: Apache-2.0
"""Tests of training/cluster.py."""

import contextlib
import json

import pytest

from config import Config
from system import errors
from training import cluster, launch


@pytest.mark.parametrize(
    ("task", "number", "on_host"),
    [(("chief", 0), 0, 1), (("worker", 0), 1, 2), (("worker", 1), 2, 2)],
)
def test_find_place(task, number, on_host):
    jobs = {"worker": ["a:1", "a:2"], "chief": ["b:1"]}
    task = {"type": task[0], "index": task[1]}
    place = cluster.find_place(
        "multi_worker", json.dumps({"cluster": jobs, "task": task})
    )
    assert (place.workers, place.number, place.on_host) == (3, number, on_host)
    assert place.address == [*jobs["chief"], *jobs["worker"]][number]


@pytest.mark.parametrize(
    "tf_config",
    [
        *(None, "", "{", "[]", "3", "null", '{"cluster": {}, "task": {}}'),
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type":"worker", "index":0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}',
        "[" * 10**5,
    ],
)
def test_a_bad_tf_config_gives_one_line(tf_config):
    assert cluster.find_place("none", tf_config) == cluster.Place()
    with pytest.raises(cluster.ClusterError, match="TF_CONFIG"):
        cluster.find_place("multi_worker", tf_config)


ONE = '{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}'


@pytest.mark.parametrize("tf_config", [None, "", "{}", '{"environment": "cloud"}', ONE])
def test_a_single_process_trains_alone(tf_config):
    cluster.check_alone(tf_config)


@pytest.mark.parametrize(
    ("tf_config", "message"),
    [
        (launch.tf_config([1, 2], 1), "makes this process worker 1 of 2, and"),
        (ONE.replace("}, ", ', "ps": ["b:1"]}, '), "process chief 0 of 2, and"),
        (ONE.replace('task": {"type": "chief', 'task": {"type": "evaluator'), "eval"),
        *((broken, "TF_CONFIG makes no sense") for broken in ("{", "3", "[" * 10**5)),
        ('{"cluster": {"worker": 3}}', "TF_CONFIG makes no sense"),
    ],
)
def test_one_of_several_processes_does_not_train_alone(tf_config, message):
    with pytest.raises(errors.UsageError, match=message) as caught:
        cluster.check_alone(tf_config)
    assert "give --distribute=multi_worker to train with" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "workers", "replicas", "sync", "message"),
    [
        ("multi_worker", 2, 4, False, ""),
        ("multi_worker", 2, 3, False, "a multiple of 2"),
        ("multi_worker", 2, 1, False, "a multiple of 2"),
        ("multi_worker", 2, 2, True, ""),
        ("multi_worker", 2, 4, True, "--replicas=2"),
        ("none", 1, 2, True, "--distribute=mirrored"),
        ("none", 1, 1, True, ""),
        ("mirrored", 1, 2, True, ""),
        ("multi_worker", 34, 34, False, "one image for each of 34"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(
    kind, workers, replicas, sync, message
):
    config = Config(
        replicas=replicas, sync_batch_norm=sync, batch_size=33, distribute=kind
    )
    raises = pytest.raises(errors.UsageError, match=message or "nothing")
    with raises if message else contextlib.nullcontext():
        cluster.check(config, cluster.Place(workers))
