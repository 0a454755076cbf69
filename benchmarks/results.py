# SPDX-License-Identifier: Apache-2.0
"""Where the figures of the benchmarks go: results.json, results.md and plots/.

results.json has for each benchmark its `figures` and the `environment` in which they
were measured, since a benchmark can be repeated alone. All else is made from it.
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
    """A table in Markdown; all but the first `texts` columns are numbers."""
    align = ["left"] * texts + ["right"] * (len(headers) - texts)
    # The numbers are text by now, and are to stay as they are.
    return tabulate(
        rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True
    )


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What results.json holds: {} if there is none.

    Raises:
      peers.BenchmarkError: it cannot be read, or is something else.
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
            f"{path} cannot be gone on with: {error}; move it away, or choose another"
            " --results_dir"
        ) from None
    return found


def write(
    folder: Path,
    found: Mapping[str, Mapping[str, Any]],
    benchmarks: Mapping[str, ModuleType],
) -> None:
    """Writes the files, each whole or not at all, once all their content is there.

    Args:
      folder: of the files.
      found: of each benchmark {"environment", see `environment.facts`, "figures"}.
      benchmarks: by name, in the order of results.md; they make its sections and plots
        of what is found.

    Raises:
      peers.BenchmarkError: the disk is full, the folder not writable, what was found
        are no such figures, …
    """
    from evaluation import figures

    pages = ["# Benchmarks"]
    content = {"results.json": (json.dumps(found, indent=1) + "\n").encode()}
    for name, benchmark in benchmarks.items():
        if name not in found:
            continue
        measured = found[name]["figures"]
        try:
            pages.append(benchmark.markdown(measured))
            for plot, figure in benchmark.plots(measured).items():
                pages.append(f"![{plot}](plots/{plot}.svg)")
                content[f"plots/{plot}.svg"] = figures.svg(figure)
            facts = environment.describe(found[name]["environment"])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise peers.BenchmarkError(
                f"{folder / 'results.json'} has other figures for {name} than this"
                f" version shows ({type(error).__name__}): measure that again, too"
            ) from None
        pages.append("  \n".join(facts.splitlines()))
    content["results.md"] = ("\n\n".join(pages) + "\n").encode()
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for path, data in content.items():
            with files.replacing(folder / path) as file:
                file.write(data)
    except OSError as error:
        raise peers.BenchmarkError(
            f"cannot write the results to {folder}: {error.strerror}; make room, or"
            " choose another --results_dir"
        ) from None
