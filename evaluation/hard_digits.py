# SPDX-License-Identifier: Apache-2.0
"""The digits that most of several networks get wrong, and labels that people doubt.

Fifteen of MNIST's test labels are wrong or unclear in the eyes of most of five people
who were shown the digits: Northcutt, Athalye and Mueller, "Pervasive Label Errors in
Test Sets Destabilize Machine Learning Benchmarks", 2021, by their program cleanlab. The
accuracy without these is reported next to the accuracy, never in its place: other
figures on MNIST are with all labels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from data import mnist
from evaluation.recipes import Run, Table

# Positions among MNIST's test digits, counted from 0.
DOUBTED = (
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
    *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
)
MAX_ROWS = 40  # nobody reads a longer table
DOUBT = "doubted"

SOURCE = """\
The 15 labels that people doubt (Northcutt, Athalye and Mueller 2021), and the accuracy
without them, next to the accuracy and never in its place:"""


def doubted_in(run: Run) -> np.ndarray:
    """Positions of the doubted labels among the digits that a run was scored on.

    They are known for MNIST's own test digits only; int64 [15] or [0].
    """
    own = {mnist.FILES[name] for name in (mnist.TEST_IMAGES, mnist.TEST_LABELS)}
    known = run.split == "test" and own <= _hashes(run.data)
    return np.array(DOUBTED if known else [], np.int64)


def _hashes(data: Mapping[str, str]) -> set[str]:
    return {value for value in data.values() if isinstance(value, str)}


def parts(compared: Sequence[Run], names: Sequence[str]) -> list[str | Table]:
    """Tables and paragraphs for a comparison.

    Args:
      compared: two runs or more, scored on the same digits.
      names: what to call each.
    """
    doubted = doubted_in(compared[0])
    found = [*_shared(compared, doubted)]
    if len(doubted):
        found += [SOURCE, _without(compared, names, doubted)]
    return found


def most_misclassify(compared: Sequence[Run]) -> np.ndarray:
    """Digits that more than half of the networks get wrong, int64.

    Those that most of them do come first; of equally many, in order.
    """
    wrong = np.sum([~run.correct for run in compared], axis=0)
    order = np.argsort(-wrong, kind="stable")
    return order[wrong[order] > len(compared) / 2]


def _shared(compared: Sequence[Run], doubted: np.ndarray) -> list[str | Table]:
    """What most networks get wrong, as a sentence and a table."""
    indices = most_misclassify(compared)
    count = len(compared)
    most = "both" if count == 2 else f"more than half of the {count}"
    if not len(indices):
        return [f"No digit is misclassified by {most} networks."]
    labels, classes = compared[0].labels, compared[0].classes
    rows = []
    for index in indices[:MAX_ROWS]:
        said = Counter(classes[run.predicted[index]] for run in compared)
        right = classes[labels[index]]
        wrong = count - said.pop(right, 0)
        others = ", ".join(f"{name} ({n}×)" for name, n in said.most_common())
        mark = DOUBT if index in doubted else ""
        rows.append([f"{index}", right, f"{wrong} of {count}", others, mark])
    digits = "digit is" if len(indices) == 1 else "digits are"
    text = f"{len(indices)} {digits} misclassified by {most} networks"
    if len(doubted):
        text += f", {np.isin(indices, doubted).sum()} of them with a doubted label"
    if len(indices) > MAX_ROWS:
        text += f". The first {MAX_ROWS}"
    header = ["no.", "label", "wrong", "they say"] + ["label is"] * bool(len(doubted))
    return [f"{text}:", Table(header, [row[: len(header)] for row in rows])]


def _without(
    compared: Sequence[Run], names: Sequence[str], doubted: np.ndarray
) -> Table:
    """Errors and accuracy of each run, with all labels and without the doubted."""
    rows = []
    for run, name in zip(compared, names, strict=True):
        cells = [name]
        for correct in (run.correct, np.delete(run.correct, doubted)):
            errors = int((~correct).sum())
            cells += [f"{errors}", f"{100 * correct.mean():.3f}"]
        rows.append(cells)
    count = len(compared[0].labels)
    header = ["run", f"errors of {count:,}", "accuracy %"]
    header += [f"errors of {count - len(doubted):,}", "accuracy %, without the 15"]
    return Table(header, rows)
