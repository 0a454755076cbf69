# SPDX-License-Identifier: Apache-2.0
"""What a search consists of: its plan, and a trial while it is trained."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from system import errors
from training import children, runs, trials
from training.children import Job, Outcome
from training.search_space import Parameter
from training.sweep_plan import Run, SweepError


@dataclasses.dataclass(frozen=True)
class Plan:
    """A search.

    Attributes:
      arguments: of train.py for all trials: the flagfile, and flags that override it.
      settings_of: makes a `config.Config` of arguments, or raises UsageError.
      base: settings of all trials.
      space: settings to search.
      folder: of its runs, named after the space.
      trials, generation, seeds, objective, prune_after, search_seed: see the flags.
    """

    arguments: list[str]
    settings_of: Callable[[Sequence[str]], Any]
    base: Any
    space: list[Parameter]
    folder: Path
    trials: int
    generation: int
    seeds: list[int]
    objective: str
    prune_after: int
    search_seed: int

    def description(self) -> dict[str, Any]:
        """All that the values of its trials depend on, as JSON."""
        settings = {k: v for k, v in self.base.chosen().items() if k != "seed"}
        for flag in runs.TAKEN:  # not among what decides a run, which has hashes
            if value := getattr(self.base, flag):
                settings[flag] = value
        return {
            "settings": settings,
            "space": [parameter.text for parameter in self.space],
            "seeds": self.seeds,
            "objective": self.objective,
            "generation": self.generation,
            "prune_after": self.prune_after,
            "search_seed": self.search_seed,
        }


class Attempt:
    """A trial in training: its seeds are trained one after another.

    A seed that is pruned or diverges ends it.
    """

    def __init__(self, plan: Plan, number: int, drawn: dict[str, Any]):
        self.number, self.drawn, self._plan = number, drawn, plan
        self.settings = {p.name: p.value(drawn[p.name]) for p in plan.space}
        own = [f"--{name}={value}" for name, value in self.settings.items()]
        try:
            self.config = plan.settings_of([*plan.arguments, *own])
        except errors.UsageError as error:
            raise SweepError(
                f"trial {number} cannot be trained: {error}; narrow the space, and"
                " choose another --runs"
            ) from None
        self.runs = []
        for seed in plan.seeds:
            name = f"t{number:03}-s{seed}"
            place = [f"--seed={seed}", f"--run_dir={plan.folder / name}"]
            arguments = [*plan.arguments, *own, *place]
            self.runs.append(Run(name, plan.folder / name, arguments))
        self.outcomes: list[Outcome] = []

    def job(self, earlier: Sequence[trials.Trial]) -> Job | None:
        """The next run to train, or None if the trial has ended.

        A run that has ended already, for a search that was killed, is not trained
        again. `earlier` has the trials of earlier generations.
        """
        plan = self._plan
        while len(self.outcomes) < len(self.runs):
            if self.outcomes and self.outcomes[-1].state != children.FINISHED:
                break
            place = len(self.outcomes)
            limits = self.config.epochs, plan.prune_after, plan.objective
            rule = trials.rule(earlier, place, *limits)
            job = children.job(self.runs[place], rule)
            outcome = children.ended(job)
            if not outcome:
                return job
            self.outcomes.append(outcome)
        return None

    def ended(self) -> trials.Trial:
        """The trial, once it has ended."""
        return trials.trial(
            self.number,
            self.settings,
            self._plan.seeds,
            self.outcomes,
            self.config,
            self._plan.objective,
        )
