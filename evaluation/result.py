# SPDX-License-Identifier: Apache-2.0
"""The result of a finished run: on the console, in its directory, in TensorBoard."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from evaluation import report, scoring
from training import runs, summaries

RESULT = "result.json"


def evaluate(
    run_dir: Path,
    network: tf.Module,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Scores a finished run and stores all there is to say about it.

    Args:
      run_dir: gets result.json, predictions.npz, report.html and TensorBoard events.
      network: as it is to be scored.
      split: "test", or "validation" where the test set has no labels.
      images: uint8 [N, 28, 28, 1], of that split.
      labels: uint8 [N].

    Raises:
      RunError: the run has no history, or its directory cannot be written.
    """
    if not (rows := runs.read_metrics(run_dir)):
        raise runs.RunError(f"{run_dir} has no metrics.csv: train it to its end first")
    run = runs.read_run(run_dir)
    predict = scoring.Predict(network)
    scores = scoring.score(predict, images, labels, run["config"]["loss"])
    summary = scoring.summarise(scores)
    result = {
        split: summary,
        "parameters": sum(v.shape.num_elements() for v in network.trainable_variables),
        "epochs": len(rows),
        "steps": int(rows[-1]["step"]),
        "training_seconds": rows[-1]["seconds"],
        f"{split}_accuracy_by_epoch": [row[f"{split}_accuracy"] for row in rows],
        **run,
    }
    runs.write_atomically(run_dir / RESULT, json.dumps(result, indent=1) + "\n")
    scoring.write_predictions(run_dir, scores)
    pictures = report.write(run_dir, split, result, rows, scores, images, network)
    text = scoring.show(summary)
    summaries.write_score(run_dir, split, result["steps"], text, summary, pictures)
    print(text)
    print(run_dir / report.REPORT)
