# SPDX-License-Identifier: Apache-2.0
"""Files of unknown making: opened, measured and parsed with no trust in them.

Every reader of the project goes through here, so that no file, whatever it is, can
make it wait for ever or fill the memory. What is wrong is an OSError or a ValueError in
plain words; the reader that knows what the file is for makes a `UserError` of it.
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

# More than any that this project writes.
JSON_BYTES = 1 << 22
CHUNK_BYTES = 1 << 20  # hashed at a time
_INTEGER_DIGITS = 19  # of an int64


def open_file(path: Path) -> io.BufferedReader:
    """Opens a file to be read; a pipe or a device may never end and is refused.

    Raises:
      OSError: it is none, cannot be opened, or its name is impossible.
    """
    # Without O_NONBLOCK, a pipe that nobody writes to is waited for.
    options = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, options)
    except ValueError as error:  # a NUL, or half a character
        raise OSError(errno.EINVAL, "no name that a file can have") from error
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
    """Returns the content of a file.

    Args:
      path: of the file.
      most: bytes that it may have.

    Raises:
      OSError: as `open_file`, or it is longer.
    """
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"longer than {most:,} bytes")
    return content


def sha256(path: Path, most: int | None = None) -> str:
    """SHA-256 of a file in hex, read chunk by chunk.

    Args:
      path: file, of which no more is read than it held when it was opened.
      most: largest size to accept, in bytes.

    Raises:
      OSError: see `open_file`; or the file is longer than `most`.
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
    """Returns what a JSON file of at most so many bytes holds; see `parse_json`.

    Raises:
      OSError: as `read`.
      ValueError: as `parse_json`.
    """
    return parse_json(read(path, most))


def parse_json(content: bytes) -> Any:
    """Returns what UTF-8 JSON says, if all of it can be written as JSON again.

    Python's own reader takes more than that: NaN, infinity, 1e999, a name twice, half
    of a surrogate pair, integers of thousands of digits, UTF-16.

    Raises:
      ValueError: it is not JSON.
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
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("one name twice in an object")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text}, which is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number too large")
    return number


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _INTEGER_DIGITS:
        raise ValueError("a number too large")
    return int(text)
