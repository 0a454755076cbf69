# SPDX-License-Identifier: Apache-2.0
"""What the flags of a run leave to the machine: replicas, kernels and threads.

A run that is resumed elsewhere keeps what was chosen first, since another choice would
train other bits: a run that was begun on two cores keeps its two replicas on one.
"""

import dataclasses
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import models
from native import compile, ops
from system import console, device, errors, flagfiles
from training import cluster, replicas, runs

CHOICES = ("replicas", "kernels", "threads")  # 0 and None leave them to the machine
_THREADS = ("intra_op_threads", "inter_op_threads")


class MachineError(errors.UserError):
    """A machine that cannot resume a run."""


def start_kernels() -> None:
    """Starts compiling the kernels that the user asked for, while we read the data.

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
    """Waits for the compiler, if the run needs it; prints a line if it fails.

    Args:
      kernels: kernels that the run is to use.
      chosen: settings that the machine chose.

    Returns:
      The kernels that the run can use.

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
    """Number of threads that a run was begun with; 0 if its run.json lacks it."""
    numbers = [run["environment"].get(name) for name in _THREADS]
    sound = all(type(number) is int and 0 < number < 1 << 16 for number in numbers)
    return numbers[0] * numbers[1] if sound else 0


def keep(config: Any, begun: Any) -> dict[str, Any]:
    """The choices of a run for those settings that the flags leave to the machine.

    Args:
      config: settings from the flags, a `config.Config`.
      begun: settings of the run, a `config.Config`.
    """
    options = models.options(config.network, vars(config))
    names = [name for name in CHOICES if name != "kernels" or name in options]
    return {name: getattr(begun, name) for name in names if not getattr(config, name)}


def resume(run_dir: Path, kernels: str | None, kept: Mapping[str, Any]) -> None:
    """Prints the choices that a resumed run keeps, and checks that its kernels work.

    Args:
      run_dir: run directory.
      kernels: kernels of the run.
      kept: result of `keep`.

    Raises:
      MachineError: the kernels do not work on this machine.
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


class Resolved(NamedTuple):
    """The settings of a run that is about to be trained.

    Attributes:
      config: the settings, a `config.Config` without open choices.
      chosen: settings that the machine chose, by name.
      flags_text: contents of flags.txt, which trains the same run again.
      threads: CPU threads of this process.
    """

    config: Any
    chosen: dict[str, Any]
    flags_text: str
    threads: int

    def with_kernels(self, kernels: str | None) -> "Resolved":
        """The same settings with these kernels."""
        if kernels == self.config.kernels:
            return self
        before = f"\n--kernels={self.config.kernels}\n"
        return self._replace(
            config=dataclasses.replace(self.config, kernels=kernels),
            chosen={**self.chosen, "kernels": kernels},
            flags_text=self.flags_text.replace(before, f"\n--kernels={kernels}\n"),
        )


def resolve(config: Any, place: cluster.Place) -> Resolved:
    """Fills in what the flags leave to the machine, the network and the update rule.

    A run that was begun keeps what was chosen for it.

    Args:
      config: the run's `config.Config`.
      place: place of this process among the workers.

    Raises:
      UserError: the flags name no run that can be trained here.
    """
    config = dataclasses.replace(config, run_dir=str(_run_dir(config)))
    left_open = [name for name in CHOICES if not getattr(config, name)]
    earlier = 0
    directory = Path(config.run_dir)
    if os.path.exists(directory / runs.RUN):  # if it cannot be: `locks.lock` says why
        run = runs.read_run(directory)
        begun = runs.settings_of(directory, run, type(config))
        if not begun.replicas:
            path = directory / runs.RUN
            raise runs.RunError(f"{path} is damaged, 'replicas' is 0: train again")
        config = dataclasses.replace(config, **keep(config, begun))
        earlier = threads(run)
    else:
        config = dataclasses.replace(config, **choose(config, place))
    # Written out, so that another version's defaults cannot change their meaning.
    config = config.resolved()
    cluster.check(config, place)
    count = config.threads or earlier or place.cores()
    lines = {k: flagfiles.line(text) for k, text in config.arguments().items()}
    del lines["run_dir"]  # the directory that flags.txt lies in
    in_force = {**vars(config), "threads": count}
    chosen = {name: in_force[name] for name in left_open if in_force[name]}
    return Resolved(config, chosen, flags_text(lines, left_open), count)


def set_threads(resolved: Resolved, place: cluster.Place) -> None:
    """Sets TensorFlow's threads; warns if a script has used TensorFlow before."""
    replicas = resolved.config.replicas // place.workers
    if not device.set_threads(resolved.threads, replicas):
        console.warn(
            "TensorFlow has been used in this process with other numbers of threads, so"
            " the last bits of the weights may differ from the command line's: for the"
            " same bits, train in a process of its own"
        )


def flags_text(lines: Mapping[str, str], chosen: Sequence[str]) -> str:
    """Contents of flags.txt. --run_dir is not in it, since the folder may be moved.

    Args:
      lines: each flag as an argument, "" if it is not set, by name.
      chosen: names of the flags whose values the machine chose.
    """
    by_user = [line for name, line in lines.items() if line and name not in chosen]
    by_machine = [lines[name] for name in chosen if lines[name]]
    return "\n".join(
        [
            "# train.py --flagfile=…/flags.txt resumes the run in this folder,",
            "# wherever it is. Add a --run_dir after that to train it again there.",
            *by_user,
            *(["# Chosen by the machine:", *by_machine] if by_machine else []),
            "",
        ]
    )


def choose(config: Any, place: cluster.Place = cluster.Place()) -> dict[str, Any]:
    """Chooses what the flags leave to the machine, replicas and kernels; prints it."""
    count = replicas.choose(config, place.cores(), place.workers)
    chosen: dict[str, Any] = {"replicas": count}
    workers = f" on {place.workers} workers" if place.workers > 1 else ""
    print(f"replicas: {count}{workers}")
    if "kernels" in models.options(config.network, vars(config)):
        reason = "as asked for" if config.kernels else ops.unsuited()
        if config.kernels == "native":
            start_kernels()
        chosen["kernels"] = config.kernels or ("tensorflow" if reason else "native")
        if chosen["kernels"] == "native" and config.sync_batch_norm:
            reason = "batch norm: tensorflow, which can be synchronised"
        print(f"kernels: {chosen['kernels']}" + (f" ({reason})" if reason else ""))
    return chosen


def _run_dir(config: Any) -> Path:
    # What the machine chooses is not part of a name: elsewhere it would be another run.
    given, named = vars(config), vars(config.resolved())
    named = {k: v for k, v in named.items() if given[k] or k not in CHOICES}
    try:
        # Not format(), which {seed:>9999999999} and {seed.real} mean something to.
        path = ""
        for text, name, spec, kind in string.Formatter().parse(config.run_dir):
            if spec or kind:
                raise ValueError(spec)
            path += text + ("" if name is None else str(named[name]))
        return Path(path)
    except (KeyError, ValueError):
        raise errors.UserError(
            f"--run_dir={config.run_dir}: braces may hold the name of a flag only, such"
            " as {seed}; --replicas, --kernels and --threads only if they are set"
        ) from None
