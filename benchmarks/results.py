# SPDX-License-Identifier: Apache-2.0
"""Files of the benchmarks: results.json, results.md and plots/.

results.json has for each benchmark its `figures` and the `environment` in which they
were measured, as a benchmark can be repeated alone. The rest is made from it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tabulate import tabulate

from benchmarks import environment, peers
from system import files, untrusted


def table(rows: Sequence[Sequence[str]], headers: Sequence[str], texts: int = 1) -> str:
    """Markdown table; all columns after the first `texts` are right-aligned."""
    align = ["left"] * texts + ["right"] * (len(headers) - texts)
    # Without number parsing, numbers stay as we have formatted them.
    return tabulate(
        rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True
    )


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Content of results.json; {} if there is no such file.

    Raises BenchmarkError if it cannot be read, or is not a file of ours.
    """
    path = folder / "results.json"
    try:
        found = untrusted.read_json(path)
        if not all(of.keys() == {"environment", "figures"} for of in found.values()):
            raise ValueError("a benchmark without environment or figures")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise peers.BenchmarkError(
            f"cannot add to {path}: {error}; move it away, or choose another"
            " --results_dir"
        ) from None
    return found


def write(
    folder: Path,
    found: Mapping[str, Mapping[str, Any]],
    benchmarks: Mapping[str, ModuleType],
) -> None:
    """Writes all files, each completely or not at all.

    `found` has {"environment", "figures"} of each benchmark by name, `benchmarks` its
    module in the order of results.md. Raises BenchmarkError if the disk is full, the
    folder not writable, the figures unexpected, …
    """
    pages = ["# Benchmarks"]
    content = {"results.json": (json.dumps(found, indent=1) + "\n").encode()}
    for name, benchmark in benchmarks.items():
        if name in found:
            try:
                page, plots = _render(benchmark, found[name])
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise peers.BenchmarkError(
                    f"{folder / 'results.json'} has other figures for {name} than this"
                    f" version shows ({type(error).__name__}): measure that again, too"
                ) from None
            pages.append(page)
            content |= plots
    content["results.md"] = ("\n\n".join(pages) + "\n").encode()
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for path, data in content.items():
            with files.replacing(folder / path) as file:
                file.write(data)
    except OSError as error:
        raise peers.BenchmarkError(
            f"cannot write the results to {folder}: {error.strerror}; free some space,"
            " or choose another --results_dir"
        ) from None


def _render(
    benchmark: ModuleType, measured: Mapping[str, Any]
) -> tuple[str, dict[str, bytes]]:
    """Section of results.md, and {path: content} of its plots."""
    from evaluation.figures import svg

    parts, content = [benchmark.markdown(measured["figures"])], {}
    if hasattr(benchmark, "plots"):
        for name, figure in benchmark.plots(measured["figures"]).items():
            parts.append(f"![{name}](plots/{name}.svg)")
            content[f"plots/{name}.svg"] = svg(figure)
    parts.append(
        "  \n".join(environment.describe(measured["environment"]).splitlines())
    )
    return "\n\n".join(parts), content
