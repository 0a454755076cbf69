# SPDX-License-Identifier: Apache-2.0
"""kill -9 and signals, at chosen moments of the small run, and what became of it."""

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

# What Python itself reports as it does it; fsync is added.
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
SAVED = 2  # the save every moment of which is tried, counted from 0

Report = Callable[[str, str | None], None]


class Event(NamedTuple):
    """Something that a run does to its files.

    Attributes:
      name: such as "os.rename".
      what: the file.
      seconds: since the first.
    """

    name: str
    what: str
    seconds: float


def watch_events(run_dir: Path, tell: Callable[[str, str], None]) -> None:
    """Calls `tell` before whatever this process does to the files of a run."""
    begun = False

    def hook(event: str, arguments: tuple) -> None:
        nonlocal begun
        if event not in EVENTS:
            return
        what = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        inside = isinstance(what, str) and what.startswith(str(run_dir))
        begun = begun or inside
        # A tree is removed by names relative to it.
        if inside or (begun and event in ("os.remove", "os.rmdir")):
            tell(event, what)

    fsync = os.fsync

    def told_fsync(descriptor: int) -> None:
        tell("os.fsync", "")
        fsync(descriptor)

    setattr(os, "fsync", told_fsync)
    sys.addaudithook(hook)


def killer(run_dir: Path, number: int) -> Callable[[], None]:
    """Makes a child kill itself before its event of that number."""

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
    """Makes a child send itself a signal so long after its event of that number."""

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


def undisturbed(run_dir: Path) -> tuple[str, list[Event]]:
    """The small run as it should be: its digest, and all it did to its files."""
    events: list[Event] = []

    def note(name: str, what: str) -> None:
        events.append(Event(name, what, time.perf_counter()))

    def value() -> Any:
        did = [[*event] for event in events]  # and not what `digest` does
        return [small.digest(run_dir), did]

    ended = small.run(run_dir, before=lambda: watch_events(run_dir, note), then=value)
    assert ended.code == 0, ended.err
    start = ended.value[1][0][2]
    return ended.value[0], [
        Event(name, what, at - start) for name, what, at in ended.value[1]
    ]


def moments(
    run_dir: Path, events: list[Event], count: int, seed: int = 0
) -> list[tuple[str, Callable[[], None]]]:
    """Spread over the run: what each is called, and what makes a child die then.

    Args:
      run_dir: of the run that is to die.
      events: of an undisturbed one.
      count: how many; a third at events all over the run, a third of the rest within
        the writing of a checkpoint's files, a third at any time; besides, there is one
        at every event of one save, unless `count` is less than there are of these.
    """
    draw = random.Random(seed)
    starts = [
        number
        for number, event in enumerate(events)
        if event.name == "os.mkdir" and "unfinished" in event.what
    ]
    save = range(starts[SAVED], starts[SAVED + 1])
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


def kill_and_go_on(
    run_dir: Path, arm: Callable[[], None], expected: str, again: random.Random
) -> str | None:
    """Begins a run, kills it, perhaps kills it again as it goes on; lets it end.

    Returns:
      What was wrong, if anything.
    """
    deaths, arms = 0, [arm]
    while again.random() < 0.3 and len(arms) < 4:
        arms.append(timer(run_dir, again.uniform(0, 1.5)))
    for each in arms:
        ended = small.run(run_dir, before=each)
        if ended.code == 0:
            break  # it was at its end already
        if ended.code != -signal.SIGKILL:
            return f"exit code {ended.code}: {ended.err[-300:]}"
        deaths += 1
    return go_on(run_dir, expected)


def go_on(run_dir: Path, expected: str) -> str | None:
    """Lets an interrupted run come to its end; returns what was wrong, if anything."""
    try:
        last = small.last_step(run_dir)
    except AssertionError as error:
        return f"a checkpoint is visible that is not whole: {error}"
    ended = small.run(run_dir, then=lambda: small.digest(run_dir))
    if ended.code:
        return f"going on: exit code {ended.code}: {ended.err[-300:]}"
    if small.resumed_at(ended) != max(last, 0):
        return f"went on from {small.resumed_at(ended)}, with a checkpoint at {last}"
    if ended.value != expected:
        return "the final state is another"
    left = [p.name for p in run_dir.rglob(".*") if p.name != ".lock"]
    return f"debris: {left}" if left else None


def kills(folder: Path, count: int, report: Report) -> Row:
    """kill -9 at `count` moments or more, each followed by going on to the end."""
    expected, events = undisturbed(folder / "whole")
    row, again = Row("kill -9 while training, resumed"), random.Random(1)
    run_dir = folder / "killed"
    for name, arm in moments(run_dir, events, count):
        shutil.rmtree(run_dir, ignore_errors=True)
        wrong = kill_and_go_on(run_dir, arm, expected, again)
        row.add(name, wrong)
        report(name, wrong)
    return row


def signals(folder: Path, count: int, report: Report) -> Row:
    """SIGTERM and Ctrl-C at `count` moments each: saved, told how to go on."""
    expected, events = undisturbed(folder / "asked-whole")
    row, draw = Row("SIGTERM, Ctrl-C while training, resumed"), random.Random(2)
    run_dir = folder / "asked"
    for i in range(2 * count):
        kind = (signal.SIGTERM, signal.SIGINT)[i % 2]
        shutil.rmtree(run_dir, ignore_errors=True)
        # Up to the first checkpoint Python is not yet asked to wait.
        delay = draw.uniform(0.05, events[-1].seconds)
        ended = small.run(run_dir, before=timer(run_dir, delay, 20, kind))
        name = f"{kind.name} after {delay:.2f} s"
        wrong = _asked(ended, kind) or go_on(run_dir, expected)
        row.add(name, wrong)
        report(name, wrong)
    return row


def _asked(ended: children.Ended, kind: int) -> str | None:
    if ended.code == 0:
        return None  # the signal came too late
    if ended.code != 128 + kind:
        return f"exit code {ended.code}: {ended.err[-300:]}"
    if "--flagfile=" not in ended.err.strip().splitlines()[-1]:
        return f"no word on how to go on: {ended.err[-300:]}"
    return None
