# SPDX-License-Identifier: Apache-2.0
"""Training on a hundred digits: the configurations, and what their tests share."""

import shutil
from dataclasses import replace

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from training import checkpoints, history
from training.session import Session
from training.state import State

STEPS = 4  # per epoch, with SMALL
SMALL = {
    "dataset": "digits",
    "shift_directions": [],
    "flip_codes": [],
    "network": "mlp",
    "hidden_units": [64],
    "learning_rate": 1e-2,
    "weight_average": 0.9,
    "rotation": 10.0,
    "schedule": "cosine",
    "batch_size": 32,
    "replicas": 1,
    "epochs": 3,
    "seed": 1,
}
# With all that a network can have, which takes four times as long to trace.
LENET = {
    **SMALL,
    "network": "lenet",
    "hidden_units": None,
    "learning_rate": 1e-3,
    "batch_norm": "conv",
    "dropout": 0.2,
    "replicas": 2,
}


def trained(config, sets, run_dir, signal=lambda: 0, **changes):
    return train.train(
        replace(config, **changes), sets, Session(run_dir, signal=signal)
    )


def copy_of(run_dir, target):
    """A copy of a run, to be trained further."""
    return shutil.copytree(run_dir, target, dirs_exist_ok=True)


def restored(config, run_dir):
    """The state of the last checkpoint, and its step."""
    state = State(config)
    folder = run_dir / "checkpoints"
    return state, checkpoints.restore(state.checkpoint, folder, config.deciding())


def values(config, run_dir):
    """Every variable of the last checkpoint, as bytes."""
    state, _ = restored(config, run_dir)
    modules = (state.network, state.average, state.optimizer, state.watch, state.best)
    return [v.numpy().tobytes() for m in modules if m for v in m.variables]


def rows_without_seconds(run_dir):
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in history.read(run_dir)
    ]


def points(run_dir):
    """What TensorBoard shows of training: {(split, tag): [(step, value), …]}."""
    shown = {}
    for split in ("train", "validation", "test"):
        events = EventAccumulator(str(run_dir / split), size_guidance={"tensors": 0})
        for tag in events.Reload().Tags()["tensors"]:
            if tag != "images_per_second/by_step":
                shown[split, tag] = [
                    (point.step, point.tensor_proto.SerializeToString())
                    for point in events.Tensors(tag)
                ]
    return shown


def same(config, run_dir, other):
    """Whether two runs have the same variables, metrics and curves, bit for bit."""
    return (
        values(config, run_dir) == values(config, other)
        and rows_without_seconds(run_dir) == rows_without_seconds(other)
        and points(run_dir) == points(other)
    )


def after(calls, signal):
    """Asks to stop, as a signal would, after this many calls of the graph."""
    answers = iter([0] * calls)
    return lambda: next(answers, signal)
