# SPDX-License-Identifier: Apache-2.0
"""Runs that were not trained: the run of test_older_runs with other weights."""

import json
import shutil

import numpy as np
import tensorflow as tf

from evaluation import trained
from tests.test_older_runs import GOLDEN
from training import checkpoints, runs


def make_run(folder, seed=1, classes=None, scale=1.0, taken=None, **config):
    """Writes a run whose weights differ a little from those of `GOLDEN`, by the seed.

    Its settings are those of `config`, its logits are multiplied by a scale, and
    `taken` are hashes of other runs, as in run.json.
    """
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("checkpoints"))
    record = json.loads((GOLDEN / runs.RUN).read_text())
    record["config"] |= {"seed": seed, **config}
    record |= ({"classes": classes} if classes else {}) | (taken or {})
    (folder / runs.RUN).write_text(json.dumps(record))
    run = trained.load(GOLDEN)
    rng = np.random.default_rng(seed)
    *_, last = {v.name.split("/")[1]: v for v in run.network.variables}
    for weight in run.network.variables:
        value = weight + 0.03 * tf.constant(rng.normal(size=weight.shape), tf.float32)
        weight.assign(value * (scale if f"/{last}/" in weight.name else 1))
    network = {checkpoints.scored(run.config): run.network}
    where = folder / checkpoints.FOLDER
    state = tf.train.Checkpoint(**network)
    checkpoints.save(state, where, run.step, runs.identity(record))
    return folder
