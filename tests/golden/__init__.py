# SPDX-License-Identifier: Apache-2.0
"""Golden results: stored results of the project, so that no change is silent.

Each JSON file in this folder holds results by name. test_golden computes them again and
compares; `python -m tests.golden` declares that all differences were intended.

Integers, bits and hashes are compared exactly. Numbers from float kernels are not,
since their last bits depend on the processor and the number of threads. Each kind of
result has a tolerance, with its reason.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.golden.results import (
    FOLDER,
    Results,
    checkpoint,
    curves,
    draws,
    keep_readable,
    of_curve,
    of_draws,
    online_images,
    shards,
    trajectories,
)


class Golden(NamedTuple):
    """Results of one kind, in `<name>.json`.

    Attributes:
      make: computes the results.
      relative: function of a result's name and a place in its list; returns the
        relative tolerance of that number.
      absolute: absolute tolerance of any number, in addition.
    """

    make: Callable[[], Results]
    relative: Callable[[str, int], float] = lambda name, place: 0.0
    absolute: float = 0.0


GOLDEN = {
    "checkpoint": Golden(checkpoint, lambda name, place: 1e-4, 1e-5),
    "curves": Golden(curves, of_curve),
    "draws": Golden(draws, of_draws),
    # A sum that falls on a half may be rounded either way, one pixel in hundreds.
    "online_images": Golden(
        online_images, lambda name, place: 1e-3 if name.endswith("sum") else 0.0, 1
    ),
    "shards": Golden(shards),
    # Adam's 1 − 0.999ᵗ has lost three of float32's seven digits at the first step.
    "trajectories": Golden(trajectories, lambda name, place: 2e-4, 1e-12),
}


def changes(name: str, results: Results) -> list[str]:
    """One line for each result that differs from the stored one."""
    golden, path = GOLDEN[name], FOLDER / f"{name}.json"
    written = json.loads(path.read_bytes()) if path.exists() else {}
    lines = [f"{what}: is gone" for what in written if what not in results]
    for what, found in results.items():
        if what not in written:
            lines.append(f"{what}: is new")
        elif line := _change(golden, what, written[what], found):
            lines.append(f"{what}{line}")
    return lines


def _change(golden: Golden, what: str, written: Any, found: Any) -> str | None:
    """Says where the two differ most, relative to the tolerance there."""
    if isinstance(found, str | int) or isinstance(written, str | int):
        return None if found == written else f": is {found}, was {written}"
    if len(found) != len(written):
        return f": {len(found)} values, were {len(written)}"
    allowed = [
        golden.relative(what, place) * abs(old) + golden.absolute
        for place, old in enumerate(written)
    ]
    over = [
        (math.inf if most == 0 else abs(new - old) / most, place)
        for place, (new, old, most) in enumerate(zip(found, written, allowed))
        if not abs(new - old) <= most  # also true for NaN
    ]
    if not over:
        return None
    first = min(place for _, place in over)
    factor, worst = max(over)
    told = "" if factor == math.inf else f", {factor:.3g} times what a rounding may do"
    return (
        f": {len(over)} of {len(found)} values differ, the first at [{first}]; most at"
        f" [{worst}]: {found[worst]!r}, was {written[worst]!r}{told}"
    )


def text(results: Results) -> str:
    """JSON with one line per result, so that a diff shows which ones changed."""
    rows = (f" {json.dumps(k)}: {json.dumps(v)}" for k, v in results.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


def declare() -> list[str]:
    """Stores all results that differ; returns a line for each of them."""
    lines = []
    for name, golden in GOLDEN.items():
        if golden.make is checkpoint:
            lines += keep_readable()
        results = golden.make()
        if differing := changes(name, results):
            (FOLDER / f"{name}.json").write_text(text(results), encoding="utf-8")
            lines += [f"{name}.json: {line}" for line in differing]
    return lines
