# SPDX-License-Identifier: Apache-2.0
"""report.html: a run as one self-contained page.

Its words are in report.html.j2 and evaluation.provenance, its pictures in
evaluation.figures and evaluation.mosaics; this module computes what they show.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data
from config import Config
from evaluation import (
    calibration,
    confusion,
    corruptions,
    figures,
    mosaics,
    page,
    precision_recall,
    provenance,
    score_text,
    statistics,
)
from evaluation.activations import FirstLayer
from evaluation.scoring import Scores
from models.structure import Layer
from training import epochs, fed, runs

REPORT = "report.html"
TEMPLATE = "report.html.j2"

MAX_ERRORS = 100  # shown in the gallery
MAX_CONFUSIONS = 3  # named next to the matrix
MAX_CLASSES = 30  # in a table; of more classes, it has the worst


@dataclasses.dataclass(frozen=True)
class Error:
    """A misclassified digit: its place in its set, and two probabilities."""

    index: int  # from 0
    true: int  # its label
    predicted: int
    true_probability: float
    predicted_probability: float


def write(
    run_dir: Path,
    split: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    scores: Scores,
    images: np.ndarray,
    layer: FirstLayer,
    layers: Sequence[Layer],
) -> dict[str, np.ndarray]:
    """Writes report.html into the run directory.

    Args:
      run_dir: run directory.
      split: the digits scored, "test" or "validation".
      result: contents of result.json.
      rows: rows of metrics.csv, at least one.
      scores, images: of the split; images uint8 [N, 28, 28, 1].
      layer: what the first layer does.
      layers: all layers.

    Returns:
      The page's pictures for TensorBoard, by tag: uint8 [H, W, 3].
    """
    errors = find_errors(scores)
    best = Config.recorded(result["config"]).keep_best
    charts = {
        # The last epoch is where the curves end: it needs no mark.
        "learning_curves": figures.learning_curves(
            rows, result["scored_epoch"] if best else None
        ),
        **draw_scores(result[split], scores),
    }
    pictures = {
        "filters": figures.raster(mosaics.filters(layer.kernel)),
        "feature_maps": figures.raster(mosaics.feature_maps(layer.digits, layer.maps)),
    }
    uris = {name: page.svg_uri(figure) for name, figure in charts.items()}
    uris |= {name: page.png_uri(picture) for name, picture in pictures.items()}
    content = page.render(
        TEMPLATE,
        **_facts(split, result, layer),
        **scored_facts(run_dir, split, result[split], scores),
        errors=gallery(images, errors),
        ways=score_text.ways(split, result),
        plain="as trained",
        name=run_dir.absolute().name,
        rows=rows,
        fed=_fed(run_dir),
        layers=layers,
        pictures=uris,
    )
    runs.write_atomically(run_dir / REPORT, content)
    pictures |= {name: figures.raster(figure) for name, figure in charts.items()}
    if errors:
        pictures["worst_errors"] = _draw_worst(images, errors, scores.classes)
    return pictures


def draw_scores(summary: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    """Charts of what a network predicts, by name; the summary is of the scores."""
    confidences = scores.probabilities.max(1)
    correct = scores.predictions == scores.labels
    return {
        "confusion_matrix": confusion.draw(
            np.array(summary["confusion_matrix"]), scores.classes
        ),
        "precision_recall": precision_recall.draw(precision_recall.worst(scores)),
        "calibration": figures.reliability(confidences, correct),
        "confidence": figures.confidence_histogram(confidences, correct),
    }


def _draw_worst(
    images: np.ndarray, errors: Sequence[Error], names: Sequence[str]
) -> np.ndarray:
    """The first errors with captions, for TensorBoard: uint8 [H, W, 3]."""
    worst = errors[: mosaics.MAX_WORST]
    captions = [
        f"{figures.shorten(names[e.true])} as {figures.shorten(names[e.predicted])}"
        f"\n{page.probability(e.predicted_probability)}"
        for e in worst
    ]
    chosen = images[[e.index for e in worst]]
    return figures.raster(mosaics.worst_errors(chosen, captions))


def gallery(images: np.ndarray, errors: Sequence[Error]) -> list[tuple[Error, str]]:
    """The first errors, each with the data URI of its picture."""
    return [(error, _ink_uri(images[error.index])) for error in errors[:MAX_ERRORS]]


def _fed(run_dir: Path) -> list[tuple[str, str]]:
    """Label and picture of each image in fed.json."""
    found = fed.read(run_dir)
    if found is None:
        return []
    return [(name, _ink_uri(i)) for name, i in zip(found.labels, found.images)]


def _corrupted(run_dir: Path) -> dict[str, Any] | None:
    """What corruptions.json holds, and the rows of its table."""
    found = corruptions.read(run_dir)
    return found and {**found, "rows": corruptions.rows(found)}


def _ink_uri(image: np.ndarray) -> str:
    """An image, uint8 [28, 28, 1], as dark ink on white."""
    return page.png_uri(255 - image[..., 0])


def _facts(split: str, result: Mapping[str, Any], layer: FirstLayer) -> dict[str, Any]:
    """The variables of the page that are of the run, except rows and pictures."""
    config = Config.recorded(result["config"])
    early = result["finished"] and result["epochs"] < config.epochs
    different, same = provenance.settings(result)
    return {
        "result": result,
        "config": config,
        "flags": provenance.flags(result),
        "different": different,
        "same": same,
        "data": result["data"],
        "environment": _known(result["environment"]),
        "scored": provenance.describe_weights(split, result),
        "more_epochs": epochs.can_change(config) and not early,
        "kernel_shape": layer.kernel.shape,
        "maps_shape": layer.maps.shape,
        "shown": (mosaics.MAX_FILTERS, mosaics.MAX_MAPS),
    }


def scored_facts(
    run_dir: Path, split: str, summary: Mapping[str, Any], scores: Scores
) -> dict[str, Any]:
    """The variables of scored.html.j2, except pictures, `ways` and `errors`.

    The summary is of the scores; the folder may hold a corruptions.json.
    """
    correct = summary["images"] - summary["errors"]
    words = _words(scores.classes)
    which = "test" if split == "test" else "held-out"
    return {
        "split": split,
        "summary": summary,
        "scored_images": f"{which} {words['noun']}s",
        "interval": statistics.share_interval(correct, summary["images"]),
        "confusions": confusions(np.array(summary["confusion_matrix"])),
        **words,
        **_classes(summary, scores.classes),
        "bins": calibration.BINS,
        "mean_confidence": float(scores.probabilities.max(1).mean()),
        "corrupted": _corrupted(run_dir),
    }


def _known(environment: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Entries of an environment that are known, by name in words."""
    return [(k.replace("_", " "), v) for k, v in environment.items() if v is not None]


