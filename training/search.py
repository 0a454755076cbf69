# SPDX-License-Identifier: Apache-2.0
"""Searches the settings of a flagfile by accuracy or loss on held-out digits.

    python -m training.search my.flags --space=my.space --jobs=2 -- --threads=1

The space has a line per setting, such as --learning_rate=log 1e-3..1e-2,
--rotation=5..20 or --batch_size=64,128,256. A trial is an ordinary run per seed,
runs/<space>/t007-s0, and its value the mean over the seeds. Optuna's TPE suggests the
settings; a run that is worse than the median of others after as many epochs is ended.
At the end there is a table of all trials, and runs/<space>/ has best.flags and
trials.json.

Runs are trained several at a time with --jobs=N, or by the workers of a Dask cluster
with --dask_scheduler=tcp://HOST:PORT. The best does not depend on which: trials are
suggested in generations (--generation), from the generations before, in the order of
their numbers; medians, too, are those of earlier generations. Only the last bits of
training depend on the processor and on --threads, so give that after --.

Everything that has ended is in runs/<space>/search.sqlite. The same command resumes,
also with more --trials; train.py resumes each run from its checkpoint.
"""

if __name__ == "__main__":  # first, since the other imports take a while
    from system import console

    console.start()

import contextlib
import json
import shlex
import signal
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

import config
from system import cli, console, errors, files, flagfiles
from system.settings import parse
from training import (
    children,
    engines,
    runs,
    search_space,
    study,
    sweep,
    sweep_plan,
    trials,
)
from training.children import Job, Outcome
from training.search_plan import Attempt, Plan
from training.sweep_plan import SweepError

FLAGS = flags.FLAGS

STUDY, BEST, RECORD = "search.sqlite", "best.flags", "trials.json"  # in its folder


def settings_of(arguments: Sequence[str]) -> config.Config:
    """The settings that train.py would take from these arguments.

    Raises UsageError if it would refuse them.
    """
    values = flags.FlagValues()
    config.define_flags(values)
    try:
        words = flagfiles.unset(flagfiles.expand(arguments), values)
    except flags.Error as error:
        raise errors.UsageError(str(error)) from None
    parse(words, values)
    return config.from_flags(values).resolved()


def search(plan: Plan, memory: study.Study, engine: engines.Engine) -> None:
    """Trains all trials that have not ended yet, generation by generation.

    Raises SweepError if a run failed, other than by diverging, or could not be started.
    """
    # disable=None: no bar unless standard error is a terminal.
    with tqdm(total=plan.trials, unit="trial", disable=None) as bar:
        bar.update(min(len(memory.trials), plan.trials))
        for first in range(0, plan.trials, plan.generation):
            drawn = memory.ask(first, plan.generation, plan.search_seed)
            numbers = range(first, min(first + plan.generation, plan.trials))
            attempts = [
                Attempt(plan, number, drawn[number - first])
                for number in numbers[max(0, len(memory.trials) - first) :]
            ]
            _train(attempts, memory.trials[:first], engine, bar)
            for attempt in attempts:
                memory.tell(attempt.ended(), attempt.drawn)


def _train(
    attempts: Sequence[Attempt],
    earlier: Sequence[trials.Trial],
    engine: engines.Engine,
    bar: tqdm,
) -> None:
    """Trains the trials of a generation; SweepError if a run failed."""
    owners = {run.name: attempt for attempt in attempts for run in attempt.runs}
    waiting: deque[Job] = deque()
    failures: list[str] = []

    def advance(attempt: Attempt) -> None:
        if job := attempt.job(earlier):
            waiting.append(job)
        else:
            bar.update()

    for attempt in attempts:
        advance(attempt)
    with contextlib.closing(engines.run(engine, waiting)) as ended:
        for job, outcome in ended:
            try:
                if outcome.state not in (children.PRUNED, children.DIVERGED):
                    sweep.check(job, outcome, bar)
                bar.write(f"{job.run.name}: {_describe(outcome)}")
                owners[job.run.name].outcomes.append(outcome)
                if not failures:
                    advance(owners[job.run.name])
            except SweepError as error:
                failures.append(str(error))
                waiting.clear()
    if failures:
        raise SweepError("; ".join(failures))


def _describe(outcome: Outcome) -> str:
    epochs = f"after {len(outcome.rows)} epochs"
    if outcome.state == children.DIVERGED:
        return f"diverged {epochs}"
    row = outcome.rows[-1]
    accuracy, loss = row["validation_accuracy"], row["validation_loss"]
    figures = f"validation accuracy {accuracy:.2%}, loss {loss:.4f}"
    return f"{figures}; {outcome.state} {epochs}"


def report(plan: Plan, ended: Sequence[trials.Trial], results: Path | None) -> None:
    """Prints the table; writes the best flagfile and the record of all trials.

    Raises StudyError if no trial was finished.
    """
    images = plan.base.validation_size
    print(trials.table(ended, plan.objective, len(plan.seeds), images))
    print(trials.uncertainty(len(plan.seeds), images))
    best = trials.best(ended, plan.objective)
    command = shlex.join(["python", "-m", "training.search", *sys.argv[1:]])
    record = {
        "command": command,
        **plan.description(),
        "best": best and best.number,
        "trials": trials.record(ended, plan.objective),
    }
    content = json.dumps(record, indent=1) + "\n"
    files.write(plan.folder / RECORD, content, remedy="choose another --runs")
    if results:
        copy = results / f"{plan.folder.name}.json"
        files.write(copy, content, remedy="choose another --results")
    if not best:
        raise study.StudyError(
            f"no trial of {len(ended)} was finished, so there is no best: the table"
            " above says why; try a space with lower learning rates"
        )
    path = plan.folder / BEST
    files.write(path, best_flags(plan, best, len(ended), command))
    print(f"best: trial {best.number}, {path}; to train it:")
    print(console.command("train.py", f"--flagfile={path}"))


