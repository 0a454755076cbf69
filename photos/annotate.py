# SPDX-License-Identifier: Apache-2.0
"""Draws readings on their photos."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from data import decode
from evaluation import figures
from photos import reading
from system import errors, files


def name_files(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Names the annotated picture of each photo: like the photo, numbered if need be.

    Raises UsageError if photos lie in this folder, and we might overwrite one.
    """
    for path in paths:
        if path.parent.resolve() == folder.resolve():
            raise errors.UsageError(
                f"--annotated_dir={folder} holds {path.name}, which might be"
                " overwritten: choose another folder"
            )
    names: dict[Path, None] = {}
    for path in paths:
        name, number = folder / f"{path.stem}.png", 2
        while name in names:
            name, number = folder / f"{path.stem}-{number}.png", number + 1
        names[name] = None
    return list(names)


def write(path: Path, page: reading.Page) -> None:
    """Draws the readings of a photo on it and writes it as a PNG file.

    Raises PhotoError if the photo cannot be read again, UserError if writing fails.
    """
    photo = decode.read(page.path)
    picture = draw(photo.pixels, page.readings, photo.scale)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise reading.ReadingError(
            f"{path.parent}: cannot be created ({error.strerror}); choose another"
            " --annotated_dir"
        ) from None
    files.write(path, figures.png(picture))


_SMALL_PICTURE_PIXELS = 800  # longer side; smaller pictures are enlarged


def draw(
    picture: np.ndarray, readings: Sequence[reading.Reading], reduced: int = 1
) -> np.ndarray:
    """Draws a box around each digit, labelled with its class: uint8 [H, W, 3], RGB.

    A small picture is enlarged. `reduced` says how many times smaller the picture is
    than the photo, each way.
    """
    scale = max(1, _SMALL_PICTURE_PIXELS // max(picture.shape[:2]))
    canvas = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    line = max(1, round(max(canvas.shape) / 800))
    rim = 3 * line
    for one in readings:
        left, top, width, height = (side * scale // reduced for side in one.box)
        # The question mark is for readers who do not see the colours.
        colour = _rgb(figures.ORANGE if one.doubtful else figures.BLUE)
        corners = (left - rim, top - rim), (left + width + rim, top + height + rim)
        cv2.rectangle(canvas, *corners, colour, line)
        text = f"{one.digit}{'?' if one.doubtful else ''}"
        _label(canvas, text, (left - rim, top - rim), height, colour, line)
    return canvas


def _label(
    canvas: np.ndarray,
    text: str,
    corner: tuple[int, int],
    height: int,
    colour: tuple[int, int, int],
    line: int,
) -> None:
    """Draws white text on a coloured field above the corner, or lower at the border."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    size = max(14 * line, height // 4)
    scale = cv2.getFontScaleFromHeight(font, size, line)
    (width, _), _ = cv2.getTextSize(text, font, scale, line)
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - width - size // 2))
    bottom = max(corner[1], size * 3 // 2)
    field = (left, bottom - size * 3 // 2), (left + width + size // 2, bottom)
    cv2.rectangle(canvas, *field, colour, cv2.FILLED)
    start = left + size // 4, bottom - size // 4
    weight = max(1, size // 8)
    cv2.putText(canvas, text, start, font, scale, (255,) * 3, weight, cv2.LINE_AA)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
