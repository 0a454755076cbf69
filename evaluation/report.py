# SPDX-License-Identifier: Apache-2.0
"""report.html: a run as one self-contained page.

Its words are in report.html.j2, its pictures in evaluation.figures and
evaluation.mosaics; this module computes what they show.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from config import Config
from evaluation import calibration, figures, mosaics, statistics
from evaluation.activations import FirstLayer
from evaluation.scoring import Scores
from system import console
from training import epochs, runs

REPORT = "report.html"
TEMPLATE = "report.html.j2"

MAX_ERRORS = 100  # shown in the gallery
MAX_CONFUSIONS = 3  # named next to the matrix

_NBSP = "\N{NO-BREAK SPACE}"


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
) -> dict[str, np.ndarray]:
    """Writes report.html into the run directory.

    Args:
      run_dir: run directory.
      split: the digits scored, "test" or "validation".
      result: contents of result.json.
      rows: rows of metrics.csv, at least one.
      scores, images: of the split; images uint8 [N, 28, 28, 1].
      layer: the first layer.

    Returns:
      The page's pictures for TensorBoard, by tag: uint8 [H, W, 3].
    """
    errors = find_errors(scores)
    charts = _charts(split, result, rows, scores)
    pictures = {
        "filters": figures.raster(mosaics.filters(layer.kernel)),
        "feature_maps": figures.raster(mosaics.feature_maps(layer.digits, layer.maps)),
    }
    uris = {n: _data_uri(figures.svg(f), "svg+xml") for n, f in charts.items()}
    uris |= {n: _data_uri(figures.png(p), "png") for n, p in pictures.items()}
    content = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            **_facts(split, result, scores, layer),
            rows=rows,
            errors=_gallery(images, errors),
            pictures=uris,
        )
    )
    runs.write_atomically(run_dir / REPORT, content)
    pictures |= {name: figures.raster(figure) for name, figure in charts.items()}
    if errors:
        pictures["worst_errors"] = _draw_worst(images, errors)
    return pictures


def _charts(
    split: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    scores: Scores,
) -> dict[str, Any]:
    """The page's charts by name."""
    confidences = scores.probabilities.max(1)
    correct = scores.predictions == scores.labels
    # The last epoch is where the curves end: it needs no mark.
    best = Config.recorded(result["config"]).keep_best
    return {
        "learning_curves": figures.learning_curves(
            rows, result["scored_epoch"] if best else None
        ),
        "confusion_matrix": figures.confusion_matrix(
            np.array(result[split]["confusion_matrix"])
        ),
        "calibration": figures.reliability(confidences, correct),
        "confidence": figures.confidence_histogram(confidences, correct),
    }


def _draw_worst(images: np.ndarray, errors: Sequence[Error]) -> np.ndarray:
    """The first errors with captions, for TensorBoard: uint8 [H, W, 3]."""
    worst = errors[: mosaics.MAX_WORST]
    captions = [
        f"{e.true} as {e.predicted}\n{probability(e.predicted_probability)}"
        for e in worst
    ]
    chosen = images[[e.index for e in worst]]
    return figures.raster(mosaics.worst_errors(chosen, captions))


def _gallery(images: np.ndarray, errors: Sequence[Error]) -> list[tuple[Error, str]]:
    """The first errors, each with the data URI of its picture."""
    return [
        (error, _data_uri(figures.png(255 - images[error.index, ..., 0]), "png"))
        for error in errors[:MAX_ERRORS]
    ]