def best_flags(plan: Plan, best: trials.Trial, count: int, command: str) -> str:
    """Flagfile of the best trial, with all settings that are not the defaults."""
    images = plan.base.validation_size
    figure = f"validation accuracy {trials.accuracy(best, len(plan.seeds), images)} %"
    lines = [
        f"# Trial {best.number}, the best of {count} by validation {plan.objective}:",
        f"# {figure}, loss {trials.loss(best)}.",
        f"# {trials.uncertainty(len(plan.seeds), images)}",
        "# The best of many looks better than it is: score it on other digits.",
        "# To train on those held out, too, add --validation_size=0.",
        f"# Searched by: {command}",
        *(f"# Space: {parameter.text}" for parameter in plan.space),
    ]
    settings = [f"--{name}={value}" for name, value in best.settings.items()]
    chosen = plan.settings_of([*plan.arguments, *settings])
    arguments = chosen.arguments()
    # Others are not among what decides a run, since data and weights have hashes.
    others = [n for n in ("data_dir", *runs.TAKEN) if getattr(chosen, n)]
    names = [*chosen.chosen(), *others]
    place = f"--run_dir=runs/{plan.folder.name}-best-s{{seed}}"
    own = [arguments[name] for name in names if name != "seed"]
    lines += [flagfiles.line(argument) for argument in (place, *own)]
    return "\n".join(lines) + "\n"


def define_flags() -> None:
    """Defines the search's flags; those of train.py follow after --."""
    cli.define_path("space", None, "File with the settings to search; see above.")
    number = flags.DEFINE_integer
    number("trials", 24, "Trials in all, also those of a search that is resumed.", 1)
    flags.DEFINE_string(
        "seeds", "0", "Seeds to train each trial with, such as 0-2 or 0,2,5."
    )
    flags.DEFINE_enum(
        "objective",
        "accuracy",
        list(trials.SIGNS),
        "What to search by, on the held-out digits. The loss is finer than the"
        " accuracy, which counts errors.",
    )
    number(
        "generation",
        4,
        "Trials that are suggested together, from those before. More of them keep more"
        " workers busy, but learn less from each other.",
        1,
    )
    number(
        "prune_after",
        2,
        "Epochs after which a run may be ended because it is worse than the median;"
        " 0: none is. It saves time, and may end what would have caught up.",
        0,
    )
    number("search_seed", 0, "Seed of the suggestions.", 0, 2**31 - 1)
    engines.define_flags()
    cli.define_path("runs", "runs", "Folder for the search's folder.")
    cli.define_path("results", None, "Folder for a copy of the record of all trials.")
    flags.register_validator("seeds", cli.validator(sweep_plan.parse_seeds))


def plan_from_flags(argv: Sequence[str]) -> Plan:
    """The search that a command line describes, checked before anything is trained.

    Raises UserError, in one line, if there is nothing to search, or by, or a trial
    could be refused by train.py.
    """
    extra = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    paths = argv[1 : len(argv) - len(extra)]
    if len(paths) != 1 or not FLAGS.space:
        example = ("flags/digits.flags", "--space=FILE", "--", "--validation_size=300")
        raise errors.UsageError(
            f"expected one flagfile and --space, for example,"
            f" {console.command('-m', 'training.search', *example)}"
        )
    space_path = Path(FLAGS.space)
    space = search_space.read(space_path, config.Config)
    sweep_plan.check_extra(extra)
    arguments = [f"--flagfile={paths[0]}", *extra]
    base = settings_of(arguments)
    if not base.validation_size:
        raise errors.UsageError(
            f"{paths[0]} holds out no digits to search by: add, for example,"
            " -- --validation_size=5000 to the command"
        )
    search_space.check(space_path, space, lambda own: settings_of([*arguments, *own]))
    return Plan(
        arguments,
        settings_of,
        base,
        space,
        Path(FLAGS.runs, space_path.stem),
        FLAGS.trials,
        FLAGS.generation,
        sweep_plan.parse_seeds(FLAGS.seeds),
        FLAGS.objective,
        FLAGS.prune_after,
        FLAGS.search_seed,
    )


def main(argv: list[str]) -> None:
    """Searches, then prints the table and writes the best flagfile."""
    plan = plan_from_flags(argv)
    results = Path(FLAGS.results) if FLAGS.results else None
    if results:
        files.check_writable(results, "results", is_folder=True)
        results.mkdir(parents=True, exist_ok=True)
    # SIGTERM is treated as Ctrl-C, so that it ends the runs too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with study.locked(plan.folder):
        study.refuse_leftovers(plan.folder, STUDY)
        place = plan.folder / STUDY
        memory = study.Study(place, plan.description(), plan.space, plan.objective)
        search(plan, memory, engines.from_flags())
        report(plan, memory.trials[: plan.trials], results)


if __name__ == "__main__":
    define_flags()
    cli.run(main, arguments=True)
