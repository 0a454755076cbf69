# SPDX-License-Identifier: Apache-2.0
"""Images as people have them, brought to what networks take: uint8 [N, 28, 28, 1].

0 is paper and 255 ink, as in MNIST. Bytes, 0 to 255, and floats, 0 to 1, are told apart
by dtype and range. Whatever is neither is refused: a network would read it as blank
paper, or as noise, and not say so.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import decode
from data.normalise import SIZE, normalise
from system import console, errors

ARRAYS = (
    "an array [28, 28], [N, 28, 28] or [N, 28, 28, 1] of integers 0 to 255 or floats 0"
    " to 1, where 0 is paper"
)
EXPECTED = f"expected paths of pictures, or {ARRAYS}"
_BLOCK_IMAGES = 1000  # converted at a time

FAINTEST_INK_GREY = 25  # above the paper


class InputError(errors.UserError, ValueError):
    """Something that is neither images nor paths of images."""


def images(given: Any) -> np.ndarray:
    """Images of any accepted form as uint8 [N, 28, 28, 1].

    Args:
      given: path of a picture, or a sequence of paths; see `picture`. Or an array, or
        what `numpy.asarray` makes one of, [28, 28], [N, 28, 28] or [N, 28, 28, 1]:
        integers 0 to 255; floats 0 to 1, which are multiplied by 255 and rounded; or
        floats that are whole numbers up to 255. If no float is above 1, 1 is ink.

    Raises:
      InputError: it is anything else.
      decode.PhotoError: a picture cannot be read.
    """
    if paths := _paths(given):
        return np.stack([picture(path) for path in paths])
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged; on a GPU; …
        what = console.one_line(str(error))[:200]
        raise InputError(f"not images: {what}; {EXPECTED}") from None
    shape = array.shape[:-1] if array.ndim == 4 and array.shape[3] == 1 else array.shape
    if len(shape) not in (2, 3) or shape[-2:] != (SIZE, SIZE):
        raise _refusal(given, array)
    pixels = array if array.dtype == np.uint8 else _bytes(given, array)
    return pixels.reshape(-1, SIZE, SIZE, 1)


def _paths(given: Any) -> list[Path]:
    """Paths, if that is what is given; none if it is anything else."""
    if isinstance(given, (str, os.PathLike)):
        return [Path(given)]
    if not isinstance(given, Sequence) or not given:
        return []
    are_paths = [isinstance(one, (str, os.PathLike)) for one in given]
    if not any(are_paths):
        return []
    if not all(are_paths):
        raise InputError(f"not images: paths and other things; {EXPECTED}")
    return [Path(one) for one in given]


def _bytes(given: Any, array: np.ndarray) -> np.ndarray:
    """Numbers of another type as uint8 of the same shape."""
    if array.dtype.kind not in "iuf":
        raise _refusal(given, array)
    if not array.size:
        return array.astype(np.uint8)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # this way round, NaN is refused
        raise _refusal(given, array)
    if array.dtype.kind == "f" and high <= 1:
        pixels = np.empty(array.shape, np.uint8)
        for start in range(0, len(array), _BLOCK_IMAGES):
            block = array[start : start + _BLOCK_IMAGES].astype(np.float64)
            pixels[start : start + _BLOCK_IMAGES] = np.rint(block * 255)
        return pixels
    pixels = array.astype(np.uint8)
    if (pixels != array).any():
        raise _refusal(given, array)
    return pixels


def _refusal(given: Any, array: np.ndarray) -> InputError:
    kind = array.dtype.name if array.dtype.kind != "O" else type(given).__name__
    return InputError(f"not images: {describe(array, kind)}; {EXPECTED}")


def describe(array: np.ndarray, kind: str = "") -> str:
    """Type, shape and range of an array, for a message."""
    kind = kind or array.dtype.name
    what = f"{kind} {list(array.shape)}"
    if array.dtype.kind in "iuf" and array.size:
        finite = array[np.isfinite(array)]
        what += f" from {finite.min():.9g} to {finite.max():.9g}" if finite.size else ""
        what += " with NaN or infinity" if finite.size < array.size else ""
    return what


def picture(path: Path) -> np.ndarray:
    """A picture of one digit as uint8 [28, 28, 1].

    Its border is paper: if most of it is light, ink is dark, and the picture is
    inverted. Apart from that, a grey picture of 28×28 pixels stays as it is; of another
    size, the paper becomes 0, the strongest ink 255, and the ink is scaled and centred
    as MNIST's was. Pages and photos with shadows are for `photos.reading`.

    Raises:
      decode.PhotoError: it cannot be read, or has no ink.
    """
    # OpenCV is loaded here, since a network can be used without any picture.
    import cv2

    grey = cv2.cvtColor(decode.read(path).pixels, cv2.COLOR_RGB2GRAY)
    if paper_of(grey) > 127:
        grey = 255 - grey
    if grey.shape == (SIZE, SIZE):
        return grey[..., np.newaxis]
    try:
        return normalised(grey)[..., np.newaxis]
    except ValueError as error:
        raise decode.PhotoError(f"{path}: {error}") from None


def paper_of(grey: np.ndarray) -> int:
    """Grey of a picture's paper: the median of its border."""
    edges = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
    return int(np.median(np.concatenate(edges)))


def normalised(grey: np.ndarray) -> np.ndarray:
    """Scales and centres light ink on darker paper; ValueError if there is none."""
    paper = paper_of(grey)
    ink = np.maximum(grey, paper).astype(np.float32) - paper
    ink[ink < FAINTEST_INK_GREY] = 0  # noise of the paper, artefacts of JPEG
    ink *= 255 / max(ink.max(), 1)
    return normalise(np.rint(ink).astype(np.uint8))
