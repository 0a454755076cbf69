# SPDX-License-Identifier: Apache-2.0
"""Accuracy on digits that are fainter, blurred, noisy, turned, moved or thinner.

The kinds are those of Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer
Vision", 2019, where it has them (brightness 0.3 is its severity 3), and faint ink and
thin strokes, which digits on paper have and it has not.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation import scoring
from evaluation.trained import Scored
from system import untrusted
from training import runs

CORRUPTIONS_FILE = "corruptions.json"

# Grey levels float64 [N, 28, 28], 0 paper to 1 ink, and a generator → the same.
Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def faint(share: float) -> Corruption:
    """Ink that is as dark as this share of black."""
    return lambda levels, _: levels * share


def blurred(sigma: float) -> Corruption:
    """Gaussian blur of this deviation, in pixels."""
    return lambda levels, _: ndimage.gaussian_filter(levels, (0, sigma, sigma))


def brighter(amount: float) -> Corruption:
    """Every grey level raised, as on grey paper, and cut off at 1."""
    return lambda levels, _: levels + amount


def noisy(deviation: float) -> Corruption:
    """Gaussian noise on every pixel."""
    return lambda levels, rng: levels + rng.normal(0, deviation, levels.shape)


def rotated(degrees: float) -> Corruption:
    """Rotated about the centre, bilinearly; clockwise if positive."""
    return lambda levels, _: ndimage.rotate(
        levels, -degrees, axes=(1, 2), reshape=False, order=1
    )


def shifted(pixels: int) -> Corruption:
    """Shifted by so many pixels: up, down, left or right, drawn for each image."""

    def corrupt(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        moves = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]]) * pixels
        chosen = moves[rng.integers(0, 4, len(levels))]
        return np.stack(
            [ndimage.shift(x, m, order=0) for x, m in zip(levels, chosen, strict=True)]
        )

    return corrupt


def eroded(size: int) -> Corruption:
    """Each pixel the lightest of a square of this side: strokes get thinner."""
    return lambda levels, _: ndimage.grey_erosion(levels, (1, size, size))


CORRUPTIONS: dict[str, Corruption] = {
    "clean": faint(1),
    "ink × 0.4": faint(0.4),
    "ink × 0.25": faint(0.25),
    "blur 1.0": blurred(1.0),
    "blur 1.5": blurred(1.5),
    "paper + 0.3": brighter(0.3),
    "noise 0.25": noisy(0.25),
    "rotation −30°": rotated(-30),
    "rotation 20°": rotated(20),
    "shift 4": shifted(4),
    "eroded 2": eroded(2),
}
# Digits on which something is chosen are corrupted with other random numbers.
SEEDS = {"test": 0, "validation": 1}


def corrupt(images: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Corrupts uint8 images [N, 28, 28, 1] in one of the ways of `CORRUPTIONS`."""
    rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
    levels = CORRUPTIONS[name](images[..., 0] / 255, rng)
    return np.rint(255 * levels.clip(0, 1)).astype(np.uint8)[..., np.newaxis]


def measure(
    predict: Callable[..., Any], images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, int]:
    """Number of misclassified images, by the name of the corruption."""
    return {
        name: int(
            (
                scoring.predict_all(predict, corrupt(images, name, seed)).argmax(1)
                != labels
            ).sum()
        )
        for name in CORRUPTIONS
    }


def evaluate(run: Any, scored: Scored) -> None:
    """Measures a run or an ensemble, prints the table, stores it as corruptions.json.

    The digits are those that were held out, if some were, and else the test digits.
    Averages over shifts are not stored: the file has the network as it was trained.

    Args:
      run: a `TrainedRun`, or an `Ensemble`, whose directory may be None.
      scored: the digits.

    Raises:
      RunError: the directory cannot be written to.
    """
    split = "validation" if "validation" in scored else "test"
    images, labels = scored[split]
    found = {
        "split": split,
        "seed": SEEDS[split],
        "images": len(labels),
        "step": run.step,
        "errors": measure(run.predict, images, labels, SEEDS[split]),
    }
    if run.directory and not run.shifts:
        text = json.dumps(found, indent=1) + "\n"
        runs.write_atomically(run.directory / CORRUPTIONS_FILE, text)
    print(show(found))
    if run.shifts:
        print(f"mean over shifts by ±{run.shifts}; not stored")


def read(run_dir: Path) -> dict[str, Any] | None:
    """Contents of corruptions.json; None if the run has none that can be read."""
    try:
        found = untrusted.read_json(run_dir / CORRUPTIONS_FILE)
        show(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # --corruptions writes it again
    return found


def rows(found: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """Rows of the table: name, errors, accuracy; the last is the mean of the others."""
    count = found["images"]
    table = [(name, n, 1 - n / count) for name, n in found["errors"].items()]
    corrupted = [n for name, n in found["errors"].items() if name != "clean"]
    mean = sum(corrupted) / len(corrupted)
    return [*table, ("mean, without clean", round(mean), 1 - mean / count)]


def show(found: Mapping[str, Any]) -> str:
    """The table as text for the console."""
    from tabulate import tabulate

    shown = [(name, f"{n:,}", f"{share:.2%}") for name, n, share in rows(found)]
    header = [f"{found['images']:,} {found['split']} digits", "errors", "accuracy"]
    return tabulate(shown, header, colalign=["left", "right", "right"])
