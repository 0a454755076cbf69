# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or absent, and verified before use.

`tf.train.Checkpoint` writes in place and never flushes to disk, and once its
`checkpoint` file is damaged, a run silently starts from scratch. So each of our
checkpoints is a folder, `checkpoints/step-00000469/`, which is written under another
name, flushed, read back, and then renamed. The names of the folders say which
checkpoint is the last; training.manifest proves that it is whole.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from system import console, errors, files
from training import manifest

FOLDER = "checkpoints"  # in a run directory
PREFIX = "step-"
UNFINISHED = ".unfinished-"
REMOVED = ".removed-"
REPLACED = ".replaced-"  # by a second checkpoint of the same step

NETWORK, AVERAGE, BEST = "network", "average", "best"  # networks in a checkpoint

KEPT = 2  # checkpoints


class CheckpointError(errors.UserError):
    """A checkpoint that cannot be written, does not fit, or is damaged."""


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, in order."""
    numbers = (p.name.removeprefix(PREFIX) for p in folder.glob(f"{PREFIX}*"))
    return sorted(int(n) for n in numbers if n.isascii() and n.isdecimal())


def path(folder: Path, step: int) -> Path:
    """Folder of a step's checkpoint."""
    return folder / f"{PREFIX}{step:08d}"


def fingerprint(recorded: Mapping[str, Any] | None) -> str:
    """SHA-256 of a run's `runs.identity`, which its checkpoints carry.

    The settings are hashed as they were recorded when the run was begun, so that
    settings and defaults of later versions change nothing.
    """
    text = json.dumps(recorded or {}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def followed(config: Any) -> str:
    """The network that is scored after each epoch: the weight average, if any."""
    return AVERAGE if config.weight_average else NETWORK


def scored(config: Any) -> str:
    """The network that is scored in the end: the best so far with --keep_best."""
    return BEST if config.keep_best else followed(config)


def save(
    state: tf.train.Checkpoint,
    folder: Path,
    step: int,
    recorded: Mapping[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint, reads it back, then removes older ones.

    The last `KEPT` whole ones stay, this one included. Checkpoints of later steps are
    removed too: the run has gone back to before them.

    Args:
      state: objects to save.
      folder: the run's folder of checkpoints.
      step: number of steps taken.
      recorded: the run's `runs.identity`; no other run can use this checkpoint.
      progress: whatever else to keep, of JSON types; see `progress`.

    Raises:
      CheckpointError: the disk is full, the folder not writable, a file was not read
        back as written, …; earlier checkpoints are untouched.
    """
    unfinished = folder / f"{UNFINISHED}{step:08d}"
    try:
        folder.mkdir(exist_ok=True)
        tidy(folder)
        _write(state, unfinished, step, fingerprint(recorded), progress or {})
        _put_in_place(unfinished, path(folder, step))
        files.flush(folder)
        _prune(folder, step, recorded)
    except (OSError, tf.errors.OpError, manifest.Unusable) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(
            f"cannot write a checkpoint to {folder}: {errors.reason(error)}; make room"
            " or choose another --run_dir; earlier checkpoints are untouched"
        ) from None


def _write(
    state: tf.train.Checkpoint,
    unfinished: Path,
    step: int,
    own: str,
    progress: Mapping[str, Any],
) -> None:
    """Writes a checkpoint with its manifest, and reads it back from the disk."""
    unfinished.mkdir()
    state.write(str(unfinished / manifest.STATE))
    written = manifest.describe_files(unfinished)
    content = manifest.make(written, step, own, progress)
    (unfinished / manifest.NAME).write_bytes(content)
    for file in unfinished.iterdir():
        files.flush(file, forget=True)  # out of the cache, too
    files.flush(unfinished)
    manifest.verify(unfinished, step, own)


def tidy(folder: Path) -> None:
    """Removes what a killed process left half written or half removed.

    Only for the process that trains: eval.py may be reading checkpoints meanwhile.

    Raises:
      OSError: the folder is not writable.
    """
    for replaced in folder.glob(f"{REPLACED}*"):
        step = replaced.name.removeprefix(REPLACED)
        if not (step.isascii() and step.isdecimal()):
            continue  # not ours
        place = path(folder, int(step))
        if not place.exists():  # killed before the new one had its name
            replaced.rename(place)
    for prefix in (UNFINISHED, REMOVED, REPLACED):
        for leftover in folder.glob(f"{prefix}*"):
            shutil.rmtree(leftover)


def _put_in_place(unfinished: Path, place: Path) -> None:
    """Gives a checkpoint its name; an older one of that name is kept until then."""
    replaced = place.with_name(place.name.replace(PREFIX, REPLACED))
    if place.exists():
        place.rename(replaced)
    unfinished.rename(place)
    if replaced.exists():
        shutil.rmtree(replaced)


def _prune(folder: Path, newest: int, recorded: Mapping[str, Any] | None) -> None:
    """Removes all but the last `KEPT` whole checkpoints up to `newest`."""
    whole = 1  # the newest itself
    for step in reversed(steps(folder)):
        if step == newest:
            continue
        if step < newest and whole < KEPT and is_whole(folder, step, recorded):
            whole += 1
            continue
        # Renamed first, so that half a checkpoint never looks like one.
        removed = folder / f"{REMOVED}{step:08d}"
        path(folder, step).rename(removed)
        shutil.rmtree(removed)


def restore(
    state: tf.train.Checkpoint,
    folder: Path,
    recorded: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> int | None:
    """Restores the last usable checkpoint into all objects of `state`.

    If it is damaged or belongs to another run, we warn and use the one before it.

    Args:
      state: objects to restore.
      folder: the run's folder of checkpoints.
      recorded: the run's `runs.identity`.
      partial: whether the checkpoint may hold more than `state`, such as an optimizer
        besides the network.

    Returns:
      Step of the checkpoint, or None if `folder` holds none at all.

    Raises:
      CheckpointError: there are checkpoints, but none can be used.
    """
    known: list[int] = []
    # Look again if the folder has changed: a run that is training removes old ones.
    while known != (known := steps(folder)):
        refusals = []
        for step in reversed(known):
            try:
                manifest.verify(path(folder, step), step, fingerprint(recorded))
                _read(state, path(folder, step), partial)
            except manifest.Unusable as error:
                refusals.append(f"{path(folder, step)} {error}")
                continue
            for refusal in refusals:
                console.warn(f"{refusal}: using {path(folder, step)} instead")
            return step
    if not known:
        return None
    others = f", nor can {len(known) - 1} before it" if len(known) > 1 else ""
    raise CheckpointError(
        f"{refusals[0]}, so it cannot be used{others}: train again in another"
        " --run_dir, or put a good copy in its place"
    )


def progress(folder: Path, step: int) -> dict[str, Any]:
    """What `save` was given to keep besides the variables.

    Raises:
      CheckpointError: the manifest is damaged.
    """
    try:
        return manifest.read(path(folder, step))["progress"]
    except manifest.Unusable as error:
        raise CheckpointError(f"{path(folder, step)} {error}") from None


def _read(state: tf.train.Checkpoint, place: Path, partial: bool) -> None:
    """Raises Unusable if the variables are not those of `state`."""
    try:
        # Without expect_partial, TensorFlow adds warnings to an error.
        status = state.read(str(place / manifest.STATE)).expect_partial()
        if partial:
            status.assert_existing_objects_matched()
        else:
            status.assert_consumed()
    except (tf.errors.OpError, IndexError, ValueError, AssertionError) as error:
        why = errors.reason(error)
        raise manifest.Unusable(f"belongs to another network ({why})") from None


def is_whole(folder: Path, step: int, recorded: Mapping[str, Any] | None) -> bool:
    """Whether a step's files are whole and belong to a run with these settings."""
    try:
        manifest.verify(path(folder, step), step, fingerprint(recorded))
    except manifest.Unusable:
        return False
    return True
