# SPDX-License-Identifier: Apache-2.0
"""A search's memory: Optuna's suggestions, and a SQLite file with all that has ended.

Suggestions are made in generations, and those of a generation are a function of the
search's seed and of the generations before it. Which trial ended first has no part in
it, so a search suggests the same on one machine, on many, and after it was killed.
"""

import contextlib
import errno
import fcntl
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from system import errors, files
from training import children, trials
from training.search_space import Parameter
from training.trials import Trial

NAME = "search"  # of the study in its file


class StudyError(errors.UserError):
    """A search that cannot begin or resume."""


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise StudyError(
            "a search needs Optuna, which is not installed: install the extra named"
            " search"
        ) from None
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna


class Study:
    """The trials of a search that have ended, and those that Optuna suggests next.

    Raises StudyError if Optuna is missing, or the file is damaged or another search's.

    Attributes:
      trials: those that have ended, by number.
    """

    def __init__(
        self,
        path: Path,
        terms: Mapping[str, Any],
        space: Sequence[Parameter],
        objective: str,
    ):
        """Opens the file, or creates it.

        Args:
          path: SQLite file.
          terms: all that the values of trials depend on, as JSON; a file with others
            is refused.
          space: settings to search.
          objective: what to search by, one of `trials.SIGNS`.
        """
        self._optuna = _optuna()
        self._path, self._terms, self._objective = path, terms, objective
        self._direction = "maximize" if trials.SIGNS[objective] > 0 else "minimize"
        self._distributions = {p.name: self._distribution(p) for p in space}
        self._space = space
        _check_file(path)
        with self._reporting():
            self._study = self._optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name=NAME,
                direction=self._direction,
                load_if_exists=True,
            )
            self._check_terms()
            self.trials = [
                trials.restored(t.number, t.user_attrs["trial"], t.intermediate_values)
                for t in self._study.get_trials(deepcopy=False)
            ]

    def _distribution(self, parameter: Parameter) -> Any:
        kinds = self._optuna.distributions
        if parameter.choices:
            return kinds.CategoricalDistribution(parameter.choices)
        ends = parameter.low, parameter.high
        if parameter.whole:
            return kinds.IntDistribution(*ends, log=parameter.log)
        return kinds.FloatDistribution(*ends, log=parameter.log)

    def _check_terms(self) -> None:
        stored = self._study.user_attrs.get("terms")
        if stored is None:
            self._study.set_user_attr("terms", dict(self._terms))
            return
        before, now = _flat(stored), _flat(self._terms)
        for name in [*now, *(before.keys() - now.keys())]:
            if before.get(name) != now.get(name):
                raise StudyError(
                    f"{self._path} was begun with {name} {before.get(name)}, and not"
                    f" {now.get(name)}: give the same to resume it, or choose another"
                    " --runs"
                )

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turns the errors of a full disk and so on into one line."""
        try:
            yield
        except self._optuna.exceptions.OptunaError as error:
            cause = error.__cause__ or error
            raise StudyError(
                f"cannot write {self._path} ({errors.reason(cause)}): free some space,"
                " or choose another --runs; the same command resumes"
            ) from None

    def ask(self, first: int, count: int, seed: int) -> list[dict[str, Any]]:
        """Drawn values of a generation: its trials are `count`, from number `first`.

        They are written before anyone trains them.
        """
        key = f"asked from {first}"
        with self._reporting():
            asked = self._study.user_attrs.get(key)
            if asked is None:
                asked = list(self._suggest(first, count, seed))
                self._study.set_user_attr(key, asked)
        return asked

    def _suggest(self, first: int, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """Asks a study in memory, which knows the earlier generations and nothing else.

        The generation's own trials are running there, so that TPE keeps them apart
        (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011; Watanabe,
        "Tree-Structured Parzen Estimator", 2023).
        """
        study = self._optuna.create_study(direction=self._direction)
        study.add_trials(self._study.get_trials(deepcopy=False)[:first])
        for number in range(first, first + count):
            own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            study.sampler = self._optuna.samplers.TPESampler(
                seed=own, multivariate=True, constant_liar=True
            )
            yield study.ask(self._distributions).params

    def tell(self, trial: Trial, drawn: Mapping[str, Any]) -> None:
        """Writes a trial that has ended, at once and whole; the next one by number."""
        assert trial.number == len(self.trials)
        states = self._optuna.trial.TrialState
        finished = trial.state == children.FINISHED
        # TPE takes those that diverged at once, pruned without a value, for the worst.
        ended = self._optuna.trial.create_trial(
            state=states.COMPLETE if finished else states.PRUNED,
            value=trial.value(self._objective) if finished else None,
            params=dict(drawn),
            distributions=self._distributions,
            intermediate_values=trial.curve,
            user_attrs={"trial": trials.stored(trial)},
        )
        with self._reporting():
            self._study.add_trial(ended)
        self.trials.append(trial)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other searches out of a folder, which is created if it is missing."""
    try:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, f"{folder} is a link: delete it")
        folder.mkdir(parents=True, exist_ok=True)
        lock = files.append(folder / ".lock")
    except OSError as error:
        raise StudyError(
            f"cannot write {folder}: {errors.reason(error)}; choose another --runs"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(
                f"another search is at work in {folder}: wait until it ends"
            ) from None
        yield


def refuse_leftovers(folder: Path, file: str) -> None:
    """Raises StudyError if there are runs, but the file that they belong to is gone."""
    runs = sorted(path.name for path in folder.glob("t*-s*"))
    if runs and not (folder / file).exists():
        raise StudyError(
            f"{folder} has {runs[0]}, but no {file}: put that back, or choose another"
            " --runs"
        )


def _flat(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Terms by name, each of the settings by its own."""
    rest = {k: v for k, v in terms.items() if k != "settings"}
    return {f"--{k}": v for k, v in (terms.get("settings", {}) | rest).items()}


def _check_file(path: Path) -> None:
    """Raises StudyError if there is a file that is not a whole SQLite database."""
    if "?" in str(path):
        raise StudyError(
            f"{path} has a '?' in it, which cuts the name of a database"
            " short: choose another --runs or name for the space"
        )
    if path.is_symlink():
        raise StudyError(f"{path} is a link: delete it")
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        raise StudyError(
            f"{path} is damaged ({verdict}): replace it by a good copy, or choose"
            " another --runs"
        )
