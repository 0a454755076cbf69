# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or not there.

`tf.train.Checkpoint` writes in place and never flushes to disk, and its `checkpoint`
file, once damaged, makes a run start afresh in silence. So each checkpoint is a folder
of its own, `checkpoints/step-00000469/`, written under another name, flushed, and
renamed; the folders themselves say which is the last.
"""

import shutil
from pathlib import Path

import tensorflow as tf

import cli
import files

FOLDER = "checkpoints"  # of a run
BEST = "best"  # folder of a run for the one checkpoint that --keep_best keeps
PREFIX = "step-"
UNFINISHED = ".unfinished-"
FILES = "state"


class CheckpointError(cli.UserError):
    """A checkpoint that cannot be written, or that does not fit or is damaged."""


def steps(folder: Path) -> list[int]:
    """The steps at which whole checkpoints lie in `folder`, in order."""
    numbers = (p.name.removeprefix(PREFIX) for p in folder.glob(f"{PREFIX}*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{PREFIX}{step:08d}"


def save(state: tf.train.Checkpoint, folder: Path, step: int, keep: int = 2) -> None:
    """Writes a checkpoint, then removes all but the last `keep`.

    Raises:
      CheckpointError: the disk is full, the folder not writable, …; the earlier
        checkpoints are untouched.
    """
    unfinished = folder / f"{UNFINISHED}{step:08d}"
    try:
        folder.mkdir(exist_ok=True)
        for left in folder.glob(f"{UNFINISHED}*"):  # of a killed process
            shutil.rmtree(left)
        unfinished.mkdir()
        state.write(str(unfinished / FILES))
        for file in unfinished.iterdir():
            files.flush(file)
        files.flush(unfinished)
        # A run that was resumed before this step may write it a second time.
        shutil.rmtree(path(folder, step), ignore_errors=True)
        unfinished.rename(path(folder, step))
        files.flush(folder)
    except (OSError, tf.errors.OpError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise CheckpointError(
            f"cannot write a checkpoint to {folder}: {reason}; make room or choose"
            " another --run_dir; earlier checkpoints are as they were"
        ) from None
    for old in steps(folder)[:-keep]:
        shutil.rmtree(path(folder, old))


def restore(
    state: tf.train.Checkpoint, folder: Path, *, partial: bool = False
) -> int | None:
    """Restores the last checkpoint into every object of `state`.

    Args:
      state: what to restore.
      folder: where the run keeps its checkpoints.
      partial: whether the checkpoint may hold more than `state`: a network without
        its optimizer, say.

    Returns:
      Its step, or None when `folder` holds no checkpoint.

    Raises:
      CheckpointError: it is damaged, or its variables are not those of `state`.
    """
    if not (found := steps(folder)):
        return None
    last = path(folder, found[-1])
    try:
        status = state.read(str(last / FILES))
        if partial:
            status.expect_partial().assert_existing_objects_matched()
        else:
            status.assert_consumed()
    except (tf.errors.OpError, IndexError, ValueError, AssertionError) as error:
        reason = str(getattr(error, "message", error)).splitlines()[0]
        remedy = "train again in another --run_dir"
        if len(found) > 1:
            remedy = "delete that folder to go on from the checkpoint before it"
        raise CheckpointError(
            f"{last} is damaged or belongs to another network ({reason}): {remedy}"
        ) from None
    return found[-1]
