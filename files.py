# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, also after a power cut."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when it is whole, and is removed if it is not.

    A reader sees the old file or the new one.

    Raises:
      OSError: the disk is full, the folder not writable, …
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # most often: it has its name already
            temporary.unlink()


def flush(path: str | os.PathLike[str]) -> None:
    """Waits until a file, or the names in a folder, would survive a power cut.

    Raises:
      OSError: there is no such file, or the disk has a fault.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
