# SPDX-License-Identifier: Apache-2.0
"""What the figures of a benchmark depend on besides the code that is measured."""

import datetime
import importlib.metadata
import os
import time
from collections.abc import Mapping
from typing import Any

PACKAGES = ("tensorflow", "keras", "torch", "numpy")

BUSY = 0.5  # load average per core
SETTLING_SECONDS = 90  # in which that of `make benchmark`'s own set-up falls below it
# Threads that wait for each other at every operation then wait for other programs:
# PyTorch's eager loop, on two threads, was seen to fall to a hundredth of its speed.
WARNING = (
    "\nNOT TO BE TRUSTED: other programs were at work, which slows the peers unequally;"
    " measure again on a quiet machine"
)


def facts() -> dict[str, Any]:
    """Date, commit, processor, cores, load and versions; None: not installed."""
    load = _settled_load()  # before TensorFlow is loaded, which is load as well
    from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

    from training.environment import current_environment

    found = current_environment()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
        **{name: found[name] for name in ("commit", "processor", "cores", "onednn")},
        "load_average_before": load,
        "versions": {
            "python": found["python"],
            **{package: version(package) for package in PACKAGES},
        },
    }


def _settled_load() -> float:
    """The load average, once it is low, or after some time."""
    end = time.monotonic() + SETTLING_SECONDS
    limit = BUSY * (os.cpu_count() or 1)
    load = os.getloadavg()[0]
    if load > limit:
        print(f"waiting for the load average to fall below {limit:g} …", flush=True)
    while load > limit and time.monotonic() < end:
        time.sleep(1)
        load = os.getloadavg()[0]
    return load


def version(package: str) -> str | None:
    """The installed version of a package that is imported by this name, or None."""
    # One package has several distributions: tensorflow, tensorflow-cpu.
    names = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(names[0]) if names else None


def describe(facts: Mapping[str, Any]) -> str:
    """The facts in two lines, and a third if the machine was busy."""
    versions = ", ".join(f"{k} {v or 'missing'}" for k, v in facts["versions"].items())
    busy = facts["load_average_before"] > BUSY * facts["cores"]
    return (
        f"{facts['processor']}, {facts['cores']} cores, load average before"
        f" {facts['load_average_before']:.2f}, {facts['date']}\n"
        f"lenet-selu {facts['commit']}, {versions},"
        f" TF_ENABLE_ONEDNN_OPTS={facts['onednn']}" + (WARNING if busy else "")
    )
