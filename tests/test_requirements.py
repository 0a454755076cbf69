# SPDX-License-Identifier: Apache-2.0
"""Requirements have bounds on both sides, and two locks pin them with hashes."""

import ast
import configparser
import os
import re
import subprocess
import sys

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import ROOT

LOCKS = {  # the extras that each adds to what is always installed
    "requirements.lock": [],
    "requirements-dev.lock": ["test", "fuzz"],
}
SOURCES = (
    *("augment", "data", "evaluation", "models", "native", "photos"),
    *("pretrained", "system", "training"),
)
# Packages whose import name differs.
PACKAGES = {
    **{"PIL": "pillow", "absl": "absl-py", "cv2": "opencv-python-headless"},
    **{"google": "protobuf", "sklearn": "scikit-learn"},
}
# Extras.
OPTIONAL = {
    *("distributed", "gradio", "onnxruntime", "optuna", "pillow_heif", "tf2onnx")
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def wanted():
    """Requirements in setup.cfg by extra; "" for those always installed."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = {"": config["options"]["install_requires"]}
    texts |= config["options.extras_require"]
    return {
        extra: [Requirement(line) for line in text.strip().splitlines()]
        for extra, text in texts.items()
    }


ALL = sorted((r for some in wanted().values() for r in some), key=str)


@pytest.mark.parametrize("requirement", ALL, ids=lambda requirement: requirement.name)
def test_a_range_has_two_ends(requirement):
    operators = sorted(specifier.operator for specifier in requirement.specifier)
    assert operators == ["<", ">="]


def applies(marker: Marker | None, python: str) -> bool:
    environment = {
        **{"python_version": python, "python_full_version": f"{python}.5"},
        **{"sys_platform": "linux", "platform_machine": "x86_64"},
        **{"platform_python_implementation": "CPython"},
    }
    return marker is None or marker.evaluate(environment)


def pinned(lock: str, python: str) -> dict[str, str]:
    """Version of each package that a lock installs on Linux for a Python version."""
    pins: dict[str, str] = {}
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        requirement = Requirement(line.removesuffix("\\").strip())
        if applies(requirement.marker, python):
            (pin,) = requirement.specifier
            name = canonicalize_name(requirement.name)
            assert pin.operator == "==" and name not in pins
            pins[name] = pin.version
    return pins


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_one_version_in_range_of_each_package(lock, python):
    pins = pinned(lock, python)
    groups = wanted()
    for requirement in [r for extra in ["", *LOCKS[lock]] for r in groups[extra]]:
        if applies(requirement.marker, python):
            name = canonicalize_name(requirement.name)
            assert requirement.specifier.contains(pins[name]), name
    assert "setuptools" in pins  # which builds the project


@pytest.mark.parametrize("python", PYTHONS)
def test_the_development_lock_only_adds_packages(python):
    running, developing = (pinned(lock, python) for lock in LOCKS)
    assert running.items() < developing.items()
    assert {"pytest", "mypy", "coverage"} <= developing.keys() - running.keys()
    assert "torch" not in developing


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_no_index(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?! )", text.strip())
    assert len(entries) > 50
    hashed = re.compile(
        r"\S+==\S+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\\n|$))+"
    )
    for entry in entries:
        assert hashed.fullmatch(entry), entry[:100]
    assert "://" not in text and "@" not in text


def test_imports_are_required_and_nothing_else():
    """The programs import exactly the required packages."""
    required = {canonicalize_name(requirement.name) for requirement in wanted()[""]}
    own = {path.stem for path in ROOT.glob("*.py")} | set(SOURCES)
    imported = set()
    for path in [p for s in (".", *SOURCES) for p in (ROOT / s).glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    imported -= own | sys.stdlib_module_names | OPTIONAL
    packages = {canonicalize_name(PACKAGES.get(name, name)) for name in imported}
    # These two come with TensorFlow, in the versions that it needs.
    assert packages - required <= {"requests", "protobuf"}
    assert required - packages <= {"tensorflow-cpu"}


def test_setup_cfg_names_all_sources():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    modules = {path.stem for path in ROOT.glob("*.py")}
    tools = {"benchmarks", "tests"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - tools
    assert set(config["options"]["py_modules"].split()) == modules
    assert set(config["options"]["packages"].split()) == packages
    for section, option in [
        ("isort", "known_first_party"),
        ("mypy", "files"),
        ("coverage:run", "source"),
    ]:
        names = config[section][option].split(",")
        named = {name.strip().removesuffix(".py") for name in names}
        assert modules | packages <= named, section


COMMAND = re.compile(r"^\.venv/bin/python -m pip install .*'\.\[(\w+)\]'.*$", re.M)


def test_the_command_of_each_extra_works(tmp_path):
    """Runs the commands in BUILD.md, without download or installation."""
    found = list(COMMAND.finditer((ROOT / "BUILD.md").read_text(encoding="utf-8")))
    assert sorted(command[1] for command in found) == sorted(wanted().keys() - {""})
    for path in [*ROOT.glob("*.py"), *map(ROOT.joinpath, SOURCES)]:
        (tmp_path / path.name).symlink_to(path)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    settings = {"PIP_DRY_RUN": "1", "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    running = [
        subprocess.Popen(
            ["bash", "-c", command[0]],
            cwd=tmp_path,
            env={**os.environ, "PIP_CONFIG_FILE": os.devnull, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in found
    ]
    for process, command in zip(running, found):
        said = process.communicate()[0]
        assert process.returncode == 0, said
        assert "Would install lenet-selu" in said, said
        # pip only warns about it
        assert "does not provide the extra" not in said, command[0]
