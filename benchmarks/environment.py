# SPDX-License-Identifier: Apache-2.0
"""What the figures of a benchmark depend on besides the code that is measured."""

import datetime
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

PACKAGES = ("tensorflow", "keras", "torch", "numpy")


def facts() -> dict[str, Any]:
    """Date, commit, processor, cores, load and versions; None: not installed."""
    load = os.getloadavg()[0]  # before TensorFlow is loaded, which is load as well
    from training import runs

    found = runs.environment()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
        **{name: found[name] for name in ("commit", "processor", "cores", "onednn")},
        "load_average_before": load,
        "versions": {
            "python": found["python"],
            **{package: _version(package) for package in PACKAGES},
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe(facts: Mapping[str, Any]) -> str:
    """The facts in two lines."""
    versions = ", ".join(f"{k} {v or 'missing'}" for k, v in facts["versions"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, load average before"
        f" {facts['load_average_before']:.2f}, {facts['date']}\n"
        f"lenet-selu {facts['commit']}, {versions},"
        f" TF_ENABLE_ONEDNN_OPTS={facts['onednn']}"
    )
