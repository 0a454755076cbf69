# SPDX-License-Identifier: Apache-2.0
"""Dataset "folder": pictures in a folder per class, brought to 28×28 grey pixels.

The pictures lie in train/CLASS and, if there is one, test/CLASS; or in CLASS.
"""

import os
from pathlib import Path

import numpy as np

from data import assemble, decode, inputs
from data.dataset import DataError, Dataset, check_classes, empty
from data.idx import MAX_BYTES
from data.normalise import SIZE, resize
from system import errors

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
            f"folder: no folder given; expected {_EXPECTED}; name it with --data_dir"
        )
    root = Path(data_dir)
    train, test = _parts(root)
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


def _parts(root: Path) -> tuple[Files, Files]:
    """Pictures of the training part and of the test part, which may have none.

    Raises DataError unless each class has pictures, and its name can be that of one.
    """
    found = {folder.name: folder for folder in _folders(root, root)}
    named = {
        part: next((found[name] for name in found if name.lower() in words), None)
        for part, words in _PARTS.items()
    }
    place, test_place = named["train"] or root, named["train"] and named["test"]
    folders = _folders(place, root)
    test_folders = _folders(test_place, root) if test_place else []
    train, test = _files(folders, root), _files(test_folders, root)
    if not train or (test_place and not test):
        raise DataError(
            f"{test_place if train else place}: holds no folder with pictures; expected"
            f" {_EXPECTED}, whose names end in {', '.join(decode.SUFFIXES)}; check"
            " --data_dir"
        )
    names = {name for name, _ in (*train, *test)}
    for folder in (*folders, *test_folders):
        if folder.name not in names:
            raise DataError(
                f"{folder}: holds no picture; expected files in it whose names end in"
                f" {', '.join(decode.SUFFIXES)}; convert or move them, or remove it"
            )
    try:
        check_classes(assemble.classes_of(names))
    except DataError as error:
        raise DataError(f"{root}: {error}; rename or move the folders") from None
    return train, test


def _folders(place: Path, root: Path) -> list[Path]:
    """Folders in a folder, sorted."""
    folders = [path for path in _inside(place) if os.path.isdir(path)]
    _check_links(folders, root)
    return folders


def _files(folders: list[Path], root: Path) -> Files:
    """Pictures in folders, by class and name."""
    files: Files = []
    for folder in folders:
        paths = [p for p in _inside(folder) if p.suffix.lower() in decode.SUFFIXES]
        _check_links(paths, root)
        files += [(folder.name, path) for path in paths]
        if len(files) * SIZE * SIZE > MAX_BYTES:
            raise DataError(
                f"{root}: holds {len(files):,} pictures or more; expected at most"
                f" {MAX_BYTES // SIZE**2:,}; leave some out"
            )
    return files


def _inside(place: Path) -> list[Path]:
    """What a folder holds, sorted, apart from hidden files."""
    try:
        return sorted(place / name for name in os.listdir(place) if name[0] != ".")
    except (OSError, ValueError) as error:  # ValueError: no folder can have this name
        raise DataError(
            f"{place}: cannot be read ({errors.reason(error)}); expected {_EXPECTED};"
            " check --data_dir"
        ) from error


def _check_links(paths: list[Path], root: Path) -> None:
    """Raises DataError for a link that leads out of the data set.

    Somebody else's data could otherwise make any file of ours a training image.
    """
    inside = Path(os.path.realpath(root))
    for path in filter(Path.is_symlink, paths):
        if inside not in Path(os.path.realpath(path)).parents:
            raise DataError(
                f"{path}: a link that leads out of {root}; expected pictures and"
                " folders, or links to those inside; put a copy in its place"
            )


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
    if grey.shape == (SIZE, SIZE):
        return grey
    scale = SIZE / max(grey.shape)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    image = np.full((SIZE, SIZE), inputs.paper_of(grey), np.uint8)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    image[top : top + height, left : left + width] = resize(grey, height, width)
    return image
