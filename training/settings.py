# SPDX-License-Identifier: Apache-2.0
"""The settings of a run, and what those of an older run stand for today.

A run is older if it was begun before some setting was added. It was trained as if that
setting had the value given here, so it is compared, named and resumed as if it had it:
a new setting makes no older run foreign. Whoever adds a setting adds its line here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Flags that cannot change the result; all others are part of a run's identity.
HOUSEKEEPING = (
    "augmented_dir",
    "checkpoint_epochs",
    "data_dir",
    "distribute",
    "log_steps",
    "profile_steps",
    "run_dir",
    "wait_seconds",
)

# Flags in which the workers of one run may differ.
LOCAL = ("augmented_dir", "data_dir", "run_dir", "wait_seconds")

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


class Settings(NamedTuple):
    """The settings of a run that is about to be trained.

    Attributes:
      values: all flags, by name.
      chosen: the values that the machine chose.
      flags_text: contents of flags.txt, which trains the same run again.
      run_dir: run directory.
      threads: CPU threads of this process.
    """

    values: dict[str, Any]
    chosen: dict[str, Any]
    flags_text: str
    run_dir: Path
    threads: int

    @property
    def config(self) -> dict[str, Any]:
        """The values that the result depends on."""
        return {k: v for k, v in self.values.items() if k not in HOUSEKEEPING}

    @property
    def shared(self) -> dict[str, Any]:
        """The values that all workers of a run must have in common, by flag."""
        return {f"--{k}": v for k, v in self.values.items() if k not in LOCAL}

    def with_kernels(self, kernels: str | None) -> "Settings":
        """The same settings with the kernels that can be had."""
        if kernels == self.values["kernels"]:
            return self
        before = f"\n--kernels={self.values['kernels']}\n"
        return self._replace(
            values={**self.values, "kernels": kernels},
            chosen={**self.chosen, "kernels": kernels},
            flags_text=self.flags_text.replace(before, f"\n--kernels={kernels}\n"),
        )
