# SPDX-License-Identifier: Apache-2.0
"""Dataset "kaggle": reads and writes the files of Kaggle's "Digit Recognizer".

train.csv     label,pixel0,…,pixel783: 42,000 digits in the competition
test.csv      pixel0,…,pixel783: 28,000 digits, whose labels are secret
submission    ImageId,Label: predictions for test.csv, counted from 1

Pixel i lies in row i div 28 and column i mod 28; 0 is paper, 255 ink.
"""

import csv
import io
import os
from collections.abc import Sequence

import numpy as np

from data import table
from data.dataset import DIGITS, DataError, Dataset
from data.idx import Path
from system import console, files

TRAIN = "train.csv"
TEST = "test.csv"
LABEL = "label"
PIXELS = tuple(f"pixel{i}" for i in range(28 * 28))


def _how_to_make() -> str:
    return console.command("-m", "data.make_kaggle", "--kaggle_dir=kaggle")


def load(data_dir: str | None = None) -> Dataset:
    """Returns the competition's digits; its test digits have no labels.

    The files are not trusted, see `data.table`; a spreadsheet may have saved them. No
    data_dir is an error, because only members of Kaggle can download train.csv and
    test.csv.

    Raises DataError if a file is missing or invalid; the message names the line,
    counted from 1, and the column.
    """
    if data_dir is None:
        raise DataError(
            f"kaggle: no folder given; expected one with Kaggle's {TRAIN} and {TEST},"
            " which only members can download; name it with --data_dir, or make such"
            f" files from MNIST with {_how_to_make()}"
        )
    train = _read(os.path.join(data_dir, TRAIN), labelled=True)
    test = _read(os.path.join(data_dir, TEST), labelled=False)
    return Dataset(
        name="kaggle",
        train_images=train.images,
        train_labels=np.array([*map(int, train.names)], np.uint8)[train.labels],
        test_images=test.images,
        test_labels=None,
        hashes={TRAIN: train.sha256, TEST: test.sha256},
        source=data_dir,
    )


def _read(path: str, labelled: bool) -> table.Table:
    try:
        found = table.read(path, _digit, "a whole number from 0 to 9")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; expected Kaggle's {os.path.basename(path)}; check"
            f" --data_dir, or make such files from MNIST with {_how_to_make()}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a CSV file; check"
            " what it is and its permissions"
        ) from error
    if labelled != (found.labels is not None):
        raise DataError(
            f"{path}: line 1 names {'no' if labelled else 'a'} column of labels;"
            f" expected {LABEL if labelled else PIXELS[0]},…,{PIXELS[-1]}; check that"
            f" {TRAIN} and {TEST} are not swapped"
        )
    return found


def _digit(cell: bytes) -> str | None:
    return table.any_label(cell) if cell.isdigit() and float(cell) <= 9 else None


def write_digits(
    path: Path, images: np.ndarray, labels: np.ndarray | None = None
) -> None:
    """Writes a train.csv, or a test.csv if there are no labels, atomically.

    Images are uint8 [N, 28, 28, 1], labels uint8 [N]. Raises UserError if that fails.
    """
    names: tuple[str, ...] = PIXELS
    rows: np.ndarray = images.reshape(-1, len(PIXELS))
    if labels is not None:
        names, rows = (LABEL, *PIXELS), np.column_stack([labels, rows])
    files.write(path, _csv(names, rows), follow=True)


def write_submission(
    path: Path, predictions: np.ndarray, classes: Sequence[str] = DIGITS
) -> None:
    """Writes the names of predictions, integers [N], in the order of test.csv.

    Raises ValueError if they are none, UserError if the file cannot be written.
    """
    if predictions.ndim != 1 or predictions.dtype.kind not in "iu":
        raise ValueError(
            f"predictions are {predictions.dtype} {list(predictions.shape)}; expected"
            " integers [N]"
        )
    if not np.isin(predictions, range(len(classes))).all():
        raise ValueError(
            f"predictions are not all classes; expected 0 to {len(classes) - 1}"
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("ImageId", "Label"))
    writer.writerows((i, classes[p]) for i, p in enumerate(predictions.tolist(), 1))
    files.write(path, table.getvalue().encode(), follow=True)


def _csv(names: Sequence[str], rows: np.ndarray) -> bytes:
    header = f"{','.join(names)}\n".encode()
    return header + b"".join(
        f"{','.join(map(str, r.tolist()))}\n".encode() for r in rows
    )
