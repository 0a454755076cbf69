# SPDX-License-Identifier: Apache-2.0
"""Which runs a sweep consists of, and which of them are finished."""

import collections
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from system import errors, flagfiles, untrusted

TRAIN = Path(__file__).resolve().parent.parent / "train.py"

RESULT = "result.json"
SCORED = (RESULT, "predictions.npz")  # files of a finished run
FINISHED = "sweep.json"  # in a run directory: the flags that it finished with
OWN_FLAGS = ("flagfile", "run_dir", "seed")  # a sweep gives these to train.py itself

MAX_SEEDS = 1000


class SweepError(errors.UserError):
    """A sweep that cannot start, or with a run that failed."""


class Run(NamedTuple):
    """A run of a sweep, such as "lenet-s0"; its arguments are train.py's."""

    name: str
    directory: Path
    arguments: list[str]

    @property
    def log(self) -> Path:
        """Log file, in a folder next to the run directories.

        Not in the run directory, which train.py creates itself, nor beside it, where
        the shell's runs/lenet-s* would match it.
        """
        return self.directory.with_name("logs") / f"{self.name}.log"

    @property
    def command(self) -> list[str]:
        """Command that starts or resumes the run."""
        return [sys.executable, str(TRAIN), *self.arguments]

    def flags(self) -> list[str]:
        """Arguments, with each flagfile replaced by its lines, or a SweepError."""
        try:
            return flagfiles.expand(self.arguments)
        except flags.Error as error:
            raise SweepError(
                f"{self.arguments[0]}: {error}; paths in a flagfile, too, are relative"
                " to the current folder"
            ) from None

    def settings(self) -> list[str]:
        """Flags without --run_dir, since a finished run may be moved."""
        return [flag for flag in self.flags() if not flag.startswith("--run_dir=")]


def parse_seeds(text: str) -> list[int]:
    """Parses seeds and ranges such as "0-4" or "0,2,5-7"; UserError if it is none."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part.strip(), re.ASCII)
        if not match:
            raise errors.UserError(
                f"{part!r} is neither a seed nor a range: expected, for example, 0-4 or"
                " 0,2,5"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < 2**31:
            raise errors.UserError(
                f"{part!r} is not a range of seeds: expected ascending numbers from 0"
                f" to {2**31 - 1}"
            )
        if len(seeds) + last - first >= MAX_SEEDS:
            raise errors.UserError(f"{text!r} has more than {MAX_SEEDS} seeds")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise errors.UserError(f"{text!r} has a seed twice")
    return seeds


def plan(
    paths: Sequence[Path],
    seeds: Iterable[int],
    folder: Path,
    extra: Sequence[str] = (),
) -> list[Run]:
    """Lists the runs of a sweep, in order: each flagfile of `paths` with each seed.

    Extra flags of train.py override those in the flagfiles. Raises SweepError if a
    flagfile cannot be read, or two would share their directories; UsageError if an
    extra flag is one that the sweep sets itself.
    """
    check_extra(extra)
    stems = collections.Counter(path.stem for path in paths)
    for stem, count in stems.items():
        if count > 1:
            raise SweepError(
                f"{count} flagfiles are named {stem}, and their runs would share"
                f" {folder / stem}-s0, …: sweep them one by one, each with its own"
                " --runs"
            )
    runs = []
    for path in paths:
        for seed in seeds:
            name = f"{path.stem}-s{seed}"
            own = [f"--seed={seed}", f"--run_dir={folder / name}"]
            runs.append(Run(name, folder / name, [f"--flagfile={path}", *extra, *own]))
            runs[-1].flags()  # refuses what cannot be read
    return runs


def check_extra(extra: Sequence[str]) -> None:
    """Raises UsageError if an extra flag is one that a sweep sets itself."""
    for argument in extra:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in OWN_FLAGS:
            raise errors.UsageError(
                f"a sweep sets --{name} itself: leave {argument!r} out after --"
            )


def is_finished(run: Run) -> bool:
    """Whether a sweep has finished the run, with the flags that it has now.

    If not, train.py decides: it trains, finds nothing left to do, or refuses flags that
    differ from the run's.
    """
    try:
        finished = untrusted.read_json(run.directory / FINISHED)
    except (OSError, ValueError):
        return False
    return finished == run.settings() and is_scored(run.directory)


def is_scored(directory: Path) -> bool:
    """Whether train.py has scored the run in a directory."""
    return all((directory / name).is_file() for name in SCORED)
