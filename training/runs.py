# SPDX-License-Identifier: Apache-2.0
"""A run directory: what a run was asked to do, where it ran, how far it got.

flags.txt        every flag of the run, for --flagfile
run.json         settings of the run and what else its result depends on; `resumed`
                 lists the environments, other than the first, that it resumed in;
                 `begun_epochs`: its first number of epochs, if it was given another;
                 `init_sha256`, `teachers_sha256`: hashes of other runs, see `TAKEN`
fed.json         images of the first batch as the network was fed them
metrics.csv      one row per epoch; see training.history
checkpoints/     see training.checkpoints
train/ validation/ test/   TensorBoard events of the training
final/           those of the score, with the points of the projector
result.json      the score, once there is one
temperature.json a temperature for its probabilities, if one was fitted
predictions.npz  label and probabilities of every digit that was scored
report.html      all of it as a page
sweep.json       the flags it finished with, if a sweep trained it
.lock            of the process that trains it; meaningless once that has ended

None of these may be a link, a pipe or a device. A run directory may come by mail, and
must not make us write somewhere else, or read for ever.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.dataset import DIGITS, DataError, check_classes
from system import cli, console, errors, files, untrusted

# Format of run.json; raised only when its meaning changes, whatever cli.VERSION is.
# Runs of version 0.5.1 and earlier have none, which counts as 0. Up to 1, the bits of
# the dataset "digits" were those of one processor.
FORMAT = 2

_SHA256 = re.compile("[0-9a-f]{64}")
# Flags that name other runs, and the entries with the hashes of what was taken there.
TAKEN = {"init_from": "init_sha256", "teachers": "teachers_sha256"}
RUN, FLAGS, LOCK, SWEEP = "run.json", "flags.txt", ".lock", "sweep.json"

# Entry of run.json in a copy without what training needs: see evaluation.publish.
PUBLISHED = "published"

# What training and scoring leave behind besides checkpoints/.
TRACES = (
    *("metrics.csv", "train", "validation", "test", "final", "result.json"),
    *("fed.json", "predictions.npz", "corruptions.json", "temperature.json"),
    *("report.html", SWEEP),
)
CONTENTS = (LOCK, FLAGS, RUN, "checkpoints", *TRACES)


class RunError(errors.UserError):
    """A run directory that is missing, foreign or damaged."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees either the old one or the new one, whole.

    Args:
      path: file.
      content: bytes, or text to store as UTF-8.

    Raises:
      errors.UserError: the disk is full, the folder not writable, …
    """
    files.write(path, content, remedy="choose another --run_dir")


def check_contents(run_dir: Path) -> None:
    """Makes sure that a run directory holds nothing but files and folders.

    Raises:
      RunError: there is a link, a pipe, a socket or a device, or a folder that cannot
        be read.
    """
    try:
        link = files.find_link(run_dir, CONTENTS)
    except OSError as error:
        raise not_writable(run_dir, error) from None
    if link:
        path, what = link
        raise RunError(
            f"{path} is {what}, and a run directory must hold only files and folders of"
            " its own: replace it by a copy, or delete it"
        )


def not_writable(run_dir: Path, error: OSError) -> RunError:
    """Error to raise when a run directory cannot be written."""
    return RunError(
        f"cannot write the run directory {run_dir}: {error.strerror}; choose another"
        " --run_dir"
    )


def refuse_foreign(run_dir: Path) -> None:
    """Raises RunError if a directory has contents, but not those of a run."""
    try:
        if not run_dir.exists() or (run_dir / RUN).exists():
            return
        foreign = sorted(p.name for p in run_dir.iterdir() if p.name[0] != ".")
    except OSError as error:
        raise not_writable(run_dir, error) from None
    if foreign and foreign != [FLAGS]:
        raise RunError(
            f"{run_dir} holds {foreign[0]!r} but no run.json, so it is not a run of"
            " this program: choose another --run_dir, or empty it"
        )


def resume_command(run_dir: Path) -> str:
    """Shell command that resumes a run."""
    return console.command("train.py", f"--flagfile={run_dir / FLAGS}")


def score_command(run_dir: Path, data_dir: str | None) -> str:
    """The command that scores a run, quoted for the shell."""
    place = [f"--data_dir={data_dir}"] if data_dir else []
    return console.command("eval.py", f"--run_dir={run_dir}", *place)


def check_settings(run_dir: Path, config: Any) -> dict[str, Any] | None:
    """Makes sure that a directory holds no run, or one with the settings of a Config.

    The number of epochs may differ: `training.epochs` decides about that.

    Returns:
      Contents of run.json, if there is a run.

    Raises:
      RunError: it holds another run, or something that is not a run.
    """
    refuse_foreign(run_dir)
    if not (run_dir / RUN).exists():
        return None
    run = read_run(run_dir)
    if run.get(PUBLISHED):
        raise RunError(
            f"{run_dir} is a copy for scoring and reading, without what training needs:"
            f" choose another --run_dir; --init_from={run_dir} starts from its weights"
        )
    stored = settings_of(run_dir, run, type(config)).deciding()
    given = config.deciding()
    first = ("network", "dataset")  # they decide which other settings there are
    for name in [*first, *sorted(given.keys() - {*first, "epochs"})]:
        if stored[name] != given[name]:
            raise RunError(
                f"{run_dir} holds a run with --{name}={stored[name]}, not"
                f" {given[name]}: choose another --run_dir for this one, or resume that"
                f" one by {resume_command(run_dir)}"
            )
    return run


def settings_of(run_dir: Path, run: Mapping[str, Any], kind: Any) -> Any:
    """The settings of a run as a Config, which is `kind`.

    Raises:
      RunError: its run.json is damaged.
    """
    try:
        return kind.recorded(run["config"])
    except errors.UserError as error:
        raise RunError(f"{run_dir / RUN} is damaged, {error}: train again") from None


def open_run(
    run_dir: Path, config: Any, flags: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Creates a run, or makes sure that the run in a directory is this one.

    If it resumes in another environment, we warn that its last bits may differ, and
    add the environment to run.json. If it is to have another number of epochs, that is
    recorded in flags.txt and run.json.

    Args:
      run_dir: run directory; created if missing.
      config: settings of the run, a `config.Config`.
      flags: contents of flags.txt.
      facts: further entries of run.json; among them `environment`, and `data`, the
        hash of each data file.

    Returns:
      Contents of run.json.

    Raises:
      RunError: the directory holds a run with other settings or data, or something
        that is not a run, or cannot be created.
    """
    if run := check_settings(run_dir, config):
        check_data(run_dir, run, facts["data"])
        if settings_of(run_dir, run, type(config)).epochs != config.epochs:
            run = _give_epochs(run_dir, run, config.epochs, flags)
        if not (run_dir / FLAGS).exists():  # killed before it was written
            write_atomically(run_dir / FLAGS, flags)
        return _compare_environment(run_dir, run, facts["environment"])
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(run_dir, error) from None
    own = {"format": FORMAT, "version": cli.VERSION, "config": config.deciding()}
    run = _write_run(run_dir, {**own, **facts})
    write_atomically(run_dir / FLAGS, flags)
    return run


