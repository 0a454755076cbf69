# SPDX-License-Identifier: Apache-2.0
"""report.html: a finished run as one self-contained page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from evaluation.scoring import Scores

REPORT = "report.html"


def write(
    run_dir: Path,
    split: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    scores: Scores,
    images: np.ndarray,
    network: tf.Module,
) -> dict[str, np.ndarray]:
    """Writes report.html into the run directory.

    Args:
      run_dir: of the run.
      split: what was scored: "test" or "validation".
      result: as stored in result.json.
      rows: of metrics.csv.
      scores: of the split.
      images: uint8 [N, 28, 28, 1], of the split.
      network: as it was scored.

    Returns:
      The page's pictures for TensorBoard, by tag: uint8 [H, W, 3].
    """
    return {}
