# SPDX-License-Identifier: Apache-2.0
"""Tests of training/manifest.py."""

import hashlib

import pytest
import tensorflow as tf

from system import cli
from training import manifest
from training.manifest import Unusable

SETTINGS = "a hash"


@pytest.fixture
def place(tmp_path):
    """Folder of a checkpoint of step 2 with one small file."""
    (tmp_path / "state.index").write_bytes(b"abc")
    files = manifest.describe_files(tmp_path)
    content = manifest.make(files, 2, SETTINGS, {"loss": 0.5})
    (tmp_path / manifest.NAME).write_bytes(content)
    return tmp_path


def test_a_manifest_has_its_entries(place):
    manifest.verify(place, 2, SETTINGS)
    entries = manifest.read(place)
    assert (entries["step"], entries["config"]) == (2, SETTINGS)
    assert entries["progress"] == {"loss": 0.5}
    versions = {"lenet-selu": cli.VERSION, "tensorflow": tf.__version__}
    assert entries["versions"] == versions
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert entries["files"] == {"state.index": {"bytes": 3, "sha256": sha256}}


@pytest.mark.parametrize(
    ("step", "settings", "message"),
    [(3, SETTINGS, "is of step 2"), (2, "another hash", "other settings")],
)
def test_another_step_or_other_settings_are_refused(place, step, settings, message):
    with pytest.raises(Unusable, match=message):
        manifest.verify(place, step, settings)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"step": "2"},
        {"files": {}},
        {"files": {"state.index": {"bytes": 1}}},
        {"files": {"../state.index": {"bytes": 0, "sha256": "0" * 64}}},
        {"progress": []},
        {"more": 1},
    ],
    ids=str,
)
def test_another_format_is_refused_even_with_its_own_hash(place, change):
    entries = manifest.read(place)
    (place / manifest.NAME).write_bytes(manifest.render(entries))
    manifest.verify(place, 2, SETTINGS)
    (place / manifest.NAME).write_bytes(manifest.render({**entries, **change}))
    with pytest.raises(Unusable, match="is damaged"):
        manifest.read(place)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[" * 100_000, "1" * 9999, '"' + "x" * (1 << 20) + '"'],
    ids=len,
)
def test_nonsense_is_refused(place, text):
    (place / manifest.NAME).write_text(text)
    with pytest.raises(Unusable, match="is damaged"):
        manifest.read(place)
