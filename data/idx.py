# SPDX-License-Identifier: Apache-2.0
"""Reads and writes idx files, the format of MNIST; files are not trusted.

An idx file is a header and the values in row-major order. The header is two zero bytes,
a type code, the number of dimensions, then each dimension as a big-endian uint32
(LeCun, Cortes and Burges, "The MNIST database").
"""

import contextlib
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.dataset import DataError, empty
from system import untrusted

# Largest file that we accept: 2.7 million images of 28×28.
MAX_BYTES = 1 << 31

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8, _INT16 = 0x08, 0x0B
# Integers by type code; MNIST's own files have the first type only.
_TYPES = {_UINT8: ">u1", 0x09: ">i1", _INT16: ">i2", 0x0C: ">i4"}
_CHUNK_BYTES = 1 << 20
_PACKED_BYTES = 1 << 16
_MAX_DIMS = 4
_DEFLATE_RATIO = 1032  # no stream inflates by more (manual of zlib)
_REMEDY = "replace the file with an intact copy"

Path = untrusted.Path


def read_idx(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """Reads an idx file of unsigned bytes, raw or gzipped, whatever its name.

    The header is checked before anything else is read, and no more is inflated than it
    announces: a small file cannot fill the memory. A gzip file must have a single
    member, as all files written by gzip do. In the shape expected, None stands for any
    size from 1 up.

    Raises DataError if the file cannot be read, is damaged, or has another type or
    shape.
    """
    with _opened(path) as (file, max_bytes):
        return _read(file, os.fspath(path), shape, max_bytes)


def peek(path: Path) -> tuple[int, tuple[int, ...]] | None:
    """Type code and dimensions that an idx file announces, None if it is none.

    Raises DataError if the file cannot be read, or is a damaged gzip file.
    """
    with _opened(path) as (file, _):
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or not 0 < magic[3] <= _MAX_DIMS:
            return None
        packed = file.read(4 * magic[3])
        if len(packed) < 4 * magic[3]:
            return None
        return magic[2], struct.unpack(f">{magic[3]}I", packed)


def unpacked_sha256(path: Path, most: int) -> str:
    """SHA-256 of a file's content, in hex, after unpacking it if it is gzipped.

    Raises DataError if the file cannot be read, is damaged, or longer than `most`.
    """
    digest, length = hashlib.sha256(), 0
    with _opened(path) as (file, _):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            length += len(chunk)
            if length > most:
                raise DataError(
                    f"{os.fspath(path)}: longer than {most:,} bytes; {_REMEDY}"
                )
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedReader, int]]:
    """Opens a file, raw or gzipped; yields its content and the most it can hold."""
    path = os.fspath(path)
    try:
        with untrusted.open_file(path) as file:
            max_bytes = os.fstat(file.fileno()).st_size
            if file.peek(2)[:2] != _GZIP_MAGIC:
                yield file, max_bytes
            else:
                unpacked: io.BufferedReader = io.BufferedReader(_Gunzip(file))
                yield unpacked, max_bytes * _DEFLATE_RATIO
    except (zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); {_REMEDY}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise DataError(
            f"{path}: is a folder, not an idx file; check the path"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions and disk"
        ) from error


class _Gunzip(io.RawIOBase):
    """Inflates a single gzip member with zlib, no further than is read.

    Python's own `gzip` would loop, byte by byte, over a file name of gigabytes, and
    over millions of empty members.
    """

    def __init__(self, file: io.BufferedReader):
        self._file = file
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(_PACKED_BYTES)
            piece = self._inflate.decompress(packed, len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if not packed and not self._inflate.eof:
                raise EOFError("it ends too early")
        if self._inflate.unused_data or self._file.read(1):
            raise zlib.error("more data after its end")
        return 0


def _read(
    file: io.BufferedReader,
    path: str,
    shape: tuple[int | None, ...],
    max_bytes: int,
    type_code: int = _UINT8,
) -> np.ndarray:
    """Reads header and values; the file cannot hold more than `max_bytes` of them."""
    dims = _read_header(file, path, shape, type_code)
    values = np.dtype(_TYPES[type_code])
    size = math.prod(dims) * values.itemsize
    if size > max_bytes:
        raise DataError(
            f"{path}: too short for the {size} bytes, {_text(dims)}, that"
            f" its header announces; {_REMEDY}"
        )
    content = empty((size,))
    view = content.data
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled : filled + _CHUNK_BYTES])
        if not count:
            raise DataError(
                f"{path}: too short, {filled} bytes after the header; expected"
                f" {len(view)} for {_text(dims)}; {_REMEDY}"
            )
        filled += count
    # Only reading past the end makes gzip compare its checksum.
    if file.read(1):
        raise DataError(
            f"{path}: too long; expected {len(view)} bytes after the header for"
            f" {_text(dims)}; {_REMEDY}"
        )
    return content.view(values).reshape(dims)


