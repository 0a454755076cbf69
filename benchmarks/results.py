# SPDX-License-Identifier: Apache-2.0
"""Where the figures of the benchmarks go: results.json, results.md and plots/."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import files
from benchmarks import environment, peers


def write(
    folder: Path,
    facts: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    sections: Mapping[str, str],
    plots: Mapping[str, Mapping[str, Figure]],
) -> None:
    """Writes the files, each whole or not at all, once all their content is there.

    Args:
      folder: of the files.
      facts: see `environment.facts`.
      results: what each benchmark measured, by its name.
      sections: of results.md, likewise.
      plots: figures by their names, likewise; to be drawn behind the section.

    Raises:
      peers.BenchmarkError: the disk is full, the folder not writable, …
    """
    from evaluation import figures

    everything = {"environment": facts, **results}
    pages = ["# Benchmarks", "  \n".join(environment.describe(facts).splitlines())]
    content = {"results.json": (json.dumps(everything, indent=1) + "\n").encode()}
    for name, section in sections.items():
        pages.append(section)
        for plot, figure in plots[name].items():
            pages.append(f"![{plot}](plots/{plot}.svg)")
            content[f"plots/{plot}.svg"] = figures.svg(figure)
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
