# SPDX-License-Identifier: Apache-2.0
"""Faults while an enlarged set is built; a second build must give the same bytes."""

import hashlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from absl import flags

import data
from augment import enlarged, plan
from system import console, errors
from tests.torture import children, disks, kills
from tests.torture.kills import Report
from tests.torture.table import Row


def _enlarge(root: Path, before: Callable[[], None] = lambda: None) -> children.Ended:
    """Builds or reads the enlarged set of scikit-learn's digits, in a child."""
    return children.run(lambda: _enlarge_here(root, before))


def _enlarge_here(root: Path, before: Callable[[], None]) -> None:
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["build", "--shift_directions=up,left", "--flip_codes=1"])
    settings = plan.settings_from(flags.FLAGS)
    before()
    try:
        enlarged.enlarge(data.load("digits"), settings, root)
    except errors.UserError as error:
        console.warn(str(error))
        raise SystemExit(1) from None


def _digest(root: Path) -> str:
    """SHA-256 of the names and bytes of all files but the lock."""
    sha256 = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.name != ".lock":
            sha256.update(str(path.relative_to(root)).encode())
            sha256.update(path.read_bytes() if path.is_file() else b"")
    return sha256.hexdigest()


def _rebuild(root: Path, expected: str) -> str | None:
    """Completes an interrupted build; returns what went wrong, if anything."""
    ended = _enlarge(root)
    if ended.code:
        return f"exit code {ended.code}: {ended.err[-300:]}"
    return None if _digest(root) == expected else "the bytes differ"


def killed(folder: Path, count: int, report: Report) -> Row:
    """kill -9 at `count` moments of a build, then the same build again."""
    row, intact, root = Row("kill -9 in augmentation"), folder / "set", folder / "cut"
    seen: list[str] = []
    assert _enlarge(intact).code == 0
    expected = _digest(intact)

    def note_all() -> None:
        kills.watch_events(root, lambda name, what: seen.append(name))

    def program() -> int:
        _enlarge_here(root, note_all)
        return len(seen)

    events = children.run(program).value
    for i in range(count):
        shutil.rmtree(root, ignore_errors=True)
        moment = events * i // count
        ended = _enlarge(root, kills.killer(root, moment))
        wrong = None
        if ended.code not in (0, -signal.SIGKILL):
            wrong = f"exit code {ended.code}: {ended.err[-300:]}"
        wrong = wrong or _rebuild(root, expected)
        row.add(f"event {moment}", wrong)
        report(f"augmentation killed at event {moment} of {events}", wrong)
    return row


def full(folder: Path, count: int, report: Report) -> Row:
    """A disk that is full while a set is built, and then has room again."""
    row, intact = Row("disk full in augmentation"), folder / "full-set"
    assert _enlarge(intact).code == 0
    expected = _digest(intact)
    used = sum(p.stat().st_size for p in intact.rglob("*")) // 1024
    for i in range(count):
        kilobytes = 4 + (used - 8) * i // count // 4 * 4
        try:
            with disks.small_disk(folder / "disk", kilobytes) as remount:
                root = folder / "disk" / "set"
                ended = _enlarge(root)
                wrong = None
                if ended.code != 1 or "No space left" not in ended.err:
                    wrong = f"exit code {ended.code}: {ended.err[-300:]}"
                remount("size=64m")
                wrong = wrong or _rebuild(root, expected)
        except disks.NotPermitted as error:
            return Row(row.name, str(error))
        row.add(f"{kilobytes} kB", wrong)
        report(f"augmentation on {kilobytes} kB", wrong)
    return row
