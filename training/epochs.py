# SPDX-License-Identifier: Apache-2.0
"""More epochs for a run, or fewer, as if it had been begun with that number.

The batches of a step depend on the seed and the step alone, and so do all other draws.
Only the schedule of the learning rate may depend on when the run ends.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from system import console
from training import checkpoints, history, runs, schedules


def can_change(config: Any) -> bool:
    """Whether more epochs would leave the steps of a run so far as they were."""
    return config.schedule not in schedules.SMOOTH or config.schedule == "constant"


def check(run_dir: Path, run: Mapping[str, Any], config: Any) -> None:
    """Makes sure that a run can have as many epochs as a `config.Config` asks for.

    Says so if they are others than it has; `runs.open_run` records them.

    Args:
      run_dir: run directory.
      run: contents of run.json; its other settings are those of `config`.
      config: settings that the run is to have.

    Raises:
      RunError: it has been trained for longer, has stopped early, or its learning rates
        so far would have been others.
    """
    planned = runs.settings_of(run_dir, run, type(config)).epochs
    if config.epochs == planned:
        return
    step = max(checkpoints.steps(run_dir / checkpoints.FOLDER), default=0)
    rows = history.epochs(run_dir, step)
    done = math.ceil(step / rows[0]["step"]) if rows else 0
    if config.epochs < done:
        raise runs.RunError(
            f"{run_dir} has been trained for {done} epochs, which is more than"
            f" --epochs={config.epochs}: choose another --run_dir"
        )
    if rows and history.stopped_early(rows, config.early_stopping):
        raise runs.RunError(
            f"{run_dir} stopped early, after {len(rows)} of {planned} epochs, and"
            f" would have done so with --epochs={config.epochs}, too: to train a new"
            f" run from its weights, {_new_run(run_dir, config)}"
        )
    if step and not can_change(config):
        raise runs.RunError(
            f"{run_dir} has --schedule={config.schedule} over {planned} epochs, and its"
            f" learning rates so far would be others with --epochs={config.epochs}: to"
            f" train a new run from its weights, {_new_run(run_dir, config)}"
        )
    print(f"epochs: {config.epochs}; {run_dir} had {planned}")


def _new_run(run_dir: Path, config: Any) -> str:
    return console.command(
        "train.py",
        f"--flagfile={run_dir / runs.FLAGS}",
        f"--init_from={run_dir}",
        f"--epochs={config.epochs}",
        f"--run_dir={run_dir}-more",
    )
