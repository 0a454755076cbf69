# SPDX-License-Identifier: Apache-2.0
"""What the settings of an older run stand for today.

A run is older if it was begun before some setting was added. It was trained as if that
setting had the value given here, so it is compared, named and resumed as if it had it:
a new setting makes no older run foreign. Whoever adds a setting adds its line here.
"""

from collections.abc import Mapping
from typing import Any

# Added by version 0.5.0. Checkpoints of earlier versions have no manifest, which is why
# these runs can be compared but not scored again.
_SINCE_0_5_0: dict[str, Any] = {
    "deform": None,
    "deform_seed": None,
    "deterministic": False,
    "kernels": None,
    "memory_mb": 0,
    "multiply": None,
    "sync_batch_norm": None,
}
# Added since version 0.5.1.
ADDED: dict[str, Any] = {}


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, with those that it was begun too early to have."""
    return {**_SINCE_0_5_0, **ADDED, **config}


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that tell a run from others, whichever version looks at it.

    A setting that was added later is among them only if it changes something.
    """
    return {
        name: value
        for name, value in config.items()
        if name not in ADDED or value != ADDED[name]
    }
