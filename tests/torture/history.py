# SPDX-License-Identifier: Apache-2.0
"""Parts of a run are lost: it must be refused or end the same, and never start over."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.torture import children, small
from tests.torture.kills import Report, killer, undisturbed
from tests.torture.table import Row
from training import checkpoints, runs

TRAINING, SCORES = "the events of training", "the events of scoring"
PARTS = {
    "the checkpoints": (checkpoints.FOLDER,),
    "the last checkpoint": (),  # see `_remove`
    "metrics.csv": ("metrics.csv",),
    TRAINING: ("train",),
    SCORES: ("validation", "test"),
    "result.json": ("result.json",),
}


def lost(folder: Path, report: Report, every: int = 1) -> list[Row]:
    """Removes each subset of the parts of a finished and of a killed run.

    Args:
      folder: folder to work in.
      report: takes the name of each fault, and what went wrong.
      every: 1 for all faults, 2 for every other one, …
    """
    _, events = undisturbed(folder / "lost-intact")
    run_dir, rows = folder / "lost", []
    digests = [
        children.run(lambda: small.digest(folder / "lost-intact", curves=curves)).value
        for curves in (False, True)
    ]
    for name, score, moment in (("finished", True, None), ("killed", False, 3 / 4)):
        kept = folder / f"lost-{name}"
        arm = killer(run_dir, int(moment * len(events))) if moment else lambda: None
        small.run(run_dir, score=score, before=arm)
        run_dir.rename(kept)
        row = Row(f"parts of a {name} run lost: refused, or the same in the end")
        for parts in list(_subsets())[::every]:
            shutil.rmtree(run_dir, ignore_errors=True)
            shutil.copytree(kept, run_dir)
            for part in parts:
                _remove(run_dir, part)
            curves = not {TRAINING, SCORES} & set(parts)
            wrong = _resume(run_dir, digests[curves], curves)
            row.add(" and ".join(parts), wrong)
            report(f"{name}, without {' and '.join(parts)}", wrong)
        shutil.rmtree(run_dir)
        rows.append(row)
    return rows


def _subsets() -> Iterator[tuple[str, ...]]:
    for count in range(1, len(PARTS) + 1):
        for parts in itertools.combinations(PARTS, count):
            if not {"the checkpoints", "the last checkpoint"} <= set(parts):
                yield parts


def _remove(run_dir: Path, part: str) -> None:
    names = PARTS[part]
    if not names:
        folder = run_dir / checkpoints.FOLDER
        shutil.rmtree(checkpoints.path(folder, checkpoints.steps(folder)[-1]))
    for path in (run_dir / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _resume(run_dir: Path, expected: str, curves: bool) -> str | None:
    """Resumes; returns what went wrong, if anything.

    Args:
      run_dir: run directory.
      expected: digest of an undisturbed run.
      curves: whether all TensorBoard events are there; if not, the run must say so.
    """
    traces = [name for name in runs.TRACES if (run_dir / name).exists()]
    had = small.last_step(run_dir)
    ended = small.run(run_dir, then=lambda: small.digest(run_dir, curves=curves))
    if small.is_refusal(ended):
        return None
    if ended.code:
        return f"exit code {ended.code}: {ended.err[-300:]}"
    if had < 0 and traces:
        return f"started over, although there was {', '.join(traces)}"
    if had > 0 and not curves and "lost TensorBoard's events" not in ended.err:
        return "the lost events are not mentioned"
    return None if ended.value == expected else "the final state differs"
