# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, read-only or gone, and clocks that jump."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture import small
from tests.torture.kills import Report, go_on, killer, undisturbed, watch_events
from tests.torture.table import Row


class NotPermitted(Exception):
    """No disk can be mounted here."""


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """Mounts a disk of memory; yields a function that mounts it anew, with options.

    Raises:
      NotPermitted: it cannot be mounted.
    """
    folder.mkdir()

    def mount(*arguments: str) -> None:
        try:
            subprocess.run(["mount", *arguments], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotPermitted(str(error)) from None

    try:
        mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
        try:
            yield lambda options: mount("-o", f"remount,{options}", str(folder))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


def full(folder: Path, count: int, report: Report) -> Row:
    """A disk that is full at one moment or another; then there is room, and it goes on.

    Args:
      folder: to work in.
      count: how many sizes of disk.
      report: gets each size, and what was wrong.
    """
    row = Row("disk full while training, resumed")
    expected, _ = undisturbed(folder / "full-whole")
    used = sum(p.stat().st_blocks * 512 for p in (folder / "full-whole").rglob("*"))
    for i in range(count):
        kilobytes = 4 + (used // 1024 - 4) * i // count // 4 * 4
        try:
            with small_disk(folder / "disk", kilobytes) as remount:
                wrong = _fill(folder / "disk" / "run", remount, expected)
        except NotPermitted as error:
            return Row(row.name, str(error))
        row.add(f"{kilobytes} kB", wrong)
        report(f"a disk of {kilobytes} kB", wrong)
    return row


def _fill(run_dir: Path, remount: Callable[[str], None], expected: str) -> str | None:
    ended = small.run(run_dir)
    if not small.is_refusal(ended, "No space", "no space", "disk is full", "too small"):
        if ended.code == 0:
            return None  # it did fit
        return f"exit code {ended.code}: {ended.err[-400:]}"
    remount("size=64m")
    return go_on(run_dir, expected)


def read_only(folder: Path, report: Report) -> Row:
    """A run on a disk that has become read-only, and then is no longer."""
    row = Row("read-only disk, resumed")
    expected, events = undisturbed(folder / "ro-whole")
    try:
        with small_disk(folder / "disk", 64 << 10) as remount:
            run_dir = folder / "disk" / "run"
            small.run(run_dir, before=killer(run_dir, len(events) // 2))
            remount("ro")
            ended = small.run(run_dir)
            refused = small.is_refusal(ended, "Read-only")
            remount("rw")
            wrong = None if refused else ended.err[-300:]
            wrong = wrong or go_on(run_dir, expected)
    except NotPermitted as error:
        return Row(row.name, str(error))
    row.add("while it goes on", wrong)
    report("a read-only disk", wrong)
    return row


def vanished(folder: Path, count: int, report: Report) -> Row:
    """The directory of a run is moved away while it is trained, and moved back."""
    row = Row("vanished directory, resumed")
    expected, events = undisturbed(folder / "gone-whole")
    run_dir, aside = folder / "gone", folder / "aside"
    for i in range(count):
        shutil.rmtree(run_dir, ignore_errors=True)
        left = 25 + (len(events) - 40) * i // count  # its first save is behind it

        def move() -> None:
            def tell(*_: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    run_dir.rename(aside)

            watch_events(run_dir, tell)

        name = f"before {events[left].name} {left}"
        ended = small.run(run_dir, before=move)
        wrong = None if small.is_refusal(ended) else f"{ended.code} {ended.err[-300:]}"
        shutil.rmtree(run_dir, ignore_errors=True)  # what it may have made since
        aside.rename(run_dir)
        wrong = wrong or go_on(run_dir, expected)
        row.add(name, wrong)
        report(f"vanished {name}", wrong)
    return row


def clock_jumps(folder: Path, report: Report) -> Row:
    """All that a killed run wrote seems to be of another time: far past, far future."""
    row = Row("clock jumps, resumed")
    expected, events = undisturbed(folder / "clock-whole")
    run_dir, draw = folder / "clock", random.Random(3)
    for year, seconds in (("1971", 31_536_000), ("2100", 4_102_444_800)):
        shutil.rmtree(run_dir, ignore_errors=True)
        moment = draw.randrange(100, len(events))
        small.run(run_dir, before=killer(run_dir, moment))
        for path in run_dir.rglob("*"):
            # TensorFlow puts the time into the names of TensorBoard's files.
            if path.name.startswith("events.out.tfevents."):
                parts = path.name.split(".")
                renamed = ".".join([*parts[:3], f"{seconds:010d}", *parts[4:]])
                path = path.rename(path.with_name(renamed))
            os.utime(path, (seconds, seconds))
        wrong = go_on(run_dir, expected)
        row.add(year, wrong)
        report(f"the clock was in {year}", wrong)
    return row
