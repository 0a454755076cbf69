# SPDX-License-Identifier: Apache-2.0
"""The Makefile's recipes, run with a tiny lock and a tiny package index."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def wheel(index: Path, name: str, version: str, *metadata: str) -> str:
    """Adds a package with one module to an index; returns its line for a lock."""
    path = index / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        file.writestr(f"{info}/METADATA", "\n".join([*lines, *metadata, ""]))
        lines = ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"]
        file.writestr(f"{info}/WHEEL", "\n".join([*lines, ""]))
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version} --hash=sha256:{digest}\n"


def make(folder, *arguments, **environment):
    """Runs make in a folder, with this Python and only the folder's index."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "MAKE", "MFLAGS", "PYTHON"))
    }
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "index")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**clean, "PIP_CONFIG_FILE": os.devnull, **settings, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path):
    """Folder with our Makefile, and an index with newer versions than its lock."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    index = tmp_path / "index"
    index.mkdir()
    locked = [
        wheel(index, "measure", "1.0", "Provides-Extra: toml"),
        wheel(index, "plugin", "1.0", "Requires-Dist: measure[toml]>=1"),
    ]
    wheel(index, "measure", "2.0", "Provides-Extra: toml")
    (tmp_path / "requirements.lock").write_text("".join(locked), encoding="utf-8")
    return tmp_path


def versions(project):
    code = "import measure, plugin; print(measure.VERSION, plugin.VERSION)"
    python = project / ".venv/bin/python"
    return subprocess.check_output([python, "-c", code], text=True)


def test_a_lock_installs_the_same_when_newer_versions_exist(project):
    """Without --no-deps, pip up to 23.2 (Python 3.10 to 3.12) takes measure 2.0.

    Also, settings in a user's pip.conf do no harm, an interrupted set-up is made again,
    and a complete one is left alone.
    """
    lock, python = ".venv/requirements.lock", f"PYTHON={sys.executable}"
    (project / ".venv/bin").mkdir(parents=True)  # as left by an interrupted set-up
    (project / "pip.conf").write_text(
        f"[global]\nconstraint = {project}/constraints\n[install]\nuser = true\n"
        "require-hashes = true\n",
        encoding="utf-8",
    )
    (project / "constraints").write_text("measure==2.0\n", encoding="utf-8")
    done = make(project, lock, python, PIP_CONFIG_FILE=str(project / "pip.conf"))
    assert done.returncode == 0, done.stderr
    assert versions(project) == "1.0 1.0\n"
    assert "up to date" in make(project, lock, python).stdout
    assert "venv --clear" in make(project, "-n", lock, "PYTHON=python3.99").stdout
    (project / ".venv/unfinished").touch()
    assert "venv --clear" in make(project, "-n", lock, python).stdout
    (project / ".venv/unfinished").unlink()
    (project / ".venv/bin/python").unlink()
    assert "venv --clear" in make(project, "-n", lock, python).stdout


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "",
            "make: ./python not found; name a Python 3.10 to 3.13 with make PYTHON=…\n",
        ),
        ("exit 1", "make: ./python is not Python 3.10 to 3.13; name one that is with"),
        ('case "$2" in *ensurepip*) exit 1; esac', ": apt install python3-venv\n"),
    ],
    ids=["none", "old", "without ensurepip"],
)
def test_an_unsuitable_python_gives_one_line(project, script, says):
    if script:
        (project / "python").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (project / "python").chmod(0o755)
    done = make(project, ".venv/requirements.lock", "PYTHON=./python")
    assert done.returncode != 0 and not (project / ".venv").exists()
    (line,) = [line for line in done.stderr.splitlines(True) if "***" not in line]
    assert says in line


def test_each_target_has_its_environment_and_a_line_of_help():
    rules = dict(re.findall(r"^([a-z0-9-]+):(.*)", MAKEFILE, re.M))
    for name in ("train", "train-2workers", "tensorboard", "torture"):
        assert rules[name].split()[0] == ".venv/installed"
    for name in ("test", "lint", "fuzz"):
        assert rules[name].split()[0] == ".venv/developed"
    assert rules["demo"].split()[0] == ".venv/demo/installed"
    done = make(ROOT)
    assert done.returncode == 0
    shown = re.findall(r"^make ([a-z0-9-]+) +\S", done.stdout, re.M)
    assert shown == list(rules) and len(shown) == len(done.stdout.splitlines())
    assert all(len(line) <= 88 for line in done.stdout.splitlines())


def test_locks_are_installed_with_hashes_and_without_resolving():
    (line,) = re.findall(r"^INSTALL_LOCK := (.*)", MAKEFILE, re.M)
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:"} < set(line.split())
    assert MAKEFILE.count("$(INSTALL_LOCK) requirements") == 2
    assert "--no-deps --no-build-isolation --editable ." in MAKEFILE
    assert MAKEFILE.count("$(PIP) check\n") == 2
