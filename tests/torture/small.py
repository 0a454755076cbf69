# SPDX-License-Identifier: Apache-2.0
"""A run of a few seconds that has everything a run can have, and its digest."""

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import flags
from tqdm import tqdm

import data
import train
from config import define_flags
from system import cli
from tests.torture import children
from training import checkpoints, history, manifest

EPOCHS, EPOCH_STEPS = 4, 4

# With weight average, best weights, a learning rate that depends on the validation
# accuracy, and two calls of the graph per epoch.
FLAGS = (
    *("--dataset=digits", "--network=mlp", "--hidden_units=4"),
    *("--shift_directions=", "--flip_codes=", "--threads=1", "--replicas=1"),
    *(f"--epochs={EPOCHS}", f"--epoch_images={EPOCH_STEPS * 32}", "--batch_size=32"),
    *("--log_steps=2", "--weight_average=0.9", "--validation_size=100"),
    *("--schedule=plateau", "--plateau_patience=1", "--keep_best"),
)


def prepare() -> None:
    """Imports and reads all that a child would, without making a tensor."""
    from tensorboard.backend.event_processing import event_accumulator  # noqa: F401

    if "run_dir" not in flags.FLAGS:
        define_flags()
    digits = data.load("digits")  # takes as long to read as to train on
    data.DATASETS["digits"] = lambda _: digits
    # tqdm's own lock is shared with children, and a killed one never releases it.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0  # starts no thread


def run(
    run_dir: Path,
    *more: str,
    score: bool = False,
    before: Callable[[], None] = lambda: None,
    then: Callable[[], Any] = lambda: None,
) -> children.Ended:
    """Runs train.py in a child: starts the run or resumes it.

    Args:
      run_dir: run directory.
      more: further flags.
      score: whether to score the result, which takes as long as the rest.
      before: function that the child calls first.
      then: function that the child calls last; its result is the child's value.
    """

    def program():
        flags.FLAGS.unparse_flags()
        sys.argv = ["train", *FLAGS, f"--run_dir={run_dir}", *more]
        if not score:
            train.result.evaluate = lambda *_: None
        before()
        try:
            cli.run(train.main)
        except SystemExit as error:
            if error.code:
                raise
        return then()

    return children.run(program)


def digest(run_dir: Path, *, curves: bool = True) -> str:
    """SHA-256 of all results of a run except times and speeds; in a child only.

    Covers every variable of the last checkpoint, metrics.csv, and each point of each
    TensorBoard curve.

    Args:
      run_dir: run directory.
      curves: whether to include TensorBoard's curves.
    """
    sha256 = hashlib.sha256()
    parts = [_variables(run_dir), _metrics(run_dir)]
    for part in [*parts, _curves(run_dir)] if curves else parts:
        sha256.update(json.dumps(part).encode())
    return sha256.hexdigest()


def _variables(run_dir: Path) -> list[Any]:
    folder = run_dir / checkpoints.FOLDER
    last = checkpoints.path(folder, checkpoints.steps(folder)[-1])
    reader = tf.train.load_checkpoint(str(last / manifest.STATE))
    names = sorted(reader.get_variable_to_shape_map())
    values = [reader.get_tensor(name) for name in names if name[0] != "_"]
    contents = [value.tobytes().hex() for value in values]
    return [last.name, *zip((n for n in names if n[0] != "_"), contents, strict=True)]


def _metrics(run_dir: Path) -> list[Any]:
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in history.read(run_dir)
    ]


def _curves(run_dir: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = []
    for split in ("train", "validation", "test"):
        events = EventAccumulator(str(run_dir / split), size_guidance={"tensors": 0})
        for tag in sorted(events.Reload().Tags()["tensors"]):
            if tag != "images_per_second/by_step":
                points = events.Tensors(tag)
                values = [p.tensor_proto.SerializeToString().hex() for p in points]
                curves.append([split, tag, [p.step for p in points], values])
    return curves


def last_step(run_dir: Path) -> int:
    """Step of the last checkpoint; −1 if there is none.

    Raises:
      AssertionError: a checkpoint is incomplete.
    """
    folder = run_dir / checkpoints.FOLDER
    steps = checkpoints.steps(folder)
    if not steps:
        return -1
    config = json.loads((run_dir / "run.json").read_bytes())["config"]
    for step in steps:
        assert checkpoints.is_whole(folder, step, config), f"{folder}, step {step}"
    return steps[-1]


def resumed_at(ended: children.Ended) -> int:
    """Step at which a child says it resumed; 0 if it does not say so."""
    for line in ended.out.splitlines():
        if line.startswith("resuming"):
            return int(line.split()[-1].replace(",", ""))
        if "is trained to its last step" in line:
            return int(line.split()[-1].replace(",", ""))
    return 0


def is_refusal(ended: children.Ended, *words: str) -> bool:
    """Whether a child failed as it should: exit code 1, one line, no traceback.

    Args:
      ended: the child.
      words: texts of which the line must contain one, if any are given.
    """
    last = (ended.err.strip().splitlines() or [""])[-1]
    return (
        ended.code == 1
        and "Traceback" not in ended.err
        and last.startswith("train: ")
        and (not words or any(word in last for word in words))
    )
