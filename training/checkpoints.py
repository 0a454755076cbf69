# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or not there, and proved to be so before they are used.

`tf.train.Checkpoint` writes in place and never flushes to disk, and its `checkpoint`
file, once damaged, makes a run start afresh in silence. So each checkpoint is a folder
of its own, `checkpoints/step-00000469/`, written under another name, flushed, read
back, and renamed; the folders themselves say which is the last. `manifest.json` in it
has the size and the SHA-256 of each file, the step, the hash of the configuration, the
versions, and what else the loop wants to know when it goes on. Its last entry is the
SHA-256 of all the others, and no byte of it may differ from what `save` writes.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from system import cli, console, errors, files, untrusted
from training import settings

FOLDER = "checkpoints"  # of a run
PREFIX = "step-"
UNFINISHED = ".unfinished-"
REMOVED = ".removed-"
REPLACED = ".replaced-"  # by a second one of the same step
FILES = "state"
MANIFEST = "manifest.json"

FORMAT = 1  # of the manifest
KEPT = 2  # whole checkpoints
MANIFEST_BYTES = 1 << 20  # at most
CHUNK = 1 << 20  # bytes that are hashed at a time

_FILE = re.compile(FILES + r"\.(index|data-\d{5}-of-\d{5})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CheckpointError(errors.UserError):
    """A checkpoint that cannot be written, or that does not fit or is damaged."""


class _Unusable(Exception):
    """Why a checkpoint cannot be taken; half a sentence."""


def steps(folder: Path) -> list[int]:
    """The steps at which checkpoints lie in `folder`, in order."""
    numbers = (p.name.removeprefix(PREFIX) for p in folder.glob(f"{PREFIX}*"))
    return sorted(int(n) for n in numbers if n.isascii() and n.isdecimal())


def path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{PREFIX}{step:08d}"


def fingerprint(config: Mapping[str, Any] | None) -> str:
    """SHA-256 of a run's configuration, which its checkpoints carry."""
    text = json.dumps(settings.identity(config or {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    state: tf.train.Checkpoint,
    folder: Path,
    step: int,
    config: Mapping[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint and reads it back; then removes older ones.

    The last `KEPT` that are whole stay, this one among them; any of a later step are
    removed too, since the run has gone back behind them.

    Args:
      state: what is written.
      folder: where the run keeps its checkpoints.
      step: steps taken.
      config: the run's flags; no run of others will take this checkpoint.
      progress: of JSON types, for `progress` to find again.

    Raises:
      CheckpointError: the disk is full, the folder not writable, it was not read back
        as written, …; the earlier checkpoints are untouched.
    """
    unfinished = folder / f"{UNFINISHED}{step:08d}"
    try:
        folder.mkdir(exist_ok=True)
        tidy(folder)
        unfinished.mkdir()
        state.write(str(unfinished / FILES))
        (unfinished / MANIFEST).write_bytes(
            _manifest(_files_in(unfinished), step, config, progress)
        )
        for file in unfinished.iterdir():
            files.flush(file, forget=True)  # so that it is read from the disk
        files.flush(unfinished)
        _verify(unfinished, step, config)
        _put_in_place(unfinished, path(folder, step))
        files.flush(folder)
        _prune(folder, step, config)
    except (OSError, tf.errors.OpError, _Unusable) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(
            f"cannot write a checkpoint to {folder}: {errors.reason(error)}; make room"
            " or choose another --run_dir; earlier checkpoints are as they were"
        ) from None


def tidy(folder: Path) -> None:
    """Clears away what a killed process left half-made or half-removed.

    For the one process that trains: eval.py reads checkpoints beside it.

    Raises:
      OSError: the folder is not writable.
    """
    for replaced in folder.glob(f"{REPLACED}*"):
        step = replaced.name.removeprefix(REPLACED)
        if not (step.isascii() and step.isdecimal()):
            continue  # none of ours
        place = path(folder, int(step))
        if not place.exists():  # killed before the new one had its name
            replaced.rename(place)
    for prefix in (UNFINISHED, REMOVED, REPLACED):
        for left in folder.glob(f"{prefix}*"):
            shutil.rmtree(left)


def _put_in_place(unfinished: Path, place: Path) -> None:
    """Gives a checkpoint its name; an old one of that name stays until it has."""
    replaced = place.with_name(place.name.replace(PREFIX, REPLACED))
    if place.exists():
        place.rename(replaced)
    unfinished.rename(place)
    if replaced.exists():
        shutil.rmtree(replaced)


def _prune(folder: Path, newest: int, config: Mapping[str, Any] | None) -> None:
    """Removes all but the `KEPT` last whole ones up to `newest`, which is whole."""
    whole = 1
    for step in reversed(steps(folder)):
        if step == newest:
            continue
        if step < newest and whole < KEPT and is_whole(folder, step, config):
            whole += 1
            continue
        # Renamed, for half a checkpoint must not be visible as one.
        removed = folder / f"{REMOVED}{step:08d}"
        path(folder, step).rename(removed)
        shutil.rmtree(removed)


def restore(
    state: tf.train.Checkpoint,
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> int | None:
    """Restores the last whole checkpoint into every object of `state`.

    One that is damaged or foreign is named on standard error, and the one before it
    taken.

    Args:
      state: what to restore.
      folder: where the run keeps its checkpoints.
      config: the run's flags, as they were given to `save`.
      partial: whether the checkpoint may hold more than `state`: a network without
        its optimizer, say.

    Returns:
      Its step, or None when `folder` holds no checkpoint at all.

    Raises:
      CheckpointError: there are some, and none can be used.
    """
    found: list[int] = []
    # Again if there are others by now: a run at work removes old ones.
    while found != (found := steps(folder)):
        refusals = []
        for step in reversed(found):
            try:
                _verify(path(folder, step), step, config)
                _read(state, path(folder, step), partial)
            except _Unusable as error:
                refusals.append(f"{path(folder, step)} {error}")
                continue
            for refusal in refusals:
                console.warn(f"{refusal}: taking {path(folder, step)} instead")
            return step
    if not found:
        return None
    others = f", nor can {len(found) - 1} before it" if len(found) > 1 else ""
    raise CheckpointError(
        f"{refusals[0]}, so it cannot be used{others}: train again in another"
        " --run_dir, or put a good copy in its place"
    )


def progress(folder: Path, step: int) -> dict[str, Any]:
    """What `save` was given to keep beside the variables.

    Raises:
      CheckpointError: the manifest is damaged.
    """
    try:
        return _read_manifest(path(folder, step))["progress"]
    except _Unusable as error:
        raise CheckpointError(f"{path(folder, step)} {error}") from None


def _read(state: tf.train.Checkpoint, place: Path, partial: bool) -> None:
    """Restores verified files.

    Raises:
      _Unusable: the variables are not those of `state`.
    """
    try:
        # Partial in any case: else TensorFlow adds warnings to an error.
        status = state.read(str(place / FILES)).expect_partial()
        if partial:
            status.assert_existing_objects_matched()
        else:
            status.assert_consumed()
    except (tf.errors.OpError, IndexError, ValueError, AssertionError) as error:
        why = errors.reason(error)
        raise _Unusable(f"belongs to another network ({why})") from None


def _verify(place: Path, step: int, config: Mapping[str, Any] | None) -> None:
    """Makes sure that a checkpoint is whole, and of this step and configuration.

    Raises:
      _Unusable: it is not.
    """
    manifest = _read_manifest(place)
    if manifest["step"] != step:
        raise _Unusable(f"is damaged ({MANIFEST} is of step {manifest['step']})")
    if manifest["config"] != fingerprint(config):
        raise _Unusable("belongs to a run of another configuration")
    for name, expected in manifest["files"].items():
        file = place / name
        try:
            # The size first: no more than that is read.
            if not file.is_file() or file.stat().st_size != expected["bytes"]:
                what = f"is not {expected['bytes']:,} bytes long"
            elif _sha256(file) != expected["sha256"]:
                what = f"has another SHA-256 than {MANIFEST} says"
            else:
                continue
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        raise _Unusable(f"is damaged ({name} {what})")


def is_whole(folder: Path, step: int, config: Mapping[str, Any] | None) -> bool:
    """Whether `restore` would take the checkpoint of a step, as far as files go."""
    try:
        _verify(path(folder, step), step, config)
    except _Unusable:
        return False
    return True


def _manifest(
    described: Mapping[str, Any],
    step: int,
    config: Mapping[str, Any] | None,
    progress: Mapping[str, Any] | None,
) -> bytes:
    versions = {"lenet-selu": cli.VERSION, "tensorflow": tf.__version__}
    return _render(
        {
            "format": FORMAT,
            "step": step,
            "config": fingerprint(config),
            "versions": versions,
            "files": dict(described),
            "progress": dict(progress or {}),
        }
    )


def _render(entries: Mapping[str, Any]) -> bytes:
    """A manifest as it is stored, its own SHA-256 at the end."""
    own = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    return (json.dumps({**entries, "sha256": own}, indent=1) + "\n").encode()


def _read_manifest(place: Path) -> dict[str, Any]:
    """The entries of a manifest, all but its own hash.

    Raises:
      _Unusable: it is damaged, missing, too long, or of another form.
    """
    file = place / MANIFEST
    try:
        content = untrusted.read(file, MANIFEST_BYTES)
        entries = untrusted.parse_json(content)
    except OSError as error:
        raise _Unusable(f"is damaged ({MANIFEST}: {error.strerror})") from None
    except ValueError as error:
        raise _Unusable(f"is damaged ({MANIFEST} is no JSON: {error})") from None
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise _Unusable(f"is damaged ({MANIFEST} is not of format {FORMAT})")
    entries.pop("sha256", None)
    if _render(entries) != content:
        raise _Unusable(f"is damaged ({MANIFEST} does not match its own SHA-256)")
    if not _is_complete(entries):
        raise _Unusable(f"is damaged ({MANIFEST} lacks an entry or has one of its own)")
    return entries


def _is_complete(entries: Mapping[str, Any]) -> bool:
    """Whether entries have the form of those of `_manifest`."""
    kinds = {"format": int, "step": int, "config": str}
    kinds |= {"versions": dict, "files": dict, "progress": dict}
    if entries.keys() != kinds.keys():
        return False
    if not all(isinstance(entries[name], kind) for name, kind in kinds.items()):
        return False
    return f"{FILES}.index" in entries["files"] and all(
        _FILE.fullmatch(name)
        and isinstance(expected, dict)
        and expected.keys() == {"bytes", "sha256"}
        and isinstance(expected["bytes"], int)
        and isinstance(expected["sha256"], str)
        and _SHA256.fullmatch(expected["sha256"])
        for name, expected in entries["files"].items()
    )


def _files_in(place: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file, by name."""
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(place.iterdir())
    }


def _sha256(file: Path) -> str:
    """Of a file as long as it is when it is opened, however long it is."""
    digest = hashlib.sha256()
    with untrusted.open_file(file) as opened:
        left = os.fstat(opened.fileno()).st_size
        while left > 0 and (chunk := opened.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
