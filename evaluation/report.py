# SPDX-License-Identifier: Apache-2.0
"""report.html: a finished run as one self-contained page.

The words are in report.html.j2, the pictures in evaluation.figures; here is what
both are made from.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class FirstLayer(NamedTuple):
    """Attributes:
    kernel: float32, of the layer that fills the first tap.
    digits: uint8 [n, 28, 28, 1], the first image of each of the first classes met.
    maps: float32 [n, …], the tap.
    """

    kernel: np.ndarray
    digits: np.ndarray
    maps: np.ndarray


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

    errors = find_errors(scores)
    layer = first_layer(network, images, scores.labels)
    vectors, pixels = _draw(split, result, rows, scores, layer)
    pictures = {name: figures.raster(figure) for name, figure in vectors.items()}
    pictures |= pixels
    if errors:
        pictures["worst_errors"] = _draw_worst(images, errors)

    uris = {n: _data_uri(figures.svg(f), "svg+xml") for n, f in vectors.items()}
    uris |= {n: _data_uri(figures.png(p), "png") for n, p in pixels.items()}
    page = _environment().get_template(TEMPLATE)
    content = page.render(
        **_facts(split, result, rows, scores, layer),
        errors=_gallery(images, errors),
        shown=(figures.MOST_FILTERS, figures.MOST_MAPS),
        pictures=uris,
    )
    runs.write_atomically(run_dir / REPORT, content)
    return pictures


def _draw(
    split: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    scores: Scores,
    layer: FirstLayer,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The page's pictures by name: figures of lines, and uint8 [H, W, 3] of pixels."""
    from evaluation import figures

    confidences = scores.probabilities.max(1)
    hits = scores.predictions == scores.labels
    # The last epoch is where the curves end, and needs no mark.
    marked = result["scored_epoch"] if result["config"]["keep_best"] else None
    vectors = {
        "learning_curves": figures.learning_curves(rows, marked),
        "confusion_matrix": figures.confusion_matrix(
            np.array(result[split]["confusion_matrix"])
        ),
        "calibration": figures.reliability(confidences, hits),
        "confidence": figures.confidence_histogram(confidences, hits),
    }
    pixels = {
        "filters": figures.raster(figures.filters(layer.kernel)),
        "feature_maps": figures.raster(figures.feature_maps(layer.digits, layer.maps)),
    }
    return vectors, pixels


def _draw_worst(images: np.ndarray, errors: Sequence[Error]) -> np.ndarray:
    """The first errors with captions, for TensorBoard: uint8 [H, W, 3]."""
    from evaluation import figures

    worst = errors[: figures.MOST_WORST]
    captions = [
        f"{e.true} read as {e.read}\n{probability(e.read_probability)}" for e in worst
    ]
    chosen = images[[e.index for e in worst]]
    return figures.raster(figures.worst_errors(chosen, captions))


def _gallery(images: np.ndarray, errors: Sequence[Error]) -> list[tuple[Error, str]]:
    """The first errors, each with the data URI of its picture."""
    from evaluation import figures

    return [
        (error, _data_uri(figures.png(255 - images[error.index, ..., 0]), "png"))
        for error in errors[:GALLERY]
    ]


def _facts(
    split: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, float]],
    scores: Scores,
    layer: FirstLayer,
) -> dict[str, Any]:
    """The page's variables, all but pictures."""
    summary = result[split]
    return {
        "split": split,
        "result": result,
        "summary": summary,
        "config": result["config"],
        "data": result["data"],
        "environment": result["environment"],
        "rows": rows,
        "scored": what_is_scored(split, result),
        "interval": intervals.share_interval(
            summary["images"] - summary["errors"], summary["images"]
        ),
        "confusions": confusions(np.array(summary["confusion_matrix"])),
        "per_class": _per_class(summary),
        "bins": calibration.BINS,
        "mean_confidence": float(scores.probabilities.max(1).mean()),
        "kernel_shape": layer.kernel.shape,
        "maps_shape": layer.maps.shape,
    }


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


def what_is_scored(split: str, result: Mapping[str, Any]) -> str:
    """Says which weights the figures are of, and what chose them."""
    config, epochs = result["config"], result["epochs"]
    weights = "the network"
    if config["weight_average"]:
        weights = (
            "the exponential average of the network’s weights"
            f" (decay {config['weight_average']:g})"
        )
    if config["keep_best"]:
        which = "epoch {}, the one with the best validation accuracy"
    elif result["scored_epoch"] == epochs:  # as many as are whole: it is the next
        which = f"step {result['steps']:,}, within epoch {{}}"
    else:
        which = "the last step, at the end of epoch {}"
    which = which.format(result["scored_epoch"])
    said = [f"Scored: {weights} after {which} (epochs count from 0)."]
    progress = f"{epochs} of {config['epochs']} epochs"
    if not result["finished"]:
        said.append(f"Training is unfinished: {progress} so far.")
    elif epochs < config["epochs"]:
        said.append(f"Training stopped early, after {progress}.")
    steered = (
        config["keep_best"]
        or config["early_stopping"]
        or config["schedule"] == "plateau"
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
) -> FirstLayer:
    """The kernel of the first layer and what it makes of a few digits.

    Args:
      network: fills `taps` in the order of its layers.
      images: uint8 [N, 28, 28, 1].
      labels: uint8 [N].
    """
    _, first = np.unique(labels, return_index=True)
    digits = images[np.sort(first)[:FEATURE_DIGITS]]
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(digits), training=False, taps=taps)
    name = next(iter(taps))
    return FirstLayer(getattr(network, name).w.numpy(), digits, taps[name].numpy())


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
    """A flag's value as one types it or, in brackets, that there is none."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return "(not set)" if value is None else str(value)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
