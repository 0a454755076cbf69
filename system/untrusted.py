# SPDX-License-Identifier: Apache-2.0
"""Reading files from unknown sources: opened, measured and parsed without trust.

Every reader of the project uses this module, so that no file can make it wait for ever
or fill the memory. Errors are OSError or ValueError in plain words; a reader, which
knows what its file is for, turns them into `UserError`.
"""

import errno
import hashlib
import io
import json
import math
import os
import stat
from typing import Any

Path = str | os.PathLike[str]

JSON_BYTES = 1 << 22  # more than any JSON file that we write
CHUNK_BYTES = 1 << 20  # hashed at a time
_INTEGER_DIGITS = 19  # of the largest int64


def open_file(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading; a pipe or a device might never end.

    Raises OSError if it is none, cannot be opened, or no file can have its name.
    """
    # O_NONBLOCK: opening a pipe would otherwise wait for its other end.
    options = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, options)
    except ValueError as error:  # a NUL, or half a character
        raise OSError(errno.EINVAL, "no file can have this name") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "a pipe, socket or device, not a file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(path: Path, most: int) -> bytes:
    """Content of a file; OSError if it is unreadable or longer than `most` bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"longer than {most:,} bytes")
    return content


def sha256(path: Path, most: int | None = None) -> str:
    """SHA-256 of a file in hex, read chunk by chunk, no further than its first length.

    Raises OSError if it is unreadable, or longer than `most`.
    """
    digest = hashlib.sha256()
    with open_file(path) as file:
        left = os.fstat(file.fileno()).st_size
        if most is not None and left > most:
            raise OSError(errno.EFBIG, f"longer than {most:,} bytes")
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """Value in a JSON file; the errors are those of `read` and `parse_json`."""
    return parse_json(read(path, most))


def parse_json(content: bytes) -> Any:
    """Value of a JSON text in UTF-8, if it can be written as JSON again.

    Python's own parser also accepts NaN, infinity, 1e999, a name twice in an object,
    half a surrogate pair, integers of thousands of digits, and UTF-16: these are
    ValueErrors.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_distinct,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeError:
        raise ValueError("not UTF-8") from None
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("the same name twice in an object")
    return entries


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number too large")
    return number


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _INTEGER_DIGITS:
        raise ValueError("a number too large")
    return int(text)
