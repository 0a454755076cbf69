# SPDX-License-Identifier: Apache-2.0
"""report.html: a finished run as one self-contained page.

The words are in report.html.j2, the pictures in evaluation.figures; here is what
both are made from.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import tensorflow as tf

from evaluation import calibration, intervals
from evaluation.scoring import Scores
from training import runs

REPORT = "report.html"
TEMPLATE = "report.html.j2"

GALLERY = 100  # errors shown, at most
CONFUSIONS = 3  # named below the matrix, at most
FEATURE_DIGITS = 5

# With a no-break space between number and unit, for the page.
_NBSP = "\N{NO-BREAK SPACE}"


@dataclasses.dataclass(frozen=True)
class Error:
    """A misread digit.

    Attributes:
      index: in its set, counted from 0.
      true, read: digits.
      true_probability, read_probability: what the network gave to each.
    """

    index: int
    true: int
    read: int
    true_probability: float
    read_probability: float


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
      rows: of metrics.csv, at least one.
      scores: of the split.
      images: uint8 [N, 28, 28, 1], of the split.
      network: as it was scored.

    Returns:
      The page's pictures for TensorBoard, by tag: uint8 [H, W, 3].

    Raises:
      RunError: it cannot be written.
    """
    from evaluation import figures  # loads matplotlib: not when training begins

    summary, config = result[split], result["config"]
    matrix = np.array(summary["confusion_matrix"])
    confidences = scores.probabilities.max(1)
    hits = scores.predictions == scores.labels
    errors = find_errors(scores)
    kernel, digits, maps = first_layer(network, images, scores.labels)

    vectors = {
        "learning_curves": figures.learning_curves(rows, scored_epoch(config, rows)),
        "confusion_matrix": figures.confusion_matrix(matrix),
        "calibration": figures.reliability(confidences, hits),
        "confidence": figures.confidence_histogram(confidences, hits),
    }
    pixels = {
        "filters": figures.raster(figures.filters(kernel)),
        "feature_maps": figures.raster(figures.feature_maps(digits, maps)),
    }
    pictures = {name: figures.raster(figure) for name, figure in vectors.items()}
    pictures |= pixels
    if errors:
        worst = errors[: figures.MOST_WORST]
        pictures["worst_errors"] = figures.raster(
            figures.worst_errors(
                images[[e.index for e in worst]],
                [
                    f"{e.true} read as {e.read}\n{probability(e.read_probability)}"
                    for e in worst
                ],
            )
        )

    page = _environment().get_template(TEMPLATE)
    content = page.render(
        split=split,
        result=result,
        summary=summary,
        config=config,
        data=result["data"],
        environment=result["environment"],
        rows=rows,
        scored=what_is_scored(split, config, rows),
        interval=intervals.share_interval(
            summary["images"] - summary["errors"], summary["images"]
        ),
        confusions=confusions(matrix),
        per_class=_per_class(summary),
        errors=[
            (error, _data_uri(figures.png(255 - images[error.index, ..., 0]), "png"))
            for error in errors[:GALLERY]
        ],
        calibration_error=calibration.expected_calibration_error(confidences, hits),
        bins=calibration.BINS,
        mean_confidence=float(confidences.mean()),
        kernel_shape=kernel.shape,
        maps_shape=maps.shape,
        shown=(figures.MOST_FILTERS, figures.MOST_MAPS),
        pictures={
            **{n: _data_uri(figures.svg(f), "svg+xml") for n, f in vectors.items()},
            **{n: _data_uri(figures.png(p), "png") for n, p in pixels.items()},
        },
    )
    runs.write_atomically(run_dir / REPORT, content)
    return pictures


def find_errors(scores: Scores) -> list[Error]:
    """The misread digits, the one furthest from its true class first.

    That is the one with the largest gap between the probability of the class read and
    that of the true class.
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
    return sorted(errors, key=lambda e: e.true_probability - e.read_probability)


def confusions(
    matrix: np.ndarray, limit: int = CONFUSIONS
) -> list[tuple[int, int, int]]:
    """The most frequent confusions: true class, class read, how often.

    Of several equally frequent ones all are named or none, save where all are equal.

    Args:
      matrix: integers [C, C], true classes in rows.
      limit: how many, at most.
    """
    wrong = [
        (true, read, int(count))
        for (true, read), count in np.ndenumerate(matrix)
        if true != read and count
    ]
    wrong.sort(key=lambda confusion: -confusion[2])
    next_count = wrong[limit][2] if len(wrong) > limit else 0
    return [c for c in wrong[:limit] if c[2] > next_count] or wrong[:limit]


def scored_epoch(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> float | None:
    """The epoch whose weights --keep_best kept; None where the last is scored."""
    if not config["keep_best"]:
        return None
    return max(rows, key=lambda row: row["validation_accuracy"])["epoch"]


def what_is_scored(
    split: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> str:
    """Says which weights the figures are of, and what chose them."""
    weights = "the network"
    if config["weight_average"]:
        weights = (
            "the exponential average of the network’s weights"
            f" (decay {config['weight_average']:g})"
        )
    best = scored_epoch(config, rows)
    if best is not None:
        which = f"epoch {best:.0f}, the one with the best validation accuracy"
    else:
        which = f"the last step, at the end of epoch {rows[-1]['epoch']:.0f}"
    said = [f"Scored: {weights} after {which} (epochs count from 0)."]
    if len(rows) < config["epochs"]:
        said.append(f"Training ended after {len(rows)} of {config['epochs']} epochs.")
    steered = (
        best is not None or config["early_stopping"] or config["schedule"] == "plateau"
    )
    if split == "test":
        said.append("The test digits chose nothing.")
    elif steered:
        said.append(
            "The digits scored here are held-out training images, and training was"
            " steered by their accuracy, so that the figures flatter somewhat."
        )
    else:
        said.append(
            "The digits scored here are held-out training images; this dataset’s test"
            " set has no labels."
        )
    return " ".join(said)


def first_layer(
    network: tf.Module, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernel of the first layer and what it makes of a few digits.

    Args:
      network: fills `taps` in the order of its layers.
      images: uint8 [N, 28, 28, 1].
      labels: uint8 [N].

    Returns:
      kernel: float32, of the layer that fills the first tap.
      digits: uint8 [n, 28, 28, 1], the first image of each of the first classes met.
      maps: float32 [n, …], the tap.
    """
    _, first = np.unique(labels, return_index=True)
    digits = images[np.sort(first)[:FEATURE_DIGITS]]
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(digits), training=False, taps=taps)
    name = next(iter(taps))
    return getattr(network, name).w.numpy(), digits, taps[name].numpy()


def _per_class(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes' figures, with their errors and what they were read as most."""
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


def percent(share: float) -> str:
    """0.9959 → 99.59 %."""
    return f"{100 * share:.2f}{_NBSP}%"


def probability(value: float) -> str:
    """0.986 → 98.6 %, never a rounded 0 or 100."""
    if 0 < value < 0.0005:
        return f"<0.1{_NBSP}%"
    if 0.9995 < value < 1:
        return f">99.9{_NBSP}%"
    return f"{100 * value:.1f}{_NBSP}%"


def duration(seconds: float) -> str:
    """572.4 → 9 min 32 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number}{_NBSP}{unit}" for number, unit in parts[:2])


def setting(value: Any) -> str:
    """A flag's value as one types it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else str(value)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