def _words(classes: Sequence[str]) -> dict[str, str]:
    """What to call an image, a class and several classes."""
    if set(classes) <= set(data.DIGITS):
        return {"noun": "digit", "each": "digit", "plural": "digits"}
    return {"noun": "image", "each": "class", "plural": "classes"}


def find_errors(scores: Scores) -> list[Error]:
    """The misclassified digits, worst first.

    The worst has the largest gap between the probability of the class predicted and
    that of its label.
    """
    errors = [
        Error(
            int(i),
            int(scores.labels[i]),
            int(scores.predictions[i]),
            float(scores.probabilities[i, scores.labels[i]]),
            float(scores.probabilities[i].max()),
        )
        for i in np.flatnonzero(scores.predictions != scores.labels)
    ]
    return sorted(errors, key=lambda e: e.true_probability - e.predicted_probability)


def confusions(
    matrix: np.ndarray, limit: int = MAX_CONFUSIONS
) -> list[tuple[int, int, int]]:
    """The most frequent confusions: label, class predicted, count.

    Of a matrix of integers [C, C] with labels in rows. Equally frequent ones are all
    named or none is, unless all are equally frequent.
    """
    wrong = [
        (int(true), int(predicted), int(matrix[true, predicted]))
        for true, predicted in np.argwhere(matrix)
        if true != predicted
    ]
    wrong.sort(key=lambda confusion: -confusion[2])
    next_count = wrong[limit][2] if len(wrong) > limit else 0
    return [c for c in wrong[:limit] if c[2] > next_count] or wrong[:limit]


def _classes(summary: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Figures of each class, with errors and the most frequent confusion.

    Of many classes also the worst.
    """
    matrix = np.array(summary["confusion_matrix"])
    rows = []
    for label, counts in enumerate(matrix):
        wrong = np.where(np.arange(len(counts)) == label, 0, counts)
        mistaken = (
            f"{names[int(wrong.argmax())]} ({wrong.max()}×)" if wrong.any() else ""
        )
        more = {"name": names[label], "errors": int(wrong.sum()), "mistaken": mistaken}
        rows.append({**summary["classes"][label], **more})
    known = [row for row in rows if row["images"]] if len(rows) > MAX_CLASSES else []
    worst = sorted(known, key=lambda row: row["f1"] or 0)[:MAX_CLASSES]
    return {"per_class": rows, "worst_classes": worst}
