# SPDX-License-Identifier: Apache-2.0
"""kill -9 and signals at chosen moments of the small run, which then resumes."""

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.torture import children, small
from tests.torture.table import Row

# Audit events of Python; we add os.fsync.
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
KILLED_SAVE = 2  # number, from 0, of the save that is killed at each of its moments

Report = Callable[[str, str | None], None]


class Event(NamedTuple):
    """An action of a run on one of its files.

    Attributes:
      name: the action, such as "os.rename".
      file: path of the file.
      seconds: time since the first event.
    """

    name: str
    file: str
    seconds: float


def watch_events(run_dir: Path, notify: Callable[[str, str], None]) -> None:
    """Calls `notify` before each action of this process on the files of a run."""
    begun = False

    def hook(event: str, arguments: tuple) -> None:
        nonlocal begun
        if event not in EVENTS:
            return
        file = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        inside = isinstance(file, str) and file.startswith(str(run_dir))
        begun = begun or inside
        # rmtree removes files by names relative to their folder.
        if inside or (begun and event in ("os.remove", "os.rmdir")):
            notify(event, file)

    fsync = os.fsync

    def watched_fsync(descriptor: int) -> None:
        notify("os.fsync", "")
        fsync(descriptor)

    setattr(os, "fsync", watched_fsync)
    sys.addaudithook(hook)


def killer(run_dir: Path, number: int) -> Callable[[], None]:
    """A function that makes a child kill itself before its event `number`."""

    def arm() -> None:
        left = number

        def count(*_: str) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        watch_events(run_dir, count)

    return arm


def timer(
    run_dir: Path, seconds: float, number: int = 0, kind: int = signal.SIGKILL
) -> Callable[[], None]:
    """A function that makes a child signal itself some time after event `number`."""

    def arm() -> None:
        left = number

        def start(*_: str) -> None:
            nonlocal left
            if left == 0:
                threading.Thread(target=strike, daemon=True).start()
            left -= 1

        watch_events(run_dir, start)

    def strike() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), kind)

    return arm


# Directory, digest and events of the run that `undisturbed` trained.
_trained: list[tuple[Path, str, list[Event]]] = []


def undisturbed(run_dir: Path) -> tuple[str, list[Event]]:
    """Makes a finished run of the small run; returns its digest and its events.

    It is trained once. Later calls copy it, in the groups of faults, too: they fork.
    """
    if not _trained:
        _trained.append((run_dir, *_train(run_dir)))
    first, digest, events = _trained[0]
    if run_dir != first:
        shutil.copytree(first, run_dir)
    return digest, events


def _train(run_dir: Path) -> tuple[str, list[Event]]:
    events: list[Event] = []

    def note(name: str, file: str) -> None:
        events.append(Event(name, file, time.perf_counter()))

    def value() -> Any:
        before = [[*event] for event in events]  # without those of `digest`
        return [small.digest(run_dir), before]

    ended = small.run(run_dir, before=lambda: watch_events(run_dir, note), then=value)
    assert ended.code == 0, ended.err
    start = ended.value[1][0][2]
    return ended.value[0], [
        Event(name, file, seconds - start) for name, file, seconds in ended.value[1]
    ]


