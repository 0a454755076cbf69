# SPDX-License-Identifier: Apache-2.0
"""Dataset "folder": pictures in a folder per class, brought to 28×28 grey pixels.

The pictures lie in train/CLASS and, if there is one, test/CLASS; or in CLASS.
"""

import os
from pathlib import Path

import numpy as np

from data import assemble, decode, inputs
from data.dataset import DataError, Dataset, empty
from data.idx import MAX_BYTES
from data.normalise import SIZE

_PARTS = {"train": ("train", "training"), "test": ("test", "testing")}
_SAMPLE = 100  # pictures that decide whether the paper is light
_EXPECTED = "a folder with train/CLASS or CLASS, each a folder of pictures"

Files = list[tuple[str, Path]]  # class and picture


def load(data_dir: str | None = None, *, normalise_ink: bool | None = None) -> Dataset:
    """Returns the data set in a folder.

    Whether ink is dark on light paper is decided by the median grey of the borders of
    some training pictures, for all; `source` says so. Without a test part, a tenth of
    the training pictures is held out.

    Args:
      data_dir: the folder.
      normalise_ink: whether to scale and centre the ink as MNIST's was; otherwise the
        picture is resized, and padded with its paper to a square.

    Raises DataError or PhotoError if the folder has no such pictures, or one cannot be
    read.
    """
    if data_dir is None:
        raise DataError(
            f"folder: nothing given; expected {_EXPECTED}; name it with --data_dir"
        )
    root = Path(data_dir)
    names = _folders(root)
    parts = {
        part: next((n for n in names if n.lower() in words), None)
        for part, words in _PARTS.items()
    }
    train = _files(root / parts["train"] if parts["train"] else root)
    test = _files(root / parts["test"]) if parts["train"] and parts["test"] else []
    dark = _is_paper_light([path for _, path in train])
    source = data_dir + ("; dark ink on light paper, so inverted" if dark else "")
    if normalise_ink:
        source += "; ink scaled and centred"
    return assemble.dataset(
        "folder",
        _read(train, dark, bool(normalise_ink)),
        _read(test, dark, bool(normalise_ink)) if test else None,
        source,
    )


def _folders(place: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    try:
        with os.scandir(place) as found:
            return sorted(e.name for e in found if e.is_dir() and e.name[0] != ".")
    except OSError as error:
        raise DataError(
            f"{place}: cannot be read ({error.strerror}); expected {_EXPECTED}; check"
            " --data_dir"
        ) from error


def _files(place: Path) -> Files:
    """Pictures in the folders of a folder, by class and name."""
    files = []
    for name in _folders(place):
        for path in sorted((place / name).iterdir()):
            if path.suffix.lower() in decode.SUFFIXES and path.name[0] != ".":
                files.append((name, path))
    if not files:
        raise DataError(
            f"{place}: holds no folder with pictures; expected {_EXPECTED}, whose names"
            f" end in {', '.join(decode.SUFFIXES)}; check --data_dir"
        )
    if len(files) * SIZE * SIZE > MAX_BYTES:
        raise DataError(
            f"{place}: holds {len(files):,} pictures; expected at most"
            f" {MAX_BYTES // SIZE**2:,}; leave some out"
        )
    return files


def _grey(path: Path) -> np.ndarray:
    # Here, because importing `data` should not pay for loading OpenCV.
    import cv2

    return cv2.cvtColor(decode.read(path).pixels, cv2.COLOR_RGB2GRAY)


def _is_paper_light(paths: list[Path]) -> bool:
    sample = paths[:: -(-len(paths) // _SAMPLE)]
    return float(np.median([inputs.paper_of(_grey(path)) for path in sample])) > 127


def _read(files: Files, dark: bool, normalise_ink: bool) -> assemble.Part:
    """Reads pictures, in their order."""
    images = empty((len(files), SIZE, SIZE, 1))
    names = sorted({name for name, _ in files})
    labels = np.array([names.index(name) for name, _ in files])
    for image, (_, path) in zip(images, files):
        grey = 255 - _grey(path) if dark else _grey(path)
        try:
            image[..., 0] = inputs.normalised(grey) if normalise_ink else _resized(grey)
        except ValueError as error:
            raise DataError(
                f"{path}: {error}; remove it, or leave --normalise_ink out"
            ) from None
    return assemble.Part(images, labels, names)


def _resized(grey: np.ndarray) -> np.ndarray:
    """Resizes a picture to 28×28, padded with its paper; one of that size stays."""
    import cv2

    if grey.shape == (SIZE, SIZE):
        return grey
    scale = SIZE / max(grey.shape)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = np.full((SIZE, SIZE), inputs.paper_of(grey), np.uint8)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    image[top : top + height, left : left + width] = cv2.resize(
        grey, (width, height), interpolation=method
    )
    return image