def _give_epochs(
    run_dir: Path, run: dict[str, Any], epochs: int, flags: str
) -> dict[str, Any]:
    """Records another number of epochs; a run that is killed meanwhile is sound.

    Until run.json has the new number, the run has the old one, and flags.txt, which
    already has the new one, would ask for it again.
    """
    try:
        (run_dir / SWEEP).unlink(missing_ok=True)  # the run is not what it finished
    except OSError as error:
        raise not_writable(run_dir, error) from None
    write_atomically(run_dir / FLAGS, flags)
    begun = {"begun_epochs": identity(run).get("epochs")}
    config = {**run["config"], "epochs": epochs}
    return _write_run(run_dir, {**run, "config": config, **begun})


def identity(run: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a run from all others: its checkpoints carry a hash of it.

    It is the settings that the run was begun with, and what is `taken` from others.
    """
    settings = dict(run.get("config", {}))
    if begun := run.get("begun_epochs"):
        settings["epochs"] = begun
    return settings | taken(run)


def taken(run: Mapping[str, Any]) -> dict[str, Any]:
    """Hashes of what a run took from others, of those flags of `TAKEN` that it had."""
    return {flag: run[entry] for flag, entry in TAKEN.items() if run.get(entry)}


def _write_run(run_dir: Path, run: dict[str, Any]) -> dict[str, Any]:
    write_atomically(run_dir / RUN, json.dumps(run, indent=1) + "\n")
    return run


def _compare_environment(
    run_dir: Path, run: dict[str, Any], now: Mapping[str, Any]
) -> dict[str, Any]:
    """Warns of, and records, an environment other than the last one."""
    resumed = run.get("resumed", [])
    # Before format 1, an environment had no version.
    before = {"version": run["version"], **(resumed or [run["environment"]])[-1]}
    changes = [
        f"{name} {before.get(name)}, now {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changes:
        console.warn(
            f"{run_dir} was last trained in another environment ({'; '.join(changes)}):"
            " from here on its last bits may differ"
        )
        run = _write_run(run_dir, {**run, "resumed": [*resumed, dict(now)]})
    return run


def classes_of(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes of a run; older runs have the ten digits."""
    return tuple(run.get("classes", DIGITS))


def check_data(
    run_dir: Path, run: Mapping[str, Any], hashes: Mapping[str, str]
) -> None:
    """Raises RunError if the run of a run.json was trained on other data files."""
    if run["data"] != dict(hashes) and not _has_digits_of_its_processor(run):
        raise RunError(
            f"{run_dir} was trained on other data files than those that were found:"
            " give that run's --data_dir, or choose another --run_dir"
        )


def _has_digits_of_its_processor(run: Mapping[str, Any]) -> bool:
    """Whether a run's hashes cannot be compared.

    Before format 2, the last bits of the dataset "digits" depended on the processor.
    """
    return run["config"]["dataset"] == "digits" and run.get("format", 0) < 2


def read_run(run_dir: Path) -> dict[str, Any]:
    """Contents of run.json, whichever version wrote it.

    Raises:
      RunError: there is no run, its format is newer than ours, or its run.json is
        damaged.
    """
    path = run_dir / RUN
    try:
        run = untrusted.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{run_dir} holds no run: {path.name} is missing; give the --run_dir of a"
            " training run"
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; train again") from None
    _check_format(path, run)
    return {**run, "version": str(run.get("version", "0.1.0"))}


def _check_format(path: Path, run: Any) -> None:
    """Raises RunError unless run.json is whole and of a format that we know."""
    number = run.get("format", 0) if isinstance(run, dict) else 0
    if type(number) is not int or number < 0:
        raise RunError(f"{path} is damaged, its format is not a number: train again")
    if number > FORMAT:
        version = console.one_line(str(run.get("version")))
        raise RunError(
            f"{path} is of format {number}, and this version, {cli.VERSION}, reads"
            f" formats up to {FORMAT}: use version {version}, which wrote it, or a"
            " later one"
        )
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict):
        raise RunError(f"{path} has no configuration in it: train again")
    if not isinstance(run.get("data"), dict):
        raise RunError(f"{path} does not name its data: train again")
    try:
        classes = run.get("classes", list(DIGITS))
        check_classes(classes if isinstance(classes, list) else [])
    except DataError as error:
        raise RunError(f"{path} is damaged: {error}; train again") from None
    for name in TAKEN.values():  # one hash, and a list of hashes
        found = run.get(name, [])
        hashes = found if isinstance(found, list) else [found]
        if not all(isinstance(h, str) and _SHA256.fullmatch(h) for h in hashes):
            raise RunError(f"{path} is damaged, {name!r} is wrong: train again")
    begun = run.get("begun_epochs", 1)
    if type(begun) is not int or begun < 1:
        raise RunError(f"{path} is damaged, 'begun_epochs' is wrong: train again")
    resumed = run.get("resumed", [])
    if not isinstance(resumed, list) or not all(
        isinstance(environment, dict)
        for environment in [run.get("environment"), *resumed]
    ):
        raise RunError(f"{path} does not say where it was trained: train again")