def moments(
    run_dir: Path, events: list[Event], count: int, seed: int = 0
) -> list[tuple[str, Callable[[], None]]]:
    """Moments at which to kill a run: their names, functions that kill a child then.

    A third are events all over the run, a third fall into the writing of a checkpoint's
    files, a third are random times. Every event of one save is added, unless it has
    more than `count`.

    Args:
      run_dir: directory of the run to be killed.
      events: events of an undisturbed run.
      count: number of moments, approximately.
      seed: seed of the random times.
    """
    draw = random.Random(seed)
    starts = [
        number
        for number, event in enumerate(events)
        if event.name == "os.mkdir" and "unfinished" in event.file
    ]
    save = range(starts[KILLED_SAVE], starts[KILLED_SAVE + 1])
    chosen = list(save) if count >= len(save) else []
    chosen += [
        int(i * len(events) / (count // 3 or 1)) for i in range(max(count // 3, 1))
    ]
    named = [
        (f"before {events[n].name} {n} of {len(events)}", killer(run_dir, n))
        for n in sorted(set(chosen))
    ]
    rest = max(count - len(named), 2)
    for i in range(rest // 2):
        number, delay = starts[i % len(starts)], 0.03 * i / (rest // 2)
        named.append(
            (f"{delay * 1e3:.1f} ms into a save", timer(run_dir, delay, number))
        )
    for _ in range(rest - rest // 2):
        delay = draw.uniform(0, events[-1].seconds)
        named.append((f"after {delay:.2f} s", timer(run_dir, delay)))
    return named


def kill_and_resume(
    run_dir: Path, arm: Callable[[], None], expected: str, again: random.Random
) -> str | None:
    """Starts a run, kills it, perhaps again while it resumes, then lets it finish.

    Returns:
      What went wrong, if anything.
    """
    arms = [arm]
    while again.random() < 0.3 and len(arms) < 4:
        arms.append(timer(run_dir, again.uniform(0, 1.5)))
    for each in arms:
        ended = small.run(run_dir, before=each)
        if ended.code == 0:
            break  # it had already finished
        if ended.code != -signal.SIGKILL:
            return f"exit code {ended.code}: {ended.err[-300:]}"
    return resume(run_dir, expected)


def resume(run_dir: Path, expected: str) -> str | None:
    """Lets an interrupted run finish; returns what went wrong, if anything."""
    try:
        last = small.last_step(run_dir)
    except AssertionError as error:
        return f"a checkpoint is incomplete: {error}"
    ended = small.run(run_dir, then=lambda: small.digest(run_dir))
    if ended.code:
        return f"resuming: exit code {ended.code}: {ended.err[-300:]}"
    if small.resumed_at(ended) != max(last, 0):
        return f"resumed at {small.resumed_at(ended)}, with a checkpoint at {last}"
    if ended.value != expected:
        return "the final state differs"
    left = [p.name for p in run_dir.rglob(".*") if p.name != ".lock"]
    return f"left behind: {left}" if left else None


def kills(folder: Path, count: int, report: Report) -> Row:
    """kill -9 at `count` moments or more; each time the run resumes to its end."""
    expected, events = undisturbed(folder / "intact")
    row, again = Row("kill -9 while training, resumed"), random.Random(1)
    run_dir = folder / "killed"
    for name, arm in moments(run_dir, events, count):
        shutil.rmtree(run_dir, ignore_errors=True)
        wrong = kill_and_resume(run_dir, arm, expected, again)
        row.add(name, wrong)
        report(name, wrong)
    return row


def signals(folder: Path, count: int, report: Report) -> Row:
    """SIGTERM and Ctrl-C, `count` times each: the run saves and says how to resume."""
    expected, events = undisturbed(folder / "stopped-intact")
    row, draw = Row("SIGTERM, Ctrl-C while training, resumed"), random.Random(2)
    run_dir = folder / "stopped"
    for i in range(2 * count):
        kind = (signal.SIGTERM, signal.SIGINT)[i % 2]
        shutil.rmtree(run_dir, ignore_errors=True)
        # Not before event 20: until the first checkpoint, a signal ends Python at once.
        delay = draw.uniform(0.05, events[-1].seconds)
        ended = small.run(run_dir, before=timer(run_dir, delay, 20, kind))
        name = f"{kind.name} after {delay:.2f} s"
        wrong = _check_stop(ended, kind) or resume(run_dir, expected)
        row.add(name, wrong)
        report(name, wrong)
    return row


def _check_stop(ended: children.Ended, kind: int) -> str | None:
    if ended.code == 0:
        return None  # the signal came too late
    if ended.code != 128 + kind:
        return f"exit code {ended.code}: {ended.err[-300:]}"
    if "--flagfile=" not in ended.err.strip().splitlines()[-1]:
        return f"does not say how to resume: {ended.err[-300:]}"
    return None
