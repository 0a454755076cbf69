# SPDX-License-Identifier: Apache-2.0
"""What the flags of a run leave to the machine: replicas, kernels and threads.

Whoever resumes a run elsewhere has no choice any more, for another one would train
other bits. So a run that was begun on two cores keeps its two replicas on one.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from native import compile, ops
from system import console, errors
from training import runs

CHOICES = ("replicas", "kernels", "threads")  # 0 and None leave them to the machine
_THREADS = ("intra_op_threads", "inter_op_threads")


class MachineError(errors.UserError):
    """A machine that cannot resume a run."""


def begun(run_dir: Path) -> dict[str, Any] | None:
    """run.json of the run that lies in a directory; None if there is none yet.

    Raises:
      RunError: it is damaged, or of a format that came later.
    """
    path = run_dir / runs.RUN
    if not os.path.exists(path):  # nor can be: `runs.lock` says why
        return None
    run = runs.read_run(run_dir)
    replicas, kernels, number = (run["config"].get(name) for name in CHOICES)
    counted = type(replicas) is int and replicas > 0 and type(number) is int
    if not counted or kernels not in (None, "native", "tensorflow"):
        raise runs.RunError(
            f"{path} is damaged, --replicas, --kernels or --threads is none there can"
            " be: train again"
        )
    return run


def start_kernels() -> None:
    """Starts to compile the kernels that the user asked for, while the data are read.

    Raises:
      MachineError: there is no compiler.
    """
    try:
        compile.start()
    except compile.NativeError as error:
        raise _no_kernels(str(error)) from None


def _no_kernels(reason: str) -> MachineError:
    return MachineError(
        f"--kernels=native cannot be had here ({reason}): train with"
        " --kernels=tensorflow"
    )


def settle(kernels: str | None, chosen: Mapping[str, Any]) -> str | None:
    """Waits for the compiler where it is wanted; prints if it fails.

    Args:
      kernels: of the run, as far as is known before that.
      chosen: what the machine chose.

    Returns:
      The kernels that can be had.

    Raises:
      MachineError: the compiler fails, and the user asked for its kernels.
    """
    if kernels != "native" or not (reason := ops.missing()):
        return kernels
    if "kernels" not in chosen:
        raise _no_kernels(reason)
    print(f"kernels: tensorflow ({reason})")
    return "tensorflow"


def threads(run: Mapping[str, Any]) -> int:
    """Threads that a run was begun with; 0 if its run.json does not say."""
    numbers = [run["environment"].get(name) for name in _THREADS]
    sound = all(type(number) is int and 0 < number < 1 << 16 for number in numbers)
    return numbers[0] * numbers[1] if sound else 0


def keep(
    config: Mapping[str, Any], options: Collection[str], run: Mapping[str, Any]
) -> dict[str, Any]:
    """The flags that are left to the machine, as a run was begun with.

    Args:
      config: flags.
      options: names of the network's own.
      run: its run.json.
    """
    names = [n for n in CHOICES if n != "kernels" or n in options]
    return {name: run["config"][name] for name in names if not config[name]}


def resume(run_dir: Path, kernels: str | None, kept: Mapping[str, Any]) -> None:
    """Prints what a resumed run keeps, and makes sure that it can.

    Args:
      run_dir: run directory.
      kernels: that the run has.
      kept: what the flags left to the machine, as the run was begun with.

    Raises:
      MachineError: the kernels cannot be had here.
    """
    if kept:
        choices = "; ".join(f"{name}: {value}" for name, value in kept.items())
        print(f"{choices}, as {run_dir} was begun")
    if kernels == "native" and (reason := ops.missing()):
        again = [f"--flagfile={run_dir / runs.FLAGS}", "--kernels=tensorflow"]
        again.append(f"--run_dir={run_dir}-tensorflow")
        raise MachineError(
            f"{run_dir} was begun with --kernels=native, which cannot be had here"
            f" ({reason}): resume it where there is a C++ compiler, or train it again"
            f" by {console.command('train.py', *again)}"
        )
