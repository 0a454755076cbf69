# SPDX-License-Identifier: Apache-2.0
"""What a benchmark's figures depend on besides our code: the machine and versions."""

import datetime
import importlib.metadata
import os
import time
from collections.abc import Mapping
from typing import Any

PACKAGES = ("tensorflow", "keras", "torch", "jax", "numpy")

BUSY_LOAD_PER_CORE = 0.5
SETTLING_SECONDS = 90  # enough for the load of `make benchmark`'s set-up to fall
# Threads that wait for each other at every operation then wait for other programs, too:
# we have seen PyTorch's eager loop on two threads fall to a hundredth of its speed.
WARNING = (
    "\nNOT TO BE TRUSTED: other programs were running, which slows the peers unequally;"
    " measure again on a quiet machine"
)


def facts() -> dict[str, Any]:
    """Date, commit, processor, cores, load and versions; None: not installed."""
    load = _settled_load()  # before we load TensorFlow, which is load as well
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
    """Load average, after waiting for it to fall."""
    end = time.monotonic() + SETTLING_SECONDS
    limit = BUSY_LOAD_PER_CORE * (os.cpu_count() or 1)
    load = os.getloadavg()[0]
    if load > limit:
        print(f"waiting for the load average to fall below {limit:g} …", flush=True)
    while load > limit and time.monotonic() < end:
        time.sleep(1)
        load = os.getloadavg()[0]
    return load


def version(package: str) -> str | None:
    """Installed version of a package with this import name; None if not installed."""
    # The import name tensorflow may belong to tensorflow or tensorflow-cpu.
    names = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(names[0]) if names else None


def describe(facts: Mapping[str, Any]) -> str:
    """The facts in two lines; a third one warns if the machine was busy."""
    versions = ", ".join(f"{k} {v or 'missing'}" for k, v in facts["versions"].items())
    busy = facts["load_average_before"] > BUSY_LOAD_PER_CORE * facts["cores"]
    return (
        f"{facts['processor']}, {facts['cores']} cores, load average before"
        f" {facts['load_average_before']:.2f}, {facts['date']}\n"
        f"lenet-selu {facts['commit']}, {versions},"
        f" TF_ENABLE_ONEDNN_OPTS={facts['onednn']}" + (WARNING if busy else "")
    )
