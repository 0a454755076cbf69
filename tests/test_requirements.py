# SPDX-License-Identifier: Apache-2.0
"""What is installed: bounded on both sides, and pinned with hashes in the lock."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINNED = [
    Requirement(line.removesuffix("\\").strip())
    for line in LOCK.splitlines()
    if not line.startswith(" ")
]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def wanted():
    """Requirements of setup.cfg by extra; "" for those that are always installed."""
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


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_one_fitting_version_of_each(python):
    pinned = {}
    for requirement in PINNED:
        if applies(requirement.marker, python):
            name = canonicalize_name(requirement.name)
            assert name not in pinned
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            pinned[name] = pin.version
    groups = wanted()
    for requirement in [*groups[""], *groups["test"], *groups["fuzz"]]:
        if applies(requirement.marker, python):
            name = canonicalize_name(requirement.name)
            assert requirement.specifier.contains(pinned[name]), name
    assert "setuptools" in pinned  # with which the project itself is built
    assert "torch" not in pinned


def test_the_lock_has_hashes_and_names_no_place():
    entries = re.split(r"\n(?! )", LOCK.strip())
    assert len(entries) == len(PINNED) > 50
    hashed = re.compile(
        r"\S+==\S+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\\n|$))+"
    )
    for entry in entries:
        assert hashed.fullmatch(entry), entry[:100]
    assert "://" not in LOCK and "@" not in LOCK


def test_make_installs_what_is_locked():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes --requirement requirements.lock" in makefile
    assert "--no-deps --no-build-isolation --editable ." in makefile
