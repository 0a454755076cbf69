# SPDX-License-Identifier: Apache-2.0
"""A contact sheet of labelled rows of digits, as a PNG."""

import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from system import errors, files

SCALE = 2  # screen pixels per pixel of a digit, along each axis
GAP = 6  # screen pixels between two digits, and around the sheet
LABEL_WIDTH = 170  # screen pixels left of the digits
DPI = 100
PAPER, FRAME = 255, 190  # grey levels


Digits = Sequence[np.ndarray | None]


def write_contact_sheet(
    rows: Sequence[tuple[str, Digits]], path: str | os.PathLike[str]
) -> None:
    """Draws digits as dark ink on white, one labelled row after another.

    Args:
      rows: label and digits of each row, all of one length; a digit is uint8
        [28, 28, 1], or None for a blank cell.
      path: of the PNG file. It appears when it is whole, or not at all.

    Raises:
      errors.UserError: if the file cannot be written.
    """
    png = _draw(rows)
    try:
        with files.replacing(path, follow=True) as file:
            file.write(png)
    except OSError as error:
        raise errors.UserError(
            f"cannot write the preview {os.fspath(path)}: {error.strerror}; "
            "choose another --preview"
        ) from error


def _draw(rows: Sequence[tuple[str, Digits]]) -> bytes:
    """Returns the bytes of the PNG file."""
    ink = np.concatenate([_row(digits) for _, digits in rows])
    height, width = ink.shape[0] + 2 * GAP, LABEL_WIDTH + ink.shape[1] + 2 * GAP
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    # figimage copies pixels one to one; axes would resample and blur them.
    figure.figimage(
        ink, LABEL_WIDTH + GAP, GAP, cmap="gray", vmin=0, vmax=255, origin="upper"
    )
    row_height = ink.shape[0] / len(rows)
    for number, (label, _) in enumerate(rows):
        y = 1 - (GAP + (number + 0.5) * row_height) / height
        figure.text(LABEL_WIDTH / width, y, label, ha="right", va="center", fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    return png.getvalue()


def _row(digits: Digits) -> np.ndarray:
    """Lays framed digits side by side: uint8 [height, width]."""
    return np.concatenate([_cell(digit) for digit in digits], axis=1)


def _cell(digit: np.ndarray | None) -> np.ndarray:
    """Enlarges and frames a digit: the frame is what shows that one was shifted."""
    side = 28 * SCALE
    if digit is None:
        return np.full((side + GAP, side + GAP), PAPER, np.uint8)
    large = (255 - digit[..., 0]).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    framed = np.pad(large, 1, constant_values=FRAME)
    return np.pad(framed, GAP // 2 - 1, constant_values=PAPER)
