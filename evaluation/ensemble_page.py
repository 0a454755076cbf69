# SPDX-License-Identifier: Apache-2.0
"""report.html of an ensemble: its members, and what it makes of the digits scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import page, report, scoring
from training import runs

TEMPLATE = "ensemble.html.j2"


def write(
    folder: Path,
    split: str,
    result: Mapping[str, Any],
    ways: Sequence[tuple[str, Mapping[str, Any]]],
    plain: str,
    scores: scoring.Scores,
    images: np.ndarray,
) -> None:
    """Writes the page.

    Args:
      folder: for the page; it may hold a corruptions.json.
      split: the digits scored, "test" or "validation".
      result: contents of result.json.
      ways: name and `scoring.figures` of each member, then of the ensemble.
      plain: which of these names the rest of the page is about.
      scores, images: of the split; images uint8 [N, 28, 28, 1].

    Raises:
      RunError: the folder cannot be written to.
    """
    charts = report.draw_scores(result[split], scores)
    content = page.render(
        TEMPLATE,
        **report.scored_facts(folder, split, result[split], scores),
        errors=report.gallery(images, report.find_errors(scores)),
        ways=ways,
        plain=plain,
        name=folder.absolute().name,
        result=result,
        pictures={name: page.svg_uri(figure) for name, figure in charts.items()},
    )
    runs.write_atomically(folder / report.REPORT, content)
