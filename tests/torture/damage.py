# SPDX-License-Identifier: Apache-2.0
"""Damages every byte of a checkpoint in turn; the damage must be noticed."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.torture import small
from tests.torture.kills import Report, killer, resume, undisturbed
from tests.torture.table import Row
from training import checkpoints

Files = dict[str, bytes]


def interrupted(run_dir: Path, *more: str) -> tuple[str, int]:
    """Starts a run and kills it in its last epoch.

    Returns:
      Digest of an undisturbed run, step of the last checkpoint.
    """
    expected, events = undisturbed(run_dir.with_name(f"{run_dir.name}-intact"))
    last = max(n for n, event in enumerate(events) if event.name == "os.mkdir")
    small.run(run_dir, *more, before=killer(run_dir, last))
    return expected, small.last_step(run_dir)


def every_byte(folder: Path, report: Report, every: int = 1) -> list[Row]:
    """Flips a bit in each byte of each file, and cuts each file at each length.

    Args:
      folder: folder to work in.
      report: takes the name of each file that is done.
      every: 1 for all bytes and lengths, 2 for every other one, …
    """
    run_dir = folder / "bytes"
    _, last = interrupted(run_dir)
    config = json.loads((run_dir / "run.json").read_bytes())["config"]
    place = checkpoints.path(run_dir / checkpoints.FOLDER, last)
    flips, cuts = Row("a flipped bit, in each byte"), Row("a file cut at each length")
    for file in sorted(place.iterdir()):
        good = file.read_bytes()

        def passes() -> str | None:
            accepted = checkpoints.is_whole(place.parent, last, config)
            return "is accepted" if accepted else None

        with open(file, "r+b", buffering=0) as opened:
            for offset in range(0, len(good), every):
                os.pwrite(
                    opened.fileno(), bytes([good[offset] ^ 1 << offset % 8]), offset
                )
                flips.add(f"{file.name}, byte {offset}", passes())
                os.pwrite(opened.fileno(), good[offset : offset + 1], offset)
            for length in reversed(range(0, len(good), every)):
                opened.truncate(length)
                cuts.add(f"{file.name}, {length} bytes", passes())
        file.write_bytes(good)
        report(f"{file.name}, {len(good)} bytes, each flipped, each cut", None)
        assert passes()
    return [flips, cuts]


def _damages(good: Files, foreign: Files) -> Iterator[tuple[str, Files]]:
    """Each way to damage a checkpoint: its name, the files that result."""
    for name, content in good.items():
        rest = {n: c for n, c in good.items() if n != name}
        yield f"{name} removed", rest
        yield f"{name} emptied", {**good, name: b""}
        yield f"{name} cut in half", {**good, name: content[: len(content) // 2]}
        yield f"{name} cut by a byte", {**good, name: content[:-1]}
        yield f"{name} with one more byte", {**good, name: content + b"\0"}
        yield f"{name} all zeros", {**good, name: bytes(len(content))}
        for offset in (0, len(content) // 2, len(content) - 1):
            flipped = bytes([content[offset] ^ 16])
            cut = content[:offset] + flipped + content[offset + 1 :]
            yield f"{name} flipped at {offset}", {**good, name: cut}
        if foreign[name] != content:  # same network: same index
            yield f"{name} of another run", {**good, name: foreign[name]}
    yield "all of another run", foreign
    yield "an empty folder", {}


def older_taken(folder: Path, report: Report, every: int = 1) -> list[Row]:
    """train.py must name a damaged checkpoint, and resume from the one before it.

    Args:
      folder: folder to work in.
      report: takes the name of each fault, and what went wrong.
      every: 1 for all faults, 2 for every other one, …
    """
    run_dir, other = folder / "damaged", folder / "foreign"
    expected, last = interrupted(run_dir)
    interrupted(other, "--seed=5")
    good, foreign = _files(run_dir, last), _files(other, last)
    kept = folder / "damaged-kept"
    run_dir.rename(kept)
    older = Row("the last checkpoint damaged: older one taken")
    none = Row("all checkpoints damaged: refused")
    for name, damaged in list(_damages(good, foreign))[::every]:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(kept, run_dir)
        _write(run_dir, last, damaged)
        wrong = _resume_from_older(run_dir, last, expected)
        older.add(name, wrong)
        report(name, wrong)
    for name, damaged in list(_damages(good, foreign))[:: 9 * every]:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.copytree(kept, run_dir)
        for step in checkpoints.steps(run_dir / checkpoints.FOLDER):
            _write(run_dir, step, damaged)
        ended = small.run(run_dir)
        wrong = None if small.is_refusal(ended, "step-") else ended.err[-300:]
        none.add(name, wrong)
        report(f"in all: {name}", wrong)
    return [older, none]


def _resume_from_older(run_dir: Path, last: int, expected: str) -> str | None:
    ended = small.run(run_dir, then=lambda: small.digest(run_dir))
    place = str(checkpoints.path(run_dir / checkpoints.FOLDER, last))
    named = [line for line in ended.err.splitlines() if place in line]
    if ended.code or len(named) != 1 or "instead" not in named[0]:
        return f"exit code {ended.code}, {named}: {ended.err[-300:]}"
    if small.resumed_at(ended) != last - small.EPOCH_STEPS:
        return f"resumed at step {small.resumed_at(ended)}"
    return None if ended.value == expected else resume(run_dir, expected)


def _files(run_dir: Path, step: int) -> Files:
    place = checkpoints.path(run_dir / checkpoints.FOLDER, step)
    return {file.name: file.read_bytes() for file in sorted(place.iterdir())}


def _write(run_dir: Path, step: int, content: Files) -> None:
    place = checkpoints.path(run_dir / checkpoints.FOLDER, step)
    shutil.rmtree(place)
    place.mkdir()
    for name, data in content.items():
        (place / name).write_bytes(data)