def _read_header(
    file: io.BufferedReader, path: str, shape: tuple[int | None, ...], type_code: int
) -> tuple[int, ...]:
    magic = file.read(4)
    if not magic:
        raise DataError(f"{path}: is empty; expected an idx file; {_REMEDY}")
    if len(magic) == 4:
        _check_magic(magic, path, shape, type_code)
    packed = file.read(4 * len(shape))
    if len(packed) < 4 * len(shape):
        raise DataError(
            f"{path}: ends inside its header; expected a header of"
            f" {4 + 4 * len(shape)} bytes; {_REMEDY}"
        )
    dims = struct.unpack(f">{len(shape)}I", packed)
    if any(want not in (None, got) for got, want in zip(dims, shape)):
        raise DataError(
            f"{path}: has the shape {_text(dims)}; expected {_text(shape)}; {_REMEDY}"
        )
    size = math.prod(dims) * np.dtype(_TYPES[type_code]).itemsize
    if not 0 < size <= MAX_BYTES:
        raise DataError(
            f"{path}: announces {size} bytes, {_text(dims)}; expected 1 to"
            f" {MAX_BYTES}; {_REMEDY}"
        )
    return dims


def _check_magic(
    magic: bytes, path: str, shape: tuple[int | None, ...], type_code: int
) -> None:
    if magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: not an idx file, starts with 0x{magic.hex()}; expected"
            f" 0x{bytes([0, 0, type_code, len(shape)]).hex()}; {_REMEDY}"
        )
    if magic[2] != type_code:
        raise DataError(
            f"{path}: holds values of idx type 0x{magic[2]:02x}; expected"
            f" 0x{_UINT8:02x}, unsigned bytes; {_REMEDY}"
        )
    if magic[3] != len(shape):
        raise DataError(
            f"{path}: its number of dimensions is {magic[3]}; expected {len(shape)},"
            f" {_text(shape)}; check that images and labels are not swapped"
        )


def _text(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('N' if size is None else str(size) for size in shape)}]"


def read_images(path: Path) -> np.ndarray:
    """Reads images, uint8 [N, 28, 28, 1]; errors as in `read_idx`."""
    return read_idx(path, (None, 28, 28))[..., np.newaxis]


def read_labels(path: Path) -> np.ndarray:
    """Reads labels, uint8 [N]; errors as in `read_idx`, or a label above 9."""
    labels = read_idx(path, (None,))
    wrong = np.flatnonzero(labels > 9)
    if wrong.size:
        raise DataError(
            f"{os.fspath(path)}: label {labels[wrong[0]]} at index {wrong[0]};"
            f" expected 0 to 9; {_REMEDY}"
        )
    return labels


def read_classes(path: Path) -> np.ndarray:
    """Reads the classes of a data set's own numbering, int64 [N].

    Labels are integers of any idx type, [N], or [N, columns] with the class first, as
    in QMNIST. Errors as in `read_idx`.
    """
    type_code, dims = peek(path) or (_UINT8, (0,))
    if type_code not in _TYPES or len(dims) > 2:
        return read_idx(path, (None,))  # which says what is wrong
    with _opened(path) as (file, max_bytes):
        shape = (None, *dims[1:])
        table = _read(file, os.fspath(path), shape, max_bytes, type_code)
    return table.reshape(len(table), -1)[:, 0].astype(np.int64)


def read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads images, uint8 [N, 28, 28, 1], and as many labels, uint8 [N].

    Errors are those of `read_images` and `read_labels`, or that the counts differ.
    """
    images, labels = read_images(images_path), read_labels(labels_path)
    check_counts(images_path, images, labels_path, labels)
    return images, labels


def check_counts(
    images_path: Path, images: np.ndarray, labels_path: Path, labels: np.ndarray
) -> None:
    """Raises DataError unless there are as many labels as images."""
    if len(images) != len(labels):
        raise DataError(
            f"{os.fspath(images_path)}: holds {len(images)} images, but"
            f" {os.fspath(labels_path)} {len(labels)} labels; expected one label per"
            " image; replace them with two files that belong together"
        )


def write_idx(path: Path, array: np.ndarray) -> str:
    """Writes a raw (not gzipped) idx file of uint8 or int16; returns its SHA-256.

    Images [N, 28, 28, 1] are written as [N, 28, 28]. The file is written in place: a
    caller that needs all or nothing writes to a temporary name and renames the file.
    Raises DataError if it cannot be written.
    """
    if array.dtype not in (np.uint8, np.int16):
        raise ValueError(f"array has the type {array.dtype}; expected uint8 or int16")
    code = _UINT8 if array.dtype == np.uint8 else _INT16
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    array = array.astype(array.dtype.newbyteorder(">"), copy=False)  # as idx has it
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    digest = hashlib.sha256(header)
    try:
        with open(path, "wb") as file:
            file.write(header)
            # By the MB: for a large write the kernel looks for large pages, which takes
            # a virtual machine five times as long.
            for start in range(0, len(content), _CHUNK_BYTES):
                piece = content[start : start + _CHUNK_BYTES]
                digest.update(piece)
                file.write(piece)
    except OSError as error:
        raise DataError(
            f"{os.fspath(path)}: cannot be written ({error.strerror}); free some space,"
            " or choose another folder"
        ) from error
    return digest.hexdigest()
