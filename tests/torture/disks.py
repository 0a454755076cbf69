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
from tests.torture.kills import Report, killer, resume, undisturbed, watch_events
from tests.torture.table import Row


class NotPermitted(Exception):
    """No disk can be mounted here."""


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """Mounts a disk in memory; yields a function that remounts it with options.

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
    """A disk that becomes full at some moment; when it has room, the run resumes.

    Args:
      folder: folder to work in.
      count: number of disk sizes.
      report: takes each size, and what went wrong.
    """
    row = Row("disk full while training, resumed")
    expected, _ = undisturbed(folder / "full-intact")
    used = sum(p.stat().st_blocks * 512 for p in (folder / "full-intact").rglob("*"))
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
            return None  # it fitted
        return f"exit code {ended.code}: {ended.err[-400:]}"
    remount("size=64m")
    return resume(run_dir, expected)


def read_only(folder: Path, report: Report) -> Row:
    """A disk that becomes read-only for a while."""
    row = Row("read-only disk, resumed")
    expected, events = undisturbed(folder / "ro-intact")
    try:
        with small_disk(folder / "disk", 64 << 10) as remount:
            run_dir = folder / "disk" / "run"
            small.run(run_dir, before=killer(run_dir, len(events) // 2))
            remount("ro")
            ended = small.run(run_dir)
            refused = small.is_refusal(ended, "Read-only")
            remount("rw")
            wrong = None if refused else ended.err[-300:]
            wrong = wrong or resume(run_dir, expected)
    except NotPermitted as error:
        return Row(row.name, str(error))
    row.add("while it resumes", wrong)
    report("a read-only disk", wrong)
    return row


def vanished(folder: Path, count: int, report: Report) -> Row:
    """The run directory is moved away during training, then back."""
    row = Row("vanished directory, resumed")
    expected, events = undisturbed(folder / "gone-intact")
    run_dir, aside = folder / "gone", folder / "aside"
    for i in range(count):
        shutil.rmtree(run_dir, ignore_errors=True)
        left = 25 + (len(events) - 40) * i // count  # after its first save

        def move() -> None:
            def count_down(*_: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    run_dir.rename(aside)

            watch_events(run_dir, count_down)

        name = f"before {events[left].name} {left}"
        ended = small.run(run_dir, before=move)
        wrong = None if small.is_refusal(ended) else f"{ended.code} {ended.err[-300:]}"
        shutil.rmtree(run_dir, ignore_errors=True)  # created since then
        aside.rename(run_dir)
        wrong = wrong or resume(run_dir, expected)
        row.add(name, wrong)
        report(f"vanished {name}", wrong)
    return row


def clock_jumps(folder: Path, report: Report) -> Row:
    """The files of a killed run date from the far past, or the far future."""
    row = Row("clock jumps, resumed")
    expected, events = undisturbed(folder / "clock-intact")
    run_dir, draw = folder / "clock", random.Random(3)
    for year, seconds in (("1971", 31_536_000), ("2100", 4_102_444_800)):
        shutil.rmtree(run_dir, ignore_errors=True)
        moment = draw.randrange(100, len(events))
        small.run(run_dir, before=killer(run_dir, moment))
        for path in run_dir.rglob("*"):
            # TensorFlow puts the time into the names of event files.
            if path.name.startswith("events.out.tfevents."):
                parts = path.name.split(".")
                renamed = ".".join([*parts[:3], f"{seconds:010d}", *parts[4:]])
                path = path.rename(path.with_name(renamed))
            os.utime(path, (seconds, seconds))
        wrong = resume(run_dir, expected)
        row.add(year, wrong)
        report(f"the clock was in {year}", wrong)
    return row
