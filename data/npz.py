# SPDX-License-Identifier: Apache-2.0
"""Dataset "npz": arrays of numpy, as Keras stores MNIST; files are not trusted.

`np.load` would unpack anything, and allocate whatever size a header claims. We check
the sizes in the archive and in the header of each array first.
"""

import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np

from data import assemble, inputs
from data.dataset import DataError, Dataset, empty
from data.idx import MAX_BYTES
from system import console, untrusted

# Names of images and labels, for training and testing: Keras' and MedMNIST's.
NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)

_EXPECTED = f"an .npz file with the arrays {', '.join(NAMES[0])}"
_REMEDY = "replace the file with an intact copy"
_DIRECTORY_BYTES = 1 << 20  # of an archive: thousands of arrays
_CHUNK_BYTES = 1 << 20
_DEFLATE_RATIO = 1032  # no stream inflates by more (manual of zlib)
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # np.savez, savez_compressed
# Whatever zipfile and numpy raise on a damaged archive.
DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error),
    *(NotImplementedError, SyntaxError, tokenize.TokenError),
)


def load(data_dir: str | None = None) -> Dataset:
    """Returns the data set in an .npz file; or in a folder, if it holds only one.

    Images are [N, 28, 28] or [N, 28, 28, 1], bytes or floats from 0 to 1, see
    `inputs.images`; labels are integers [N] or [N, 1].

    Raises DataError if the file is missing or damaged, or lacks an array.
    """
    if data_dir is None:
        raise DataError(
            f"npz: nothing given; expected {_EXPECTED}; name it with" " --data_dir"
        )
    path = _path(data_dir)
    arrays = read(path)
    train, test = (
        _part(path, arrays, names) for names in (list(arrays)[:2], list(arrays)[2:])
    )
    return assemble.dataset("npz", train, test, path)


def _path(data_dir: str) -> str:
    if not os.path.isdir(data_dir):
        return data_dir
    try:
        found = os.listdir(data_dir)
    except OSError as error:
        raise DataError(
            f"{data_dir}: cannot be read ({error.strerror}); check --data_dir"
        ) from None
    names = [name for name in found if name.endswith(".npz") and name[0] != "."]
    if len(names) != 1:
        raise DataError(
            f"{data_dir}: holds {len(names)} .npz files; expected one; name the file"
            " with --data_dir"
        )
    return os.path.join(data_dir, names[0])


def _part(path: str, arrays: dict[str, np.ndarray], names: list[str]) -> assemble.Part:
    """Checks the images and labels of a part."""
    given, labels = (arrays[name] for name in names)
    try:
        images = inputs.images(given)
    except inputs.InputError:
        raise DataError(
            f"{path}: {names[0]} is {inputs.describe(given)}; expected"
            f" {inputs.ARRAYS}; convert it and save it again"
        ) from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: {names[1]} is {labels.dtype} {list(labels.shape)}; expected"
            f" integers [{len(images)}], the class of each image; convert it"
            " (np.argmax(labels, 1) does it for one-hot labels) and save it again"
        )
    return assemble.Part.numbered(images, labels)


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the four arrays of a file, by name, in the order of `NAMES`.

    Their shapes and types are not checked, except that they are numbers.

    Raises DataError if the file is missing or damaged, or lacks an array.
    """
    try:
        with untrusted.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            bounded: Any = _Bounded(file, size)
            with zipfile.ZipFile(bounded) as archive:
                infos = {info.filename: info for info in archive.infolist()}
                names = _choose(path, infos)
                return {
                    name: _read_array(archive, infos[f"{name}.npy"], size)
                    for name in names
                }
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; expected {_EXPECTED}; check --data_dir"
        ) from error
    except DAMAGE as error:
        raise DataError(
            f"{path}: damaged, or no .npz file ({console.one_line(str(error))[:200]});"
            f" expected {_EXPECTED}; {_REMEDY}"
        ) from error


class _Bounded:
    """A file that refuses to be read in large pieces, such as a huge directory."""

    def __init__(self, file: io.BufferedReader, size: int):
        self._file, self._size = file, size
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Reads as a file does; ValueError if it is too much at once."""
        most = self._size - self._file.tell() if size < 0 else size
        if most > _DIRECTORY_BYTES:
            raise ValueError("a directory too large")
        return self._file.read(size)


def _choose(path: str, infos: dict[str, zipfile.ZipInfo]) -> tuple[str, ...]:
    """Names of the four arrays."""
    found = [name.removesuffix(".npy") for name in infos]
    for names in NAMES:
        if set(names) <= set(found):
            return names
    raise DataError(
        f"{path}: holds {console.one_line(', '.join(found))[:200] or 'nothing'};"
        f" expected {_EXPECTED}; save them under these names"
    )


def _read_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int
) -> np.ndarray:
    """Reads an array of numbers from an archive of `most` bytes.

    Raises one of `DAMAGE` if it is none, or not as long as it says.
    """
    if info.compress_type not in _PACKINGS:
        raise ValueError("packed in a way that numpy does not use")
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the array format")
        shape, transposed, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in "fiu" or len(shape) > 4 or any(n < 0 for n in shape):
            raise ValueError(f"{info.filename} is not an array of plain numbers")
        size = math.prod(shape) * dtype.itemsize
        longest = most * (_DEFLATE_RATIO if info.compress_type else 1)
        if size != info.file_size - file.tell() or size > min(longest, MAX_BYTES):
            raise ValueError(f"{info.filename} is not as long as its header says")
        content = empty((size,))
        filled = 0
        while filled < size:
            piece = file.read(min(size - filled, _CHUNK_BYTES))
            if not piece:
                raise EOFError(f"{info.filename} ends too early")
            content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        if file.read(1):  # which also makes zipfile compare its checksum
            raise ValueError(f"{info.filename} is longer than its header says")
    array = content.view(dtype)
    return array.reshape(shape[::-1]).T if transposed else array.reshape(shape)
