# SPDX-License-Identifier: Apache-2.0
"""manifest.json of a checkpoint: proves that the checkpoint is complete.

It has the size and SHA-256 of each file, the step, a hash of the settings, versions,
and the training loop's progress. Its last entry is the SHA-256 of all the others. A
manifest is refused if it differs by a byte from what `make` would write.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from system import cli, untrusted

NAME = "manifest.json"
STATE = "state"  # prefix of the names of TensorFlow's files

FORMAT = 1
MAX_BYTES = 1 << 20

_STATE_FILE = re.compile(STATE + r"\.(index|data-\d{5}-of-\d{5})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TYPES = {
    **{"format": int, "step": int, "config": str},
    **{"versions": dict, "files": dict, "progress": dict},
}


class Unusable(Exception):
    """A checkpoint cannot be used; the message continues "Checkpoint X …"."""


def describe_files(place: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file in a folder, by name."""
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": untrusted.sha256(file)}
        for file in sorted(place.iterdir())
    }


def make(
    files: Mapping[str, Any], step: int, fingerprint: str, progress: Mapping[str, Any]
) -> bytes:
    """Contents of a manifest.

    `files` are as `describe_files` gives them, `fingerprint` is a hash of the settings,
    and `progress` is the loop's state besides variables, of JSON types.
    """
    versions = {"lenet-selu": cli.VERSION, "tensorflow": tf.__version__}
    return render(
        {
            "format": FORMAT,
            "step": step,
            "config": fingerprint,
            "versions": versions,
            "files": dict(files),
            "progress": dict(progress),
        }
    )


def render(entries: Mapping[str, Any]) -> bytes:
    """Bytes of a manifest as it is stored, with its own SHA-256 at the end."""
    own = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    return (json.dumps({**entries, "sha256": own}, indent=1) + "\n").encode()


def read(place: Path) -> dict[str, Any]:
    """Entries of a checkpoint's manifest, without its own hash.

    Raises Unusable if it is damaged, missing, too long, or of another format.
    """
    try:
        content = untrusted.read(place / NAME, MAX_BYTES)
        entries = untrusted.parse_json(content)
    except OSError as error:
        raise Unusable(f"is damaged ({NAME}: {error.strerror})") from None
    except ValueError as error:
        raise Unusable(f"is damaged ({NAME} is not JSON: {error})") from None
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise Unusable(f"is damaged ({NAME} is not of format {FORMAT})")
    entries.pop("sha256", None)
    if render(entries) != content:
        raise Unusable(f"is damaged ({NAME} does not match its own SHA-256)")
    if not _is_complete(entries):
        raise Unusable(f"is damaged ({NAME} lacks an entry or has an unknown one)")
    return entries


def _is_complete(entries: Mapping[str, Any]) -> bool:
    """Whether these are all the entries that `make` writes, with their types."""
    if entries.keys() != _TYPES.keys():
        return False
    if not all(isinstance(entries[name], type_) for name, type_ in _TYPES.items()):
        return False
    return f"{STATE}.index" in entries["files"] and all(
        _STATE_FILE.fullmatch(name)
        and isinstance(expected, dict)
        and expected.keys() == {"bytes", "sha256"}
        and isinstance(expected["bytes"], int)
        and isinstance(expected["sha256"], str)
        and _SHA256.fullmatch(expected["sha256"])
        for name, expected in entries["files"].items()
    )


def verify(place: Path, step: int, fingerprint: str) -> None:
    """Raises Unusable unless a checkpoint is complete and of this step and settings."""
    entries = read(place)
    if entries["step"] != step:
        raise Unusable(f"is damaged ({NAME} is of step {entries['step']})")
    if entries["config"] != fingerprint:
        raise Unusable("belongs to a run with other settings")
    for name, expected in entries["files"].items():
        file = place / name
        try:
            # The size first, so that we never read more than that.
            if not file.is_file() or file.stat().st_size != expected["bytes"]:
                what = f"is not {expected['bytes']:,} bytes long"
            elif untrusted.sha256(file) != expected["sha256"]:
                what = f"does not match the SHA-256 in {NAME}"
            else:
                continue
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        raise Unusable(f"is damaged ({name} {what})")
