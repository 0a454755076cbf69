# SPDX-License-Identifier: Apache-2.0
"""Links are planted in a run directory; the files they lead to must not change."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture import small
from tests.torture.kills import Report, killer, undisturbed
from tests.torture.table import Row
from training import runs

Plant = Callable[[Path, Path], None]  # path in the run directory, path of the victim


def _to_file(name: Path, victim: Path) -> None:
    victim.write_bytes(b"the victim\n")
    name.symlink_to(victim)


def _to_folder(name: Path, victim: Path) -> None:
    victim.mkdir()
    (victim / "precious").write_bytes(b"the victim\n")
    name.symlink_to(victim)


def _to_nothing(name: Path, victim: Path) -> None:
    name.symlink_to(victim)


def _hard(name: Path, victim: Path) -> None:
    victim.write_bytes(b"the victim\n")
    os.link(victim, name)


PLANTS: dict[str, Plant] = {
    "a link to a file": _to_file,
    "a link to a folder": _to_folder,
    "a link to nothing": _to_nothing,
    "a hard link to a file": _hard,
}


def links(folder: Path, report: Report, every: int = 1) -> list[Row]:
    """Starts and resumes train.py in directories that contain links.

    Args:
      folder: folder to work in.
      report: takes the name of each fault, and what went wrong.
      every: 1 for all faults, 2 for every other one, …
    """
    fresh, moved = Row("a link in a new run directory"), Row("a link in a killed run")
    for name, plant, run_dir, victim in list(_planted(folder))[::every]:
        plant()
        wrong = _train(run_dir, victim)
        fresh.add(name, wrong)
        report(name, wrong)
    run_dir, kept = folder / "linked", folder / "linked-kept"
    _, events = undisturbed(folder / "linked-intact")
    small.run(run_dir, before=killer(run_dir, 2 * len(events) // 3))
    run_dir.rename(kept)
    paths = sorted(path.relative_to(kept) for path in kept.rglob("*"))
    for path in paths[::every]:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(kept, run_dir)
        victim = _empty(folder / "linked-victim") / path.name
        (run_dir / path).rename(victim)  # with its valid content
        (run_dir / path).symlink_to(victim)
        wrong = _train(run_dir, victim)
        moved.add(str(path), wrong)
        report(f"{path} is a link", wrong)
    return [fresh, moved]


def _planted(folder: Path) -> Iterator[tuple[str, Callable[[], None], Path, Path]]:
    run_dir = folder / "planted"
    for content in runs.CONTENTS:
        for what, plant in PLANTS.items():

            def plant_it(content=content, plant=plant) -> None:
                _empty(run_dir)
                plant(run_dir / content, _empty(folder / "victim") / "it")

            yield f"{content}: {what}", plant_it, run_dir, folder / "victim" / "it"


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _train(run_dir: Path, victim: Path) -> str | None:
    """Trains and scores; returns what went wrong, if anything."""
    before = _content(victim.parent)
    ended = small.run(run_dir, score=True)
    if _content(victim.parent) != before:
        return f"the victim is altered: exit code {ended.code}: {ended.err[-300:]}"
    if ended.code == 0 or small.is_refusal(ended):
        return None
    return f"exit code {ended.code}: {ended.err[-300:]}"


def _content(folder: Path) -> str:
    """SHA-256 of the names and bytes of all files in a folder."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        sha256.update(f"{path.relative_to(folder)}\0".encode())
        sha256.update(path.read_bytes() if path.is_file() else b"")
    return sha256.hexdigest()