def _facts(
    split: str, result: Mapping[str, Any], scores: Scores, layer: FirstLayer
) -> dict[str, Any]:
    """The variables of the page, except rows and pictures."""
    summary, config = result[split], Config.recorded(result["config"])
    early = result["finished"] and result["epochs"] < config.epochs
    correct = summary["images"] - summary["errors"]
    return {
        "split": split,
        "result": result,
        "summary": summary,
        "config": result["config"],
        "data": result["data"],
        "environment": result["environment"],
        "scored": describe_weights(split, result),
        "more_epochs": epochs.can_change(config) and not early,
        "interval": statistics.share_interval(correct, summary["images"]),
        "confusions": confusions(np.array(summary["confusion_matrix"])),
        "per_class": _per_class(summary),
        "bins": calibration.BINS,
        "mean_confidence": float(scores.probabilities.max(1).mean()),
        "kernel_shape": layer.kernel.shape,
        "maps_shape": layer.maps.shape,
        "shown": (mosaics.MAX_FILTERS, mosaics.MAX_MAPS),
    }


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
        (true, predicted, int(count))
        for (true, predicted), count in np.ndenumerate(matrix)
        if true != predicted and count
    ]
    wrong.sort(key=lambda confusion: -confusion[2])
    next_count = wrong[limit][2] if len(wrong) > limit else 0
    return [c for c in wrong[:limit] if c[2] > next_count] or wrong[:limit]


def describe_weights(split: str, result: Mapping[str, Any]) -> str:
    """Sentences on the weights that were scored: whose, from when, and how chosen."""
    config, epochs = Config.recorded(result["config"]), result["epochs"]
    weights = "the network"
    if config.weight_average:
        weights = (
            "the exponential average of the network’s weights"
            f" (decay {config.weight_average:g})"
        )
    if config.keep_best:
        which = "epoch {}, the one with the best validation accuracy"
    elif result["scored_epoch"] == epochs:  # the epoch after the last complete one
        which = f"step {result['steps']:,}, within epoch {{}}"
    else:
        which = "the last step, at the end of epoch {}"
    which = which.format(result["scored_epoch"])
    sentences = [f"Scored: {weights} after {which} (epochs count from 0)."]
    if init := result.get("init_sha256"):
        sentences.append(
            f"It started from weights of another run (SHA-256 {init[:8]}…)."
        )
    progress = f"{epochs} of {config.epochs} epochs"
    if not result["finished"]:
        sentences.append(f"Training is unfinished: {progress} so far.")
    elif epochs < config.epochs:
        sentences.append(f"Training stopped early, after {progress}.")
    return " ".join([*sentences, _describe_split(split, config)])


def _describe_split(split: str, config: Config) -> str:
    """A sentence on whether the digits scored had any influence on the training."""
    if split == "test":
        return "No choice was made on the test digits."
    steered = config.early_stopping or config.schedule == "plateau"
    if steered or config.keep_best:
        return (
            "The digits scored are held-out training images, and training used their"
            " accuracy to make choices, so the figures are somewhat optimistic."
        )
    return (
        "The digits scored are held-out training images: the test set of this dataset"
        " has no labels."
    )


def _per_class(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of each class, with its errors and its most frequent confusion."""
    matrix = np.array(summary["confusion_matrix"])
    rows = []
    for row, counts in zip(summary["classes"], matrix, strict=True):
        digit = row["class"]
        wrong = np.where(np.arange(len(counts)) == digit, 0, counts)
        mistaken = f"{wrong.argmax()} ({wrong.max()}×)" if wrong.any() else ""
        rows.append({**row, "errors": int(wrong.sum()), "mistaken": mistaken})
    return rows


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "percent": percent,
        "probability": probability,
        "setting": setting,
    }
    return environment


def percent(share: float | None) -> str:
    """0.9959 → 99.59 %; "–" if there is no figure."""
    if share is None:
        return "–"
    return f"{100 * share:.2f}{_NBSP}%"


def probability(value: float) -> str:
    """0.986 → 98.6 %, but nothing is rounded to 0 or 100."""
    if 0 < value < 0.0005:
        return f"<0.1{_NBSP}%"
    if 0.9995 < value < 1:
        return f">99.9{_NBSP}%"
    return f"{100 * value:.1f}{_NBSP}%"


def duration(seconds: float) -> str:
    """572.4 → 9 min 32 s."""
    return console.duration(seconds, _NBSP)


def setting(value: Any) -> str:
    """A flag's value as it is typed, or in brackets that there is none."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return "(not set)" if value is None else str(value)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
