# SPDX-License-Identifier: Apache-2.0
"""Contact sheet of the transforms, offline and online: labelled rows of ten digits."""

import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import data
from augment import online_settings
from augment.online_settings import OnlineSettings
from augment.plan import Settings, plan
from system import files

COLUMNS = 10  # classes that are shown, the first ones
COPY_ROWS = 8  # deformed copies that are shown, at most
ONLINE_ROWS = 3  # rows that show all online transforms together

_SCALE = 2  # screen pixels per pixel of a digit, along each axis
_GAP = 6  # screen pixels between two digits, and around the sheet
_LABEL_WIDTH = 170  # screen pixels left of the digits
_DPI = 100
_PAPER, _FRAME = 255, 190  # grey levels

# A label, and ten images uint8 [28, 28, 1]; None leaves a cell blank.
Row = tuple[str, Sequence[np.ndarray | None]]


def write(
    dataset: data.Dataset,
    settings: Settings,
    online: OnlineSettings,
    path: str | os.PathLike[str],
) -> None:
    """Draws all transforms to a PNG file, each on the first image of ten classes.

    Raises UserError if the file cannot be written, or the set would be empty.
    """
    rows = preview_rows(dataset, settings) + online_rows(dataset, online)
    write_contact_sheet(rows, path)


def preview_rows(dataset: data.Dataset, settings: Settings) -> list[Row]:
    """Applies each offline transform to the first training image of ten classes.

    One row per transform; blank where a transform is not applied to a class.
    """
    present, first = np.unique(dataset.train_labels, return_index=True)
    images = dataset.train_images[first]
    rows: list[Row] = []
    # A deformed set consists of the originals and many copies.
    shown = COPY_ROWS + 1 if settings.deform else None
    for part in plan(present, settings)[:shown]:
        transformed = part.apply(images[part.indices])
        rows.append((part.name, _by_class(present[part.indices], transformed)))
    return rows


def online_rows(dataset: data.Dataset, settings: OnlineSettings) -> list[Row]:
    """Applies the online transforms, with seed 0, to the same images.

    One row per transform, then rows with all of them together, one per training step;
    no rows if no transform is on.
    """
    alone = online_settings.each_alone(settings)
    if not alone:
        return []
    # Here, because loading TensorFlow takes longer than building a set.
    from system import device  # isort: skip  (first: it loads TensorFlow)
    from augment import online

    device.set_threads(0)
    # TensorFlow would warn that each row is traced anew.
    device.tf.get_logger().setLevel("ERROR")
    present, first = np.unique(dataset.train_labels, return_index=True)
    images = device.tf.constant(dataset.train_images[first])
    shown = [(label, one, 0) for label, one in alone]
    shown += [(f"online, step {step}", settings, step) for step in range(ONLINE_ROWS)]
    rows: list[Row] = []
    for label, bounds, step in shown:
        transformed = online.transform(images, device.tf.constant([0, step]), bounds)
        rows.append((label, _by_class(present, transformed.numpy())))
    return rows


def _by_class(labels: np.ndarray, images: np.ndarray) -> list[np.ndarray | None]:
    cells = dict(zip(labels.tolist(), images))
    return [cells.get(label) for label in range(COLUMNS)]


def write_contact_sheet(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Draws digits as dark ink on white paper, one labelled row below another."""
    files.write(path, _draw(rows), follow=True, remedy="choose another --preview")


def _draw(rows: Sequence[Row]) -> bytes:
    """Returns the contents of the PNG file."""
    ink = np.concatenate([_row(digits) for _, digits in rows])
    height, width = ink.shape[0] + 2 * _GAP, _LABEL_WIDTH + ink.shape[1] + 2 * _GAP
    size = (width / _DPI, height / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
    # figimage copies pixels one to one; axes would resample and blur them.
    figure.figimage(
        ink, _LABEL_WIDTH + _GAP, _GAP, cmap="gray", vmin=0, vmax=255, origin="upper"
    )
    row_height = ink.shape[0] / len(rows)
    for number, (label, _) in enumerate(rows):
        y = 1 - (_GAP + (number + 0.5) * row_height) / height
        figure.text(_LABEL_WIDTH / width, y, label, ha="right", va="center", fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    return png.getvalue()


def _row(digits: Sequence[np.ndarray | None]) -> np.ndarray:
    """Lays framed digits side by side: uint8 [height, width]."""
    return np.concatenate([_cell(digit) for digit in digits], axis=1)


def _cell(digit: np.ndarray | None) -> np.ndarray:
    """Enlarges a digit and draws a frame around it, so that a shift can be seen."""
    side = 28 * _SCALE
    if digit is None:
        return np.full((side + _GAP, side + _GAP), _PAPER, np.uint8)
    large = (255 - digit[..., 0]).repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    framed = np.pad(large, 1, constant_values=_FRAME)
    return np.pad(framed, _GAP // 2 - 1, constant_values=_PAPER)
